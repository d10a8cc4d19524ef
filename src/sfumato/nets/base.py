"""What the networks share: the vector that their blocks read, the first weights, images of any size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.diffusion.condition import Condition
from sfumato.errors import UserError
from sfumato.nets.derived import Derives
from sfumato.nets.embedding import AlterationEmbedding, TimeEmbedding
from sfumato.nets.protocol import Interface, Network


class Conditioned(Network, Derives):
    """A network whose blocks read one vector, the sum of those of time, condition and alteration.

    Args:
        interface: what it must fit.
        dim: length of the time's row of sines and cosines.
        width: length of the vector.
    """

    def __init__(self, interface: Interface, dim: int, width: int) -> None:
        super().__init__()
        self.interface = interface
        self.time = TimeEmbedding(dim, width)
        self.condition = interface.vocabulary.embedding(width) if interface.vocabulary else None
        self.augment = AlterationEmbedding(interface.augment, width) if interface.augment else None

    def embed(self, time: Tensor, condition: Condition | None, augment: Tensor | None) -> Tensor:
        """Return the vector, (B, width), through the silu that every block would apply to it; raises as `combine`."""
        return F.silu(self.combine(time, condition, augment))

    def combine(self, time: Tensor, condition: Condition | None, augment: Tensor | None) -> Tensor:
        """Return the sum of the three vectors, (B, width).

        Raises:
            UserError: a condition for an unconditional network.
        """
        altered = None if augment is None or self.augment is None else self.augment(augment)
        given = None
        if self.condition is not None:
            num = time.shape[0]  # not len, which an export would make a constant
            given = self.once(self.condition, condition, num)
        elif condition is not None:
            raise UserError("the network was trained without labels: leave the label out, or set data.labels=source")
        return self.with_time(time, altered, given)

    def with_time(self, time: Tensor, altered: Tensor | None, given: Tensor | None) -> Tensor:
        """Return the sum of the time's vector and those of alteration and condition, (B, width), None for none."""
        emb = self.once(self.time, time)
        for vector in (altered, given):
            emb = emb if vector is None else emb + vector
        return emb

    def derive(self) -> tuple[Tensor, ...]:
        """Return nothing: what is kept here depends on time and condition too (`once`)."""
        return ()

    def draw_weights(self) -> None:
        """Draw the first weights: uniform with variance 1 / fan average (Glorot, Bengio 2010), biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                # About the time vector's scale at the start, so that neither dominates the other.
                nn.init.normal_(module.weight, std=0.25)


def require(good: bool, message: str) -> None:
    """Raise `UserError` with the message unless a value of a configuration is good."""
    if not good:
        raise UserError(message)


def extended(side: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is not below a side."""
    return -(-side // multiple) * multiple


def extend(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples; x itself where they are."""
    below, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
