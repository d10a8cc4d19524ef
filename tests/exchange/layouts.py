"""Small networks with the names and the function of other libraries', written from their papers and their files.

They stand for libraries that no package index has. Only what a checkpoint of theirs shows is theirs: names, shapes, the
order of rows.
"""

from __future__ import annotations

import math
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
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


# ---- EDM: its two architectures, and snapshots pickled as its `persistence` does ----


def _reconstruct_persistent_obj(told: dict[str, Any]) -> Any:
    raise AssertionError("nothing in a file is run")


class Persistent(nn.Module):
    """A module that is pickled as a name, its arguments and its state."""

    def __init__(self, **init: Any) -> None:
        super().__init__()
        self._init_args, self._init_kwargs = (), init

    def __reduce__(self) -> Any:
        told = {"type": "class", "version": 6, "module_src": "import os", "class_name": type(self).__name__}
        return _reconstruct_persistent_obj, (told | {"state": self.__dict__},)


class Conv2d(Persistent):
    """A convolution (`kernel` 0 is none), after a doubling or halving."""

    def __init__(self, inputs: int, outputs: int, kernel: int, up: bool = False, down: bool = False) -> None:
        super().__init__(in_channels=inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.empty(outputs)) if kernel else None
        self.up, self.down = up, down
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25) if up or down else None)

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if self.up else x
        x = F.avg_pool2d(x, 2) if self.down else x
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class Linear(Persistent):
    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Norm(Persistent):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, min(32, x.shape[1] // 4), self.weight, self.bias, self.eps)


class Block(Persistent):
    def __init__(
        self,
        song: bool,
        inputs: int,
        outputs: int,
        emb: int,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        eps = 1e-6 if song else 1e-5
        self.song, self.scale = song, np.sqrt(0.5) if song else 1
        self.heads = 0 if not attention else 1 if song else outputs // 64
        self.norm0, self.conv0 = Norm(inputs, eps), Conv2d(inputs, outputs, 3, up, down)
        self.affine = Linear(emb, outputs * (1 if song else 2))
        self.norm1, self.conv1 = Norm(outputs, eps), Conv2d(outputs, outputs, 3)
        self.skip = None
        if inputs != outputs or up or down:
            self.skip = Conv2d(inputs, outputs, 1 if song or inputs != outputs else 0, up, down)
        if self.heads:
            self.norm2, self.qkv = Norm(outputs, eps), Conv2d(outputs, 3 * outputs, 1)
            self.proj = Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h, e = self.conv0(F.silu(self.norm0(x))), self.affine(emb)[:, :, None, None]
        if self.song:
            h = F.silu(self.norm1(h + e))
        else:
            scale, shift = e.chunk(2, 1)
            h = F.silu(shift + self.norm1(h) * (scale + 1))
        x = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * self.scale
        if self.heads:
            n, c, height, width = x.shape
            rows = self.qkv(self.norm2(x)).reshape(n * self.heads, c // self.heads, 3, -1)
            q, k, v = rows.unbind(2)
            weight = torch.softmax(torch.einsum("ncq,nck->nqk", q, k / math.sqrt(k.shape[1])), 2)
            x = (self.proj(torch.einsum("nqk,nck->ncq", weight, v).reshape(n, c, height, width)) + x) * self.scale
        return x


class _Edm(Persistent):
    """Either architecture; its class's name says which."""

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0, **given: Any
    ) -> None:
        super().__init__(img_resolution=img_resolution, in_channels=in_channels, label_dim=label_dim, **given)
        song = self.song = type(self).__name__ == "SongUNet"
        width, multipliers, blocks = given["model_channels"], given["channel_mult"], given["num_blocks"]
        attend, emb = given["attn_resolutions"], 4 * width
        self.width, self.labels = width, label_dim
        self.map_layer0, self.map_layer1 = Linear(width, emb), Linear(emb, emb)
        self.map_augment = Linear(9, width, bias=False)
        self.map_label = Linear(label_dim, width if song else emb, bias=song) if label_dim else None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        now = width if song else width * multipliers[0]
        for level, multiplier in enumerate(multipliers):
            side = f"{img_resolution >> level}x{img_resolution >> level}"
            if level == 0:
                self.enc[f"{side}_conv"] = Conv2d(in_channels, now, 3)
            else:
                self.enc[f"{side}_down"] = Block(song, now, now, emb, down=True)
            for k in range(blocks):
                here = (img_resolution >> level) in attend
                self.enc[f"{side}_block{k}"] = Block(song, now, width * multiplier, emb, attention=here)
                now = width * multiplier
        skips = [
            block.conv0.weight.shape[0] if isinstance(block, Block) else block.weight.shape[0]
            for block in self.enc.values()
        ]
        for level, multiplier in reversed(list(enumerate(multipliers))):
            side = f"{img_resolution >> level}x{img_resolution >> level}"
            if level == len(multipliers) - 1:
                self.dec[f"{side}_in0"] = Block(song, now, now, emb, attention=True)
                self.dec[f"{side}_in1"] = Block(song, now, now, emb)
            else:
                self.dec[f"{side}_up"] = Block(song, now, now, emb, up=True)
            for k in range(blocks + 1):
                here = (img_resolution >> level) in attend and (k == blocks or not song)
                self.dec[f"{side}_block{k}"] = Block(song, now + skips.pop(), width * multiplier, emb, attention=here)
                now = width * multiplier
        if song:
            side = f"{img_resolution}x{img_resolution}"
            self.dec[f"{side}_aux_norm"], self.dec[f"{side}_aux_conv"] = Norm(now, 1e-6), Conv2d(now, out_channels, 3)
        else:
            self.out_norm, self.out_conv = Norm(now, 1e-5), Conv2d(now, out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        cosines, sines = waves(noise, self.width, int(self.song))
        emb = torch.cat([sines, cosines] if self.song else [cosines, sines], 1)
        if self.song and self.map_label is not None:
            emb = emb + self.map_label(labels * math.sqrt(self.labels))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if not self.song and self.map_label is not None:
            emb = emb + self.map_label(labels)
        emb, skips = F.silu(emb), []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if "aux" in name:
                continue
            if block.conv0.weight.shape[1] != x.shape[1]:
                x = torch.cat([x, skips.pop()], 1)
            x = block(x, emb)
        if not self.song:
            return self.out_conv(F.silu(self.out_norm(x)))
        norm, conv = (block for name, block in self.dec.items() if "aux" in name)
        return conv(F.silu(norm(x)))


class SongUNet(_Edm):
    pass


class DhariwalUNet(_Edm):
    pass


class EDMPrecond(Persistent):
    def __init__(
        self, model_type: str, img_resolution: int, img_channels: int, label_dim: int = 0, **given: Any
    ) -> None:
        super().__init__(
            img_resolution=img_resolution,
            img_channels=img_channels,
            label_dim=label_dim,
            model_type=model_type,
            **given,
        )
        kind = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}[model_type]
        self.model, self.labels = kind(img_resolution, img_channels, img_channels, label_dim, **given), label_dim

    def forward(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """D(y; sigma), Table 1 of the paper."""
        wide, s = sigma[:, None, None, None], 0.5
        if self.labels and labels is None:
            labels = torch.zeros(len(y), self.labels)
        inner = self.model(y / (wide**2 + s**2).sqrt(), sigma.log() / 4, labels)
        return s**2 / (wide**2 + s**2) * y + wide * s / (wide**2 + s**2).sqrt() * inner


def snapshot(path: Path, net: EDMPrecond, **more: Any) -> None:
    """Write a snapshot as EDM's training loop does: the modules that the file names are not there when it is read."""
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    modules = {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence}
    home, name = _reconstruct_persistent_obj.__module__, "torch_utils.persistence"
    sys.modules.update(modules)
    _reconstruct_persistent_obj.__module__ = name
    try:
        path.write_bytes(pickle.dumps({"ema": net, "loss_fn": None, "dataset_kwargs": {"path": "x.zip"}, **more}))
    finally:
        _reconstruct_persistent_obj.__module__ = home
        for module in modules:
            del sys.modules[module]
