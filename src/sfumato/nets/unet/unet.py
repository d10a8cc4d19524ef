"""The U-Net that predicts the noise (or x_0, v, mu): DDPM appendix B, the CIFAR-10 and 256x256 networks of the paper.

To denoise a pixel the network needs its surroundings at every scale: nearby edges, the pose of a distant face. In a
U-Net (Ronneberger et al. 2015) each level on the way down works on an image half as high and wide as the level above,
with `multipliers[level] * base` channels. On the way up each block also reads, through a skip connection, the output of
the same level on the way down, so no fine detail is lost in the coarse middle:

    x -> conv -> [block, block, halve] -> ... -> [block, block] -> middle: block, attention, block
                     |  skips (a stack)                                            |
    eps <- conv <- [block, block, block] <- ... <- [block, block, block, double] <-+

The stack holds the outputs of the first convolution, of every down block and of every halving, so each level has
`blocks + 1` blocks on the way up. Self-attention follows the blocks of chosen levels and is in the middle.

Sizes. Each halving needs an even size. Other images are extended below and to the right by repeating their last row and
column up to the next multiple, and the output is cropped: every size is accepted.

Patches. With `patch` = p each square of p x p pixels becomes one pixel of p^2 times the channels at the entrance
(space-to-depth, Shi et al. 2016) and is turned back at the exit. The cost falls by about p^2; the finest detail is then
left to the first and the last convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.diffusion.condition import Condition
from sfumato.errors import plural
from sfumato.nets.base import Conditioned, extend, extended, require
from sfumato.nets.protocol import Interface
from sfumato.nets.unet.blocks import Downsample, ResidualBlock, SelfAttention, Upsample, norm, norm_silu

LARGEST_BASE = 4096
"""A wider network does not fit into any memory: such a number is a mistake."""


@dataclass(frozen=True)
class UNetConfig:
    """The configuration of a U-Net. The defaults are the published CIFAR-10 network: 35,746,307 parameters.

    Attributes:
        base: channels of the first level, even.
        multipliers: width of each level as a multiple of `base`; one level a number.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: levels with self-attention; 0 = full resolution (after patches), 1 = half, ...
        heads: heads of every self-attention.
        dropout: probability, in every residual block.
        patch: side of the squares of pixels that become channels at the entrance; 1 = none.
        groups: groups of every GroupNorm. They must divide every width and leave at least two channels a group: with
            one, the normalisation subtracts what the time vector added to that channel, and the block can't depend on
            the noise level.
    """

    base: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    heads: int = 1
    dropout: float = 0.1
    patch: int = 1
    groups: int = 32

    def __post_init__(self) -> None:
        """Raise `UserError`, naming the range, where a value is out of it."""
        for name in ("blocks", "heads", "patch", "groups"):
            require(getattr(self, name) >= 1, f"net.{name} is {getattr(self, name)}: give 1 or more")
        even = 4 <= self.base <= LARGEST_BASE and self.base % 2 == 0
        require(even, f"net.base is {self.base}: give an even number from 4 to {LARGEST_BASE}")
        require(
            len(self.multipliers) > 0 and min(self.multipliers) >= 1,
            f"net.multipliers is {self.multipliers}: give one whole number from 1 up for each level, such as (1, 2, 2)",
        )
        levels = len(self.multipliers)
        require(
            all(0 <= level < levels for level in self.attention),
            f"net.attention is {self.attention}, but net.multipliers has levels 0 to {levels - 1} only",
        )
        require(0 <= self.dropout < 1, f"net.dropout is {self.dropout}: give a probability from 0 to below 1")
        self._check_widths()

    def _check_widths(self) -> None:
        """Refuse groups and heads that don't divide the widths they act on."""
        shared = math.gcd(self.base, *self.widths)  # the entrance has `base` channels, whatever the first level has
        valid = [n for n in range(1, shared // 2 + 1) if shared % n == 0]
        require(
            self.groups in valid,
            f"net.groups is {self.groups}, but the widths {self.widths} (net.base times net.multipliers) need "
            f"groups of equal size with at least two channels: choose from {', '.join(map(str, valid))}",
        )
        for level in {*self.attention, len(self.widths) - 1}:
            require(
                self.widths[level] % self.heads == 0,
                f"net.heads is {self.heads}, which doesn't divide the {self.widths[level]} channels of level {level}: "
                "choose a divisor (the middle of the network attends too)",
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.base * multiplier for multiplier in self.multipliers)

    @property
    def entrance(self) -> int:
        """Channels after the first convolution."""
        return self.base

    @property
    def time_width(self) -> int:
        """Length of the time's row of sines and cosines."""
        return self.base

    @property
    def embedding(self) -> int:
        """Length of the vector that the blocks read."""
        return 4 * self.base

    @property
    def multiple(self) -> int:
        """Height and width are extended to a multiple of this: patch * 2^(levels - 1)."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))

    def inside(self, height: int, width: int) -> tuple[int, int]:
        """Return the next multiples of `multiple`; every size is taken."""
        return extended(height, self.multiple), extended(width, self.multiple)

    @property
    def least_tensors(self) -> int:
        """A lower bound on the number of weight tensors: each block has some."""
        return len(self.multipliers) * self.blocks

    def build(self, interface: Interface) -> UNet:
        """Return a new network."""
        return UNet(self, interface)

    # What a network of another library has in another form (`general`) is built here.

    def norm(self, width: int) -> nn.GroupNorm:
        """Return a normalisation."""
        return norm(width, self.groups)

    def block(self, inputs: int, outputs: int) -> nn.Module:
        """Return a residual block, (x, emb) -> x."""
        return ResidualBlock(inputs, outputs, self.embedding, self.dropout, self.groups)

    def attend(self, width: int) -> nn.Module:
        """Return a self-attention."""
        return SelfAttention(width, self.heads, self.groups)

    def attends(self, level: int, up: bool, last: bool) -> bool:
        """Whether attention follows a block of a level, on the way down or up; `last` is the level's last block."""
        return level in self.attention

    def middle_attention(self) -> nn.Module:
        """Return the attention between the blocks in the middle."""
        return self.attend(self.widths[-1])

    def halve(self, width: int) -> nn.Module:
        """Return what halves height and width, (x, emb) -> x."""
        return Downsample(width)

    def double(self, width: int) -> nn.Module:
        """Return what doubles height and width, (x, emb) -> x."""
        return Upsample(width)


class Stage(nn.Module):
    """One level on the way down or up: residual blocks, each followed by attention where the level has it, then
    `resample`. `inputs` are the channels that each block takes."""

    up = False

    def __init__(self, config: UNetConfig, level: int, inputs: list[int], resample: nn.Module | None) -> None:
        super().__init__()
        width, last = config.widths[level], len(inputs) - 1
        attends = [config.attends(level, self.up, index == last) for index in range(len(inputs))]
        self.blocks = nn.ModuleList(config.block(each, width) for each in inputs)
        self.attention = nn.ModuleList(
            config.attend(width) if attend else nn.Identity() for attend in attends if any(attends)
        )
        self.resample = resample

    def step(self, index: int, x: Tensor, emb: Tensor) -> Tensor:
        """Apply block `index` and the attention that follows it."""
        x = self.blocks[index](x, emb)
        if self.attention:
            x = self.attention[index](x)
        return x


class Down(Stage):
    """A stage on the way down: every result is also put on the stack of skips."""

    def forward(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Run the blocks, then halve."""
        for index in range(len(self.blocks)):
            x = self.step(index, x, emb)
            skips.append(x)
        if self.resample is not None:
            x = self.resample(x, emb)
            skips.append(x)
        return x


class Up(Stage):
    """A stage on the way up: every block also reads the newest skip, taken off the stack."""

    up = True

    def forward(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Run the blocks, then double."""
        x = self.across(x, emb, skips)
        return x if self.resample is None else self.resample(x, emb)  # type: ignore[no-any-return]

    def across(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Run the blocks."""
        for index in range(len(self.blocks)):
            x = self.step(index, torch.cat([x, skips.pop()], dim=1), emb)
        return x


class UNet(Conditioned):
    """The DDPM's noise predictor: an image and its time in, an image out.

    Weights start as published: uniform with variance 1 / fan average (Glorot, Bengio 2010), biases zero, and zero for
    the last layer of every residual branch and of the network, so that a fresh network returns exactly 0. Convolution
    weights are stored channels_last.
    """

    def __init__(self, config: UNetConfig, interface: Interface = Interface()) -> None:
        super().__init__(interface, config.time_width, config.embedding)
        self.config = config
        widths, levels = config.widths, len(config.widths)
        image = interface.channels * config.patch**2
        self.entrance = nn.Conv2d(image, config.entrance, 3, padding=1)

        skips, width = [config.entrance], config.entrance
        self.down = nn.ModuleList()
        for level in range(levels):
            last = level == levels - 1
            inputs = [width] + [widths[level]] * (config.blocks - 1)
            width = widths[level]
            self.down.append(Down(config, level, inputs, None if last else config.halve(width)))
            skips += [width] * (config.blocks + (not last))

        self.middle_1 = config.block(width, width)
        self.middle_attention = config.middle_attention()
        self.middle_2 = config.block(width, width)

        self.up = nn.ModuleList()
        for level in reversed(range(levels)):
            inputs = [n + skips.pop() for n in [width] + [widths[level]] * config.blocks]
            width = widths[level]
            self.up.append(Up(config, level, inputs, config.double(width) if level else None))

        self.norm = config.norm(width)
        self.exit = nn.Conv2d(width, interface.outputs * config.patch**2, 3, padding=1)
        self._initialise()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _initialise(self) -> None:
        """Draw the first weights, and zero the last layer of every branch."""
        self.draw_weights()
        for module in self.modules():
            if isinstance(module, SelfAttention):
                # Queries, keys and values are three layers held as one: each has the fan of its own.
                for part in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(part)
                nn.init.zeros_(module.out.weight)
            elif isinstance(module, ResidualBlock):
                nn.init.zeros_(module.conv_2.weight)
        nn.init.zeros_(self.exit.weight)

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Predict; any H and W. See `Network.forward`."""
        height, width = x.shape[-2:]
        emb = self.embed(time, condition, augment)
        x = F.pixel_unshuffle(extend(x, self.config.multiple), self.config.patch)
        x = self._levels(x.contiguous(memory_format=torch.channels_last), emb)
        return F.pixel_shuffle(x, self.config.patch)[..., :height, :width]

    def recomputable(self) -> list[nn.Module]:
        """Return the residual and attention blocks."""
        return [module for module in self.modules() if isinstance(module, ResidualBlock | SelfAttention)]

    def summary(self) -> str:
        """Return its levels, blocks and attention."""
        config = self.config
        levels = ", ".join(map(str, config.attention))
        attention = f"attention at level {levels}" if levels else "attention in the middle"
        patches = f", patches of {config.patch}x{config.patch}" if config.patch > 1 else ""
        return (
            f"U-Net with levels of {', '.join(map(str, config.widths))} channels, {plural(config.blocks, 'block')} "
            f"each, {attention}, dropout {config.dropout:g}{patches}"
        )

    def _levels(self, x: Tensor, emb: Tensor) -> Tensor:
        """Run the way down, the middle and the way up."""
        x, skips = self.way_down(x, emb)
        x = self.middle_2(self.middle_attention(self.middle_1(x, emb)), emb)
        return self.way_up(x, emb, skips)

    def way_up(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Return the network's output, from the result of the middle and the skips."""
        for stage in self.up:
            x = stage(x, emb, skips)
        out: Tensor = self.exit(norm_silu(self.norm, x))
        return out

    def way_down(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the result of the way down, and the outputs that blocks on the way up read, newest last."""
        x = self.entrance(x)
        skips = [x]
        for stage in self.down:
            x = stage(x, emb, skips)
        return x, skips
