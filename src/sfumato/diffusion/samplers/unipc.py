r"""UniPC: a predictor, and a corrector that costs nothing (Zhao et al. 2023, 2302.04867).

As in `dpm`, x_s = sigma_s/sigma_t x_t + alpha_s int_0^h e^{-(h - u)} x0^ du with lambda = logsnr / 2 for time. Written
around the newest prediction m_0, with further ones m_i at u = r_i h,

    x_s = sigma_s/sigma_t x_t - alpha_s [ expm1(-h) m_0 + sum_i w_i (m_i - m_0) / r_i ]                      Eq. 3 and 9

and the integral is exact for polynomials through the points if sum_i w_i r_i^(k-1) = k! g_k for k = 1, 2, ..., where

    g_1 = expm1(-h)/(-h) - 1,        g_{k+1} = g_k/(-h) - 1/(k+1)!                                              Eq. 5

The paper writes w_i = B(h) a_i; B cancels, except where there is one point and a_1 = 1/2 is taken in place of g_1/B
(Sec. 3.2): w_1 = B(h)/2 with B = -h ("bh1") or expm1(-h) ("bh2").

The predictor (UniP-p) uses p predictions and arrives at x~_s. The next step evaluates the denoiser there anyway; its
answer m_s, at r = 1, is one point more, and the corrector (UniC-p) takes the step again with it. So the corrector works
on arrival: a step first corrects the image it starts from, with the prediction just made, and then predicts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.samplers.dpm import Predictions, stride, usable
from sfumato.diffusion.samplers.protocol import State


def _weights(ratios: Sequence[float], h: float, variant: str) -> list[float]:
    """The w_i of points at r_i h."""
    if len(ratios) < 2:
        return [(-h if variant == "bh1" else math.expm1(-h)) / 2 for _ in ratios]
    g, moments = math.expm1(-h) / -h - 1, []
    for k in range(1, len(ratios) + 1):
        moments.append(math.factorial(k) * g)
        g = g / -h - 1 / math.factorial(k + 1)
    powers = torch.tensor([[r**k for r in ratios] for k in range(len(ratios))], dtype=torch.float64)
    weights: list[float] = torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
    return weights


@dataclass(frozen=True, eq=False)
class _Step:
    """A step that can be taken again: from which image, over what interval, with which predictions, to which image."""

    start: Tensor
    ratio: float  # sigma_s / sigma_t
    alpha: float  # alpha_s
    h: float
    history: Predictions
    end: Tensor | None = None

    def take(self, variant: str, arrival: Tensor | None = None) -> Tensor:
        """Take the step, with the prediction made on arrival where there is one."""
        (lambda_0, m_0), *older = self.history
        points = [((past - lambda_0) / self.h, m) for past, m in older]
        if arrival is not None:
            points.append((1.0, arrival))
        image = -math.expm1(-self.h) * m_0
        for (r, m), w in zip(points, _weights([r for r, _ in points], self.h, variant), strict=True):
            image = image - (w / r) * (m - m_0)
        return self.ratio * self.start + self.alpha * image


@dataclass(frozen=True)
class UniPC:
    """UniPC-p with the data prediction (Zhao et al. 2023, 2302.04867, Alg. 5 and 6). Order p + 1, one evaluation a
    step.

    The predictor combines p predictions, 1 to 3; the first steps use those made so far. The last step, s = 0, is of
    first order and returns the image predicted at x~_t, for the reasons in `dpm`. A first step from pure noise (alpha =
    0) is of first order too; it is not corrected, nor its prediction kept. `variant` is B(h); the paper prefers bh1
    unguided in very few steps.

    The state's image is the predictor's x~; the corrected image exists only inside the next step, which corrects the
    very tensor that this one returned. A caller that changes x between steps loses the correction of that step only.
    """

    p: int = 2
    variant: Literal["bh1", "bh2"] = "bh2"

    in_logsnr: ClassVar[bool] = True  # see `grid.grid_for`
    evaluations: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.p not in (1, 2, 3):
            raise ValueError(f"p = {self.p}: UniPC combines 1, 2 or 3 predictions")
        if self.variant not in ("bh1", "bh2"):
            raise ValueError(f"variant = {self.variant!r}: UniPC's B(h) is bh1 or bh2")

    @property
    def order(self) -> int:
        """p + 1: the corrector adds one to the predictor's."""
        return self.p + 1

    def step(
        self, denoiser: Denoiser, state: State, s: float, noise: NoiseSource, condition: Condition | None = None
    ) -> State:
        """Correct the image at state.t with the prediction made there, then predict the one at s."""
        level_s, level_t, lambda_t, h = stride(denoiser.schedule, s, state.t)
        prediction = denoiser(state.x, state.t, condition)
        x: Tensor = state.x
        history: Predictions = ()
        for last in state.history:
            history = usable(last.history, lambda_t)
            if last.end is state.x and math.isfinite(last.h):
                x = last.take(self.variant, prediction.x0)
        history = ((lambda_t, prediction.x0), *history)[: 1 if math.isinf(h) else self.p]
        step = _Step(x, float(level_s.sigma / level_t.sigma), float(level_s.alpha), h, history)
        x_s = step.take(self.variant)
        return State(x_s, s, state.step + 1, prediction, (replace(step, end=x_s),))
