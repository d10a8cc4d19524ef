"""Small networks with the names and the function of other libraries', written from their papers and their files.

They stand for libraries that no package index has. Only what a checkpoint of theirs shows is theirs: names, shapes, the
order of rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def waves(time: Tensor, dim: int, shift: int = 0) -> tuple[Tensor, Tensor]:
    half = dim // 2
    angle = time[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / (half - shift))
    return angle.cos(), angle.sin()


class AdmBlock(nn.Module):
    """A residual block of guided-diffusion; `resample` is -1 (halve), 0 or 1 (double)."""

    def __init__(self, inputs: int, outputs: int, emb: int, scale_shift: bool, resample: int = 0) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb, outputs * (2 if scale_shift else 1)))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.scale_shift, self.resample = scale_shift, resample

    def resized(self, x: Tensor) -> Tensor:
        if self.resample > 0:
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return F.avg_pool2d(x, 2) if self.resample else x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[2](self.resized(self.in_layers[:2](x)))
        e = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, 1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + e)
        return self.skip_connection(self.resized(x)) + h


class AdmAttention(nn.Module):
    def __init__(self, width: int, heads: int, new: bool) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(32, width), nn.Conv1d(width, 3 * width, 1)
        self.proj_out, self.heads, self.new = nn.Conv1d(width, width, 1), heads, new

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        b, c, h, w = x.shape
        rows = self.qkv(self.norm(x.reshape(b, c, -1)))
        d = c // self.heads
        if self.new:
            q, k, v = (part.reshape(b * self.heads, d, h * w) for part in rows.chunk(3, 1))
        else:
            q, k, v = rows.reshape(b * self.heads, 3 * d, h * w).split(d, 1)
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(d), -1)
        mixed = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, -1)
        return x + self.proj_out(mixed).reshape(b, c, h, w)


class Halving(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class Mean(nn.Module):
    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


class Doubling(nn.Module):
    def __init__(self, width: int, conv: bool) -> None:
        super().__init__()
        if conv:
            self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return self.conv(x) if hasattr(self, "conv") else x


class Adm(nn.Module):
    """The network of improved- and guided-diffusion. `resampling` is conv, block or none."""

    def __init__(
        self, channels: int = 3, out: int = 3, width: int = 32, multipliers: tuple[int, ...] = (1, 2), blocks: int = 1,
        attention: tuple[int, ...] = (1,), heads: int = 2, new: bool = False, scale_shift: bool = True,
        resampling: str = "conv", classes: int = 0, scale: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        emb, levels = 4 * width, len(multipliers)
        self.width, self.scale = width, scale
        self.time_embed = nn.Sequential(nn.Linear(width, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label_emb = nn.Embedding(classes, emb) if classes else None
        now = width * multipliers[0]
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(channels, now, 3, padding=1)])])
        skips = [now]

        def resampler(way: int) -> nn.Module:
            if resampling == "block":
                return AdmBlock(now, now, emb, scale_shift, way)
            if way < 0:
                return Halving(now) if resampling == "conv" else Mean()
            return Doubling(now, resampling == "conv")

        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                layers: list[nn.Module] = [AdmBlock(now, width * multiplier, emb, scale_shift)]
                now = width * multiplier
                layers += [AdmAttention(now, heads, new)] if level in attention else []
                self.input_blocks.append(nn.ModuleList(layers))
                skips.append(now)
            if level < levels - 1:
                self.input_blocks.append(nn.ModuleList([resampler(-1)]))
                skips.append(now)
        self.middle_block = nn.ModuleList(
            [AdmBlock(now, now, emb, scale_shift), AdmAttention(now, heads, new), AdmBlock(now, now, emb, scale_shift)]
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(levels)):
            for k in range(blocks + 1):
                layers = [AdmBlock(now + skips.pop(), width * multipliers[level], emb, scale_shift)]
                now = width * multipliers[level]
                layers += [AdmAttention(now, heads, new)] if level in attention else []
                layers += [resampler(1)] if level and k == blocks else []
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, out, 3, padding=1))

    def forward(self, x: Tensor, steps: Tensor, classes: Tensor | None = None) -> Tensor:
        emb = self.time_embed(torch.cat(waves(steps * self.scale, self.width), 1))
        emb = emb if self.label_emb is None else emb + self.label_emb(classes)
        skips: list[Tensor] = []
        for layers in self.input_blocks:
            for layer in layers:
                x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, emb)
            skips.append(x)
        for layer in self.middle_block:
            x = layer(x, emb)
        for layers in self.output_blocks:
            x = torch.cat([x, skips.pop()], 1)
            for layer in layers:
                x = layer(x, emb)
        return self.out(x)


def options(**values: Any) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}
