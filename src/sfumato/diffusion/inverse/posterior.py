r"""Posterior sampling: denoisers corrected by the gradient of log p(y | x_t).

Given y = A x_0 + s_y n, the score of the conditional process is the unconditional one plus that of the likelihood
(Bayes), so a prediction is corrected by g = grad_{x_t} log p(y | x_t) (`Prediction.with_score`):

    eps' = eps - sigma_t g,        x0' = x0 + sigma_t^2 / alpha_t g

The corrected prediction is a denoiser like any other: it works with any sampler, under any clipping, around any
guidance. With g exact it is E[x_0 | x_t, y]. It is seldom exact: p(y | x_t) averages p(y | x_0) over p(x_0 | x_t).
Approximating the latter by a Gaussian with the predicted mean and some covariance V gives

    p(y | x_t) = N( y; A x0^, A V A^T + s_y^2 I ),        g = J^T A^T ( A V A^T + s_y^2 I )^-1 (y - A x0^),

J = d x0^ / d x_t, and the methods differ in V:

    DPS               V = 0, and a step size instead of 1 / s_y^2                   Chung et al. 2022, 2209.14687
    PiGDM             V = r_t^2 I, or any diagonal that is known                    Song et al. 2023, ICLR
    MomentMatching    V = sigma_t^2 / alpha_t J, which is Cov[x_0 | x_t] itself      2310.06721, 2405.13712

The last line is Tweedie's formula once more: differentiating E[x_0 | x_t] by x_t gives alpha_t / sigma_t^2 Cov[x_0 |
x_t]. All three treat V as constant when they differentiate, which is exact where the data are Gaussian.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Wrapped, differentiable
from sfumato.diffusion.inverse.operators import LinearOperator
from sfumato.diffusion.inverse.solvers import minimal_residual
from sfumato.diffusion.level import Level, broadcast
from sfumato.diffusion.oracle import posterior_variance
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import step_variance
from sfumato.diffusion.schedule import per_row


@dataclass(frozen=True, eq=False)
class _Posterior(Wrapped, ABC):
    """A denoiser, which must have a gradient, corrected towards y (1 or B, ...): g = J^T A^T u.

    `noise_std` is s_y, in the units of x_0; 0 for a measurement without noise.
    """

    operator: LinearOperator
    y: Tensor
    noise_std: float = 0.0

    def __post_init__(self) -> None:
        if not (self.noise_std >= 0 and math.isfinite(self.noise_std)):
            raise ValueError(f"noise_std = {self.noise_std}: the measurement's standard deviation is at least 0")

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Predict, and correct the prediction towards y."""
        prediction, pull = differentiable(self.denoiser, x_t, t, condition)
        residual = self.y.to(x_t) - self.operator.forward(prediction.x0)
        solved = self._solved(x_t, residual, per_row(t, x_t, self.schedule), pull)
        return prediction.with_score(pull(self.operator.adjoint(solved)), self.schedule(t))

    @abstractmethod
    def _solved(self, x_t: Tensor, residual: Tensor, t: Tensor, pull: Callable[[Tensor], Tensor]) -> Tensor:
        """Return u for residuals y - A x0^ (B, ...) at t (B,); pull(u) is J^T u."""


@dataclass(frozen=True, eq=False)
class DPS(_Posterior):
    r"""Diffusion posterior sampling (Chung et al. 2022, 2209.14687, Alg. 1) as a denoiser.

    DPS takes p(y | x_t) for p(y | x0^), but replaces 1 / s_y^2 by a step size `scale` (zeta', 0.1 to 1 in the paper):
    every step of the chain also moves the image by -scale grad |y - A x0^|. (The paper's formula is twice that; its
    published code is this.) An ancestral step t -> s of the trained chain moves by beta_t / sqrt(1 - beta_t) g when a
    gradient g is added to the score. So the same move is the score

        g = -scale sqrt(1 - beta_t) / beta_t grad |y - A x0^|,        beta_t of the trained chain:

    T ancestral steps are DPS exactly, and any other sampler or grid follows the same field. Only the likelihood's
    direction is kept: no value of `scale` makes DPS right, not even on Gaussian data.

    Where the residual is below what the noise explains, |y - A x0^| < s_y sqrt(m) for m measured numbers, it is divided
    by that instead, so that the correction vanishes where y is reproduced; with noise_std = 0 it is the paper's.
    """

    scale: float = 0.5

    def _solved(self, x_t: Tensor, residual: Tensor, t: Tensor, pull: Callable[[Tensor], Tensor]) -> Tensor:
        # of a mask's y only the known part counts, and elsewhere the residual is exactly 0
        measured = (residual != 0).flatten(1).sum(1)
        length = torch.maximum(residual.flatten(1).norm(dim=1), self.noise_std * measured.sqrt().to(residual))
        level_t, level_s = self.schedule(t), self.schedule((t - 1 / self.schedule.num_steps).clamp(min=0.0))
        beta = step_variance(level_s, level_t)
        weight = self.scale * level_t.alpha / level_s.alpha / beta
        return broadcast(weight.to(length) / torch.where(length > 0, length, 1.0), residual) * residual


