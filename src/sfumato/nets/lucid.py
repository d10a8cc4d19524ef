"""The U-Net of the library denoising-diffusion-pytorch, in the forms that its versions from 1.0 have had.

It is a U-Net with another inside than the DDPM's. Attention follows the second block of every level: linear attention
(Shen et al. 2018, 1812.01243), whose cost grows with the pixels and not with their square, or full attention at chosen
levels. The normalisation comes after a convolution, not before it. Halving is space-to-depth and a 1x1 convolution, the
first convolution is 7x7, and its output is also read by a block at the end. Some keys and values of attention are
weights (`memory`).

    norm            rms    x / |x| sqrt(C) g over the channels (from 2.0)      group   GroupNorm (before)
    prenorm         rms    the same before attention (from 1.7.0)              layer   over the channels, without a bias
    standardised    the weights of convolutions standardised (Qiao et al. 2019, 1903.10520; before 1.7.2): 1e-5 `added`
                    to their variance, or that `clamped` at it (1.7.1)
    averaged        linear attention's values divided by the number of pixels (before 1.8.0)

It is here so that its checkpoints run and train on; new trainings are better off with `unet`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.diffusion.condition import Condition
from sfumato.nets.base import Conditioned, extend, extended, require
from sfumato.nets.protocol import Interface

NORMS, PRENORMS, STANDARDS = ("rms", "group"), ("rms", "layer"), ("none", "added", "clamped")
LARGEST = 4096


@dataclass(frozen=True)
class LucidConfig:
    """The configuration. Defaults are the library's own.

    Attributes:
        base: the unit of the widths, even.
        entrance: channels after the first convolution; 0 is `base`.
        multipliers: width of each level as a multiple of `base`; one level a number.
        full_attention: levels with full attention; the others have linear attention.
        heads: of the attention of each level.
        head_width: channels of a head at each level.
        memory: learned keys and values of each attention; 0 before version 1.9.
        norm: `rms` or `group`.
        groups: of GroupNorm.
        prenorm: before attention, `rms` or `layer`.
        standardised: the weights of the blocks' convolutions: `none`, `added` or `clamped`.
        averaged: linear attention divides its values by the number of pixels.
        theta: the time's slowest wave is slower than its fastest by this factor.
        dropout: probability, after each block's first convolution.
    """

    base: int = 64
    entrance: int = 0
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    full_attention: tuple[int, ...] = (3,)
    heads: tuple[int, ...] = (4, 4, 4, 4)
    head_width: tuple[int, ...] = (32, 32, 32, 32)
    memory: int = 4
    norm: str = "rms"
    groups: int = 8
    prenorm: str = "rms"
    standardised: str = "none"
    averaged: bool = False
    theta: float = 10000.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "entrance", self.entrance or self.base)
        levels = len(self.multipliers)
        for name in ("base", "entrance", "groups", *(f"multipliers {n}" for n in range(levels))):
            value = getattr(self, name, None) or self.multipliers[int(name.split()[-1])]
            require(1 <= value <= LARGEST, f"net.{name.split()[0]} is {value}: give 1 to {LARGEST}")
        require(levels > 0, "net.multipliers is empty: give a number for each level")
        require(self.base % 2 == 0 and self.base >= 4, f"net.base is {self.base}: give an even number from 4")
        for name in ("heads", "head_width"):
            values = getattr(self, name)
            require(
                len(values) == levels and all(1 <= value <= LARGEST for value in values),
                f"net.{name} is {values}: give a number from 1 to {LARGEST} for each of {levels} levels",
            )
        require(
            all(0 <= level < levels for level in self.full_attention),
            f"net.full_attention is {self.full_attention}, but there are levels 0 to {levels - 1} only",
        )
        require(0 <= self.memory <= LARGEST, f"net.memory is {self.memory}: give 0 to {LARGEST}")
        for name, choices in (("norm", NORMS), ("prenorm", PRENORMS), ("standardised", STANDARDS)):
            require(getattr(self, name) in choices, f"net.{name} is '{getattr(self, name)}': choose {choices}")
        require(0 <= self.dropout < 1, f"net.dropout is {self.dropout}: give a probability from 0 to below 1")
        require(1 < self.theta < math.inf, f"net.theta is {self.theta}: give a number above 1")
        if self.norm == "group":
            wrong = [width for width in (self.entrance, *self.widths) if width % self.groups]
            require(not wrong, f"net.groups is {self.groups}: it doesn't divide {wrong[:1]} channels")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.base * multiplier for multiplier in self.multipliers)

    @property
    def multiple(self) -> int:
        """Height and width are extended to a multiple of this."""
        return int(2 ** (len(self.multipliers) - 1))

    def inside(self, height: int, width: int) -> tuple[int, int]:
        """Return the next multiples of `multiple`; every size is taken."""
        return extended(height, self.multiple), extended(width, self.multiple)

    @property
    def least_tensors(self) -> int:
        """A lower bound on the number of weight tensors."""
        return 8 * len(self.multipliers)

    def build(self, interface: Interface) -> Lucid:
        """Return a new network."""
        return Lucid(self, interface)


class RMSNorm(nn.Module):
    """x / |x| sqrt(C) g, over the channels of each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # under autocast too
        out: Tensor = F.normalize(x, dim=1) * self.g * float(x.shape[1] ** 0.5)
        return out


