"""The parts the U-Net is built from: residual block, self-attention, halving, doubling.

All of them keep the published DDPM network's function (Ho, Jain, Abbeel 2020, appendix B) and its parameters, one for
one. How they compute it is chosen for speed, on a CPU above all:

- Activations lie in memory as (B, H, W, C), which torch calls channels_last. Convolution kernels prefer that, and
  attention then reads the pixels as a sequence (B, H W, C) without moving a byte.
- A convolution's output belongs to nobody else, so the time vector and the residual branch are added into it in place.
- Doubling by nearest neighbour followed by a 3x3 convolution w convolves each small pixel, spread over a 2x2 square,
  with w. Convolution is associative: spreading w over the square once, instead of every pixel, gives one 4x4 kernel
  applied with stride 2,

      out = w * (u * spread x) = (w * u) * spread x,   u = the 2x2 square of ones,

  the transposed convolution with kernel w * u. Each output pixel then costs 4 products a channel pair instead of 9.

Every residual branch ends in a layer whose weights start at zero, so a fresh block is (a projection of) the identity
and a deep stack starts out as a shallow one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Downsample", "ResidualBlock", "SelfAttention", "Upsample", "norm", "norm_silu"]


def norm(width: int, groups: int) -> nn.GroupNorm:
    """Return the network's normalisation: GroupNorm (Wu, He 2018) with the published eps of 1e-6."""
    return nn.GroupNorm(groups, width, eps=1e-6)


def norm_silu(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """Normalise, then apply silu(x) = x sigmoid(x), the latter in place where no gradient will ask for its input."""
    return F.silu(layer(x), inplace=not torch.is_grad_enabled())


class ResidualBlock(nn.Module):
    """x + f(x, emb), with the DDPM's f.

    h = conv_1(silu(norm_1(x))) + W emb;   f = conv_2(dropout(silu(norm_2(h)))). Where the number of channels changes, x
    goes through a 1x1 convolution.

    Args:
        inputs: channels of x.
        outputs: channels of the result.
        embedding: length of the vector that carries time and class.
        dropout: probability that an activation is dropped in training.
        groups: groups of the normalisation.
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, groups: int) -> None:
        super().__init__()
        self.norm_1 = norm(inputs, groups)
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.project = nn.Linear(embedding, outputs)
        self.norm_2 = norm(outputs, groups)
        self.dropout = dropout
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) and emb (B, embedding), already through its silu, to (B, outputs, H, W)."""
        h: Tensor = self.conv_1(norm_silu(self.norm_1, x))
        h += self.project(emb)[:, :, None, None]
        h = F.dropout(norm_silu(self.norm_2, h), self.dropout, self.training)
        h = self.conv_2(h)
        h += self.shortcut(x)
        return h


class SelfAttention(nn.Module):
    """x + attention over all pixels: softmax(Q K^T / sqrt(d)) V of the normalised x (Vaswani et al. 2017, Eq. 1).

    Args:
        width: channels of x.
        heads: how many heads share them; each has d = width / heads.
        groups: groups of the normalisation.
    """

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(width, groups)
        self.heads = heads
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        num, width, height, breadth = x.shape
        pixels = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(num, height * breadth, 3, self.heads, -1)
        # The channels of a head stay adjacent in memory: the fused kernels ask for that and for nothing else.
        q, k, v = pixels.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(num, height, breadth, width)
        out: Tensor = self.out(mixed.permute(0, 3, 1, 2))
        out += x
        return out


class Downsample(nn.Module):
    """Halve height and width by a 3x3 convolution of stride 2.

    The published network pads below and to the right only, as TensorFlow's "SAME" does for even sizes: window i begins
    at pixel 2 i.

    Args:
        width: channels, kept.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W), H and W even, to (B, width, H / 2, W / 2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a 3x3 convolution, the two done as one transposed convolution.

    Args:
        width: channels, kept.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to (B, width, 2 H, 2 W)."""
        return F.conv_transpose2d(x, spread(self.conv.weight), self.conv.bias, stride=2, padding=1)


def spread(weight: Tensor) -> Tensor:
    """Return the kernel of the transposed convolution that equals nearest doubling followed by a 3x3 convolution.

    Pixel x_i stands at 2 i and 2 i + 1 of the doubled row, so out_y = sum_k w_k doubled_{y + k - 1} receives from x_i
    the weight w_{2 i + 1 - y} + w_{2 i + 2 - y}: over y = 2 i - 1 .. 2 i + 2 that is w_2, w_2 + w_1, w_1 + w_0, w_0, in
    both directions alike.

    Args:
        weight: (O, I, 3, 3), as `conv2d` takes it.

    Returns:
        (I, O, 4, 4), as `conv_transpose2d` takes it with stride 2 and padding 1.
    """
    flipped = weight.flip(2, 3).transpose(0, 1)
    rows = F.pad(flipped, (0, 0, 0, 1)) + F.pad(flipped, (0, 0, 1, 0))
    both = F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
    return both.contiguous(memory_format=torch.channels_last)
