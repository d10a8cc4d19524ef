"""What an evaluation spends its time on, cut into parts: drawing images, scoring held-out ones, measuring a variance.

    FOLDER/KEY/NAME.part     KEY is a hash of all that decides the content of its parts (`share` keeps them)

Drawn images have the address (seed, number). Held-out images are scored in parts of `PART` with a seed made of (seed,
part). Neither depends on the batch, on which process does it, or on how many are asked for, so a larger number goes on
from a smaller one.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.diffusion import VARIANCES, Clipped, Denoiser, Noise, Optimal, Variance, trailing
from sfumato.diffusion.analytic import MeasuredVariance, noise_errors
from sfumato.errors import UserError
from sfumato.evaluate.bits import Bits, flow_bits, sampled_bits, vlb_bits
from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.pool import from_json, pool, to_json
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.share import Task, Tick, missing, share
from sfumato.evaluate.subject import Counted, Subject
from sfumato.generate.recipe import FITTED_ON, Recipe
from sfumato.generate.sample import generate

__all__ = ["Stage", "Work", "key"]

RULES = 3
"""The version of how images are drawn, scored and compared: a change makes every part and every result anew."""
PART = 32
"""Held-out images in a part."""
FLOW_CALLS, FLOW_COST = 120, 3
"""A guess at how often the flow's solver asks the network, and how many plain calls one with a gradient is worth."""
SPREAD_IMAGES, SPREAD_TIMES = 128, 24
"""Training images, and times of two kinds, with which the analytic variance is measured."""

Progress = Callable[[int, int], None]


