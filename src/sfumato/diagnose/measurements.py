r"""Measuring a run: the same images and noise for every reading, the same seeds for all samples.

A diagnosis compares what differs in one thing alone: the weights (average, as trained, best), the number of steps, the
start (noise, or noised training images, the same where the schedule ends in noise), clipping, the parameterisation of
the output, the label. So the probe, up to `num` held-out images noised to ten levels, is one for all, and sample i
always starts from the same noise.

The trivial guess at each level looks at one coordinate at a time, E[x_0 | x_t] for data that is N(m, s^2) at each
(`GaussianOracle`): a network that has learned anything about images beats it. Both are clipped as in sampling, where
the large errors of an eps-network at high noise do no harm either. Errors and statistics are those of pixels, whatever
x_0 is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato import __version__
from sfumato.diagnose.evidence import Data, Evidence, Labels, LevelError, Process, Reading, Samples, Variance
from sfumato.diagnose.history import read_training
from sfumato.diagnose.statistics import image_statistics, nearest, reduced
from sfumato.diffusion import (
    PARAMETERIZATIONS,
    Bound,
    Denoiser,
    GaussianOracle,
    NetworkDenoiser,
    Noise,
    Noised,
    Prediction,
    State,
    marginal,
)
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.likelihood import prior_term
from sfumato.diffusion.noise import Purpose, normal
from sfumato.diffusion.variance import VARIANCES
from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.extractors import wavelets
from sfumato.evaluate.target import Target, open_target
from sfumato.evaluate.verdict import Verdict, clamped, judge
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Report, prepare
from sfumato.model import Model, load
from sfumato.run.folder import Run
from sfumato.run.summary import RunSummary
from sfumato.train import checkpoint

LEVELS = 10
REFERENCE = 512
"""The most training images to compare samples with."""
NEIGHBOURS = 4096
"""The most training images in the search for the nearest one."""
FEWEST = 16
"""With fewer held-out images than this, training images are the probe."""
ROUNDING = (2 / 255) ** 2 / 12
"""Variance of rounding to bytes: the least variance of a coordinate."""
MANY = 250
"""The largest number of steps to try besides the default and half of it."""
BATCH = 64


@dataclass(frozen=True, eq=False)
class Probe:
    """Images x_0 (N, C, H, W) with their noise eps (LEVELS, N, C, H, W), and the data's mean and variance (C, H, W)."""

    x_0: Tensor
    condition: Condition | None
    eps: Tensor
    mean: Tensor
    variance: Tensor


