r"""Measuring a run: the same images and noise through every reading, the same seeds through every draw.

A diagnosis compares what differs in one thing alone. So the probe, up to `num` held-out images noised to ten levels,
is one for all weights and all readings of the output, and image i of every draw starts from the same noise. What is
then found apart is due to the one thing that was changed:

    weights         their average, the weights as trained, the best of the held-out passes
    steps           10, 50 and 250
    the start       pure noise, or training images noised to the chain's end: the two are one where the schedule ends in
                    noise
    clipping        on or off
    the reading     the output taken for eps, x0, v, mu
    the condition   an image's own, another's, none

The yardstick at each level is the best guess that looks at one pixel at a time, E[x_0 | x_t] for data that is
N(m, s^2) at each pixel (`GaussianOracle`): a network that has learned anything about images beats it. Both are clipped
to [-1, 1] as in sampling, where the little that an eps-network knows of x_0 at high noise does no harm either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato import __version__
from sfumato.diagnose.evidence import Data, Draw, Evidence, Labels, Level, Process, Reading, Variance
from sfumato.diagnose.history import read_training
from sfumato.diagnose.looks import apart, look, nearest
from sfumato.diffusion import (
    DDIM,
    PARAMETERIZATIONS,
    Bound,
    Clipped,
    Denoiser,
    GaussianOracle,
    NetworkDenoiser,
    Noise,
    Noised,
    Prediction,
    marginal,
    sample,
    trailing,
)
from sfumato.diffusion.decoder import decoder_for
from sfumato.diffusion.likelihood import prior_term
from sfumato.diffusion.noise import Purpose, normal
from sfumato.diffusion.variance import VARIANCES
from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.target import Counted, Target, open_target
from sfumato.model import Model, load
from sfumato.run.folder import Run
from sfumato.train import checkpoint

__all__ = ["gather"]

LEVELS = 10
REFERENCE = 512
"""Training images that samples are compared with."""
NEIGHBOURS = 4096
"""Training images among which the nearest one is looked for."""
FEWEST = 16
"""Below so many held-out images, training images are the probe."""
ROUNDING = (2 / 255) ** 2 / 12
"""Variance of rounding to bytes: what is left of a pixel that never varies."""
STEPS = (10, 50, 250)
BATCH = 64

Report = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Probe:
    """Images with noise, the same for all who are asked.

    Attributes:
        x_0: (N, C, H, W) in [-1, 1].
        condition: their labels, or None.
        eps: (LEVELS, N, C, H, W).
        mean: (C, H, W) of the data.
        variance: (C, H, W) of the data.
    """

    x_0: Tensor
    condition: Tensor | None
    eps: Tensor
    mean: Tensor
    variance: Tensor


class Bench:
    """A subject on the bench: the images, the probe, and the draws.

    Args:
        subject: model and images.
        num: images to draw, and at most to probe with.
        seed: of noise and draws.
        report: called with (network evaluations done, in all).
    """

    def __init__(self, subject: Target, num: int, seed: int, report: Report) -> None:
        self.subject, self.num, self.seed, self.device = subject, num, seed, subject.model.device
        self.train = split_rows(subject.data, "train")
        self.reference, self.own = self._images(self.train[:REFERENCE])
        self.probe = self._probe()
        self.report, self.done, self.total = report, 0, 0

    def _images(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return images in the model's range and their labels, on the device."""
        pixels, labels = self.subject.data.gather(rows)
        x_0 = self.subject.data.depth.to_model(pixels)
        return x_0.to(self.device), labels.to(self.device) if self.subject.conditional else None

    def _probe(self) -> Probe:
        data = self.subject.data
        rows = split_rows(data, "held_out") if len(data.held_out) >= FEWEST else self.train
        x_0, condition = self._images(rows[: self.num])
        index = torch.arange(len(x_0), device=self.device)
        eps = [normal(self.seed, Purpose.HELD_OUT_NOISE, index, tuple(x_0.shape[1:]), step=i) for i in range(LEVELS)]
        variance, mean = torch.var_mean(self.reference, 0, unbiased=False)
        variance = variance.clamp(min=ROUNDING)
        return Probe(x_0, condition, torch.stack(eps), mean, variance)

    @property
    def classes(self) -> Tensor | None:
        """The conditions that draws are made with: those of training images."""
        if self.own is None:
            return None
        return self.own[torch.arange(self.num, device=self.device) % len(self.own)]

    def _tick(self) -> None:
        self.done += 1
        self.report(self.done, self.total)

    # --- denoising

    @torch.no_grad()
    def levels(self, denoiser: Denoiser, condition: Tensor | None) -> list[tuple[Prediction, Noised]]:
        """Ask a denoiser about the probe at every level."""
        schedule, answers = denoiser.schedule, []
        for i in range(LEVELS):
            step = max(1, round((i + 0.5) / LEVELS * schedule.num_steps))
            t = torch.full((len(self.probe.x_0),), step / schedule.num_steps, dtype=torch.float64, device=self.device)
            x_t = marginal(self.probe.x_0, schedule(t)).sample(self.probe.eps[i])
            answers.append((denoiser(x_t, t, condition), Noised(self.probe.x_0, self.probe.eps[i], x_t, t, schedule)))
            self._tick()
        return answers

    def reading(self, denoiser: NetworkDenoiser, weights: str, name: str, condition: Tensor | None) -> Reading:
        """Return a network's error at every level, its output read as parameterisation `name`."""
        read = NetworkDenoiser(denoiser.net, denoiser.schedule, PARAMETERIZATIONS[name])
        yardstick = GaussianOracle(denoiser.schedule, self.probe.mean, self.probe.variance)
        levels = []
        for prediction, noised in self.levels(read, condition):
            error = prediction.x0.clamp(-1, 1) - noised.x_0
            trivial = (yardstick(noised.x_t, noised.t).x0.clamp(-1, 1) - noised.x_0).square().mean()
            levels.append(
                Level(
                    t=float(noised.t[0]),
                    sigma=float(noised.schedule(noised.t[0]).sigma),
                    error=float(error.square().mean()),
                    trivial=float(trivial),
                    bias=tuple(error.mean((0, 2, 3)).tolist()),
                )
            )
        return Reading(weights, name, tuple(levels))

    def variance(self, denoiser: NetworkDenoiser) -> Variance | None:
        """Return what the learned variance has learned, or None where it is fixed."""
        answers = self.levels(denoiser, self.probe.condition)
        fractions = [prediction.fraction for prediction, _ in answers if prediction.fraction is not None]
        if not fractions:
            return None
        decoder = decoder_for(self.subject.model.depth.levels)
        bits = {
            name: sum(float(Bound(rule, decoder).losses(*answer).mean()) for answer in answers) / LEVELS / math.log(2)
            for name, rule in VARIANCES.items()
        }
        return Variance(float(torch.stack(fractions).std()), bits["learned"], min(bits["small"], bits["large"]))

    # --- drawing

    def images(
        self, denoiser: Denoiser, steps: int, condition: Tensor | None, from_data: bool = False, clip: bool = True
    ) -> Tensor:
        """Draw `num` images by deterministic DDIM on the trailing grid, (num, C, H, W)."""
        times = trailing(steps, denoiser.schedule)
        walked: Denoiser = Clipped(denoiser) if clip else denoiser
        parts = []
        for index in torch.split(torch.arange(self.num, device=self.device), BATCH):
            noise = Noise(self.seed, index, self.subject.model.shape)
            start = None
            if from_data:
                start = marginal(self.reference[index % len(self.reference)], denoiser.schedule(1.0)).sample(
                    noise.prior()
                )
            given = condition[index] if condition is not None else None
            parts.append(sample(Counted(walked, lambda _: self._tick()), DDIM(), times, noise, given, start))
        return torch.cat(parts)

    def draw(self, images: Tensor, weights: str, steps: int) -> Draw:
        """Compare drawn images with the data."""
        return Draw(
            weights=weights,
            steps=steps,
            look=look(images),
            apart=apart(images, self.reference),
            finite=float(images.isfinite().double().mean()),
            nearest=float(nearest(images, self._neighbours()).median()),
        )

    def _neighbours(self) -> Tensor:
        return self._images(self.train[:NEIGHBOURS])[0]

    # --- the images

    def data(self, run: Run | None) -> Data:
        """Measure the training images."""
        data, half = self.subject.data, len(self.reference) // 2
        distance = None
        if len(data.held_out):
            held_out = self._images(split_rows(data, "held_out")[:REFERENCE])[0]
            distance = float(nearest(held_out, self._neighbours()).median())
        return Data(
            source=self.subject.model.config.data.source,
            train=len(data.train),
            distinct=len({data.digests[row] for row in data.train.tolist()}),
            look=look(self.reference),
            apart=apart(self.reference[: max(half, 2)], self.reference[-max(half, 2) :]),
            nearest=distance,
            changed=_changed(run, data.fingerprint) if run is not None else None,
        )