class LayerNorm(RMSNorm):
    """(x - mean) / sqrt(var + 1e-5) g, over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.g


class Time(nn.Module):
    """The time as a vector: W_2 gelu(W_1 row + b_1) + b_2, the row its sines, then its cosines."""

    def __init__(self, config: LucidConfig) -> None:
        super().__init__()
        self.dim, self.theta = config.base, config.theta
        self.first = nn.Linear(config.base, 4 * config.base)
        self.second = nn.Linear(4 * config.base, 4 * config.base)

    def forward(self, time: Tensor) -> Tensor:
        """Map (B,) times to (B, 4 base), in the dtype of the weights."""
        half = self.dim // 2
        index = torch.arange(half, dtype=time.dtype, device=time.device)
        angle = time[:, None] * torch.exp(-math.log(self.theta) * index / (half - 1))
        row = torch.cat([angle.sin(), angle.cos()], dim=1).to(self.first.weight.dtype)
        out: Tensor = self.second(F.gelu(self.first(row)))
        return out


class Half(nn.Module):
    """silu(norm(conv(x)) (1 + scale) + shift), with dropout."""

    def __init__(self, config: LucidConfig, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = RMSNorm(outputs) if config.norm == "rms" else nn.GroupNorm(config.groups, outputs)
        self.standardised, self.dropout = config.standardised, dropout

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        weight = self.proj.weight
        if self.standardised != "none":
            variance, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
            variance = variance + 1e-5 if self.standardised == "added" else variance.clamp(min=1e-5)
            weight = (weight - mean) * variance.rsqrt()
        h: Tensor = self.norm(F.conv2d(x, weight, self.proj.bias, padding=1))
        if scale_shift is not None:
            h = torch.addcmul(scale_shift[1], h, scale_shift[0] + 1)
        return F.dropout(F.silu(h), self.dropout, self.training)


class Block(nn.Module):
    """x + two halves, the first scaled and shifted by W emb; a 1x1 convolution where the width changes."""

    def __init__(self, config: LucidConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = nn.Linear(4 * config.base, 2 * outputs)
        self.block1 = Half(config, inputs, outputs, config.dropout)
        self.block2 = Half(config, outputs, outputs, 0.0)
        self.res_conv = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) and emb (B, 4 base), already through its silu."""
        scale, shift = self.project(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.block2(self.block1(x, (scale, shift)))
        out: Tensor = h + self.res_conv(x)
        return out


class Attention(nn.Module):
    """x + attention of the normalised x, full or linear, with `memory` learned keys and values.

    full     softmax(q^T k / sqrt(d)) v            linear    (softmax_n(k) v^T)^T softmax_d(q) / sqrt(d)
    """

    def __init__(self, config: LucidConfig, width: int, level: int, linear: bool) -> None:
        super().__init__()
        self.heads, dim = config.heads[level], config.head_width[level]
        inner = self.heads * dim
        self.linear, self.averaged = linear, config.averaged
        self.norm = RMSNorm(width) if config.prenorm == "rms" else LayerNorm(width)
        shape = (dim, config.memory) if linear else (config.memory, dim)
        self.mem_kv = nn.Parameter(torch.randn(2, self.heads, *shape)) if config.memory else None
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        out = nn.Conv2d(inner, width, 1)
        after = RMSNorm(width) if config.prenorm == "rms" else LayerNorm(width)
        self.to_out: nn.Module = nn.Sequential(out, after) if linear else out

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        num, _, height, breadth = x.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(num, 3, self.heads, -1, height * breadth).unbind(1)
        if not self.linear:
            q, k, v = q.mT, k.mT, v.mT
        if self.mem_kv is not None:
            k, v = (
                torch.cat((known.expand(num, *known.shape), new), dim=3 if self.linear else 2)
                for known, new in zip(self.mem_kv, (k, v), strict=True)
            )
        if self.linear:
            v = v / (height * breadth) if self.averaged else v
            context = k.softmax(dim=3) @ v.mT
            mixed = context.mT @ (q.softmax(dim=2) * q.shape[2] ** -0.5)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v).mT
        out: Tensor = self.to_out(mixed.reshape(num, -1, height, breadth))
        return x + out


