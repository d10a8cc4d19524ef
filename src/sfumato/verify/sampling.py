"""Examinations of samplers (order of convergence, distribution of samples) and of guidance.

The order of a deterministic method is measured where the answer is known. In one dimension the probability-flow ODE
keeps the order of points, so it keeps their quantiles: a mixture's point x at t goes to the point with the same value
of the distribution function at s. Doubling the steps must divide the error by 2^order. The schedule is smooth and the
times stay away from both its ends, so that only the method's own error is left; the steps grow from small ones, so that
the low-order first steps of a multistep method do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sfumato.conditions.table import Attributes
from sfumato.diffusion.denoiser import Clipped, Thresholded
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.guidance import ClassifierGuided, Guided
from sfumato.diffusion.level import Level
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.oracle import ConditionalMixtureOracle, MixtureOracle
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.samplers.ddim import DDIM
from sfumato.diffusion.samplers.protocol import Sampler, sample
from sfumato.diffusion.schedule import Cosine
from sfumato.verify.check import Errors, Examinations, Finding, Setting, Skipped

EXAMINATIONS = Examinations()

WEIGHTS, MEANS, VARIANCES = (0.3, 0.7), (-0.8, 0.5), (0.09, 0.04)
NOISY, CLEAN = 0.9, 0.1
POINTS, STEPS = 8000, 160

KINDS: dict[str, Callable[[], Sampler]] = {**SAMPLERS, "ddim at eta 0.5": partial(DDIM, 0.5)}
"""The samplers examined: every named one, and DDIM at eta 0.5, where conventions differ."""


@dataclass(frozen=True)
class Smooth:
    """A schedule whose angle is linear in t, phi = 0.99 t pi/2: no table and no kinks."""

    num_steps: int = 1000

    def __call__(self, t: Tensor | float) -> Level:
        """Return the level at t."""
        return Level.from_angle(torch.as_tensor(t, dtype=torch.float64) * (0.99 * math.pi / 2))

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the time of a logsnr."""
        angle = torch.atan(torch.exp(-torch.as_tensor(logsnr, dtype=torch.float64) / 2))
        return (angle / (0.99 * math.pi / 2)).clamp(0.0, 1.0)


def _below(x: Tensor, level: Level) -> Tensor:
    """The mixture's distribution function at a level."""
    total = torch.zeros_like(x)
    for weight, mean, variance in zip(WEIGHTS, MEANS, VARIANCES, strict=True):
        std = (level.abar * variance + level.sigma.square()).sqrt()
        total += weight * torch.special.ndtr((x - level.alpha * mean) / std)
    return total


def flow(x: Tensor, t: float, s: float) -> Tensor:
    """Return where the flow takes points x, float64, from t to s: the same quantile, found by bisection."""
    quantile = _below(x, Smooth()(t))
    low, high = torch.full_like(x, -8.0), torch.full_like(x, 8.0)
    for _ in range(60):
        middle = (low + high) / 2
        left = _below(middle, Smooth()(s)) < quantile
        low, high = torch.where(left, middle, low), torch.where(left, high, middle)
    return (low + high) / 2


def errors(sampler: Sampler, counts: tuple[int, ...], setting: Setting) -> list[float]:
    """Return a deterministic sampler's mean error from NOISY to CLEAN for each number of steps."""
    means, variances = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (MEANS, VARIANCES))
    oracle = MixtureOracle(Smooth(), torch.tensor(WEIGHTS, dtype=torch.float64), means, variances)
    start = torch.linspace(-2.0, 2.0, 16, dtype=torch.float64)[:, None]
    truth, results = flow(start, NOISY, CLEAN), []
    for count in counts:
        times = NOISY + (CLEAN - NOISY) * torch.linspace(0, 1, count + 1, dtype=torch.float64) ** 1.5
        noise = Noise(0, torch.arange(16, device=setting.device), (1,), setting.dtype)
        x = sample(oracle, sampler, times, noise, start=setting.tensor(start))
        results.append(float((x.double().cpu() - truth).abs().mean()))
    return results


def order(name: str, setting: Setting) -> Finding:
    """The exponent with which a deterministic sampler's error falls, against the one it states."""
    if setting.dtype != torch.float64:
        raise Skipped("float32 rounds away what is left of the error: check orders with --dtype float64")
    sampler = KINDS[name]()
    coarse, fine = errors(sampler, (64, 256), setting)
    measured = math.log(coarse / fine, 4) if fine > 0 else math.nan
    return Finding(
        abs(measured - sampler.order),
        0.15,
        f"twice the steps leave 1/{2**sampler.order} of the error: order {measured:.2f}, {sampler.order} promised",
        f"its error falls with order {measured:.2f} where {sampler.order} is promised: more steps help less than they "
        "should, and its images are not those of the method; use another sampler",
    )


