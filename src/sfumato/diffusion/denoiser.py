r"""A denoiser predicts, from a noisy image and its time, the image and the noise that it was made of.

    (x_t, t, condition) -> Prediction(x0, eps),        x_t = alpha_t x0 + sigma_t eps

How a network is parameterised is decided inside `NetworkDenoiser`; samplers, likelihoods and edits see predictions
only. An exact oracle is a denoiser too, and so is a wrapper that clips or guides another denoiser. A wrapper has the
type of what it wraps, so wrappers compose in any order.

A prediction is consistent: x0 and eps explain the given x_t exactly. Code that changes one recomputes the other
(`Prediction.with_x0`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.level import broadcast
from sfumato.diffusion.parameterization import Eps, Parameterization, inverse
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.schedule import Schedule, noisy

Network = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""(x_t (B, C, H, W), time (B,), condition) -> output (B, C, H, W)."""

_MOST_KNOWN = 1024


class Denoiser(Protocol):
    """Anything that predicts; implementations are frozen values."""

    @property
    def schedule(self) -> Schedule:
        """The schedule to which the times `t` belong."""

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict x_0 and eps for x_t (B, C, H, W), t in (0, 1], a float or (B,), and an optional condition."""


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network with its schedule and parameterisation.

    A network with twice the image's channels predicts its variance too: the second half, f' in about [-1, 1], becomes
    the fraction f = (f' + 1) / 2 of the way from log beta~ to log beta (IDDPM Sec. 3.1).

    The network's time is t T - 1, so that step i of the chain arrives as i - 1: published networks count 0..T - 1. For
    images of half precision, which has no 515, it is float32.

    Raises:
        ValueError: eps-prediction on a schedule whose end is pure noise, where eps says nothing about x_0.
    """

    net: Network
    schedule: Schedule
    parameterization: Parameterization
    _known: dict[Any, tuple[Tensor, list[Any]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.parameterization, Eps) and float(self.schedule(1.0).alpha) == 0.0:
            raise ValueError("eps-prediction cannot recover x_0 where x_T is pure noise: use v- or x0-prediction")

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Run the network once and solve for x0 and eps."""
        steps, (a, b, c, d) = self._at(noisy(t, x_t, self.schedule), x_t)
        output = self.net(x_t, steps, condition)
        fraction = None
        if output.shape[1] == 2 * x_t.shape[1]:
            output, fraction = output.chunk(2, dim=1)
            fraction = (fraction + 1) / 2
        return Prediction(a * x_t - b * output, lambda: c * output - d * x_t, fraction)

    def _at(self, time: Tensor | float, x_t: Tensor) -> tuple[Tensor, list[Any]]:
        """The network's time of each row, (B,), and the coefficients of `inverse` to multiply x_t and the output by.
        Those of one time for all rows are kept, since a sampler returns to it with every batch."""
        dtype = torch.promote_types(x_t.dtype, torch.float32)
        if isinstance(time, Tensor):
            values = inverse(self.parameterization, self.schedule, time)
            steps = (time * self.schedule.num_steps - 1).to(dtype).to(x_t.device).expand(len(x_t)).contiguous()
            return steps, [broadcast(value, x_t) for value in values]
        key = time, x_t.dtype, x_t.device, len(x_t)
        if (known := self._known.get(key)) is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            values = inverse(self.parameterization, self.schedule, torch.tensor(time, dtype=torch.float64))
            like, step = torch.empty((), dtype=x_t.dtype), time * self.schedule.num_steps - 1
            with torch.inference_mode(False):
                steps = torch.full((len(x_t),), step, dtype=dtype, device=x_t.device)
            known = self._known[key] = steps, [float(broadcast(value, like)) for value in values]
        return known


@dataclass(frozen=True, eq=False)
class Wrapped:
    """Base of the denoisers that wrap another one and share its schedule."""

    denoiser: Denoiser

    @property
    def schedule(self) -> Schedule:
        """The inner denoiser's schedule."""
        return self.denoiser.schedule


def to_unit_range(x0: Tensor) -> Tensor:
    """Return x0 clamped to [-1, 1]."""
    return x0.clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Counted(Wrapped):
    """A denoiser that calls `tick` with the size of each batch."""

    tick: Callable[[int], None]

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict and report."""
        prediction = self.denoiser(x_t, t, condition)
        self.tick(len(x_t))
        return prediction


@dataclass(frozen=True)
class Clipped(Wrapped):
    """A denoiser whose predicted image is projected onto what images can be, by default clamped to [-1, 1] (DDPM)."""

    clip: Callable[[Tensor], Tensor] = to_unit_range

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict, clip x0 and make eps consistent."""
        prediction = self.denoiser(x_t, t, condition)
        return prediction.with_x0(self.clip(prediction.x0), x_t, self.schedule(t))


@dataclass(frozen=True)
class Thresholded(Wrapped):
    """A denoiser whose predicted image is brought into [-1, 1] by its own scale: dynamic thresholding (Saharia et al.
    2022, 2205.11487, Sec. 2.3).

    s = the percentile of |x0| over all coordinates of an image, at least 1;  x0 <- clamp(x0, -s, s) / s

    Where guidance pushes many values out of range, clamping them to 1 would leave flat, saturated areas; dividing
    keeps their differences. An image with no more than the percentile, a fraction in (0, 1], out of range is clipped.
    `ceiling`, at least 1, is the greatest s; a ceiling of 1 is plain clipping.
    """

    percentile: float = 0.995
    ceiling: float = math.inf

    def __post_init__(self) -> None:
        if not 0.0 < self.percentile <= 1.0:
            raise ValueError(f"percentile = {self.percentile}: give a fraction above 0 and at most 1, such as 0.995")
        if not self.ceiling >= 1.0:
            raise ValueError(f"ceiling = {self.ceiling}: give 1 or more; 1 is plain clipping")

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict, bring x0 into [-1, 1] and make eps consistent."""
        prediction = self.denoiser(x_t, t, condition)
        s = _quantile(prediction.x0.abs().flatten(1), self.percentile).clamp(1.0, self.ceiling)
        s = broadcast(s, x_t)
        return prediction.with_x0(prediction.x0.clamp(-s, s) / s, x_t, self.schedule(t))


def _quantile(values: Tensor, fraction: float) -> Tensor:
    """The quantile of each row, (B, n) -> (B,): `torch.quantile` has a largest size, and no half precision."""
    position = fraction * (values.shape[1] - 1)
    below = math.floor(position)
    largest = values.topk(values.shape[1] - below).values
    low, high = largest[:, -1], largest[:, -2 if largest.shape[1] > 1 else -1]
    return low.lerp(high, position - below)


def _variable(x: Tensor) -> tuple[Tensor, bool]:
    """x as something to differentiate by, and whether the caller records gradients of the result."""
    further = torch.is_grad_enabled() and x.requires_grad
    return (x if further else x.clone().detach().requires_grad_()), further


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the gradient of the sum of `function` at x.

    It works inside `torch.no_grad` and `torch.inference_mode`, where samplers run; where the caller records gradients
    (another wrapper around this one) they continue through it.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x, further = _variable(x)
        (result,) = torch.autograd.grad(function(x).sum(), x, create_graph=further)
    return result


def differentiable(
    denoiser: Denoiser, x_t: Tensor, t: Tensor | float, condition: Condition | None
) -> tuple[Prediction, Callable[[Tensor], Tensor]]:
    """Return a prediction, and u -> J^T u for J = d x0 / d x_t; gradients as in `gradient`. Raises ValueError where the
    denoiser's output has none."""
    with torch.inference_mode(False), torch.enable_grad():
        x, further = _variable(x_t)
        prediction = denoiser(x, t, condition)
    if not prediction.x0.requires_grad:
        raise ValueError("this denoiser cannot be differentiated: use RePaint or a torch network that has gradients")

    def pull(u: Tensor) -> Tensor:
        (pulled,) = torch.autograd.grad(prediction.x0, x, u, retain_graph=True, create_graph=further)
        return pulled

    return (prediction if further else prediction.map(Tensor.detach)), pull
