r"""Three iterations for linear systems that are known only by their products.

Conjugate gradients (Hestenes and Stiefel 1952) solve S u = b for a symmetric positive S in at most as many steps as S
has distinct eigenvalues. Applied to A^T A x = A^T b from x = 0 without ever forming A^T A ("CGLS") they give the
shortest of the least-squares solutions, which is the pseudoinverse's A+ b.

A network's Jacobian is only nearly symmetric and positive, and there conjugate gradients can leave a larger residual
with every step. Minimal residuals ("GCR", Eisenstat, Elman and Schultz 1983) need neither: of all combinations of b, S
b, S^2 b, ... so far they take the one with the least |b - S u|, which can only fall. They keep all former directions.

Each example of a batch has a system of its own: inner products are taken within examples, and one that is solved
stands still while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["conjugate_gradients", "least_squares", "minimal_residual"]

Map = Callable[[Tensor], Tensor]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each example, (B, 1, ..., 1)."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def _ratio(numerator: Tensor, denominator: Tensor, going: Tensor) -> Tensor:
    """numerator / denominator where the example goes on, 0 elsewhere."""
    return torch.where(going, numerator / torch.where(going, denominator, 1.0), 0.0)


def _tolerance(b: Tensor) -> float:
    """How small a residual, relative to its start, counts as solved: eps^(3/4), 6e-6 in float32."""
    return float(torch.finfo(b.dtype).eps ** 0.75)


def conjugate_gradients(apply: Map, b: Tensor, iterations: int) -> Tensor:
    """Return u with S u = b, example by example.

    Args:
        apply: u -> S u, linear, symmetric and positive semi-definite.
        b: (B, ...), in the range of S.
        iterations: at most this many products.
    """
    u, residual = torch.zeros_like(b), b
    direction, size = residual, _dot(residual, residual)
    target = size * _tolerance(b) ** 2
    for _ in range(iterations):
        product = apply(direction)
        curvature = _dot(direction, product)
        going = (size > target) & (curvature > 0)
        if not bool(going.any()):
            break
        step = _ratio(size, curvature, going)
        u, residual = u + step * direction, residual - step * product
        new = _dot(residual, residual)
        direction = residual + _ratio(new, size, going) * direction
        size = torch.where(going, new, 0.0)
    return u


def least_squares(forward: Map, adjoint: Map, b: Tensor, iterations: int) -> Tensor:
    """Return A+ b, the shortest x among those that minimise |A x - b|, example by example.

    Args:
        forward: x -> A x.
        adjoint: y -> A^T y.
        b: (B, ...).
        iterations: at most this many products with A and with A^T.
    """
    gradient = adjoint(b)
    x, residual, direction = torch.zeros_like(gradient), b, gradient
    size = _dot(gradient, gradient)
    target = size * _tolerance(b) ** 2
    for _ in range(iterations):
        product = forward(direction)
        curvature = _dot(product, product).reshape(size.shape)
        going = (size > target) & (curvature > 0)
        if not bool(going.any()):
            break
        step = _ratio(size, curvature, going)
        x, residual = x + step * direction, residual - step.reshape(-1, *[1] * (b.ndim - 1)) * product
        gradient = adjoint(residual)
        new = _dot(gradient, gradient)
        direction = gradient + _ratio(new, size, going) * direction
        size = torch.where(going, new, 0.0)
    return x


def minimal_residual(apply: Map, b: Tensor, iterations: int) -> Tensor:
    """Return the u with the least |b - S u| in the span of b, S b, ..., S^(iterations - 1) b, example by example.

    Args:
        apply: u -> S u, linear.
        b: (B, ...).
        iterations: at most this many products; as many as S has distinct eigenvalues solve the system.
    """
    u, residual = torch.zeros_like(b), b
    target = _dot(b, b) * _tolerance(b) ** 2
    past: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        direction, product = residual, apply(residual)
        for former, image, size, used in past:
            share = _ratio(_dot(image, product), size, used)
            direction, product = direction - share * former, product - share * image
        size = _dot(product, product)
        going = (_dot(residual, residual) > target) & (size > 0)
        if not bool(going.any()):
            break
        step = _ratio(_dot(residual, product), size, going)
        u, residual = u + step * direction, residual - step * product
        past.append((direction, product, size, going))
    return u