@dataclass(frozen=True)
class PriorVariance:
    """Var[x_0 | x_t] of white Gaussian data of variance v: PiGDM's guess for images.

    v = 1 is the paper's choice, r_t^2 = sigma^2 / (alpha^2 + sigma^2) = sigma^2.
    """

    variance: float = 1.0

    def __call__(self, level: Level) -> Tensor:
        """Return r_t^2 in the level's shape, float64."""
        return posterior_variance(torch.tensor(self.variance, dtype=torch.float64), level)


@dataclass(frozen=True, eq=False)
class PiGDM(_Posterior):
    r"""Pseudoinverse-guided diffusion (Song et al. 2023, ICLR, Eq. 7-8): p(y | x_t) = N( A x0^, A V A^T + s_y^2 I ).

    V is diagonal and depends on the level alone. With noise_std = 0 and V = r_t^2 I the gradient is r_t^-2 J^T A+ (y -
    A x0^), which gives the method its name. The paper's further weight on it belongs to its DDIM step and makes the
    result another than a posterior's; here the gradient is the likelihood's own.

    `posterior_variance` returns V at a level, as that of `Optimal` does: the paper's guess by default;
    `MeasuredVariance` of a trained model; `GaussianOracle.posterior_variance`, with which it is exact.
    """

    posterior_variance: Callable[[Level], Tensor] = PriorVariance()

    def _solved(self, x_t: Tensor, residual: Tensor, t: Tensor, pull: Callable[[Tensor], Tensor]) -> Tensor:
        v = self.posterior_variance(self.schedule(t).shaped(x_t)).to(residual)
        return self.operator.solve(residual, v, self.noise_std**2)


@dataclass(frozen=True, eq=False)
class MomentMatching(_Posterior):
    r"""The posterior with the denoiser's own covariance, V = Cov[x_0 | x_t] = sigma_t^2 / alpha_t J (TMPD, 2310.06721;
    MMPS, 2405.13712).

    Exact wherever p(x_0 | x_t) is Gaussian, so on any Gaussian data, and the best Gaussian for the others. J is never
    formed: (A V A^T + s_y^2 I) u = y - A x0^ is solved by iteration, with one product with J each, a backward pass
    through the network; as many as y has numbers are exact. A trained network's J is only nearly symmetric and
    positive, where conjugate gradients fail (five of them are worse than one on a network of ours); a few minimal
    residuals are enough. A little noise_std (1e-2) keeps the system well conditioned.

    However large a network's J is at high noise, the correction as A sees it, A V A^T (A V A^T + s_y^2 I)^-1 (y - A
    x0^), is no longer than the residual where J is positive: V stands on both sides.
    """

    noise_std: float = 0.01
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"iterations = {self.iterations}: the solution needs at least 1")

    def _solved(self, x_t: Tensor, residual: Tensor, t: Tensor, pull: Callable[[Tensor], Tensor]) -> Tensor:
        level = self.schedule(t)
        gain = torch.where(level.alpha > 0, level.sigma.square() / level.alpha, 0.0)

        def covariance(u: Tensor) -> Tensor:
            pulled = pull(self.operator.adjoint(u))
            return self.operator.forward(broadcast(gain, pulled) * pulled) + self.noise_std**2 * u

        return minimal_residual(covariance, residual, self.iterations)
