r"""Guidance: samples follow their condition more closely, at the price of variety.

The target is not q(x | c) but a density in which the condition c counts w times. By Bayes' rule, up to a constant,

    log q_w(x_t | c) = log q(x_t) + w log q(c | x_t) = (1 - w) log q(x_t) + w log q(x_t | c)

at every noise level (which is not the noised version of any one density, so a guided run ends near, not at, q_w). With
score = -eps / sigma this is a line through two predictions, in eps and, as x_t = alpha x0 + sigma eps, in x0 alike:

    eps_w = eps_u + w (eps_c - eps_u),          x0_w = x0_u + w (x0_c - x0_u)

w = 0 is the unconditional model, 1 the conditional one, more is guidance. (The paper's own w is ours less one.)

    Guided              both predictions from one network trained with and without its condition
    AutoGuided          the first from a worse network: away from its mistakes, not from the other classes
    ClassifierGuided    the gradient of any log q(c | x_t) added to the score
    ImageGuided         the same for a function of clean images, applied to the predicted one
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser, Wrapped, differentiable, gradient
from sfumato.diffusion.level import broadcast
from sfumato.diffusion.parameterization import X0, Parameterization, solve, target
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.schedule import as_time, per_row

LogProb = Callable[[Tensor, Tensor, Any], Tensor]
"""(x (B, C, H, W), t (B,) float64, condition) -> log p(condition | x) in nats, (B,), differentiable in x."""

Interval = tuple[float, float] | None
"""(low, high): guidance acts where low < t <= high; None is everywhere."""


@dataclass(frozen=True)
class Guided(Wrapped):
    """Classifier-free guidance: uncond + w (cond - uncond) (Ho and Salimans 2022, 2207.12598, Eq. 6).

    One evaluation of twice the batch; a single one of the batch where w is 0 or 1, or t lies outside the interval,
    where the conditional prediction is returned as it is (Kynkäänniemi et al. 2024, 2404.07724: guidance harms at high
    noise and has no effect at low noise).

    Large w also stretches the image's contrast. `rescale` takes back a part of what was added to the standard deviation
    of the predicted x0, all coordinates of an image together (Lin et al. 2023, 2305.08891, Eq. 15-16):

        x0 <- (1 - rescale) x0_w + rescale x0_w std(x0_c) / std(x0_w),       eps recomputed

    with `rescale` in [0, 1], 0.7 in the paper. The paper rescales the network's output in place of x0, which depends on
    the parameterisation; `rescaled` names another space, such as `V()`, and then x0 and eps follow from it.

    A learned variance is the conditional prediction's (at w = 0, where there is none, the unconditional one's). The
    denoiser must be trained with some conditions left out; `scale` is w.
    """

    scale: float
    interval: Interval = None
    rescale: float = 0.0
    rescaled: Parameterization = X0()

    def __post_init__(self) -> None:
        _check(self.scale, self.interval)
        if not 0.0 <= self.rescale <= 1.0:
            raise ValueError(f"rescale = {self.rescale}: choose from 0 (none) to 1 (the conditional contrast)")

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return the prediction without the condition plus w times its difference to the one with it."""
        if condition is None:
            raise ValueError("guidance needs a condition to guide towards: give one, or sample without guidance")
        if not hasattr(condition, "absent"):
            raise ValueError(
                f"the condition is a {type(condition).__name__}, which has no unconditional counterpart: "
                "give a value with absent() and cat(), such as a vocabulary's parse() returns"
            )
        t = as_time(t, self.schedule.num_steps)
        weight = _weight(self.scale, self.interval, t)
        if isinstance(weight, float) and weight in (0.0, 1.0):
            return self.denoiser(x_t, t, condition if weight else condition.absent())
        twice = torch.cat([t, t]) if t.ndim else t
        both = self.denoiser(torch.cat([x_t, x_t]), twice, condition.cat(condition.absent()))
        conditional, unconditional = both.map(lambda c: c[: len(x_t)]), both.map(lambda c: c[len(x_t) :])
        guided = _between(unconditional, conditional, weight)
        if self.rescale == 0.0:
            return guided
        if isinstance(self.rescaled, X0):
            return guided.with_x0(self._rescaled(guided.x0, conditional.x0), x_t, self.schedule(t))
        plain, reference = (target(self.rescaled, p.x0, p.eps, self.schedule, t) for p in (guided, conditional))
        x0, eps = solve(self.rescaled, self._rescaled(plain, reference), x_t, self.schedule, t)
        return replace(guided, x0=x0, eps=eps)

    def _rescaled(self, guided: Tensor, reference: Tensor) -> Tensor:
        return guided.lerp(guided * _std(reference) / _std(guided), self.rescale)


