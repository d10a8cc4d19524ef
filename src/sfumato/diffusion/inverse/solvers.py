r"""Two iterations for linear systems that are known only by their products.

Conjugate gradients (Hestenes and Stiefel 1952) solve S u = b for a symmetric positive S in at most as many steps as S
has distinct eigenvalues. Applied to A^T A x = A^T b from x = 0 they give the shortest of the least-squares solutions,
which is the pseudoinverse's A+ b.

A network's Jacobian is only nearly symmetric and positive, and there conjugate gradients can leave a larger residual
with every step. Minimal residuals ("GCR", Eisenstat, Elman and Schultz 1983) need neither: of all combinations of b, S
b, S^2 b, ... so far they take the one with the least |b - S u|, which can only fall. They keep all former directions.

Each example of a batch has a system of its own: inner products are taken within examples, and a solved one no longer
changes while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.diffusion.level import broadcast

Map = Callable[[Tensor], Tensor]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each example, (B,)."""
    return (a * b).flatten(1).sum(1)


def _ratio(numerator: Tensor, denominator: Tensor, going: Tensor) -> Tensor:
    """numerator / denominator where the example goes on, 0 elsewhere, (B,)."""
    return torch.where(going, numerator / torch.where(going, denominator, 1.0), 0.0)


def _target(b: Tensor) -> Tensor:
    """|r|^2 at which a residual r that starts as b counts as solved: eps^(3/4) of its length, 6e-6 in float32."""
    return _dot(b, b) * float(torch.finfo(b.dtype).eps ** 1.5)


def conjugate_gradients(apply: Map, b: Tensor, iterations: int) -> Tensor:
    """Return u with S u = b, (B, ...), after at most so many products.

    `apply` is u -> S u, symmetric and positive semi-definite, and b lies in its range.
    """
    u, residual = torch.zeros_like(b), b
    direction, size = residual, _dot(residual, residual)
    target = _target(b)
    for _ in range(iterations):
        product = apply(direction)
        curvature = _dot(direction, product)
        going = (size > target) & (curvature > 0)
        if not bool(going.any()):
            break
        step = broadcast(_ratio(size, curvature, going), b)
        u, residual = u + step * direction, residual - step * product
        new = _dot(residual, residual)
        direction = residual + broadcast(_ratio(new, size, going), b) * direction
        size = torch.where(going, new, 0.0)
    return u


def minimal_residual(apply: Map, b: Tensor, iterations: int) -> Tensor:
    """Return the u with the least |b - S u| in the span of b, S b, ..., S^(iterations - 1) b, (B, ...).

    `apply` is u -> S u. As many iterations as S has distinct eigenvalues solve the system.
    """
    u, residual = torch.zeros_like(b), b
    target = _target(b)
    past: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        direction, product = residual, apply(residual)
        for former, image, size, used in past:
            overlap = broadcast(_ratio(_dot(image, product), size, used), b)
            direction, product = direction - overlap * former, product - overlap * image
        size = _dot(product, product)
        going = (_dot(residual, residual) > target) & (size > 0)
        if not bool(going.any()):
            break
        step = broadcast(_ratio(_dot(residual, product), size, going), b)
        u, residual = u + step * direction, residual - step * product
        past.append((direction, product, size, going))
    return u