def key(settings: dict[str, Any]) -> str:
    """Return a hash of settings, ten hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Stage:
    """Parts that are made together.

    Attributes:
        what: they are, for the reader: "drawing".
        folder: where they are kept.
        tasks: the parts, their sizes in evaluations of the network.
        unit: evaluations for one image.
    """

    what: str
    folder: Path
    tasks: tuple[Task, ...]
    unit: int

    @property
    def left(self) -> int:
        """Evaluations of the network that are still to be made."""
        return sum(task.size for task in missing(self.folder, self.tasks))

    def share(self, progress: Callable[[str], Progress]) -> list[bytes]:
        """Make what is missing and return the parts, reporting images done."""
        report = progress(self.what)
        return share(self.folder, self.tasks, lambda done, total: report(done // self.unit, total // self.unit))


@dataclass(frozen=True, eq=False)
class Work:
    """The parts of one evaluation.

    Attributes:
        subject: what is measured.
        settings: how.
        folder: for the parts.
        batch: images at a time.
        progress: given what is being done, returns who is told how far it is.

    Raises:
        UserError: settings that the model can't meet.
    """

    subject: Subject
    settings: Settings
    folder: Path
    batch: int
    progress: Callable[[str], Progress]

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"batch is {self.batch}: it must be at least 1")
        if self.recipe.guidance != 1 and not self.subject.conditional:
            raise UserError("guidance wants a model that was trained with labels: leave it out")
        if self.variance_name == "learned" and self.subject.model.config.diffusion.variance != "learned":
            raise UserError("this model has learnt no variance: use small, large or analytic")

    @property
    def chain(self) -> int:
        """T of the model."""
        return self.subject.model.denoiser.schedule.num_steps

    @cached_property
    def recipe(self) -> Recipe:
        """How this model's images are drawn."""
        return self.settings.recipe.settle(self.subject.model)

    @property
    def variance_name(self) -> str:
        """The variance's name."""
        return self.settings.variance or self.subject.model.config.diffusion.variance

    @property
    def model_facts(self) -> dict[str, Any]:
        """Which model: the hash of its weights, and what they are; and the version of the rules."""
        model = self.subject.model
        return {"rules": RULES, "weights": self.subject.sha256, "weights_kind": model.kind, "images_seen": model.images}

    @property
    def drawing(self) -> dict[str, Any]:
        """All that decides a drawn image."""
        labels = {"labels_like": self.subject.data.fingerprint} if self.subject.conditional else {}
        measured = self._measured if self.recipe.variance == "analytic" else {}
        return {**self.model_facts, "seed": self.settings.seed, **self.recipe.facts(), **labels, **measured}

    @property
    def scoring(self) -> dict[str, Any]:
        """All that decides the bits of a held-out image."""
        facts = {"data": self.subject.data.fingerprint, "split": "held_out"}
        labels = {"labels": "each image's own"} if self.subject.conditional else {}
        how = self.settings.scoring(self.chain, self.variance_name)
        return {**self.model_facts, **how, **facts, **labels, **self._measured}

    @property
    def _measured(self) -> dict[str, Any]:
        """What decides the measured variance, where that is used."""
        if self.variance_name != "analytic":
            return {}
        return {"measured_on": self.subject.data.fingerprint, "measured_with": [SPREAD_IMAGES, 2 * SPREAD_TIMES]}

    def stages(self, draw: bool, score: bool) -> list[Stage]:
        """Return what there is to do, in order.

        Args:
            draw: images are wanted.
            score: bits are wanted.

        Raises:
            UserError: nothing is held out, or the model has no such likelihood.
        """
        stages = []
        if self.variance_name == "analytic" and (score or self.recipe.variance == "analytic"):
            stages.append(self._spread_stage)
        return stages + ([self._score_stage] if score else []) + ([self._draw_stage] if draw else [])

    def bits(self) -> Bits:
        """Return the bits of the held-out images."""
        return pool([from_json(part) for part in self._score_stage.share(self.progress)])

    def images(self) -> Tensor:
        """Return the drawn images, (num, C, H, W), values of the model's depth."""
        parts = [np.load(BytesIO(part)) for part in self._draw_stage.share(self.progress)]
        return torch.from_numpy(np.concatenate(parts))

    def seconds(self) -> float:
        """Measure and return how long one evaluation of the network takes for one image, all around it included."""
        calls: list[int] = []
        denoiser, took = self._denoiser(calls.append), math.inf
        for look in range(4):  # the first is slower; the last is of a batch, if it won't take more than some seconds
            count = 1 if look < 3 else max(1, min(self.batch, PART, int(0.5 / took)))
            depth, start = self.subject.data.depth, time.perf_counter()
            images = torch.zeros(count, *self.subject.model.shape, dtype=depth.tensor_dtype)
            calls.clear()
            shared: dict[str, Any] = {"batch": count, "device": self.subject.device, "depth": depth}
            sampled_bits(denoiser, images, VARIANCES["large"], terms=3, **shared)
            took = min(took, (time.perf_counter() - start) / sum(calls))
        return took

    def _denoiser(self, tick: Tick) -> Denoiser:
        denoiser: Denoiser = self.subject.model.denoiser
        return Counted(Clipped(denoiser) if self.settings.clip else denoiser, tick)

    @cached_property
    def variance(self) -> Variance:
        """The variance of the reverse step, measured where it has to be."""
        if self.variance_name != "analytic":
            return VARIANCES[self.variance_name]
        found = json.loads(self._spread_stage.share(self.progress)[0])
        times, error = (torch.tensor(found[name], dtype=torch.float64) for name in ("times", "error"))
        return Optimal(MeasuredVariance(self.subject.model.denoiser.schedule, times, error))

    # Drawing

    @property
    def _draw_stage(self) -> Stage:
        num, unit = self.settings.drawn, self.recipe.evaluations
        tasks = [
            Task(f"{first:07d}x{count}", count * unit, partial(self._draw, first, count))
            for first in range(0, num, self.batch)
            for count in [min(self.batch, num - first)]
        ]
        return Stage("drawing images", self.folder / f"drawn-{key(self.drawing)}", tuple(tasks), unit)

    @cached_property
    def times(self) -> Tensor:
        """The times that drawing visits, measured where they are fitted to the model."""
        subject = self.subject
        denoiser = self.recipe.denoiser(subject.model.denoiser)
        return self.recipe.times(denoiser, subject.model.shape, subject.conditions(0, 0, FITTED_ON), subject.device)

    def _draw(self, first: int, count: int, tick: Tick) -> bytes:
        """Draw some images; returns an array as `numpy.save` writes it."""
        settings, subject = self.settings, self.subject
        denoiser = self.recipe.denoiser(Counted(subject.model.denoiser, tick))
        sampler = self.recipe.build(self.variance if self.recipe.variance == "analytic" else None)
        conditions = subject.conditions(settings.seed, first, count)
        parts = generate(
            denoiser, subject.model.shape, count, settings.seed, sampler, self.times, self.batch, conditions, first,
            device=subject.device,
        )  # fmt: skip
        images = torch.cat([images for _, images in parts])
        if not bool(images.isfinite().all()):
            raise UserError(f"{subject.model.path} draws images with values that are not finite: its training diverged")
        np.save(content := BytesIO(), subject.data.depth.from_model(images).numpy())
        return content.getvalue()

    # Scoring

    @property
    def _score_stage(self) -> Stage:
        how, rows = self.scoring, self.subject.held_out(self.settings.scored)
        if how["method"] == "flow" and float(self.subject.model.denoiser.schedule(1.0).alpha) == 0:
            raise UserError("a chain that ends in pure noise has no flow likelihood: use the method vlb or sampled")
        terms = {"sampled": how.get("terms", 0) + 1, "vlb": how.get("steps", 0), "flow": FLOW_CALLS * FLOW_COST}
        unit = terms[how["method"]] * how["repeats"]
        tasks = tuple(
            Task(f"{part}x{len(here)}", len(here) * unit, partial(self._score, f"{part}", here))
            for part, here in enumerate(torch.split(rows, PART))
        )
        return Stage("scoring held-out images", self.folder / f"bits-{key(how)}", tasks, unit)

    def _score(self, name: str, rows: Tensor, tick: Tick) -> bytes:
        """Score some images; returns `Bits` as JSON."""
        how, (images, conditions) = self.scoring, self.subject.data.gather(rows)
        cost = FLOW_COST if how["method"] == "flow" else 1
        denoiser = self._denoiser(lambda count: tick(cost * count))
        address = hashlib.sha256(f"bits {self.settings.seed} {name}".encode()).digest()
        shared: dict[str, Any] = {
            "seed": int.from_bytes(address[:7], "big"),  # repeats count up from it
            "repeats": how["repeats"],
            "batch": min(self.batch, PART),
            "device": self.subject.device,
            "conditions": conditions if self.subject.conditional else None,
            "depth": self.subject.data.depth,
        }
        if how["method"] == "vlb":
            bits = vlb_bits(denoiser, images, trailing(how["steps"], denoiser.schedule), self.variance, **shared)
        elif how["method"] == "sampled":
            bits = sampled_bits(denoiser, images, self.variance, terms=how["terms"], **shared)
        else:
            bits = self._flow(denoiser, images, how, shared)
        if not math.isfinite(bits.total.mean):
            raise UserError(
                f"the bits of held-out images are not finite under {self.subject.model.path} with the variance "
                f"{self.variance_name} in {how.get('steps', self.chain)} steps: try another variance or more steps"
            )
        return to_json(bits)

    def _flow(self, denoiser: Denoiser, images: Tensor, how: dict[str, Any], shared: dict[str, Any]) -> Bits:
        """Score by the flow, whose solver may give up."""
        try:
            return flow_bits(denoiser, images, self.variance, probes=how["probes"], rtol=how["rtol"], **shared)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"the flow of {self.subject.model.path} can't be followed: {error}") from None

    # The variance that is measured

    @property
    def _spread_stage(self) -> Stage:
        facts = {**self.model_facts, **self._measured, "clip": self.settings.clip}
        rows, times = split_rows(self.subject.data, "train")[:SPREAD_IMAGES], _spread_times(self.chain)
        task = Task("spread", len(rows) * len(times), partial(self._spread, rows, times))
        return Stage("measuring the variance", self.folder / f"spread-{key(facts)}", (task,), len(times))

    def _spread(self, rows: Tensor, times: Tensor, tick: Tick) -> bytes:
        """Measure the noise predictor's error at some times; returns JSON."""
        error = torch.zeros(len(times), dtype=torch.float64)
        device = self.subject.device
        for part in torch.split(torch.arange(len(rows)), self.batch):
            images, conditions = self.subject.data.gather(rows[part])
            noise = Noise(0, part.to(device), self.subject.model.shape)
            given = conditions.to(device) if self.subject.conditional else None
            x_0 = self.subject.data.depth.to_model(images.to(device))
            errors = noise_errors(self._denoiser(tick), x_0, times, noise, given)
            error += errors.double().sum(0).cpu()
        if not bool(error.isfinite().all()):
            raise UserError(f"{self.subject.model.path} predicts values that are not finite: its training diverged")
        return json.dumps({"times": times.tolist(), "error": (error / len(rows)).tolist()}).encode()


def _spread_times(chain: int) -> Tensor:
    """Times of the chain, half of them evenly spaced and half crowded towards the data, ascending, (K,) float64."""
    steps = [1 + (chain - 1) * k / (SPREAD_TIMES - 1) for k in range(SPREAD_TIMES)]
    steps += [chain ** (k / (SPREAD_TIMES - 1)) for k in range(SPREAD_TIMES)]
    return torch.tensor(sorted({round(step) for step in steps}), dtype=torch.float64) / chain
