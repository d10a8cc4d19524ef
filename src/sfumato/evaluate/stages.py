"""The long work of an evaluation, as stages of jobs: measuring a variance, scoring images, generating images.

    FOLDER/NAME-KEY/     KEY is a hash of the settings of its jobs (`jobs` keeps their results)

Image i of seed s is generated from the random key (s, i). Held-out images are scored in shards of `SHARD` with a seed
made of (seed, shard). Neither depends on the batch, on which process does it, or on how many there are, so a larger
number continues a smaller one.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from sfumato.diffusion import VARIANCES, Clipped, Denoiser, Optimal, State, Variance, trailing
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Counted
from sfumato.diffusion.variance import MeasuredVariance
from sfumato.errors import UserError
from sfumato.evaluate.bits import Bits, Estimator, FlowDensity, SampledBound, WholeBound, measure_bits
from sfumato.evaluate.cache import derived_seed
from sfumato.evaluate.jobs import Job, Progress, Stage, Tick
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.target import Target
from sfumato.generate.recipe import FITTED_ON, Recipe
from sfumato.generate.sample import Sampling, evaluations, prepare
from sfumato.generate.variance import MEASURED_ON, measure_errors, measured_times, training_rows

RULES = 3
"""The version of how images are generated, scored and compared: a change invalidates every job and every result."""
SHARD = 32
"""Held-out images in a job."""
TERMS, RTOL = 64, 1e-3
FLOW_CALLS, FLOW_COST = 120, 3
"""Estimates of the evaluations of the flow's solver, and of the cost of one with a gradient in plain evaluations."""