def gather(path: Path, num: int, seed: int, device: torch.device | str, report: Report) -> Evidence:
    """Measure everything about a run.

    Args:
        path: the run folder, or a weights file.
        num: images to draw each time, at least 2.
        seed: of noise and draws.
        device: where to compute.
        report: called with (network evaluations done, in all).

    Raises:
        UserError: no such run or weights, or its images can't be opened.
    """
    subject = open_target(path, device=device)
    model, run = subject.model, Run(path) if path.is_dir() else None
    bench = Bench(subject, num, seed, report)
    models = {model.kind: model} | (_others(run, device) if run is not None else {})
    bench.total = _cost(models, model, bench)
    readings = {
        name: bench.reading(m.denoiser, name, m.config.diffusion.parameterization, bench.probe.condition)
        for name, m in models.items()
    }
    draws, unsettled = _draws(bench, models, model)
    learned = model.config.net.learned_variance
    return Evidence(
        path=str(path),
        main=model.kind,
        parameterization=model.config.diffusion.parameterization,
        data=bench.data(run),
        process=_process(bench, model),
        readings=readings | _rereadings(bench, model),
        draws=draws,
        unsettled=unsettled,
        variance=bench.variance(model.denoiser) if learned else None,
        labels=_labels(bench, model, readings[model.kind]) if subject.conditional else None,
        training=read_training(run, model.config, model.images) if run is not None else None,
    )


