"""The hourglass transformer of k-diffusion, its `image_transformer_v2` (HDiT: Crowson et al. 2024, 2401.11605).

A transformer with levels like a U-Net's: tokens are patches; between two levels 2x2 tokens become one, and on the way
up one becomes four, mixed with those of the way down by a learned fraction. Each layer is attention and a feed-forward
block,

    x + W_o attention( norm(x, cond) ),   x + W_2 geglu( W_1 norm(x, cond) ),   norm(x, cond) = x / rms(x) (1 + W cond)

with queries and keys of fixed length (cosine similarity, a learned scale a head), rotated by their positions in -1 to 1
(axial RoPE). Attention is over all tokens (`global`), over windows, shifted by half in every second layer (`window`),
over the nearest tokens (`neighborhood`), or there is none. `cond` comes from the time's random waves through a small
network.

Neighbourhoods are computed as a mask over all tokens, which is exact, and slow for large images; k-diffusion has a
kernel for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.diffusion.condition import Condition
from sfumato.nets.base import Conditioned, extend, extended, require
from sfumato.nets.protocol import Interface

KINDS = ("global", "window", "neighborhood", "none")
LARGEST = 16_384


@dataclass(frozen=True)
class HourglassConfig:
    """The configuration; one number a level, from the finest to the middle.

    Attributes:
        widths: channels.
        depths: layers, on the way down and again on the way up.
        feed: inner channels of the feed-forward blocks.
        attention: one of `KINDS`.
        reach: side of a window or a neighbourhood in tokens; not used by the others.
        head_width: channels of a head, a multiple of 8.
        patch: side of the squares of pixels that are tokens.
        mapping: channels of `cond`.
        mapping_depth: blocks of the network that makes it.
        mapping_feed: their inner channels.
        dropout: probability, in every block.
        time_factor: the time is multiplied by it.
    """

    widths: tuple[int, ...] = (128, 256)
    depths: tuple[int, ...] = (2, 4)
    feed: tuple[int, ...] = (384, 768)
    attention: tuple[str, ...] = ("neighborhood", "global")
    reach: tuple[int, ...] = (7, 0)
    head_width: tuple[int, ...] = (64, 64)
    patch: int = 4
    mapping: int = 256
    mapping_depth: int = 2
    mapping_feed: int = 768
    dropout: float = 0.0
    time_factor: float = 0.001

    def __post_init__(self) -> None:
        for name in ("widths", "depths", "feed", "attention", "reach", "head_width"):
            count = len(getattr(self, name))
            require(count == len(self.widths) > 0, f"net.{name} has {count} values for {len(self.widths)} levels")
        for name in ("widths", "depths", "feed", "head_width", "patch", "mapping", "mapping_depth", "mapping_feed"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            require(all(1 <= n <= LARGEST for n in values), f"net.{name} is {value}: give 1 to {LARGEST}")
        for level, kind in enumerate(self.attention):
            require(kind in KINDS, f"net.attention has '{kind}': choose from {', '.join(KINDS)}")
            width, head, reach = self.widths[level], self.head_width[level], self.reach[level]
            good = kind == "none" or (head % 8 == 0 and width % head == 0)
            require(good, f"net.head_width is {head}: give a multiple of 8 that divides {width}")
            odd = kind != "neighborhood" or reach % 2 == 1
            require(odd, f"net.reach is {reach}: a neighbourhood has an odd side")
            require(kind != "window" or reach > 0, f"net.reach is {reach}: a window needs a side")
        require(self.mapping % 2 == 0, f"net.mapping is {self.mapping}: give an even number")
        require(0 <= self.dropout < 1, f"net.dropout is {self.dropout}: give a probability from 0 to below 1")

    @property
    def multiple(self) -> int:
        """Height and width are extended to a multiple of this: patches, merges and windows fit into it."""
        sides = [2**level * (self.reach[level] if kind == "window" else 1) for level, kind in enumerate(self.attention)]
        return self.patch * math.lcm(*sides)

    def inside(self, height: int, width: int) -> tuple[int, int]:
        """Return the next multiples of `multiple`; every size is taken."""
        return extended(height, self.multiple), extended(width, self.multiple)

    @property
    def least_tensors(self) -> int:
        """A lower bound on the number of weight tensors."""
        return 2 * sum(self.depths) + 4 * self.mapping_depth

    def build(self, interface: Interface) -> Hourglass:
        """Return a new network."""
        return Hourglass(self, interface)


def rms(x: Tensor, scale: Tensor) -> Tensor:
    """Return x / sqrt(mean x^2 + 1e-6) times a scale, over the last axis."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # under autocast too
    return x * (scale * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6))


