"""k-diffusion's `image_transformer_v2` by name and function, token by token: slow, and easy to check by eye."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Waves(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(width // 2, inputs))

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * x @ self.weight.T
        return torch.cat([angle.cos(), angle.sin()], -1)


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.scale


class Adaptive(nn.Module):
    def __init__(self, width: int, cond: int) -> None:
        super().__init__()
        self.linear = nn.Linear(cond, width, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (self.linear(cond)[:, None, None] + 1)


class Positions(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        steps = torch.linspace(math.log(math.pi), math.log(10 * math.pi), heads * dim // 4 + 1)[:-1].exp()
        self.register_buffer("freqs", steps.view(dim // 4, heads).T.contiguous())


class Attend(nn.Module):
    """Every query asks every key that it may see."""

    def __init__(self, width: int, cond: int, spec: dict[str, Any], index: int) -> None:
        super().__init__()
        self.spec, self.dim = spec, spec["d_head"]
        self.heads = width // self.dim
        self.norm, self.qkv_proj = Adaptive(width, cond), nn.Linear(width, 3 * width, bias=False)
        self.scale, self.pos_emb = nn.Parameter(torch.full([self.heads], 10.0)), Positions(self.dim // 2, self.heads)
        self.out_proj = nn.Linear(width, width, bias=False)
        self.shift = spec.get("window_size", 0) // 2 if index % 2 else 0

    def sees(self, a: tuple[int, int], b: tuple[int, int], size: tuple[int, int]) -> bool:
        if self.spec["type"] == "neighborhood":
            k = self.spec["kernel_size"]
            starts = [min(max(i - k // 2, 0), n - k) for i, n in zip(a, size, strict=True)]
            return all(s <= j < s + k for s, j in zip(starts, b, strict=True))
        if self.spec["type"] == "shifted-window":  # windows of the image moved by the shift; its edges are cut
            side = self.spec["window_size"]
            return all((i + self.shift) // side == (j + self.shift) // side for i, j in zip(a, b, strict=True))
        return True

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        num, height, width, _ = x.shape
        q, k, v = self.qkv_proj(self.norm(x, cond)).reshape(num, height * width, 3, self.heads, self.dim).unbind(2)
        places = [(i, j) for i in range(height) for j in range(width)]
        longest = max(height, width)
        spots = torch.tensor([[(2 * i + 1 - height) / longest, (2 * j + 1 - width) / longest] for i, j in places])
        freqs = self.pos_emb.freqs
        angle = torch.cat([spots[:, None, :1] * freqs, spots[:, None, 1:] * freqs], -1)  # (tokens, heads, d / 4)
        n = angle.shape[-1]

        def turned(t: Tensor) -> Tensor:
            t = t * self.scale.sqrt()[:, None] / (t.square().sum(-1, keepdim=True) + 1e-6).sqrt()
            both = torch.complex(t[..., :n], t[..., n : 2 * n]) * torch.polar(torch.ones_like(angle), angle)
            return torch.cat([both.real, both.imag, t[..., 2 * n :]], -1)

        mask = torch.tensor([[self.sees(a, b, (height, width)) for b in places] for a in places])
        scores = torch.einsum("bqhd,bkhd->bhqk", turned(q), turned(k)).masked_fill(~mask, -math.inf)
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        return x + self.out_proj(mixed.reshape(num, height, width, -1))


class Feed(nn.Module):
    def __init__(self, width: int, inner: int, cond: int = 0) -> None:
        super().__init__()
        self.norm: nn.Module = Adaptive(width, cond) if cond else Scale(width)
        self.up_proj, self.down_proj = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, *cond: Tensor) -> Tensor:
        a, b = self.up_proj(self.norm(x, *cond)).chunk(2, -1)
        return x + self.down_proj(a * F.gelu(b))


class Layer(nn.Module):
    def __init__(self, width: int, cond: int, spec: dict[str, Any], index: int) -> None:
        super().__init__()
        if spec["type"] != "none":
            self.self_attn = Attend(width, cond, spec, index)
        self.ff = Feed(width, 3 * width, cond)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        return self.ff(self.self_attn(x, cond) if hasattr(self, "self_attn") else x, cond)


class Joined(nn.Module):
    """Squares of side x side tokens as one, and a dense layer; or back."""

    def __init__(self, inputs: int, outputs: int, side: int, back: bool = False, fac: bool = False) -> None:
        super().__init__()
        square = side * side
        self.proj = (
            nn.Linear(inputs, outputs * square, bias=False) if back else nn.Linear(inputs * square, outputs, bias=False)
        )
        self.side, self.back = side, back
        if fac:
            self.fac = nn.Parameter(torch.ones(1) * 0.5)

    def forward(self, x: Tensor) -> Tensor:
        s = self.side
        if not self.back:
            squares = [x[:, i::s, j::s] for i in range(s) for j in range(s)]
            return self.proj(torch.cat(squares, -1))
        parts = self.proj(x).chunk(s * s, -1)
        out = torch.zeros(len(x), x.shape[1] * s, x.shape[2] * s, parts[0].shape[-1])
        for k, part in enumerate(parts):
            out[:, k // s :: s, k % s :: s] = part
        return out


class Mapped(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_norm, self.out_norm = Scale(width), Scale(width)
        self.blocks = nn.ModuleList(Feed(width, 3 * width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.out_norm(self.blocks[1](self.blocks[0](self.in_norm(x))))


class Transformer(nn.Module):
    """Written to a slim checkpoint by `slim`."""

    def __init__(self, model: dict[str, Any], classes: int = 0) -> None:
        super().__init__()
        self.model, self.classes = model, classes
        widths, depths, specs, m = model["widths"], model["depths"], model["self_attns"], model["mapping_width"]
        channels, patch = model["input_channels"], model["patch_size"][0]
        self.patch_in, self.patch_out = (
            Joined(channels, widths[0], patch),
            Joined(widths[0], channels, patch, back=True),
        )
        self.time_emb, self.time_in_proj = Waves(1, m), nn.Linear(m, m, bias=False)
        self.aug_emb, self.aug_in_proj = Waves(9, m), nn.Linear(m, m, bias=False)
        if classes:
            self.class_emb = nn.Embedding(classes + 1, m)
        self.mapping = Mapped(m)
        last = len(widths) - 1

        def layers(level: int, first: int) -> nn.ModuleList:
            return nn.ModuleList(Layer(widths[level], m, specs[level], first + k) for k in range(depths[level]))

        self.down_levels, self.mid_level = nn.ModuleList(layers(k, 0) for k in range(last)), layers(last, 0)
        self.up_levels = nn.ModuleList(layers(k, depths[k]) for k in range(last))
        self.merges = nn.ModuleList(Joined(widths[k], widths[k + 1], 2) for k in range(last))
        self.splits = nn.ModuleList(Joined(widths[k + 1], widths[k], 2, back=True, fac=True) for k in range(last))
        self.out_norm = Scale(widths[0])

    def inner(self, x: Tensor, sigma: Tensor, classes: Tensor | None) -> Tensor:
        cond = self.time_in_proj(self.time_emb(sigma.log()[:, None] / 4)) + self.aug_in_proj(
            self.aug_emb(torch.zeros(len(x), 9))
        )
        if self.classes:
            cond = cond + self.class_emb(torch.full((len(x),), self.classes) if classes is None else classes)
        cond, x, skips = self.mapping(cond), self.patch_in(x.movedim(1, -1)), []
        for level, merge in zip(self.down_levels, self.merges, strict=True):
            for layer in level:
                x = layer(x, cond)
            skips.append(x)
            x = merge(x)
        for layer in self.mid_level:
            x = layer(x, cond)
        for k in reversed(range(len(skips))):
            x = skips[k] + self.splits[k].fac * (self.splits[k](x) - skips[k])
            for layer in self.up_levels[k]:
                x = layer(x, cond)
        return self.patch_out(self.out_norm(x)).movedim(-1, 1)

    def forward(self, y: Tensor, sigma: Tensor, classes: Tensor | None = None) -> Tensor:
        wide, s = sigma[:, None, None, None], self.model["sigma_data"]
        total = wide**2 + s**2
        return self.inner(y / total.sqrt(), sigma, classes) * wide * s / total.sqrt() + y * s**2 / total

    def slim(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        config = {"model": self.model, "dataset": {"num_classes": self.classes}}
        state = {name: value.to(dtype) for name, value in self.state_dict().items()}
        safetensors.torch.save_file(state, path, metadata={"config": json.dumps(config)})
