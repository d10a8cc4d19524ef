"""What goes into the computation of a step, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.conditions.protocol import cycled
from sfumato.config.train import TrainConfig
from sfumato.data import Dataset
from sfumato.diffusion.condition import Condition
from sfumato.diffusion.level import exact_device
from sfumato.nets.replay import sent

Rates = Sequence[float] | Tensor
"""Numbers of a step: the learning rate, 1 - d_k of the average, and 1 - beta of each power-function average; (R,)
float32 on the device where a graph computes the step."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of the training stream: those of a whole batch, or of a rank's rows of it.

    Attributes:
        x: (b, C, H, W), stored values.
        condition: of each, with some left out; None where there are none.
        positions: (b,) int64, in the stream.
        t: (b,) float64.
        altered: how each image is altered, on the CPU (`augment`); None where none is.
    """

    x: Tensor
    condition: Condition | None
    positions: Tensor
    t: Tensor
    altered: Tensor | None

    def rows(self, rows: slice) -> Examples:
        """Return some of them."""
        if rows == slice(0, len(self.x)):
            return self
        index = torch.arange(rows.start, rows.stop, device=self.x.device)
        condition = None if self.condition is None else self.condition.take(index)
        altered = None if self.altered is None else self.altered[rows]
        return Examples(self.x[rows], condition, self.positions[rows], self.t[rows], altered)

    def to(self, device: torch.device) -> Examples:
        """Return them on a device; positions and times stay on the CPU where the device has no float64."""
        exact = exact_device(device)
        return Examples(
            sent(self.x, device),
            None if self.condition is None else self.condition.to(device),
            sent(self.positions, exact),
            sent(self.t, exact),
            self.altered,
        )


@dataclass(frozen=True, eq=False)
class Computed:
    """What a step computed, on the device.

    Attributes:
        losses: (B,) of each example of the whole batch.
        weighted: (B,) the same, weighted where t is not uniform, so that the mean is unbiased.
        norm: () the gradient's, before clipping.
        applied: () 1, or 0 where loss or gradient was not finite and nothing changed.
        forgiven: () 1 where nothing changed only because float16's loss scale was too great.
        norms: (P,) the gradient's norm of each weight.
    """

    losses: Tensor
    weighted: Tensor
    norm: Tensor
    applied: Tensor
    forgiven: Tensor
    norms: Tensor


def conditions_of_grid(data: Dataset, config: TrainConfig) -> Condition | None:
    """Return the conditions of a grid's images, which cycle through each value of each attribute.

    A network that always saw all attributes needs all of them: it gets the conditions of training images.
    """
    num, vocabulary = config.grid_images, data.vocabulary
    if vocabulary is None:
        return None
    if len(data.attributes) != 1 and config.label_dropout == 0:
        return data.rows(torch.from_numpy(data.train[:num]))[1]
    return cycled(vocabulary.every(), num)
