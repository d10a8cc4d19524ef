"""EDM's preconditioning around a network: it denoises at a noise level of its own, whatever the chain.

With noise sigma on the image, y = x_0 + sigma eps, the network inside sees c_in y and ln(sigma) / 4, and

    D(y; sigma) = c_skip y + c_out F(c_in y; ln(sigma) / 4)                                  2206.00364, Eq. 7, Table 1

    c_skip = s^2 / (sigma^2 + s^2)      c_out = sigma s / sqrt(sigma^2 + s^2)      c_in = 1 / sqrt(sigma^2 + s^2)

with s the standard deviation of the data. D is the image, so the parameterisation is x0. The x_t of this library is y
divided by sqrt(1 + sigma^2), and its time counts steps, of which the chain `log-noise` says the noise: its numbers are
repeated here, since a network does not see the chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.diffusion.chains import LogNoise
from sfumato.diffusion.condition import Condition
from sfumato.nets.base import require
from sfumato.nets.protocol import Interface, Network, NetworkConfig
from sfumato.nets.unet.general import GeneralUNetConfig


@dataclass(frozen=True)
class PreconditionedConfig:
    """The configuration.

    Attributes:
        inner: the network inside.
        sigma_data: s.
        time_factor: of ln(sigma), for the network's time.
        least: noise at the chain's first step.
        most: noise at its last.
        num_steps: of the chain.
    """

    inner: NetworkConfig = GeneralUNetConfig()
    sigma_data: float = 0.5
    time_factor: float = 0.25
    least: float = 0.002
    most: float = 80.0
    num_steps: int = 1000

    def __post_init__(self) -> None:
        require(
            not isinstance(self.inner, PreconditionedConfig), "net.inner is preconditioned itself: give another kind"
        )
        require(0 < self.sigma_data < math.inf, f"net.sigma_data is {self.sigma_data}: give a number above 0")
        require(0 < self.time_factor < math.inf, f"net.time_factor is {self.time_factor}: give a number above 0")
        try:
            _ = self.chain
        except ValueError as error:
            require(False, f"net: {error}")

    @property
    def chain(self) -> LogNoise:
        """The chain that it fits: `diffusion.schedule` must be it."""
        return LogNoise(self.num_steps, self.least, self.most)

    def inside(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which the inner network extends images."""
        return self.inner.inside(height, width)

    @property
    def least_tensors(self) -> int:
        """A lower bound on the number of weight tensors."""
        return self.inner.least_tensors

    def build(self, interface: Interface) -> Preconditioned:
        """Return a new network."""
        return Preconditioned(self, interface)


class Preconditioned(Network):
    """The network of a `PreconditionedConfig`; it returns x_0."""

    def __init__(self, config: PreconditionedConfig, interface: Interface) -> None:
        super().__init__()
        self.config, self.interface = config, interface
        self.inner = config.inner.build(interface)

    def matrices(self) -> dict[str, nn.Parameter]:
        """Return the inner network's, by their names here."""
        return {f"inner.{name}": matrix for name, matrix in self.inner.matrices().items()}

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Predict x_0, and the variance where it is learned; see `Network.forward`."""
        s = self.config.sigma_data
        log_sigma = self.config.chain.log_noise(time)
        sigma = log_sigma.exp().to(x.dtype)[:, None, None, None]
        y, total = x * (1 + sigma**2).sqrt(), sigma**2 + s**2
        inner = self.inner(y / total.sqrt(), self.config.time_factor * log_sigma, condition, augment)
        image, rest = inner[:, : x.shape[1]], inner[:, x.shape[1] :]  # a learned variance is not touched
        return torch.cat([y * (s**2 / total) + image * (sigma * s / total.sqrt()), rest], dim=1)

    def recomputable(self) -> list[nn.Module]:
        """Return the inner network's."""
        return self.inner.recomputable()

    def summary(self) -> str:
        """Return the inner network's, and the preconditioning."""
        return f"{self.inner.summary()}, preconditioned for noise of {self.config.least:g} to {self.config.most:g}"