class Bench:
    """A model and its images: the probe, of at most `num` images, and `num` samples at a time.

    `on_progress` is called with (steps done, in all), a prediction of the probe being one.
    """

    def __init__(self, target: Target, num: int, seed: int, on_progress: Report) -> None:
        self.target, self.model, self.num, self.seed = target, target.model, num, seed
        self.codec, self.device, self.default = self.model.codec, self.model.device, Recipe().resolve(self.model)
        self.train = split_rows(target.data, "train")
        self.x_0, self.condition = self.target.encoded(self.train[:REFERENCE])
        self.pixels = self.codec.to_pixels(self.x_0)
        self.shape = self.codec.image_shape
        self.features = wavelets.features(clamped(self.pixels.float()))
        parts = torch.split(self.train[:NEIGHBOURS], REFERENCE)
        self.neighbours = torch.cat([reduced(self._pixels(rows)) for rows in parts])
        self.probe = self._probe()
        self.on_progress, self.done, self.total = on_progress, 0, 0

    def _pixels(self, rows: Tensor) -> Tensor:
        return self.codec.to_pixels(self.target.encoded(rows)[0])

    def _probe(self) -> Probe:
        data = self.target.data
        rows = split_rows(data, "held_out") if len(data.held_out) >= FEWEST else self.train
        x_0, condition = self.target.encoded(rows[: self.num])
        index = torch.arange(len(x_0), device=self.device)
        eps = [normal(self.seed, Purpose.HELD_OUT_NOISE, index, tuple(x_0.shape[1:]), step=i) for i in range(LEVELS)]
        variance, mean = torch.var_mean(self.x_0, 0, unbiased=False)
        return Probe(x_0, condition, torch.stack(eps), mean, variance.clamp(min=ROUNDING))

    def _tick(self) -> None:
        self.done += 1
        self.on_progress(self.done, self.total)

    # --- denoising

    @torch.no_grad()
    def levels(self, denoiser: Denoiser, condition: Condition | None) -> list[tuple[Prediction, Noised]]:
        """Predict the probe at every level."""
        schedule, answers = denoiser.schedule, []
        for i in range(LEVELS):
            step = max(1, round((i + 0.5) / LEVELS * schedule.num_steps))
            t = torch.full((len(self.probe.x_0),), step / schedule.num_steps, dtype=torch.float64, device=self.device)
            x_t = marginal(self.probe.x_0, schedule(t)).sample(self.probe.eps[i])
            answers.append((denoiser(x_t, t, condition), Noised(self.probe.x_0, self.probe.eps[i], x_t, t, schedule)))
            self._tick()
        return answers

    def reading(self, denoiser: NetworkDenoiser, weights: str, name: str, condition: Condition | None) -> Reading:
        """Return a network's error at every level, its output read as parameterisation `name`."""
        read = NetworkDenoiser(denoiser.net, denoiser.schedule, PARAMETERIZATIONS[name])
        guess = GaussianOracle(denoiser.schedule, self.probe.mean, self.probe.variance)
        levels = []
        for prediction, noised in self.levels(read, condition):
            error, trivial = self._error(prediction, noised), self._error(guess(noised.x_t, noised.t), noised)
            t, bias = float(noised.t[0]), tuple(error.mean((0, 2, 3)).tolist())
            squares = float(error.square().mean()), float(trivial.square().mean())
            levels.append(LevelError(t, float(noised.schedule(t).sigma), *squares, bias))
        return Reading(weights, name, tuple(levels))

    def _error(self, prediction: Prediction, noised: Noised) -> Tensor:
        """The difference of the predicted images from the images, in pixels."""
        return self.codec.to_pixels(self.codec.clip(prediction.x0)) - self.codec.to_pixels(noised.x_0)

    def variance(self) -> Variance | None:
        """Return figures of the model's learned variance, None where it is fixed."""
        answers = self.levels(self.model.denoiser, self.probe.condition)
        fractions = [prediction.fraction for prediction, _ in answers if prediction.fraction is not None]
        if not fractions:
            return None
        bounds = {name: Bound(rule, self.codec.decoder) for name, rule in VARIANCES.items()}
        bits = {
            name: sum(float(bound.losses(*answer).mean()) for answer in answers) / LEVELS / math.log(2)
            for name, bound in bounds.items()
        }
        return Variance(float(torch.stack(fractions).std()), bits["learned"], min(bits["small"], bits["large"]))

    # --- sampling

    def sample(self, model: Model, recipe: Recipe, condition: Condition | None, from_data: bool = False) -> Tensor:
        """Sample `num` images, from noise or from noised training images, as pixels (num, C, H, W)."""

        def start(noise: Noise) -> Tensor:
            images = self.x_0[noise.index % len(self.x_0)]
            return marginal(images, model.schedule(float(sampling.times[0]))).sample(noise.prior())

        def on_state(_: int, state: State) -> None:
            if state.step:
                self._tick()

        sampling, begin = prepare(model, recipe, condition), start if from_data else None
        parts = sampling.stream(self.num, self.seed, condition=condition, batch=BATCH, start=begin, on_state=on_state)
        return self.codec.to_pixels(torch.cat([x for _, x in parts]).to(self.device))

    def compare(self, images: Tensor, weights: str, steps: int) -> Samples:
        """Compare samples with the data, both as pixels."""
        verdict = self.judge(images)
        return Samples(
            weights=weights,
            steps=steps,
            statistics=image_statistics(images),
            layout=verdict.layout.value,
            detail=verdict.detail.value if verdict.detail is not None else 0.0,
            finite=float(images.isfinite().double().mean()),
            nearest=float(nearest(images, self.neighbours).median()),
        )

    def judge(self, images: Tensor) -> Verdict:
        """Return the verdict on pixels (N, C, H, W)."""
        verdict = judge(self.features.cpu(), wavelets.features(clamped(images.float())).cpu(), self.shape)
        assert verdict is not None, "a data set has at least two images"
        return verdict

    # --- the images, the schedule, the labels

    def data(self, summary: RunSummary | None) -> Data:
        """Measure the training images."""
        data = self.target.data
        held_out = self._pixels(split_rows(data, "held_out")[:REFERENCE]) if len(data.held_out) else None
        return Data(
            source=self.target.data.config.source,
            train=len(data.train),
            distinct=len({data.digests[row] for row in data.train.tolist()}),
            statistics=image_statistics(self.pixels),
            distance=self.judge(self.pixels).distance.baseline or 0.0,
            nearest=None if held_out is None else float(nearest(held_out, self.neighbours).median()),
            changed=_changed(summary, data.fingerprint) if summary is not None else None,
            findings=tuple(finding.text for finding in data.findings if finding.trouble),
        )

    def process(self) -> Process:
        """Measure the schedule's ends on the data."""
        schedule = self.model.schedule
        end, first = schedule(1.0), schedule(1 / schedule.num_steps)
        bits = prior_term(self.x_0.double(), end).flatten(1).sum(1).mean() / math.log(2)
        return Process(schedule.num_steps, float(end.alpha), float(bits), float(first.sigma))

    def labels(self, own: Reading) -> Labels | None:
        """Measure the effect of labels on the error; None for an unconditional model."""
        model, condition = self.model, self.probe.condition
        if condition is None or model.vocabulary is None:
            return None
        name, other = model.config.diffusion.parameterization, permuted(condition, model.vocabulary.describe(condition))
        return Labels(
            dropout=model.config.train.label_dropout,
            own=own.ratio,
            other=self.reading(model.denoiser, model.kind, name, other).ratio,
            none=self.reading(model.denoiser, model.kind, name, condition.absent()).ratio,
        )


