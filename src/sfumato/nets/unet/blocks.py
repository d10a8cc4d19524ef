"""The parts the U-Net is built from: residual block, self-attention, halving, doubling.

They are the function and the parameters of the published DDPM network (DDPM, appendix B), computed for speed:

- Activations are stored as (B, H, W, C), torch's channels_last. Convolution kernels prefer that, and attention then
  reads the pixels as a sequence (B, H W, C) without a copy.
- The time vector and the residual branch are added in place into a convolution's output.
- Nearest doubling followed by a 3x3 convolution w is one transposed convolution of stride 2 with the 4x4 kernel w * u,
  u the 2x2 square of ones, since convolution is associative: 4 products for each output pixel and channel pair, not 9.

Every residual branch ends in a layer whose weights start at zero, so a fresh block is (a projection of) the identity.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nets.derived import Derives
from sfumato.nets.dropout import dropout


def norm(width: int, groups: int) -> nn.GroupNorm:
    """Return the network's normalisation: GroupNorm (Wu, He 2018) with the published eps of 1e-6."""
    return nn.GroupNorm(groups, width, eps=1e-6)


def norm_silu(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """Normalise, then apply silu(x) = x sigmoid(x), the latter in place where no gradient needs its input."""
    return F.silu(normalised(layer, x), inplace=not torch.is_grad_enabled())


def normalised(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    """Normalise in the precision of the layer's weights, also where autocast computes the layers around it in less."""
    out: Tensor = layer(x.to(layer.weight.dtype))
    return out


class ResidualBlock(nn.Module):
    """x + f(x, emb), with the DDPM's f.

    h = conv_1(silu(norm_1(x))) + W emb;   f = conv_2(dropout(silu(norm_2(h)))). Where the number of channels changes, x
    goes through a 1x1 convolution. `embedding` is the length of the vector of time and condition.
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
        h = dropout(norm_silu(self.norm_2, h), self.dropout, self.training)
        h = self.conv_2(h)
        h += self.shortcut(x)
        return h


class SelfAttention(Derives):
    """x + attention over all pixels: softmax(Q K^T / sqrt(d)) V of the normalised x (Vaswani et al. 2017, Eq. 1),
    d = width / heads.

    With one head the products of weights are taken first, and the pixels y go through two 1x1 convolutions, not four:

        (W_q y_i + b_q)^T (W_k y_j + b_k) = (W_k^T W_q y_i + W_k^T b_q)^T y_j + what is the same for every j
        W_o sum_j p_ij (W_v y_j + b_v) + b_o = W_o W_v sum_j p_ij y_j + W_o b_v + b_o,       sum_j p_ij = 1
    """

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = norm(width, groups)
        self.heads = heads
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        if self.heads == 1:
            out = self._with_one_head(normalised(self.norm, x))
        else:
            q, k, v = tokens(self.project(x), 3 * self.heads).chunk(3, dim=1)
            out = self.out(image(F.scaled_dot_product_attention(q, k, v), x))
        out += x
        return out

    def project(self, x: Tensor) -> Tensor:
        """Return the queries, keys and values of x, (B, 3 width, H, W)."""
        out: Tensor = self.qkv(normalised(self.norm, x))
        return out

    def derive(self) -> tuple[Tensor, ...]:
        """Return the weight and bias of both convolutions where there is one head."""
        if self.heads > 1:
            return ()
        assert self.qkv.bias is not None
        assert self.out.bias is not None
        w_q, w_k, w_v = self.qkv.weight.flatten(1).chunk(3)
        b_q, b_v = self.qkv.bias[: len(w_q)], self.qkv.bias[-len(w_v) :]
        w_o = self.out.weight.flatten(1)
        before, after = (w_k.mT @ w_q)[:, :, None, None], (w_o @ w_v)[:, :, None, None]
        return before, w_k.mT @ b_q, after, w_o @ b_v + self.out.bias

    def _with_one_head(self, y: Tensor) -> Tensor:
        w_before, b_before, w_after, b_after = self.derived()
        q = F.conv2d(y, w_before, b_before)
        pixels = tokens(y.to(q.dtype), 1)
        mixed = image(F.scaled_dot_product_attention(tokens(q, 1), pixels, pixels), y)
        return F.conv2d(mixed, w_after, b_after)


def tokens(x: Tensor, heads: int) -> Tensor:
    """Return (B, heads d, H, W) as (B, heads, H W, d): the fused kernels need only that d is adjacent in memory."""
    num, _, height, breadth = x.shape
    return x.permute(0, 2, 3, 1).reshape(num, height * breadth, heads, -1).transpose(1, 2)


def image(rows: Tensor, like: Tensor) -> Tensor:
    """Return (B, heads, H W, d) as (B, heads d, H, W)."""
    num, _, height, breadth = like.shape
    return rows.transpose(1, 2).reshape(num, height, breadth, -1).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Halve height and width by a 3x3 convolution of stride 2.

    The published network pads below and to the right only, as TensorFlow's "SAME" does for even sizes: window i begins
    at pixel 2 i.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Map (B, width, H, W), H and W even, to (B, width, H / 2, W / 2)."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(Derives):
    """Double height and width: nearest neighbour and a 3x3 convolution, as one transposed convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        """Map (B, width, H, W) to (B, width, 2 H, 2 W)."""
        (kernel,) = self.derived()
        return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)

    def derive(self) -> tuple[Tensor, ...]:
        """Return the kernel of the transposed convolution."""
        return (spread(self.conv.weight),)


def spread(weight: Tensor) -> Tensor:
    """Return the kernel of the transposed convolution that equals nearest doubling followed by a 3x3 convolution.

    Pixel x_i is at 2 i and 2 i + 1 of the doubled row, so out_y = sum_k w_k doubled_{y + k - 1} receives it with the
    weight w_{2 i + 1 - y} + w_{2 i + 2 - y}: over y = 2 i - 1 .. 2 i + 2 that is w_2, w_2 + w_1, w_1 + w_0, w_0, in
    both directions alike. (O, I, 3, 3), as `conv2d` takes it, becomes (I, O, 4, 4), as `conv_transpose2d` takes it with
    stride 2 and padding 1.
    """
    flipped = weight.flip(2, 3).transpose(0, 1)
    rows = F.pad(flipped, (0, 0, 0, 1)) + F.pad(flipped, (0, 0, 1, 0))
    both = F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))
    return both.contiguous(memory_format=torch.channels_last)
