r"""Muon: momentum whose update is orthogonalised (Jordan et al. 2024, "Muon: an optimizer for hidden layers").

A matrix W (out, in), or a convolution's weight as a matrix (out, in k k), with gradient G and rate lr:

    M <- mu M + G,    U = G + mu M                                            Nesterov momentum
    W <- W - lr 0.2 sqrt(max(out, in k k)) orth(U)

orth(U) = U (U^T U)^(-1/2) has all its singular values near 1: five steps of a Newton-Schulz iteration on the shorter
side. So every direction of a weight learns at one rate, also those in which gradients are small. An orthogonal matrix
has entries of root mean square 1 / sqrt(max(out, in)), so the factor makes the update's that of Adam's, 0.2 (Liu et al.
2025, 2502.16982, Sec. 2.2): both take the same rate.

The iteration X <- P X, P a polynomial in A = X X^T, is in float32: bfloat16, as published, is slow on CPUs without it
and saves little elsewhere. P commutes with A, so the next A is P A P, and the steps need the m x m matrix A alone; X
(m, n), for a 3x3 convolution nine times as wide as high, is multiplied once at the end in place of ten times. In
float32 that is exact enough: for singular values down to 1e-5 of the norm the result is within 3e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MOMENTUM = 0.95
SCALE = 0.2
STEPS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""X <- P X, P = a I + b A + c A A, A = X X^T: Jordan's, which take any singular value in (0, 1] to about [0.7, 1.2]."""


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return U (U^T U)^(-1/2), nearly, for matrices (B, m, n): singular values about 1, in float32."""
    x: Tensor = matrices.float()
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for steps in _rounds(x.device):
        x = _polynomial(x @ x.mT, steps) @ x
    return x.mT if tall else x


def _rounds(device: torch.device) -> list[int]:
    """The steps that are taken on A alone each time: all, or one where the card rounds products to 10 bits (TF32),
    since an error in A grows twelvefold a step where singular values are small."""
    rounded = device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
    return [1] * STEPS if rounded else [STEPS]


def _polynomial(gram: Tensor, steps: int) -> Tensor:
    """Return the product of the factors P of some steps, from their first A (B, m, m)."""
    a, b, c = COEFFICIENTS
    product: Tensor | None = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        gram = factor @ gram @ factor if step + 1 < steps else gram
    assert product is not None
    return product


@torch.no_grad()
def step(
    weights: list[Tensor],
    momenta: list[Tensor],
    gradients: list[Tensor],
    lr: float | Tensor,
    applied: Tensor,
    decay: float = 0.0,
    orthogonalise: Callable[[Tensor], Tensor] = orthogonalised,
    longest: int | None = None,
) -> None:
    """Take one step of Muon in place, for weights of one shape, which are orthogonalised together.

    Args:
        weights: each (out, in, ...), two axes or more; the trailing ones are flattened.
        momenta: M of each, updated.
        gradients: G of each.
        lr: the rate; a () tensor where the step is recorded in a graph.
        applied: () tensor; where it is 0 neither weights nor momenta change, bit for bit.
        decay: decoupled weight decay: W <- (1 - lr decay) W first.
        orthogonalise: what `orthogonalised` does; several processes divide it among them.
        longest: the longer side of a matrix of which the weights are some rows.
    """
    taken = applied > 0
    moved = torch._foreach_add(gradients, momenta, alpha=MOMENTUM)
    directions = torch._foreach_add(gradients, moved, alpha=MOMENTUM)
    updates = orthogonalise(torch.stack([direction.flatten(1) for direction in directions]))
    scale = lr * SCALE * math.sqrt(longest or max(updates.shape[-2:]))
    for weight, momentum, new, update in zip(weights, momenta, moved, updates, strict=True):
        kept = weight * (1 - lr * decay) if decay else weight
        weight.copy_(torch.where(taken, _minus(kept, update.reshape(weight.shape), scale), weight))
        momentum.copy_(torch.where(taken, new, momentum))


def _minus(a: Tensor, b: Tensor, scale: float | Tensor) -> Tensor:
    """Return a - scale b."""
    return a - b * scale if isinstance(scale, Tensor) else torch.sub(a, b, alpha=scale)
