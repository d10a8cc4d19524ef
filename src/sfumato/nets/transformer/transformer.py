"""A transformer that predicts the noise, x_0 or a velocity: a small DiT (Peebles and Xie 2022, 2212.09748).

The image is cut into patches of p x p pixels, each a token: a dense layer makes it a vector, blocks of attention and
dense layers work on all of them (see `blocks`), and a last dense layer makes each token the patch of the output.

    x -> patches -> dense + position -> block -> ... -> block -> norm, dense -> patches -> eps

Unlike the U-Net it has no notion of nearness but its positions, and one resolution, that of the patches. Its cost grows
with the number of tokens, and attention's with the square of it, so p should grow with the images: a side of 8 to 16
patches is usual (Li and He 2025, 2511.13720, keep 16 at any resolution and predict x_0, as `diffusion.parameterization`
= x0 does).

Sizes. Images are extended below and to the right by repeating their last row and column up to the next multiple of p,
and the output is cropped: every size is accepted, also one that it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.diffusion.condition import Condition
from sfumato.nets.base import Conditioned, extend, extended, require
from sfumato.nets.protocol import Interface
from sfumato.nets.transformer.blocks import Attention, Block, Exit, positions

LARGEST_WIDTH = 16_384
"""A wider network does not fit into any memory: such a number is a mistake."""


@dataclass(frozen=True)
class TransformerConfig:
    """The configuration of a transformer. The defaults are for images of 16x16 to 32x32 on a CPU; DiT-S is a width of
    384, a depth of 12 and 6 heads.

    Attributes:
        width: features of a token, a multiple of 4.
        depth: number of blocks.
        heads: heads of every attention; they divide the width.
        patch: side of the square of pixels that is a token.
        ratio: features inside a block's dense part, as a multiple of the width.
        dropout: probability, in both halves of every block.
    """

    width: int = 128
    depth: int = 6
    heads: int = 4
    patch: int = 2
    ratio: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raise `UserError`, naming the range, where a value is out of it."""
        for name in ("depth", "heads", "patch", "ratio"):
            require(getattr(self, name) >= 1, f"net.{name} is {getattr(self, name)}: give 1 or more")
        fits = 8 <= self.width <= LARGEST_WIDTH and self.width % 4 == 0
        require(fits, f"net.width is {self.width}: give a multiple of 4 from 8 to {LARGEST_WIDTH}")
        require(
            self.width % self.heads == 0,
            f"net.heads is {self.heads}, which doesn't divide net.width = {self.width}: choose a divisor",
        )
        require(0 <= self.dropout < 1, f"net.dropout is {self.dropout}: give a probability from 0 to below 1")

    def inside(self, height: int, width: int) -> tuple[int, int]:
        """Return the next multiples of `patch`; every size is taken."""
        return extended(height, self.patch), extended(width, self.patch)

    @property
    def least_tensors(self) -> int:
        """A lower bound on the number of weight tensors: a block has ten."""
        return 10 * self.depth

    def build(self, interface: Interface) -> Transformer:
        """Return a new network."""
        return Transformer(self, interface)


class Transformer(Conditioned):
    """A DiT: an image and its time in, an image out.

    Weights start uniform with variance 1 / fan average and biases zero; what modulates the blocks, and the last layer,
    start at zero, so that a fresh network returns exactly 0.
    """

    def __init__(self, config: TransformerConfig, interface: Interface = Interface()) -> None:
        super().__init__(interface, config.width, config.width)
        self.config = config
        width, area = config.width, config.patch**2
        self.entrance = nn.Linear(interface.channels * area, width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.ratio, config.dropout) for _ in range(config.depth)
        )
        self.exit = Exit(width, interface.outputs * area)
        self._initialise()

    def _initialise(self) -> None:
        self.draw_weights()
        for module in self.modules():
            if isinstance(module, Attention):
                # Queries, keys and values are three layers held as one: each has the fan of its own.
                for part in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(part)
            elif isinstance(module, Block | Exit):
                nn.init.zeros_(module.modulation.weight)
        nn.init.zeros_(self.exit.dense.weight)

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Predict; any H and W. See `Network.forward`."""
        height, width = x.shape[-2:]
        emb = self.embed(time, condition, augment)
        patches = F.pixel_unshuffle(extend(x, self.config.patch), self.config.patch)
        rows, columns = patches.shape[-2:]
        h = self.entrance(patches.flatten(2).transpose(1, 2))
        h = h + positions(rows, columns, self.config.width, h)
        for block in self.blocks:
            h = block(h, emb)
        out = self.exit(h, emb).transpose(1, 2).unflatten(2, (rows, columns))
        return F.pixel_shuffle(out, self.config.patch)[..., :height, :width]

    def recomputable(self) -> list[nn.Module]:
        """Return the blocks."""
        return list(self.blocks)

    def summary(self) -> str:
        """Return its width, depth, heads and patches."""
        config = self.config
        return (
            f"transformer of {config.depth} blocks of {config.width} features, {config.heads} heads, dropout "
            f"{config.dropout:g}, patches of {config.patch}x{config.patch}"
        )