class Lucid(Conditioned):
    """The network of a `LucidConfig`; a fresh one returns 0."""

    def __init__(self, config: LucidConfig, interface: Interface = Interface()) -> None:
        super().__init__(interface, 4, 4 * config.base)
        self.config = config
        self.time = Time(config)  # type: ignore[assignment]
        self.entrance = nn.Conv2d(interface.channels, config.entrance, 7, padding=3)
        widths = [config.entrance, *config.widths]
        levels = range(len(config.widths))
        self.downs = nn.ModuleList(self._stage(config, widths, level, "down") for level in levels)
        middle = len(levels) - 1
        self.mid_block1 = Block(config, widths[-1], widths[-1])
        self.mid_attn = Attention(config, widths[-1], middle, linear=False)
        self.mid_block2 = Block(config, widths[-1], widths[-1])
        self.ups = nn.ModuleList(self._stage(config, widths, level, "up") for level in reversed(levels))
        self.last = Block(config, 2 * config.entrance, config.entrance)
        self.exit = nn.Conv2d(config.entrance, interface.outputs, 1)
        self.draw_weights()
        nn.init.zeros_(self.exit.weight)

    @staticmethod
    def _stage(config: LucidConfig, widths: list[int], level: int, way: str) -> nn.ModuleList:
        """Two blocks, attention, and what halves or doubles, a 3x3 convolution at the end of the way."""
        inner, outer = widths[level], widths[level + 1]
        width, more = (inner, 0) if way == "down" else (outer, inner)
        after: nn.Module
        if way == "down" and level < len(config.widths) - 1:
            after = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * inner, outer, 1))
        elif way == "up" and level > 0:
            after = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(outer, inner, 3, padding=1))
        else:
            after = nn.Conv2d(width, outer if way == "down" else inner, 3, padding=1)
        attention = Attention(config, width, level, linear=level not in config.full_attention)
        return nn.ModuleList([Block(config, width + more, width), Block(config, width + more, width), attention, after])

    def matrices(self) -> dict[str, nn.Parameter]:
        """Return the weights of its dense layers and convolutions between the edges and the last block."""
        inner = super().matrices().items()
        return {name: p for name, p in inner if name.endswith(".weight") and not name.startswith("last.")}

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Predict; any H and W. See `Network.forward`."""
        height, width = x.shape[-2:]
        emb = self.embed(time, condition, augment)
        x = first = self.entrance(extend(x, self.config.multiple))
        skips: list[Tensor] = []
        for block_1, block_2, attend, after in _stages(self.downs):
            x = block_1(x, emb)
            skips.append(x)
            x = attend(block_2(x, emb))
            skips.append(x)
            x = after(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, emb)), emb)
        for block_1, block_2, attend, after in _stages(self.ups):
            x = block_1(torch.cat((x, skips.pop()), dim=1), emb)
            x = after(attend(block_2(torch.cat((x, skips.pop()), dim=1), emb)))
        out: Tensor = self.exit(self.last(torch.cat((x, first), dim=1), emb))
        return out[..., :height, :width]

    def recomputable(self) -> list[nn.Module]:
        """Return the blocks and attentions."""
        return [module for module in self.modules() if isinstance(module, Block | Attention)]

    def summary(self) -> str:
        """Return its levels and attention."""
        full = ", ".join(map(str, self.config.full_attention)) or "none"
        widths = ", ".join(map(str, self.config.widths))
        return f"U-Net of denoising-diffusion-pytorch with levels of {widths} channels, full attention at level {full}"


def _stages(way: nn.ModuleList) -> list[list[nn.Module]]:
    """The stages of a way, each a list of its four modules."""
    return [list(stage.children()) for stage in way]
