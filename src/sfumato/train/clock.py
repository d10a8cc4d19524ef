"""The clock of training is images seen, and every length is told in it.

A step is a matter of the batch size; an epoch, of the data's; a second, of the machine. Images seen are none of those,
so warm-up, decay, the average's half-life and the moments when something is drawn all count images, and a plan made for
one batch size carries over to another. Step k of batch size B covers the positions k B .. (k + 1) B - 1 of the training
stream.

A length below 1 is a fraction of the planned length (an absolute length below one image would mean nothing), so that
the same configuration suits a two-minute budget and a week.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sfumato.errors import UserError

__all__ = ["TrainConfig", "in_images", "moments", "parse_count", "parse_seconds", "regular"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, in what batches, and how often to look.

    Attributes:
        batch: images a step.
        images: planned length in images; None lets `budget` decide.
        budget: seconds that the whole run may take; the length is planned from the measured speed, once.
        seed: of everything random: weights, order, flips, times, noise, dropout, the pictures drawn on the way.
        label_dropout: chance that an example is shown without its labels, where there are any (`learner.kept`).
        grids: how many sample grids are drawn on the way, at geometrically spaced moments, the last at the end.
        grid_images: pictures in a grid.
        grid_steps: DDIM steps that a grid's pictures take.
        raw_grids: draw a grid with the raw weights beside each of the average's.
        held_outs: how many times the held-out loss is taken, evenly spaced, besides once before the first step.
        held_out_images: at most so many held-out images are scored.
        save_every: seconds between checkpoints; saving never takes more than a twentieth of the time. 0 saves after
            every step.

    Raises:
        ValueError: a value out of its range.
    """

    batch: int = 64
    images: int | None = None
    budget: float | None = None
    seed: int = 0
    label_dropout: float = 0.1
    grids: int = 6
    grid_images: int = 64
    grid_steps: int = 25
    raw_grids: bool = False
    held_outs: int = 10
    held_out_images: int = 256
    save_every: float = 30.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} = {value}: must be at least {least}")
        if self.budget is not None and self.budget <= 0:
            raise ValueError(f"budget = {self.budget}: must be above 0 seconds")
        if self.seed >= 2**64:
            raise ValueError(f"seed = {self.seed}: must be below 2^64")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout = {self.label_dropout}: must lie in [0, 1]")

    @property
    def steps(self) -> int:
        """Steps of the planned length, the last batch full: ceil(images / batch)."""
        assert self.images is not None, "the length is planned before training starts"
        return -(-self.images // self.batch)


_LEAST: dict[str, int] = {
    "batch": 1,
    "images": 1,
    "seed": 0,
    "grids": 0,
    "grid_images": 1,
    "grid_steps": 1,
    "held_outs": 0,
    "held_out_images": 0,
    "save_every": 0,
}


def in_images(length: float, planned: int) -> float:
    """Return a length in images: itself, or, where it is below 1, that fraction of the planned length."""
    return length * planned if length < 1 else length


def moments(steps: int, count: int, first: float = 1 / 32) -> list[int]:
    """Return geometrically spaced steps, the last of them `steps`: most of what is to be seen happens early.

    Args:
        steps: length of the run in steps.
        count: how many moments; fewer come back where a short run makes two coincide.
        first: where the first one lies, as a fraction of the run.
    """
    if count <= 1:
        return [steps] * count
    return sorted({math.ceil(steps * first ** (1 - i / (count - 1))) for i in range(count)})


def regular(steps: int, count: int) -> list[int]:
    """Return 0 and `count` evenly spaced steps, the last of them `steps`; nothing for count = 0."""
    return sorted({math.ceil(steps * i / count) for i in range(count + 1)}) if count else []


def parse_seconds(text: str) -> float:
    """Read a duration: `90`, `90s`, `2m`, `1h30m`, `1.5h`, `2d`; a bare number is seconds.

    Raises:
        UserError: anything else, or nothing above zero.
    """
    compact = text.strip().lower().replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact + ("s" if compact[-1:].isdigit() else ""))
    written = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if written.removesuffix("s") != compact.removesuffix("s") or seconds <= 0:
        raise UserError(f'"{text}" is not a length of time; write 90s, 2m or 1h30m')
    return seconds


def parse_count(text: str) -> int:
    """Read a number of images: `50000`, `50_000`, `500k`, `1.5M`.

    Raises:
        UserError: anything else, or less than one.
    """
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kmg]?)", text.strip().lower())
    count = round(float(match[1].replace("_", "")) * _SUFFIXES[match[2]]) if match else 0
    if count < 1:
        raise UserError(f'"{text}" is not a number of images; write 50000, 500k or 1.5M')
    return count
