r"""The training objective: how wrong is the denoiser, example by example.

Algorithm 1 of DDPM draws x_0 from the data, t ~ Uniform{1..T}, eps ~ N(0, I), and takes a gradient step on

    L_simple = || eps - eps_theta( alpha_t x_0 + sigma_t eps, t ) ||^2                                       DDPM Eq. 14

The objective here asks a `Denoiser`, not a network: the error of a prediction in any parameterisation's space is
p (x0^ - x_0) + q (eps^ - eps) (see `parameterization`), so the space in which the loss is measured and the one in
which the network speaks are two choices, and an exact oracle can be scored by the same code. Losses stay per example,
next to the t that produced them: curves by noise level and importance sampling cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Condition, Denoiser
from .parameterization import Eps, Parameterization, target
from .process import marginal

__all__ = ["Simple", "Terms", "times"]


@dataclass(frozen=True)
class Terms:
    """The loss of each example and the time that produced it.

    Attributes:
        loss: (B,), mean squared error over the coordinates of an example.
        t: (B,) float64 in (0, 1].
    """

    loss: Tensor
    t: Tensor


def times(u: Tensor, num_steps: int) -> Tensor:
    """Return t = (floor(u T) + 1) / T: uniform on the chain's steps 1/T .. 1 for u uniform in [0, 1).

    Args:
        u: (B,) float64 in [0, 1).
        num_steps: T.
    """
    return (torch.floor(u.to(torch.float64) * num_steps).clamp(max=num_steps - 1) + 1) / num_steps


@dataclass(frozen=True)
class Simple:
    """L_simple, measured in the space of a parameterisation (DDPM Eq. 14 for `Eps()`).

    Attributes:
        space: where the squared error is taken; usually the network's own parameterisation.
    """

    space: Parameterization = Eps()

    def __call__(self, denoiser: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, condition: Condition = None) -> Terms:
        """Return each example's loss, mean over coordinates of ( p (x0^ - x_0) + q (eps^ - eps) )^2.

        Args:
            denoiser: what is trained or scored.
            x_0: (B, C, H, W) in [-1, 1].
            t: (B,) in (0, 1].
            eps: (B, C, H, W) ~ N(0, I).
            condition: handed to the denoiser.
        """
        x_t = marginal(x_0, denoiser.schedule(t)).sample(eps)
        prediction = denoiser(x_t, t, condition)
        error = target(self.space, prediction.x0 - x_0, prediction.eps - eps, denoiser.schedule, t)
        return Terms(error.square().flatten(1).mean(1), t)
