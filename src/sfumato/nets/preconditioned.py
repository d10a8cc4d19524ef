"""The preconditioning of score networks: a network that denoises at a noise level of its own, whatever the chain.

With noise sigma on the image, y = x_0 + sigma eps, the network inside sees c_in y and c_noise, and

    D(y; sigma) = c_skip y + c_out F(c_in y; c_noise)                                       2206.00364, Eq. 7, Table 1

    form    c_skip                   c_out                              c_in                       c_noise
    edm     s^2 / (sigma^2 + s^2)    sigma s / sqrt(sigma^2 + s^2)      1 / sqrt(sigma^2 + s^2)    factor ln sigma
    ve      1                        sigma                              1                          ln (sigma / 2)
    vp      1                        -sigma                             1 / sqrt(sigma^2 + 1)      (M - 1) t(sigma)

with s the standard deviation of the data, M = 1000, and t(sigma) the time at which the process of Song et al. (2021,
2011.13456, Eq. 32) has that noise: ln(1 + sigma^2) = (b - a) t^2 / 2 + a t, a = 0.1 and b = 20. D is the image, so the
parameterisation is x0. The x_t of this library is y divided by sqrt(1 + sigma^2), and its time counts steps, of which
the chain `log-noise` says the noise: its numbers are repeated here, since a network does not see the chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.diffusion.chains import LogNoise
from sfumato.diffusion.condition import Condition
from sfumato.nets.base import require
from sfumato.nets.protocol import Interface, Network, NetworkConfig
from sfumato.nets.unet.general import GeneralUNetConfig

FORMS = ("edm", "ve", "vp")
VP = (0.1, 19.9, 999.0)
"""Of the form `vp`: a, b - a and M - 1."""


@dataclass(frozen=True)
class PreconditionedConfig:
    """The configuration.

    Attributes:
        inner: the network inside.
        sigma_data: s, of the form `edm`.
        time_factor: of ln(sigma), for the time of the network inside; of the form `edm`.
        least: noise at the chain's first step.
        most: noise at its last.
        num_steps: of the chain.
        form: one of `FORMS`, see above.
    """

    inner: NetworkConfig = GeneralUNetConfig()
    sigma_data: float = 0.5
    time_factor: float = 0.25
    least: float = 0.002
    most: float = 80.0
    num_steps: int = 1000
    form: str = "edm"

    def __post_init__(self) -> None:
        require(
            not isinstance(self.inner, PreconditionedConfig), "net.inner is preconditioned itself: give another kind"
        )
        require(0 < self.sigma_data < math.inf, f"net.sigma_data is {self.sigma_data}: give a number above 0")
        require(0 < self.time_factor < math.inf, f"net.time_factor is {self.time_factor}: give a number above 0")
        require(self.form in FORMS, f"net.form is '{self.form}': choose from {', '.join(FORMS)}")
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
        log_sigma = self.config.chain.log_noise(time)
        sigma = log_sigma.exp().to(x.dtype)[:, None, None, None]
        y = x * (1 + sigma**2).sqrt()
        skip, out, into, noise = self._scalings(sigma, log_sigma)
        inner = self.inner(y * into, noise, condition, augment)
        image, rest = inner[:, : x.shape[1]], inner[:, x.shape[1] :]  # a learned variance is not touched
        return torch.cat([y * skip + image * out, rest], dim=1)

    def _scalings(self, sigma: Tensor, log_sigma: Tensor) -> tuple[Tensor | float, Tensor, Tensor | float, Tensor]:
        """c_skip, c_out, c_in and c_noise."""
        if self.config.form == "ve":
            return 1.0, sigma, 1.0, log_sigma - math.log(2)
        if self.config.form == "vp":
            low, rise, last = VP
            time = ((low**2 + 2 * rise * F.softplus(2 * log_sigma)).sqrt() - low) / rise
            return 1.0, -sigma, (1 + sigma**2).rsqrt(), last * time
        s = self.config.sigma_data
        total = sigma**2 + s**2
        return s**2 / total, sigma * s / total.sqrt(), 1 / total.sqrt(), self.config.time_factor * log_sigma

    def recomputable(self) -> list[nn.Module]:
        """Return the inner network's."""
        return self.inner.recomputable()

    def summary(self) -> str:
        """Return the inner network's, and the preconditioning."""
        return f"{self.inner.summary()}, preconditioned for noise of {self.config.least:g} to {self.config.most:g}"