def _others(run: Run, device: torch.device | str) -> dict[str, Model]:
    """The run's other weights."""
    files = {name: run.weights / f"{name}.safetensors" for name in ("raw", "best")}
    return {name: load(file, device) for name, file in files.items() if file.is_file()}


def _steps(chain: int) -> tuple[int, ...]:
    """How many steps are tried on a chain, ascending."""
    return tuple(sorted({min(steps, chain) for steps in STEPS}))


def _usual(chain: int) -> int:
    """The steps that `sfumato sample` takes by default."""
    return min(50, chain)


def _cost(models: Mapping[str, Model], main: Model, bench: Bench) -> int:
    """How many evaluations of a network, in batches, the whole diagnosis takes."""
    chain, batches = main.denoiser.schedule.num_steps, -(-bench.num // BATCH)
    usual, conditional = _usual(chain), bench.subject.conditional
    walks = usual * (len(models) + 2 + conditional) + sum(_steps(chain)) - usual
    readings = len(models) + len(_readable(main)) + main.config.net.learned_variance + 2 * conditional
    return walks * batches + readings * LEVELS


def _readable(model: Model) -> list[str]:
    """The other parameterisations that the output could be taken for; not eps where the chain ends in pure noise."""
    own, blind = model.config.diffusion.parameterization, float(model.denoiser.schedule(1.0).alpha) == 0
    return [name for name in PARAMETERIZATIONS if name != own and not (name == "eps" and blind)]


def _rereadings(bench: Bench, model: Model) -> dict[str, Reading]:
    """The main weights' output, taken for what the header says it is not."""
    condition = bench.probe.condition
    return {f"as {name}": bench.reading(model.denoiser, model.kind, name, condition) for name in _readable(model)}


def _draws(bench: Bench, models: Mapping[str, Model], main: Model) -> tuple[dict[str, Draw], float]:
    """Every draw by its name, and how far the images of the usual and of the most steps are apart."""
    chain, classes = main.denoiser.schedule.num_steps, bench.classes
    usual = _usual(chain)
    drawn = {name: (m, usual, bench.images(m.denoiser, usual, classes)) for name, m in models.items()}
    for steps in _steps(chain):
        if steps != usual:
            drawn[f"{steps} steps"] = (main, steps, bench.images(main.denoiser, steps, classes))
    drawn["unclipped"] = (main, usual, bench.images(main.denoiser, usual, classes, clip=False))
    drawn["from data"] = (main, usual, bench.images(main.denoiser, usual, classes, from_data=True))
    if classes is not None:
        drawn["no label"] = (main, usual, bench.images(main.denoiser, usual, without(classes)))
    draws = {name: bench.draw(images, m.kind, steps) for name, (m, steps, images) in drawn.items()}
    most = drawn.get(f"{_steps(chain)[-1]} steps", drawn[main.kind])[2]
    moved = (most - drawn[main.kind][2]).clamp(-2, 2).square().mean((1, 2, 3)).sqrt().mean()
    return draws, float(moved) / max(look(bench.reference).diversity, 1e-9)


def _process(bench: Bench, model: Model) -> Process:
    """Measure the schedule's ends on the data."""
    schedule = model.denoiser.schedule
    end = schedule(1.0)
    bits = prior_term(bench.reference.double(), end).flatten(1).sum(1).mean() / math.log(2)
    first = schedule(1 / schedule.num_steps)
    return Process(schedule.num_steps, float(end.alpha), float(bits), float(first.sigma))


def _labels(bench: Bench, model: Model, own: Reading) -> Labels:
    """Measure what the label does to the error."""
    condition, name = bench.probe.condition, model.config.diffusion.parameterization
    assert condition is not None
    other = _strangers(condition)
    return Labels(
        dropout=model.config.train.label_dropout,
        own=own.ratio,
        other=bench.reading(model.denoiser, model.kind, name, other).ratio,
        none=bench.reading(model.denoiser, model.kind, name, without(condition)).ratio,
    )


def _strangers(condition: Tensor) -> Tensor:
    """Another image's label for each: sorted by label, each takes that of the one half the set away."""
    rows = condition.reshape(len(condition), -1)
    ordered = torch.tensor(sorted(range(len(rows)), key=lambda i: rows[i].tolist()), device=condition.device)
    other = torch.empty_like(condition)
    other[ordered] = condition[ordered.roll(len(ordered) // 2)]
    return other


def without(condition: Tensor) -> Tensor:
    """Return the condition that says nothing: NaN for attributes, -1 for class numbers."""
    return torch.full_like(condition, math.nan if condition.is_floating_point() else -1)


def _changed(run: Run, fingerprint: str) -> bool | None:
    """Whether the images are not those of the newest checkpoint; None without one, or where another version saved."""
    found = checkpoint.newest(run)
    if found is None or found[1].sfumato != __version__:
        return None
    return found[1].fingerprint != fingerprint
