"""Halving and doubling of the general U-Net, with a smoothing filter or without, and the image's own ways beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nets.unet.blocks import norm_silu

PLAIN = (1, 1)
"""The taps of the mean of 2x2 pixels, and of the nearest neighbour."""


class Filter:
    """Halving or doubling with a smoothing filter f, the product of the same taps along both sides, its sum 1:

    y_i = sum_k f_k x_{2 i + k - p},        y_j = 4 sum_i f_{j - 2 i + p} x_i,      p = n / 2 - 1 for n taps.
    """

    def __init__(self, taps: tuple[int, ...]) -> None:
        self.taps, self.padding = [tap / sum(taps) for tap in taps], len(taps) // 2 - 1

    def _weight(self, x: Tensor, gain: float) -> Tensor:
        line = torch.cat([x.new_full((1,), gain * tap) for tap in self.taps])  # nothing is copied from the host
        return torch.outer(line, line).expand(x.shape[1], 1, -1, -1)

    def down(self, x: Tensor, padding: int | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / 2, W / 2), zeros around the image; `padding` in place of p."""
        padding = self.padding if padding is None else padding
        return F.conv2d(x, self._weight(x, 1.0), stride=2, padding=padding, groups=x.shape[1])

    def up(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2 H, 2 W)."""
        return F.conv_transpose2d(x, self._weight(x, 2.0), stride=2, padding=self.padding, groups=x.shape[1])


class Halve(nn.Module):
    """Halve height and width by the mean of 2x2 pixels, smoothed by `taps`, or of `width` channels by a 3x3 convolution
    of stride 2 padded on all sides: window i begins at pixel 2 i - 1."""

    def __init__(self, width: int = 0, taps: tuple[int, ...] = PLAIN) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1) if width else None
        self.filter = None if taps == PLAIN else Filter(taps)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W), H and W even, to (B, C, H / 2, W / 2)."""
        if self.filter is not None:
            return self.filter.down(x)
        out: Tensor = F.avg_pool2d(x, 2) if self.conv is None else self.conv(x)
        return out


class Double(nn.Module):
    """Double height and width by nearest neighbour, smoothed by `taps`."""

    def __init__(self, taps: tuple[int, ...] = PLAIN) -> None:
        super().__init__()
        self.filter = None if taps == PLAIN else Filter(taps)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2 H, 2 W)."""
        if self.filter is not None:
            return self.filter.up(x)
        out: Tensor = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return out


class ResidualPath(nn.Module):
    """The image on its way down, through a 3x3 convolution at every halving, added to the features.

    The zeros around the image are seen by the convolution, not by the filter, as if both were one kernel.
    """

    def __init__(self, inputs: int, outputs: int, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.conv, self.filter = nn.Conv2d(inputs, outputs, 3), Filter(taps)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, outputs, H, W) and the image (B, inputs, 2 H, 2 W) to their scaled sum, twice."""
        bias = self.conv.bias
        assert bias is not None
        wide = F.conv2d(image, self.conv.weight, padding=1 + self.filter.padding)
        x = (x + self.filter.down(wide, 0) + bias[:, None, None]) * 0.5**0.5
        return x, x


class SkipPath(nn.Module):
    """The image halved, added to the features by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.conv, self.filter = nn.Conv2d(inputs, outputs, 1), Filter(taps)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, outputs, H, W) and the image (B, inputs, 2 H, 2 W) to their sum, and the image halved."""
        image = self.filter.down(image)
        return x + self.conv(image), image


class Exit(nn.Module):
    """A level's own output: normalisation, silu and a 3x3 convolution that starts at zero."""

    def __init__(self, norm: nn.GroupNorm, outputs: int) -> None:
        super().__init__()
        self.norm, self.conv = norm, nn.Conv2d(norm.num_channels, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, outputs, H, W)."""
        out: Tensor = self.conv(norm_silu(self.norm, x))
        return out