@dataclass(frozen=True)
class AutoGuided(Wrapped):
    """Autoguidance: weak + w (strong - weak), both with the condition, if any (Karras et al. 2024, 2406.02507).

    The weak network is a smaller or less trained one of the same kind, and errs where the strong one errs, only more.
    One evaluation of each; a single one where w is 0 or 1 or t lies outside the interval, where the strong prediction
    is returned as it is. A learned variance is the strong prediction's. Both need the same schedule.
    """

    weak: Denoiser
    scale: float
    interval: Interval = None

    def __post_init__(self) -> None:
        _check(self.scale, self.interval)
        if self.weak.schedule != self.denoiser.schedule:
            raise ValueError(
                f"the weak model's schedule is {self.weak.schedule}, the model's {self.schedule}: "
                "take an earlier or smaller model of the same schedule"
            )

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return weak + w (strong - weak)."""
        t = as_time(t, self.schedule.num_steps)
        weight = _weight(self.scale, self.interval, t)
        if isinstance(weight, float) and weight in (0.0, 1.0):
            return (self.denoiser if weight else self.weak)(x_t, t, condition)
        return _between(self.weak(x_t, t, condition), self.denoiser(x_t, t, condition), weight)


@dataclass(frozen=True)
class _ByGradient(Wrapped):
    """Base of guidance by a gradient; the schedule must not end in pure noise."""

    log_prob: LogProb
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check(self.scale, None)
        if float(self.schedule(1.0).alpha) == 0.0:
            raise ValueError("a gradient moves x0 by sigma^2 / alpha, and this schedule ends at alpha = 0: use Guided")


@dataclass(frozen=True)
class ClassifierGuided(_ByGradient):
    """Classifier guidance: eps - w sigma grad log p(c | x_t) (Dhariwal and Nichol 2021, 2105.05233, Alg. 2).

    The denoiser gets the condition too; to hide it, wrap it: `Guided(denoiser, 0.0)`. At w = 1 an unconditional
    denoiser becomes the conditional one, and everything beyond is guidance. One evaluation of the denoiser, and one of
    the classifier, trained on noised images, with its gradient. The schedule must not end in pure noise.
    """

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict, and move the prediction up the classifier's gradient."""
        upwards = gradient(lambda x: self.log_prob(x, per_row(t, x, self.schedule), condition), x_t)
        return self.denoiser(x_t, t, condition).with_score(self.scale * upwards, self.schedule(t))


@dataclass(frozen=True)
class ImageGuided(_ByGradient):
    """Guidance by a function of clean images: eps - w sigma grad_{x_t} log p(c | x0(x_t)), the gradient taken through
    the denoiser (Bansal et al. 2023, 2302.07121).

    Any torch classifier works, also one that never saw noise; but E[x_0 | x_t] is not x_0, so this is an approximation
    unless little noise is left. One evaluation of the denoiser, with its gradient; otherwise as `ClassifierGuided`.
    """

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict, and move the prediction up the gradient at the predicted image."""
        prediction, pull = differentiable(self.denoiser, x_t, t, condition)
        upwards = gradient(lambda x0: self.log_prob(x0, per_row(t, x0, self.schedule), condition), prediction.x0)
        return prediction.with_score(self.scale * pull(upwards), self.schedule(t))


def _check(scale: float, interval: Interval) -> None:
    if not math.isfinite(scale):
        raise ValueError(f"scale = {scale}: give a finite number; 1 is no guidance and 2 a usual amount")
    if interval is not None and not 0.0 <= interval[0] < interval[1] <= 1.0:
        raise ValueError(f"interval = {interval}: give two times with 0 <= low < high <= 1")


def _weight(scale: float, interval: Interval, t: Tensor) -> float | Tensor:
    """w where low < t <= high and 1 elsewhere: a number, or (B,) float64 where the rows have times of their own."""
    if interval is None:
        return float(scale)
    low, high = interval
    if t.ndim:
        return torch.where((t > low) & (t <= high), float(scale), 1.0).double()
    return float(scale) if low < float(t) <= high else 1.0


def _between(start: Prediction, end: Prediction, weight: float | Tensor) -> Prediction:
    """start + weight (end - start) in x0 and eps, exact at 0 and 1; the rest is the end's."""

    def line(a: Tensor, b: Tensor) -> Tensor:
        return a.lerp(b, weight if isinstance(weight, float) else broadcast(weight, a))

    return replace(end, x0=line(start.x0, end.x0), eps=line(start.eps, end.eps))


def _std(x0: Tensor) -> Tensor:
    """The standard deviation over all coordinates of each image, (B, 1, ..., 1), at least a tiny number."""
    return broadcast(x0.flatten(1).std(1, correction=0).clamp(min=torch.finfo(x0.dtype).tiny), x0)