class RMSNorm(nn.Module):
    """`rms` with a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return rms(x, self.scale)


class FeedForward(nn.Module):
    """x + W_2 ( a gelu(b) ), (a, b) = W_1 norm(x); the norm's scale is 1 + W cond where there is a cond."""

    def __init__(self, width: int, inner: int, dropout: float, cond: int = 0) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Linear(cond, width, bias=False) if cond else RMSNorm(width)
        self.up_proj = nn.Linear(width, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Map x (B, ..., width), cond (B, C), to the same shape."""
        h = self.norm(x) if cond is None else rms(x, self.norm(cond)[:, None, None] + 1)
        value, gate = self.up_proj(h).chunk(2, dim=-1)
        out: Tensor = x + self.down_proj(F.dropout(value * F.gelu(gate), self.dropout, self.training))
        return out


class Attention(nn.Module):
    """x + attention of the normalised x; `shift` moves the windows."""

    def __init__(self, config: HourglassConfig, level: int, shift: int) -> None:
        super().__init__()
        width, head = config.widths[level], config.head_width[level]
        self.kind, self.reach, self.shift, self.dropout = (
            config.attention[level],
            config.reach[level],
            shift,
            config.dropout,
        )
        self.heads, head_dim = width // head, head
        self.norm = nn.Linear(config.mapping, width, bias=False)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.scale = nn.Parameter(torch.full((self.heads,), 10.0))
        steps = torch.linspace(math.log(math.pi), math.log(10 * math.pi), self.heads * (head_dim // 8) + 1)[:-1]
        self.register_buffer("freqs", steps.exp().view(head_dim // 8, self.heads).T.contiguous())
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map x (B, H, W, width) and cond (B, C) to the same shape."""
        num, height, breadth, width = x.shape
        h = self.qkv_proj(rms(x, self.norm(cond)[:, None, None] + 1))
        q, k, v = h.reshape(num, height, breadth, 3, self.heads, -1).permute(3, 0, 4, 1, 2, 5).unbind(0)
        angle = self._angles(height, breadth)
        q, k = (rotated(t * torch.rsqrt(t.square().sum(-1, keepdim=True) + 1e-6), angle) for t in (q, k))
        q = q * self.scale[:, None, None, None]
        if self.kind == "window":
            mixed = self._windows(q, k, v)
        else:
            mask = neighbours(height, breadth, self.reach, x.device) if self.kind == "neighborhood" else None
            q, k, v = (t.flatten(2, 3) for t in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, mask, scale=1.0).reshape(
                num, -1, height, breadth, v.shape[-1]
            )
        mixed = mixed.permute(0, 2, 3, 1, 4).reshape(num, height, breadth, width)
        out: Tensor = x + self.out_proj(F.dropout(mixed, self.dropout, self.training))
        return out

    def _angles(self, height: int, breadth: int) -> Tensor:
        """Angles of rotation, (heads, H, W, d / 4): positions in a box, its longer side -1 to 1, times the waves."""
        freqs = self.get_buffer("freqs")
        longest = max(height, breadth)
        rows, columns = (
            ((torch.arange(side, device=freqs.device, dtype=freqs.dtype) + 0.5) * 2 / side - 1) * (side / longest)
            for side in (height, breadth)
        )
        by_row = (freqs[:, None, None] * rows[None, :, None, None]).expand(-1, -1, breadth, -1)
        by_column = (freqs[:, None, None] * columns[None, None, :, None]).expand(-1, height, -1, -1)
        return torch.cat((by_row, by_column), dim=-1)

    def _windows(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention inside windows; rolled parts of one that are not neighbours don't see each other."""
        side, (num, heads, height, breadth, dim) = self.reach, q.shape
        shape = (height // side, side, breadth // side, side)

        def cut(t: Tensor) -> Tensor:
            rolled = torch.roll(t, (self.shift, self.shift), (2, 3)).reshape(num, heads, *shape, dim)
            return rolled.transpose(3, 4).flatten(4, 5)

        index = [torch.arange(side_, device=q.device) < self.shift for side_ in (height, breadth)]
        region = (2 * index[0][:, None] + index[1]).reshape(shape).transpose(1, 2).flatten(2, 3)
        mask = region[..., :, None] == region[..., None, :]
        mixed = F.scaled_dot_product_attention(cut(q), cut(k), cut(v), mask, scale=1.0)
        mixed = mixed.reshape(num, heads, shape[0], shape[2], side, side, dim).transpose(3, 4).reshape(q.shape)
        return torch.roll(mixed, (-self.shift, -self.shift), (2, 3))


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """Return x (..., d) with the pairs (i, i + n) of its first 2 n numbers rotated by the angles (..., n)."""
    n = angle.shape[-1]
    first, second, rest = x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def neighbours(height: int, breadth: int, reach: int, device: torch.device) -> Tensor:
    """Return which tokens each sees, (H W, H W): the reach x reach around it, moved inside at the edge."""

    def near(side: int) -> Tensor:
        index = torch.arange(side, device=device)
        start = (index - reach // 2).clamp(0, max(0, side - reach))
        return (index >= start[:, None]) & (index < start[:, None] + reach)

    both = near(height)[:, None, :, None] & near(breadth)[None, :, None, :]
    return both.reshape(height * breadth, height * breadth)


class Layer(nn.Module):
    """Attention, where there is one, and a feed-forward block."""

    def __init__(self, config: HourglassConfig, level: int, index: int) -> None:
        super().__init__()
        shift = config.reach[level] // 2 if index % 2 else 0
        self.self_attn = Attention(config, level, shift) if config.attention[level] != "none" else None
        self.ff = FeedForward(config.widths[level], config.feed[level], config.dropout, config.mapping)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map (B, H, W, width) to the same shape."""
        x = x if self.self_attn is None else self.self_attn(x, cond)
        out: Tensor = self.ff(x, cond)
        return out


class Waves(nn.Module):
    """The time's random waves, cosines then sines of 2 pi w t, and a dense layer."""

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.factor = config.time_factor
        self.register_buffer("waves", torch.randn(config.mapping // 2))
        self.proj = nn.Linear(config.mapping, config.mapping)

    def forward(self, time: Tensor) -> Tensor:
        """Map (B,) times to (B, mapping)."""
        angle = 2 * math.pi * self.factor * time[:, None] * self.get_buffer("waves")
        out: Tensor = self.proj(torch.cat((angle.cos(), angle.sin()), dim=1).to(self.proj.weight.dtype))
        return out


class Mapping(nn.Module):
    """norm, feed-forward blocks, norm."""

    def __init__(self, config: HourglassConfig) -> None:
        super().__init__()
        self.in_norm, self.out_norm = RMSNorm(config.mapping), RMSNorm(config.mapping)
        blocks = range(config.mapping_depth)
        self.blocks = nn.ModuleList(FeedForward(config.mapping, config.mapping_feed, config.dropout) for _ in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, mapping) to the same shape."""
        x = self.in_norm(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.out_norm(x)
        return out


def merged(x: Tensor, side: int) -> Tensor:
    """Return (B, H, W, C) with squares of tokens joined, (B, H / side, W / side, side side C): row, column, channel."""
    num, height, width, channels = x.shape
    squares = x.reshape(num, height // side, side, width // side, side, channels).transpose(2, 3)
    return squares.reshape(num, height // side, width // side, -1)


def split(x: Tensor, side: int) -> Tensor:
    """Return the inverse of `merged`."""
    num, height, width, channels = x.shape
    squares = x.reshape(num, height, width, side, side, channels // side**2).transpose(2, 3)
    return squares.reshape(num, height * side, width * side, -1)


class Hourglass(Conditioned):
    """The network of a `HourglassConfig`; a fresh one returns 0."""

    def __init__(self, config: HourglassConfig, interface: Interface = Interface()) -> None:
        super().__init__(interface, 4, config.mapping)
        self.config = config
        self.time = Waves(config)  # type: ignore[assignment]
        widths, levels, square = config.widths, len(config.widths), config.patch**2
        self.entrance = nn.Linear(interface.channels * square, widths[0], bias=False)
        self.mapping = Mapping(config)

        def layers(level: int, first: int) -> nn.ModuleList:
            return nn.ModuleList(Layer(config, level, first + k) for k in range(config.depths[level]))

        # k-diffusion numbers the layers of the way up on from those of the way down: their windows shift by that
        self.down_levels = nn.ModuleList(layers(level, 0) for level in range(levels - 1))
        self.mid_level = layers(levels - 1, 0)
        self.up_levels = nn.ModuleList(layers(level, config.depths[level]) for level in range(levels - 1))
        pairs = list(pairwise(widths))
        self.merges = nn.ModuleList(nn.Linear(4 * fine, coarse, bias=False) for fine, coarse in pairs)
        self.splits = nn.ModuleList(nn.Linear(coarse, 4 * fine, bias=False) for fine, coarse in pairs)
        self.fractions = nn.Parameter(torch.full((levels - 1,), 0.5)) if levels > 1 else None
        self.norm = RMSNorm(widths[0])
        self.exit = nn.Linear(widths[0], interface.outputs * square, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the first weights, and zero the last layer of every branch."""
        self.draw_weights()
        for module in self.modules():
            if isinstance(module, FeedForward):
                nn.init.zeros_(module.down_proj.weight)
            if isinstance(module, Attention):
                nn.init.zeros_(module.out_proj.weight)
            if isinstance(module, FeedForward | Attention) and isinstance(module.norm, nn.Linear):
                nn.init.zeros_(module.norm.weight)
        nn.init.zeros_(self.exit.weight)

    def forward(
        self, x: Tensor, time: Tensor, condition: Condition | None = None, augment: Tensor | None = None
    ) -> Tensor:
        """Predict; any H and W. See `Network.forward`."""
        height, width = x.shape[-2:]
        cond = self.mapping(self.combine(time, condition, augment))
        x = self.entrance(merged(extend(x, self.config.multiple).permute(0, 2, 3, 1), self.config.patch))
        skips = []
        for level, merge in zip(self.down_levels, self.merges, strict=True):
            for layer in level:  # type: ignore[attr-defined]
                x = layer(x, cond)
            skips.append(x)
            x = merge(merged(x, 2))
        for layer in self.mid_level:
            x = layer(x, cond)
        for index in reversed(range(len(skips))):
            assert self.fractions is not None
            x = torch.lerp(skips[index], split(self.splits[index](x), 2), self.fractions[index])
            for layer in self.up_levels[index]:  # type: ignore[attr-defined]
                x = layer(x, cond)
        out: Tensor = split(self.exit(self.norm(x)), self.config.patch).permute(0, 3, 1, 2)
        return out[..., :height, :width]

    def recomputable(self) -> list[nn.Module]:
        """Return the layers."""
        return [module for module in self.modules() if isinstance(module, Layer)]

    def summary(self) -> str:
        """Return its levels and attention."""
        parts = zip(self.config.depths, self.config.widths, self.config.attention, strict=True)
        levels = ", ".join(f"{depth} layers of {width} ({kind})" for depth, width, kind in parts)
        return f"hourglass transformer on patches of {self.config.patch}x{self.config.patch}: {levels}"
