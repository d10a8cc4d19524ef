"""EDM's architectures and preconditionings, as a snapshot shows them, and snapshots pickled as its `persistence` does.

As in `layouts`, only names, shapes, settings and the order of rows are EDM's.
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

from .layouts import waves


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


def doubled(x: Tensor, taps: list[int]) -> Tensor:
    """Doubling with a filter, as sums over its taps: no convolution."""
    n = len(taps)
    for axis in (2, 3):
        x = x.movedim(axis, -1)
        side = x.shape[-1]
        wide = torch.zeros(*x.shape[:-1], 2 * side + n - 2)
        for k in range(n):
            wide[..., k : k + 2 * side - 1 : 2] += 2 * taps[k] / sum(taps) * x
        x = wide[..., n // 2 - 1 : n // 2 - 1 + 2 * side].movedim(-1, axis)
    return x


def halved(x: Tensor, taps: list[int], edge: int) -> Tensor:
    """Halving with a filter, `edge` zeros around the image."""
    n = len(taps)
    for axis in (2, 3):
        x = F.pad(x.movedim(axis, -1), (edge, edge))
        side = (x.shape[-1] - n) // 2 + 1
        parts = [taps[k] / sum(taps) * x[..., k : k + 2 * side - 1 : 2] for k in range(n)]
        x = torch.stack(parts).sum(0).movedim(-1, axis)
    return x


class Conv2d(Persistent):
    """A convolution (`kernel` 0 is none), after a doubling or halving; a `fused` one before the halving."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, up: bool = False, down: bool = False,
        taps: list[int] | None = None, fused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(in_channels=inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.empty(outputs)) if kernel else None
        self.up, self.down, self.fused, self.taps = up, down, fused, taps or [1, 1]
        line = torch.tensor(self.taps).float()
        both = torch.outer(line, line) / line.sum() ** 2
        self.register_buffer("resample_filter", both[None, None] if up or down else None)

    def forward(self, x: Tensor) -> Tensor:
        edge = len(self.taps) // 2 - 1
        if self.fused:
            wide = F.conv2d(x, self.weight, padding=1 + edge)  # type: ignore[arg-type]
            return halved(wide, self.taps, 0) + self.bias[:, None, None]  # type: ignore[index]
        if self.up or self.down:
            x = doubled(x, self.taps) if self.up else halved(x, self.taps, edge)
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
        taps: list[int] | None = None,
    ) -> None:
        super().__init__()
        eps = 1e-6 if song else 1e-5
        self.song, self.scale = song, np.sqrt(0.5) if song else 1
        self.heads = 0 if not attention else 1 if song else outputs // 64
        self.norm0, self.conv0 = Norm(inputs, eps), Conv2d(inputs, outputs, 3, up, down, taps)
        self.affine = Linear(emb, outputs * (1 if song else 2))
        self.norm1, self.conv1 = Norm(outputs, eps), Conv2d(outputs, outputs, 3)
        self.skip = None
        if inputs != outputs or up or down:
            self.skip = Conv2d(inputs, outputs, 1 if song or inputs != outputs else 0, up, down, taps)
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


