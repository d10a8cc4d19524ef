"""The interface between networks and the other packages.

    interface = Interface(channels=3, vocabulary=..., augment=0, learned_variance=False)    what it must fit
    net = config.net.build(interface)       `config.net` is a NetworkConfig
    net(x, time, condition, augment)        the prediction
    net.cost(height, width), net.summary()

A new network is one file with a configuration and a `Network`, and one line in `registry`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from sfumato.conditions.protocol import Vocabulary
from sfumato.diffusion.condition import Condition
from sfumato.nets.cost import Cost, activation_bytes, flops, parameters


@dataclass(frozen=True)
class Interface:
    """What a network must fit. It follows from the data and the process, so it is not part of a configuration.

    Attributes:
        channels: of x_0.
        vocabulary: its conditions; None where it has none.
        augment: how many numbers describe how a training image was altered; 0 for none.
        learned_variance: output twice the channels: the second half is the variance of the reverse step, a number in
            about [-1, 1] between its bounds (IDDPM, Sec. 3.1).
    """

    channels: int = 3
    vocabulary: Vocabulary | None = None
    augment: int = 0
    learned_variance: bool = False

    @property
    def outputs(self) -> int:
        """Output channels."""
        return self.channels * (2 if self.learned_variance else 1)


class Network(nn.Module, ABC):
    """Predicts an image from a noised one.

    Attributes:
        interface: what it was built to fit.
    """

    interface: Interface
    edges: tuple[str, ...] = ("time", "condition", "augment", "entrance", "exit")
    """The modules at its edges: they read or write what is not a feature of the network's own."""

    def matrices(self) -> dict[str, nn.Parameter]:
        """Return the weights with two axes or more between the edges, by name: those that Muon trains."""
        named = self.named_parameters()
        return {name: p for name, p in named if p.ndim >= 2 and name.split(".")[0] not in self.edges}

    @abstractmethod
    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Predict.

        Args:
            x: (B, C, H, W), in the dtype of the weights.
            time: (B,) floating point, in steps of the chain (0 .. T - 1).
            condition: B rows, as the vocabulary has them; None is unconditional.
            augment: (B, interface.augment), how the images were altered; None is unaltered.

        Returns:
            (B, interface.outputs, H, W).

        Raises:
            UserError: a condition for an unconditional network.
        """

    def recomputable(self) -> list[nn.Module]:
        """Return the modules whose activations may be computed again in place of being kept: their outputs depend on
        their inputs only. None by default."""
        return []

    @abstractmethod
    def summary(self) -> str:
        """Return a description of one line."""

    def cost(self, height: int, width: int) -> Cost:
        """Count what one image of x_0 costs, from the network's own modules; nothing is allocated."""
        shells = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in self.parameters()}
        blank = copy.deepcopy(self, shells)
        blank.to("meta")
        example = (torch.empty(1, self.interface.channels, height, width, device="meta"), torch.zeros(1, device="meta"))
        blank.requires_grad_(False)  # the counter fails on a view of a weight that has a gradient
        forward = flops(blank, example)
        matrices = sum(matrix.numel() for matrix in self.matrices().values())
        return Cost(parameters(self), matrices, forward, activation_bytes(blank.requires_grad_(True), example))


class NetworkConfig(Protocol):
    """The configuration of a network: a frozen dataclass, the branch `config.net`."""

    def build(self, interface: Interface) -> Network:
        """Return a new network, its weights drawn from torch's generator; `UserError` where it can't be built."""
        ...

    def inside(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which the network extends images; `UserError` where it takes no images of that size."""
        ...

    @property
    def least_tensors(self) -> int:
        """A lower bound on the number of weight tensors, found without building it: a guard against hostile headers."""
        ...