def key(settings: dict[str, Any]) -> str:
    """Return a hash of settings, ten hexadecimal digits."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class Stages:
    """The stages of one evaluation; attributes as of `Evaluation`, with the folder of the jobs' results. Raises
    `UserError` for settings that do not fit the model."""

    target: Target
    settings: Settings
    folder: Path
    batch: int
    progress: Callable[[str], Progress]

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"batch is {self.batch}: it must be at least 1")
        if self.recipe.guidance != 1 and not self.target.conditional:
            raise UserError("guidance needs a model that was trained with labels: leave it out")
        if self.variance_name == "learned" != self.target.model.config.diffusion.variance:
            raise UserError("this model has no learned variance: use small, large or analytic")

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of this model's images."""
        return self.settings.recipe.resolve(self.target.model)

    @property
    def variance_name(self) -> str:
        """The variance's name."""
        return self.settings.variance or self.target.model.config.diffusion.variance

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """The settings that determine a generated image."""
        labels = {"labels_like": self.target.data.fingerprint} if self.target.conditional else {}
        measured = self._measured if self.recipe.variance == "analytic" else {}
        return {**self._model_facts, "seed": self.settings.seed, **self.recipe.describe(), **labels, **measured}

    @cached_property
    def scoring(self) -> dict[str, Any]:
        """The settings that determine the bits of a held-out image."""
        chain, settings = self.target.model.schedule.num_steps, self.settings
        ways: dict[str, dict[str, Any]] = {
            "sampled": {"steps": chain, "terms": min(TERMS, chain - 1)},
            "vlb": {"steps": settings.recipe.steps or chain},
            "flow": {"probes": 1, "rtol": RTOL},
        }
        facts = {
            "method": settings.method,
            "seed": settings.seed,
            "repeats": settings.repeats or (2 if settings.method == "sampled" else 1),
            "variance": self.variance_name,
            "clip": settings.recipe.range == "clip",
            "data": self.target.data.fingerprint,
            "split": "held_out",
        }
        labels = {"labels": "each image's own"} if self.target.conditional else {}
        return {**self._model_facts, **facts, **ways[settings.method], **labels, **self._measured}

    @property
    def _model_facts(self) -> dict[str, Any]:
        """The model, and the version of the rules."""
        model = self.target.model
        return {"rules": RULES, "weights": model.sha256, "weights_kind": model.kind, "images_seen": model.images}

    @property
    def _measured(self) -> dict[str, Any]:
        """The settings that determine the measured variance, where it is used."""
        if self.variance_name != "analytic":
            return {}
        return {"measured_on": self.target.data.fingerprint, "measured_with": [MEASURED_ON, 48]}

    def needed(self, sample: bool, score: bool) -> list[Stage]:
        """Return the stages to run, in order, where images or bits are needed; raises `UserError` where nothing is held
        out, or the model has no such likelihood."""
        variance = self.variance_name == "analytic" and (score or self.recipe.variance == "analytic")
        stages = [self._variance_stage] if variance else []
        return stages + ([self._score_stage] if score else []) + ([self._sample_stage] if sample else [])

    def seconds(self) -> float:
        """Measure and return the seconds of one network evaluation for one image, with all overhead."""
        calls: list[int] = []
        model, denoiser, took = self.target.model, self._denoiser(calls.append), math.inf
        for look in range(4):  # the first is slower; the last is of a batch, if that takes only seconds
            count = 1 if look < 3 else max(1, min(self.batch, SHARD, int(0.5 / took)))
            images = torch.zeros(count, *model.codec.image_shape, dtype=model.codec.format.tensor_dtype)
            calls.clear()
            start, estimator = time.perf_counter(), SampledBound(VARIANCES["large"], terms=3)
            measure_bits(denoiser, model.codec, images, estimator, batch=count, device=model.device)
            took = min(took, (time.perf_counter() - start) / sum(calls))
        return took

    # Generating images

    def images(self) -> Tensor:
        """Return the generated images, (num, C, H, W), stored values."""
        shards = [np.load(BytesIO(result)) for result in self._sample_stage.run(self.progress)]
        return torch.from_numpy(np.concatenate(shards))

    @property
    def _sample_stage(self) -> Stage:
        num, unit = self.settings.num_generated, self._evaluations
        shards = [(first, min(self.batch, num - first)) for first in range(0, num, self.batch)]
        jobs = [
            Job(f"{first:07d}x{count}", count * unit, partial(self._sample, first, count)) for first, count in shards
        ]
        return Stage("generating images", self.folder / f"drawn-{key(self.sampling)}", tuple(jobs), unit)

    @cached_property
    def _evaluations(self) -> int:
        """How often the network is evaluated for an image. A grid is not fitted for this: any other asks as often."""
        recipe, model = self.recipe, self.target.model
        grid = "trailing" if recipe.grid == "fitted" else recipe.grid
        recipe = replace(recipe, grid=grid, variance=recipe.variance and "small")  # which takes no measuring
        times = recipe.times(model.denoiser, model.shape)
        return evaluations(recipe, recipe.build(), model.schedule, times)

    @cached_property
    def _sampling(self) -> tuple[Sampling, Condition | None]:
        """The recipe, ready for the model, and the condition of each image."""
        fitted_for = self.target.condition(0, FITTED_ON) if self.recipe.grid == "fitted" else None
        variance = self.variance if self.recipe.variance == "analytic" else None
        condition = self.target.condition(self.settings.seed, self.settings.num_generated)
        return prepare(self.target.model, self.recipe, fitted_for, variance=variance), condition

    def _sample(self, first: int, count: int, tick: Tick) -> bytes:
        """Generate some images; returns an array as `numpy.save` writes it."""
        (sampling, condition), model = self._sampling, self.target.model
        a_step = count * self._evaluations // (len(sampling.times) - 1)

        def on_state(_: int, state: State) -> None:
            tick(a_step if state.step else 0)

        seed, batch = self.settings.seed, self.batch
        batches = sampling.stream(count, seed, condition=condition, batch=batch, first=first, on_state=on_state)
        images = torch.cat([images for _, images in batches])
        if not bool(images.isfinite().all()):
            raise UserError(f"{model.path} generates values that are not finite: its training diverged")
        np.save(content := BytesIO(), model.codec.decode(images).numpy())
        return content.getvalue()

    # Scoring held-out images

    def bits(self) -> Bits:
        """Return the bits of the held-out images."""
        return Bits.cat([safetensors.torch.load(result) for result in self._score_stage.run(self.progress)])

    @property
    def _score_stage(self) -> Stage:
        how, rows = self.scoring, self.target.held_out(self.settings.num_scored)
        terms = {"sampled": how.get("terms", 0) + 1, "vlb": how.get("steps", 0), "flow": FLOW_CALLS * FLOW_COST}
        unit, shards = terms[how["method"]] * how["repeats"], enumerate(torch.split(rows, SHARD))
        jobs = [Job(f"{n}x{len(part)}", len(part) * unit, partial(self._score, n, part)) for n, part in shards]
        return Stage("scoring held-out images", self.folder / f"scored-{key(how)}", tuple(jobs), unit)

    def _denoiser(self, tick: Tick) -> Denoiser:
        """The denoiser that images are scored by."""
        model = self.target.model
        return Counted(Clipped(model.denoiser, model.codec.clip) if self.scoring["clip"] else model.denoiser, tick)

    @cached_property
    def _estimator(self) -> Estimator:
        how = self.scoring
        if how["method"] == "vlb":
            return WholeBound(trailing(how["steps"], self.target.model.schedule), self.variance)
        sampled = how["method"] == "sampled"
        return SampledBound(self.variance, how["terms"]) if sampled else FlowDensity(self.variance, how["rtol"])

    def _score(self, shard: int, rows: Tensor, tick: Tick) -> bytes:
        """Score some images; returns the tables of `Bits` as safetensors."""
        model, (images, condition) = self.target.model, self.target.rows(rows)
        cost = FLOW_COST if self.settings.method == "flow" else 1
        denoiser = self._denoiser(lambda count: tick(cost * count))
        seed = derived_seed(f"bits {self.settings.seed} {shard}", 7)  # repeats add 1, 2, ...
        repeats, batch = self.scoring["repeats"], min(self.batch, SHARD)
        try:
            bits = measure_bits(
                denoiser, model.codec, images, self._estimator, seed, repeats, batch, model.device, condition
            )
        except UserError:
            raise
        except ValueError as error:  # the flow's solver needs too many steps
            raise UserError(f"the flow of {model.path} can't be solved: {error}") from None
        if not math.isfinite(bits.total.mean):
            raise UserError(
                f"the bits of held-out images are not finite under {model.path} with the variance "
                f"{self.variance_name}: try another variance or more steps"
            )
        content: bytes = safetensors.torch.save(bits.tables)
        return content

    # Measuring the variance

    @cached_property
    def variance(self) -> Variance:
        """The variance of the reverse step, measured if it is analytic."""
        if self.variance_name != "analytic":
            return VARIANCES[self.variance_name]
        table = json.loads(self._variance_stage.run(self.progress)[0])
        times, error = (torch.tensor(table[name], dtype=torch.float64) for name in ("times", "error"))
        return Optimal(MeasuredVariance(self.target.model.schedule, times, error))

    @property
    def _variance_stage(self) -> Stage:
        facts = {**self._model_facts, **self._measured, "clip": self.scoring["clip"]}
        times = measured_times(self.target.model.schedule.num_steps)
        num = min(MEASURED_ON, len(self.target.data.train))
        job = Job("spread", num * len(times), partial(self._errors, times))
        return Stage("measuring the variance", self.folder / f"spread-{key(facts)}", (job,), len(times))

    def _errors(self, times: Tensor, tick: Tick) -> bytes:
        """Measure the noise predictor's error at some times; returns JSON."""
        model, data = self.target.model, self.target.data
        rows = training_rows(data)[:MEASURED_ON]
        error = measure_errors(model, self._denoiser(tick), data, rows, times, self.batch)
        return json.dumps({"times": times.tolist(), "error": error.tolist()}).encode()