class Waves(Persistent):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(width // 2) * 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        angle = x[:, None] * (2 * math.pi * self.freqs)  # type: ignore[operator]
        return angle.cos(), angle.sin()


class _Edm(Persistent):
    """Either architecture; its class's name says which."""

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0, **given: Any
    ) -> None:
        super().__init__(img_resolution=img_resolution, in_channels=in_channels, label_dim=label_dim, **given)
        song = self.song = type(self).__name__ == "SongUNet"
        width, multipliers, blocks = given["model_channels"], given["channel_mult"], given["num_blocks"]
        attend, emb = given["attn_resolutions"], 4 * width
        self.labels, self.encoder = label_dim, given.get("encoder_type", "standard")
        taps, sums = given.get("resample_filter"), given.get("decoder_type") == "skip"
        noise = self.noise = width * given.get("channel_mult_noise", 1)
        self.map_noise = Waves(noise) if given.get("embedding_type") == "fourier" else None
        self.map_layer0, self.map_layer1 = Linear(noise, emb), Linear(emb, emb)
        self.map_augment = Linear(9, noise, bias=False)
        self.map_label = Linear(label_dim, noise if song else emb, bias=song) if label_dim else None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        now, beside = width if song else width * multipliers[0], in_channels
        for level, multiplier in enumerate(multipliers):
            side = f"{img_resolution >> level}x{img_resolution >> level}"
            if level == 0:
                self.enc[f"{side}_conv"] = Conv2d(in_channels, now, 3)
            else:
                self.enc[f"{side}_down"] = Block(song, now, now, emb, down=True, taps=taps)
                if self.encoder == "residual":
                    self.enc[f"{side}_aux_residual"] = Conv2d(beside, now, 3, down=True, taps=taps, fused=True)
                    beside = now
                if self.encoder == "skip":
                    self.enc[f"{side}_aux_down"] = Conv2d(in_channels, in_channels, 0, down=True, taps=taps)
                    self.enc[f"{side}_aux_skip"] = Conv2d(in_channels, now, 1)
            for k in range(blocks):
                here = (img_resolution >> level) in attend
                self.enc[f"{side}_block{k}"] = Block(song, now, width * multiplier, emb, attention=here)
                now = width * multiplier
        skips = [
            block.conv0.weight.shape[0] if isinstance(block, Block) else block.weight.shape[0]
            for name, block in self.enc.items()
            if "aux" not in name
        ]
        for level, multiplier in reversed(list(enumerate(multipliers))):
            side = f"{img_resolution >> level}x{img_resolution >> level}"
            if level == len(multipliers) - 1:
                self.dec[f"{side}_in0"] = Block(song, now, now, emb, attention=True)
                self.dec[f"{side}_in1"] = Block(song, now, now, emb)
            else:
                self.dec[f"{side}_up"] = Block(song, now, now, emb, up=True, taps=taps)
            for k in range(blocks + 1):
                here = (img_resolution >> level) in attend and (k == blocks or not song)
                self.dec[f"{side}_block{k}"] = Block(song, now + skips.pop(), width * multiplier, emb, attention=here)
                now = width * multiplier
            if sums and level < len(multipliers) - 1:
                self.dec[f"{side}_aux_up"] = Conv2d(out_channels, out_channels, 0, up=True, taps=taps)
            if song and (sums or level == 0):
                self.dec[f"{side}_aux_norm"] = Norm(now, 1e-6)
                self.dec[f"{side}_aux_conv"] = Conv2d(now, out_channels, 3)
        if not song:
            self.out_norm, self.out_conv = Norm(now, 1e-5), Conv2d(now, out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        cosines, sines = waves(noise, self.noise, int(self.song)) if self.map_noise is None else self.map_noise(noise)
        emb = torch.cat([sines, cosines] if self.song else [cosines, sines], 1)
        if self.song and self.map_label is not None:
            emb = emb + self.map_label(labels * math.sqrt(self.labels))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if not self.song and self.map_label is not None:
            emb = emb + self.map_label(labels)
        emb, skips, image = F.silu(emb), [], x
        for name, block in self.enc.items():
            if "aux_residual" in name:
                x = skips[-1] = image = (x + block(image)) / math.sqrt(2)
                continue
            if "aux_down" in name:
                image = block(image)
                continue
            if "aux_skip" in name:
                x = skips[-1] = x + block(image)
                continue
            x = block(x, emb) if isinstance(block, Block) else block(x)
            skips.append(x)
        total: Any = 0
        for name, block in self.dec.items():
            if "aux_up" in name:
                total = block(total)
            elif "aux_norm" in name:
                own = F.silu(block(x))
            elif "aux_conv" in name:
                total = total + block(own)
            if "aux" in name:
                continue
            if block.conv0.weight.shape[1] != x.shape[1]:
                x = torch.cat([x, skips.pop()], 1)
            x = block(x, emb)
        if not self.song:
            return self.out_conv(F.silu(self.out_norm(x)))
        return total


class SongUNet(_Edm):
    pass


class DhariwalUNet(_Edm):
    pass


class Precond(Persistent):
    """A network with its preconditioning; the class's name says which."""

    def __init__(
        self, model_type: str, img_resolution: int, img_channels: int, label_dim: int = 0, **given: Any
    ) -> None:
        sizes = {"img_resolution": img_resolution, "img_channels": img_channels, "label_dim": label_dim}
        super().__init__(**sizes, model_type=model_type, **given)
        kind, outputs = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}[model_type], img_channels
        outputs *= 2 if isinstance(self, iDDPMPrecond) else 1
        self.model, self.labels = kind(img_resolution, img_channels, outputs, label_dim, **given), label_dim

    def scalings(self, sigma: Tensor) -> tuple[Any, Any, Any, Tensor]:
        """c_skip, c_out, c_in, c_noise of Table 1 of the paper."""
        raise NotImplementedError

    def forward(self, y: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """D(y; sigma)."""
        if self.labels and labels is None:
            labels = torch.zeros(len(y), self.labels)
        skip, out, into, noise = self.scalings(sigma[:, None, None, None])
        return skip * y + out * self.model(into * y, noise.flatten(), labels)[:, : y.shape[1]]


class EDMPrecond(Precond):
    def scalings(self, sigma: Tensor) -> tuple[Any, Any, Any, Tensor]:
        s = 0.5
        total = (sigma**2 + s**2).sqrt()
        return s**2 / total**2, sigma * s / total, 1 / total, sigma.log() / 4


class VEPrecond(Precond):
    def scalings(self, sigma: Tensor) -> tuple[Any, Any, Any, Tensor]:
        return 1, sigma, 1, (sigma / 2).log()


class VPPrecond(Precond):
    def scalings(self, sigma: Tensor) -> tuple[Any, Any, Any, Tensor]:
        time = ((0.01 + 2 * 19.9 * (1 + sigma.double() ** 2).log()).sqrt() - 0.1) / 19.9
        return 1, -sigma, 1 / (sigma**2 + 1).sqrt(), (999 * time).float()


class iDDPMPrecond(Precond):
    """For noises of its own chain: c_noise is the step."""

    def scalings(self, sigma: Tensor) -> tuple[Any, Any, Any, Tensor]:
        t = torch.arange(1001, dtype=torch.float64) / 1000
        abar = ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2
        kept = (abar[1:] / abar[:-1]).clamp(min=0.001).cumprod(0)
        noises = ((1 - kept) / kept).sqrt()
        return 1, -sigma, 1 / (sigma**2 + 1).sqrt(), (sigma.double() - noises).abs().argmin(-1).float()


def snapshot(path: Path, net: Precond, **more: Any) -> None:
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
