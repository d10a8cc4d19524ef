"""The parts of the transformer: attention and a dense part, both modulated by the vector of time and condition.

A block is that of DiT (Peebles and Xie 2022, 2212.09748, "adaLN-Zero"): the vector gives each half a shift a, a scale b
and a gate g for every feature,

    x + g f( (1 + b) norm(x) + a ),       f = attention, then f = W_2 gelu(W_1 .)

The layer that gives them starts at zero, so a fresh block is the identity. Queries and keys are divided by their root
mean square (Henry et al. 2020, 2010.04245; here without a learned factor), so that the products of attention stay
bounded at any learning rate.

A token's position enters once, at the entrance, as sines and cosines of its row and of its column: no table of one
size, so a network works at others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nets.dropout import dropout
from sfumato.nets.embedding import sinusoid

EPS = 1e-6
"""Added to the variance in every normalisation, as published."""


def positions(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """Return (height width, dim), row by row: half of each row the sinusoid of the row's number, half the column's.

    `dim` is a multiple of 4 and at least 8; dtype and device are those of `like`.
    """
    rows, columns = (
        sinusoid(torch.arange(n, device=like.device, dtype=torch.float32), dim // 2) for n in (height, width)
    )
    both = rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
    return torch.cat(both, dim=2).flatten(0, 1).to(like.dtype)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return (1 + scale) norm(x) + shift: x (B, N, width) normalised over its features, the others (B, 1, width)."""
    x = F.layer_norm(full(x), x.shape[-1:], eps=EPS)
    return torch.addcmul(shift.to(x.dtype), x, 1 + scale.to(x.dtype))


def full(x: Tensor) -> Tensor:
    """Return x in float32 where autocast is on: what is normalised and added up keeps its precision."""
    kind = x.device.type
    return x.float() if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) else x


class Attention(nn.Module):
    """Attention between all tokens: softmax(Q K^T / sqrt(d)) V, d = width / heads, Q and K of root mean square 1."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, width) to the same shape."""
        num, tokens, width = x.shape
        q, k, v = self.project(x).view(num, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = (F.rms_norm(full(each), each.shape[-1:], eps=EPS).to(v.dtype) for each in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(num, tokens, width)
        out: Tensor = self.out(mixed)
        return out

    def project(self, x: Tensor) -> Tensor:
        """Return the queries, keys and values of x, (B, N, 3 width)."""
        out: Tensor = self.qkv(x)
        return out


class Block(nn.Module):
    """One block; `ratio` times the width are the features inside its dense part."""

    def __init__(self, width: int, heads: int, ratio: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = Attention(width, heads)
        self.widen = nn.Linear(width, ratio * width)
        self.narrow = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, N, width) and emb (B, width), already through its silu, to (B, N, width)."""
        x = full(x)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = full(self.modulation(emb))[:, None].chunk(6, dim=2)
        x = torch.addcmul(x, gate_1, full(self._drop(self.attention(modulated(x, shift_1, scale_1)))))
        inner = self.narrow(F.gelu(self.widen(modulated(x, shift_2, scale_2))))
        return torch.addcmul(x, gate_2, full(self._drop(inner)))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training) if self.dropout else x


class Exit(nn.Module):
    """The last normalisation, modulated, and the dense layer that turns a token into a patch's outputs."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.dense = nn.Linear(width, outputs)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, N, width) and emb (B, width) to (B, N, outputs)."""
        shift, scale = self.modulation(emb)[:, None].chunk(2, dim=2)
        out: Tensor = self.dense(modulated(x, shift, scale))
        return out