def moments(name: str, setting: Setting) -> Finding:
    """Mean and covariance of a stochastic sampler's points on a correlated mixture in the plane, as a largest error."""
    weights = torch.tensor([0.3, 0.45, 0.25], dtype=torch.float64)
    means = torch.tensor([[-0.7, -0.4], [0.6, 0.5], [0.1, -0.6]], dtype=torch.float64)
    variances = torch.tensor([[0.1, 0.05], [0.06, 0.12], [0.08, 0.08]], dtype=torch.float64)
    mean = weights @ means
    apart = means - mean
    covariance = torch.diag(weights @ variances) + apart.T @ (weights[:, None] * apart)
    oracle = MixtureOracle(Cosine(), weights, means, variances)
    noise = Noise(1, torch.arange(POINTS, device=setting.device), (2,), setting.dtype)
    x = sample(oracle, KINDS[name](), trailing(STEPS, oracle.schedule), noise).double().cpu()
    return Finding(
        max(float((x.mean(0) - mean).abs().max()), float((torch.cov(x.T) - covariance).abs().max())),
        0.018,
        f"{POINTS:,} points have the mean and covariance of the distribution",
        "its samples are too wide, too narrow or beside the data; use another sampler",
    )


for _name, _kind in KINDS.items():
    if _kind().stochastic:
        EXAMINATIONS[f"sampler {_name}: mean and covariance"] = partial(moments, _name)
    else:
        EXAMINATIONS[f"sampler {_name}: order"] = partial(order, _name)


def _labelled(setting: Setting) -> tuple[ConditionalMixtureOracle, Tensor, Attributes]:
    """Five labelled components, six points, and a label for each point."""
    generator = torch.Generator().manual_seed(3)
    means, variances, x = (torch.randn(n, 2, 3, generator=generator, dtype=torch.float64) for n in (5, 5, 6))
    weights = torch.tensor([1.0, 2.0, 1.0, 3.0, 2.0])
    oracle = ConditionalMixtureOracle(Cosine(), weights, means, variances.square() + 0.1, torch.arange(5) % 3)
    return oracle, setting.tensor(x), Attributes(setting.tensor([[0.0], [1.0], [2.0]] * 2))


@EXAMINATIONS.add(
    "guidance: the guided density",
    (1e-9, 1e-3),
    "guidance follows the guided density's gradient at w = 0, 1, 1.5 and 4",
    "the guidance scale is wrong: labels act too strongly, too weakly or backwards",
)
def guidance(setting: Setting) -> Errors:
    """The score of `Guided` at w = 0, 1, 1.5 and 4 against the gradient of log q(x_t) + w log q(c | x_t)."""
    oracle, x, condition = _labelled(setting)
    misses = []
    for t in (0.05, 0.4, 0.9):
        for w in (0.0, 1.0, 1.5, 4.0):
            at = x.clone().requires_grad_()
            log_density = oracle.log_prob(at, t) + w * oracle.class_log_prob(at, t, condition)
            (score,) = torch.autograd.grad(log_density.sum(), at)
            misses.append(Guided(oracle, w)(x, t, condition).eps + oracle.schedule(t).sigma * score)
    return misses


@EXAMINATIONS.add(
    "guidance: the exact classifier",
    (1e-8, 1e-2),
    "the exact classifier turns the unconditional denoiser into the conditional one",
    "guidance by a classifier pushes by the wrong amount",
)
def classifier(setting: Setting) -> Errors:
    """Classifier guidance of the unconditional oracle with the exact log q(c | x_t) against the conditional oracle."""
    oracle, x, condition = _labelled(setting)
    misses = []
    for t in (0.05, 0.4, 0.9):
        guided = ClassifierGuided(Guided(oracle, 0.0), oracle.class_log_prob)(x, t, condition)
        exact = oracle(x, t, condition)
        misses += [guided.x0 - exact.x0, guided.eps - exact.eps]
    return misses


@EXAMINATIONS.add(
    "wrappers: consistent",
    (1e-10, 1e-4),
    "image and noise explain the noisy image after clipping, thresholding and rescaling",
    "clipping or thresholding leaves a noise that belongs to another image: samples drift",
)
def consistent(setting: Setting) -> Errors:
    """alpha x0 + sigma eps against x_t after clipping, thresholding and rescaled guidance, which all change x0."""
    oracle, x, condition = _labelled(setting)
    guided = Guided(oracle, 4.0, rescale=0.7)
    misses = []
    for t in (0.05, 0.4, 0.9):
        level = oracle.schedule(t).like(x)
        for denoiser in (guided, Clipped(guided, partial(torch.clamp, min=-0.5, max=0.5)), Thresholded(guided, 0.9)):
            prediction = denoiser(x, t, condition)
            misses.append(level.alpha * prediction.x0 + level.sigma * prediction.eps - x)
    return misses
