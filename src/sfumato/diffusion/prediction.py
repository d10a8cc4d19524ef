"""A prediction: the image and the noise in a noisy image, as every denoiser returns and every sampler reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.diffusion.level import Level, broadcast

Later = Tensor | Callable[[], Tensor]
"""A tensor, or a function that computes it."""


class _OnRead:
    """A field that is computed when it is first read, where it was given as a function."""

    def __get__(self, owner: Any, kind: type | None = None) -> Tensor:
        if owner is None:
            raise AttributeError("the field has no default")  # as a dataclass asks for one
        value: Later = owner.__dict__["eps"]
        if not isinstance(value, Tensor):
            value = owner.__dict__["eps"] = value()
        return value

    def __set__(self, owner: Any, value: Later) -> None:
        owner.__dict__["eps"] = value


@dataclass(frozen=True)
class Prediction:
    """The predicted image and noise of a noisy image x_t = alpha x0 + sigma eps.

    Attributes:
        x0: (B, C, H, W), the predicted image (the mean of q(x_0 | x_t) where exact).
        eps: (B, C, H, W), the predicted noise. Given as a function it is computed when it is first read, since many
            samplers read the image only; so read it before you change x_t in place.
        fraction: (B, C, H, W), f in log variance = f log beta + (1 - f) log beta~ (IDDPM Eq. 15); None where the
            variance is not learned.
    """

    x0: Tensor
    eps: _OnRead = _OnRead()
    fraction: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields, eps computed: a function can't be pickled."""
        return {**self.__dict__, "eps": self.eps}

    def score(self, level: Level) -> Tensor:
        """Return the score, grad log q(x_t) = -eps / sigma, (B, C, H, W).

        Tweedie's formula: the best guess of x_0 is x_t moved up the log density by the variance of its noise,

            E[x_0 | x_t] = ( x_t + sigma^2 grad log q(x_t) ) / alpha

        (Robbins 1956; Luo 2022, Eq. 133), so image, noise and score are three ways to say one thing. It holds exactly
        where x0 and eps are the conditional means, as an oracle's are.
        """
        return -self.eps / level.like(self.eps).sigma

    def with_x0(self, x0: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """Return the prediction with another x0 and the eps that goes with it: eps = (x_t - alpha x0) / sigma."""
        return Prediction(
            x0, lambda: (x_t - broadcast(level.alpha, x_t) * x0) / broadcast(level.sigma, x_t), self.fraction
        )

    def with_score(self, gradient: Tensor, level: Level) -> Prediction:
        """Return the prediction with `gradient` added to its score: eps - sigma gradient, x0 + sigma^2/alpha gradient.

        These still explain x_t. Unchanged where alpha = 0: x_t says nothing about x_0 there.
        """
        level = level.like(self.x0)
        gradient = torch.where(level.alpha > 0, gradient, 0.0)
        x0 = self.x0 + level.sigma.square() / torch.where(level.alpha > 0, level.alpha, 1.0) * gradient
        return replace(self, x0=x0, eps=self.eps - level.sigma * gradient)

    def map(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        """Return the prediction with a function applied to each of its tensors."""
        fraction = None if self.fraction is None else function(self.fraction)
        return Prediction(function(self.x0), function(self.eps), fraction)