def measure(
    path: Path, num: int, seed: int, device: torch.device | str, on_progress: Report, images_of: str | None = None
) -> Evidence:
    """Measure everything about a run folder or a weights file, with `num` (at least 2) samples each time.

    `images_of` names images to compare with, the model's own by default. `on_progress` is called with (steps done, in
    all). Raises `UserError` for no such run or weights, or where its images can't be opened.
    """
    return examine(open_target(path, data=images_of, device=device), path, num, seed, on_progress)


def examine(target: Target, path: Path, num: int, seed: int, on_progress: Report, many: int = MANY) -> Evidence:
    """Measure a model with its images, as `measure`; `path` is what the user named it, `many` the largest number of
    sampling steps that is tried."""
    model, summary = target.model, RunSummary.read(Run(path)) if Run(path).exists() else None
    bench, name = Bench(target, num, seed, on_progress), model.config.diffusion.parameterization
    files = {} if summary is None else {kind: file for kind, file in summary.weights.items() if kind != model.kind}
    models = {model.kind: model} | {kind: load(file, device=model.device) for kind, file in files.items()}
    plan = _plan(bench, models, many)
    learned, unread = model.config.diffusion.variance == "learned", _unread(model)
    readings = len(models) + len(unread) + learned + 2 * (bench.condition is not None)
    bench.total = sum(recipe.steps or 0 for _, recipe, *_ in plan.values()) * -(-num // BATCH) + readings * LEVELS
    condition = bench.probe.condition
    read = {kind: bench.reading(m.denoiser, kind, name, condition) for kind, m in models.items()}
    images = {key: bench.sample(*arguments) for key, arguments in plan.items()}
    most = max(plan, key=lambda key: plan[key][1].steps or 0)
    change = (images[most] - images[model.kind]).clamp(-2, 2).square().mean((1, 2, 3)).sqrt().mean()
    data = bench.data(summary)
    return Evidence(
        path=str(path),
        main=model.kind,
        parameterization=name,
        recipe=bench.default.describe(),
        data=data,
        process=bench.process(),
        readings=read
        | {f"as {other}": bench.reading(model.denoiser, model.kind, other, condition) for other in unread},
        samples={key: bench.compare(images[key], m.kind, r.steps or 0) for key, (m, r, *_) in plan.items()},
        unsettled=float(change) / max(data.statistics.diversity, 1e-9),
        variance=bench.variance() if learned else None,
        labels=bench.labels(read[model.kind]),
        training=read_training(summary, model.config, model.images) if summary is not None else None,
        quality=bench.judge(images[model.kind]),
        images=model.images,
        shape=bench.shape,
    )


def permuted(condition: Condition, texts: list[str]) -> Condition:
    """Return another image's condition for each: in the order of their texts, that of the one half the set away."""
    ordered = torch.tensor(sorted(range(len(texts)), key=texts.__getitem__))
    other = torch.empty_like(ordered)
    other[ordered] = ordered.roll(len(ordered) // 2)
    return condition.take(other)


def _plan(
    bench: Bench, models: Mapping[str, Model], many: int
) -> dict[str, tuple[Model, Recipe, Condition | None, bool]]:
    """The arguments of `Bench.sample` by name; each differs from the main model's in one thing."""
    main, default, condition = bench.model, bench.default, bench.condition
    plan = {name: (model, default, condition, False) for name, model in models.items()}
    assert default.steps is not None
    for steps in (max(1, default.steps // 2), min(many, main.schedule.num_steps)):
        if steps != default.steps:
            plan[f"{steps} steps"] = (main, Recipe(steps=steps).resolve(main), condition, False)
    plan["unclipped"] = (main, Recipe(range="free").resolve(main), condition, False)
    plan["from data"] = (main, default, condition, True)
    if condition is not None:
        plan["no label"] = (main, default, condition.absent(), False)
    return plan


def _unread(model: Model) -> list[str]:
    """The other parameterisations as which the output can be read; not eps where the chain ends in pure noise."""
    own, blind = model.config.diffusion.parameterization, float(model.schedule(1.0).alpha) == 0
    return [name for name in PARAMETERIZATIONS if name != own and not (name == "eps" and blind)]


def _changed(summary: RunSummary, fingerprint: str) -> bool | None:
    """Whether the images are not those of the newest checkpoint; None without one, or where another version saved."""
    good = (path for path in reversed(summary.checkpoints) if checkpoint.find_damage(path) is None)
    saved = next(map(checkpoint.read_position, good), None)
    return None if saved is None or saved.sfumato != __version__ else saved.fingerprint != fingerprint
