"""What the tests of the mathematics share: every schedule, a few images, an exact test model."""

from __future__ import annotations

import torch

from sfumato.diffusion.chains import LogNoise, Table
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.schedule import Constant, Cosine, FlowPath, Linear, Quadratic, Shifted, Sigmoid, ZeroTerminalSNR

SCHEDULES = {
    "linear": Linear(),
    "linear-100": Linear(num_steps=100),
    "linear-20": Linear(num_steps=20),
    "cosine": Cosine(),
    "cosine-50": Cosine(num_steps=50),
    "sigmoid": Sigmoid(),
    "sigmoid-tau": Sigmoid(num_steps=200, start=0.0, end=3.0, tau=0.7),
    "quadratic": Quadratic(),
    "constant": Constant(),
    "flow": FlowPath(),
    "flow-30": FlowPath(num_steps=30),
    "table": Table(values=tuple(Linear(num_steps=40).betas().tolist())),
    "log-noise": LogNoise(num_steps=60),
    "zero-terminal": ZeroTerminalSNR(base=Linear()),
    "shifted": Shifted(Cosine(), -1.386),
}


def images(count: int = 4, shape: tuple[int, ...] = (2, 3, 5), seed: int = 0) -> torch.Tensor:
    """Float64 numbers that look like nothing in particular, from torch's own generator."""
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise(count: int, shape: tuple[int, ...] = (2, 3, 5), seed: int = 1) -> Noise:
    return Noise(seed, torch.arange(count), shape, dtype=torch.float64)


def random_function(x: torch.Tensor, time: torch.Tensor, condition: object = None) -> torch.Tensor:
    """A fixed smooth nonlinear map standing for a network: mixes positions, depends on time and on every input."""
    phase = time.double().reshape(-1, *[1] * (x.ndim - 1)) / 250
    rolled = x.roll(1, -1) * 0.6 - x.roll(1, -2) * 0.3
    return (torch.sin(1.3 * rolled + phase.to(x.dtype)) + 0.4 * x * torch.cos(phase.to(x.dtype))).to(x.dtype)


def two_headed(x: torch.Tensor, time: torch.Tensor, condition: object = None) -> torch.Tensor:
    """The random function with a variance: its second half is the fraction between the bounds."""
    output = random_function(x, time)
    return torch.cat([output, torch.tanh(output.roll(1, -1))], 1)


class Mute:
    """A source with a start and no noise."""

    def prior(self) -> torch.Tensor:
        return images(2)

    def step(self, i: int) -> torch.Tensor:
        raise AssertionError("asked")
