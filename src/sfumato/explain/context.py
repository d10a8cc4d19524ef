"""What the sections are collected from: a model, its images, its run folder, and the values that several sections use.

Everything is a function of these and a seed. Where the images can't be opened (a weights file of somebody else's data)
the model's own samples take their place, and what needs training images is left out.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.conditions.protocol import cycled
from sfumato.data import Dataset
from sfumato.diagnose.statistics import reduced
from sfumato.diffusion import VARIANCES, Denoiser, Noise, Prediction, Schedule, Variance, marginal
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Counted
from sfumato.errors import UserError
from sfumato.evaluate.target import Target, open_target
from sfumato.explain.effort import SIDE, Effort
from sfumato.explain.figure import Missing
from sfumato.explain.packing import Array, f32, f64, i16, u8
from sfumato.generate.pictures import evenly
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import Model, load
from sfumato.report.figures import spaced
from sfumato.run.folder import Run
from sfumato.run.locate import run_of
from sfumato.run.summary import RunSummary

Report = Callable[[int, int], None]
"""Called with (done, total)."""
_MOST_STEPS = 2000
"""Steps of the chain that the page can choose; a longer chain is shown at so many of them."""


@dataclass(frozen=True, eq=False)
class Images:
    """The images that can be chosen: x_0 (n, C, H, W) as pixels in [-1, 1], their captions, rows and conditions."""

    x_0: Tensor
    captions: tuple[str, ...]
    rows: Tensor | None
    condition: Condition | None


@dataclass(frozen=True, eq=False)
class Moments:
    """Predictions of the examined images at some times.

    Attributes:
        steps: (K,) steps of the chain, increasing.
        x0: (n, K, C, H, W) the predicted image, as the network gives it, without clipping.
        fraction: the same of a learned variance; None where it is fixed.
    """

    steps: Tensor
    x0: Tensor
    fraction: Tensor | None


@dataclass(frozen=True, eq=False)
class Context:
    """A model with its images and its run.

    Attributes:
        target: the model and its images; None where these can't be opened.
        model: the model.
        run: its run folder; None for a weights file alone.
        summary: of the run.
        name: as the user named it.
        seed: of all noise.
        unopened: why there are no images, and what to do; empty where there are some.
        report: called with (evaluations done, in all).
    """

    target: Target | None
    model: Model
    run: Run | None
    summary: RunSummary | None
    name: str
    seed: int = 0
    unopened: str = ""
    report: Report = field(default=lambda done, total: None, repr=False)
    _done: list[int] = field(default_factory=lambda: [0], repr=False)

    @classmethod
    def open(
        cls,
        source: Path,
        weights: str = "ema",
        device: torch.device | str = "cpu",
        seed: int = 0,
        report: Report = lambda done, total: None,
        data: str | None = None,
        on_progress: Any = None,
    ) -> Context:
        """Open a run folder, a weights file or a shipped model; errors as `load`."""
        target, unopened = None, ""
        try:
            target = open_target(source, weights, data, device, on_progress)
            model = target.model
        except UserError as error:
            model, unopened = load(source, weights, device), str(error)
            if data is not None:
                raise
        run = run_of(model.path)
        summary = None if run is None else RunSummary.read(run)
        if run is not None and summary is not None and model.path.parent.parent.name == run.checkpoints.name:
            summary = summary.until(model.images)  # RUN@200k: what came later is not of this model
        return cls(target, model, run, summary, str(source), seed, unopened, report)

    @cached_property
    def effort(self) -> Effort:
        """How much is computed."""
        return Effort.of(self.model.codec.image_shape, self.model.net.cost(*self.model.shape[1:]).flops)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The model's denoiser, which reports its evaluations."""
        return Counted(self.model.denoiser, self.tick)

    def tick(self, count: int) -> None:
        """Count evaluations."""
        self._done[0] += count
        self.report(min(self._done[0], self.expected - 1), self.expected)

    @cached_property
    def expected(self) -> int:
        """About how many evaluations the page takes."""
        return self.effort.total(Recipe().resolve(self.model).steps or 0, self.total)

    @property
    def counted(self) -> Model:
        """The model, its evaluations counted."""
        return replace(self.model, denoiser=self.denoiser)  # type: ignore[arg-type]

    @property
    def schedule(self) -> Schedule:
        """The model's schedule."""
        return self.model.schedule

    @property
    def total(self) -> int:
        """T."""
        return self.schedule.num_steps

    @cached_property
    def steps(self) -> Tensor:
        """The steps of the chain that the page can choose, 0 .. T, (M,) int64."""
        count = min(self.total, _MOST_STEPS)
        return torch.linspace(0, self.total, count + 1, dtype=torch.float64).round().long()

    @property
    def data(self) -> Dataset:
        """The images; raises `Missing` where they can't be opened."""
        return self.needed.data

    @property
    def needed(self) -> Target:
        """The model with its images; raises `Missing` where they can't be opened."""
        if self.target is None:
            raise Missing(self.unopened)
        return self.target

    def watched(self, sampler: str, most: int) -> Recipe:
        """Return a recipe of at most so many steps, even in logsnr, so that something happens in each."""
        steps = min(most, self.total)
        refined = self.model.config.diffusion.parameterization == "refined"
        return Recipe(sampler, steps=steps, grid="trailing" if steps == 1 else "visible" if refined else "logsnr")

    @property
    def variance(self) -> Variance:
        """The variance that the model is trained with."""
        return VARIANCES[self.model.config.diffusion.variance]

    @property
    def command(self) -> str:
        """How the model is named on a command line."""
        return shlex.quote(self.name)

    def conditions(self, num: int) -> Condition | None:
        """Return what samples 0 .. num - 1 are conditioned on: as the training images are."""
        if self.model.vocabulary is None:
            return None
        if self.target is not None and (own := self.target.condition(self.seed, num)) is not None:
            return own
        every = self.model.vocabulary.every()
        return None if every is None else cycled(every, num)

    def shown(self, x: Tensor) -> Tensor:
        """Return x (n, ...) as bytes to look at, sides of at most `SIDE`."""
        return reduced(self.model.codec.shown(x.to(self.model.device)).cpu(), SIDE)

    def pictures(self, rows: Tensor | NDArray[np.int64]) -> Tensor:
        """Return images by row as bytes to look at, sides of at most `SIDE`."""
        return reduced(torch.from_numpy(np.array(self.data.shown(np.asarray(rows)))), SIDE)

    @cached_property
    def images(self) -> Images:
        """The images that can be chosen: training images evenly through the data, or samples where there are none."""
        num, codec = self.effort.images, self.model.codec
        if self.target is None:
            condition = self.conditions(num)
            x = sample(self.counted, num, Recipe(), seed=self.seed, condition=condition)
            return Images(codec.to_pixels(x), tuple(f"sample {n}" for n in range(num)), None, condition)
        train = self.data.train
        rows = torch.from_numpy(train[evenly(len(train), num)].copy())
        values, condition = self.target.rows(rows)
        captions = self.captions(rows)
        return Images(codec.to_pixels(codec.encode(values)), captions, rows, condition)

    def captions(self, rows: Tensor) -> tuple[str, ...]:
        """Return the name of each image by row, without its folders, and its label where there is one."""
        names = [os.path.basename(self.data.origins[row]) for row in rows.tolist()]
        if self.data.conditions is None or self.data.vocabulary is None:
            return tuple(names)
        labels = self.data.vocabulary.describe(self.data.conditions.take(rows))
        return tuple(f"{name}: {cut(label)}" for name, label in zip(names, labels, strict=True))

    @cached_property
    def samples(self) -> Tensor:
        """The samples of the default recipe, x_0 (n, ...) on the CPU."""
        num = self.effort.wall
        return sample(self.counted, num, Recipe(), seed=self.seed, condition=self.conditions(num))

    def noise(self, num: int) -> Noise:
        """Return the noise of the images that can be chosen."""
        return Noise(self.seed, torch.arange(num), self.model.shape)

    def examples(self, num: int) -> tuple[Tensor, Tensor, Condition | None]:
        """Return x_0 of the first images, their noise and their conditions, on the model's device."""
        device, condition = self.model.device, self.images.condition
        x_0 = self.model.codec.from_pixels(self.images.x_0[:num]).to(device)
        rows = None if condition is None else condition.take(torch.arange(num)).to(device)
        return x_0, self.noise(num).prior().to(device), rows

    @cached_property
    def times(self) -> Tensor:
        """Steps for predictions, evenly in logsnr without the chain's nearly clean and nearly pure ends, (K,)."""
        return spaced(self.schedule, self.effort.times)

    @cached_property
    @torch.no_grad()
    def moments(self) -> Moments:
        """The predictions of the examined images."""
        x_0, eps, rows = self.examples(self.effort.examined)
        codec, made = self.model.codec, list[Prediction]()
        for step in self.times.tolist():
            t = step / self.total
            made.append(self.denoiser(marginal(x_0, self.schedule(t)).sample(eps), t, rows))
        x0 = torch.stack([codec.to_pixels(each.x0).cpu() for each in made], 1)
        fractions = [each.fraction for each in made if each.fraction is not None]
        return Moments(self.times, x0, torch.stack(fractions, 1).cpu() if fractions else None)

    def shared(self) -> dict[str, Any]:
        """Return what several views read: images, the schedule, the predictions."""
        levels = self.schedule(self.steps.double() / self.total)
        before = self.schedule((self.steps.double() - 1).clamp(min=0) / self.total)
        moments, format = self.moments, self.model.codec.format
        x_0 = self.images.x_0
        stored = self.model.codec.from_pixels(x_0)
        bytes_ = format.levels == 256 and self.rows_are_bytes
        packed: Array = u8(self.model.codec.decode(stored)) if bytes_ else f32(x_0)
        return {
            "total": self.total,
            "seed": [self.seed & 0xFFFFFFFF, self.seed >> 32],
            "shape": list(x_0.shape[1:]),
            "levels": format.levels,
            "images": packed,
            "captions": list(self.images.captions),
            "steps": self.steps.tolist(),
            "logsnr": f64(levels.logsnr.clamp(-1e3, 1e3)),
            "before": f64(before.logsnr.clamp(-1e3, 1e3)),
            "moments": {
                "steps": moments.steps.tolist(),
                "x0": i16(moments.x0),
                "fraction": None if moments.fraction is None else i16(moments.fraction),
            },
            "variance": self.model.config.diffusion.variance,
            "parameterization": self.model.config.diffusion.parameterization,
        }

    @property
    def rows_are_bytes(self) -> bool:
        """Whether the images are stored bytes, which are exact in a byte; samples are not."""
        return self.images.rows is not None and self.model.codec.linear

    @property
    def fingerprint(self) -> str:
        """What the page depends on, in twelve letters."""
        parts = (self.model.sha256, "" if self.target is None else self.data.fingerprint, self.seed)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def cut(text: str, most: int = 60) -> str:
    """Return a text of at most so many letters."""
    return text if len(text) <= most else text[: most - 1] + "…"
