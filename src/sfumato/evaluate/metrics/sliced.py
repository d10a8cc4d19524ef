r"""The sliced Wasserstein distance: the transport cost between two sets of features, averaged over many directions.

The Wasserstein distance, the cost of carrying one distribution to the other, is defined where a Kullback-Leibler
divergence is infinite or can't be estimated, as between two finite sets of images. Its estimate in many dimensions
needs far too many images, but in one dimension it needs only sorting: the i-th smallest goes to the i-th smallest. So
average over directions u on the sphere (Rabin et al. 2011; Bonneel et al. 2015),

    SW^2 = mean over u of W_2^2( {u . x}, {u . y} ),    W_2^2 = integral over q in (0, 1) of ( F^-1(q) - G^-1(q) )^2

with empirical quantile functions F^-1 and G^-1, which may have different numbers of steps. The value is SW, the root.
The directions are a function of the seed.

In one dimension the influence is Kantorovich's potential: phi'(x) = 2 (x - T(x)) where T carries x to its quantile in
the other set; that of the root is phi / (2 SW).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diffusion.noise import Purpose, normal
from sfumato.evaluate.cache import derived_seed
from sfumato.evaluate.metrics.protocol import MetricValue, check_sets

DIRECTIONS = 512
_AT_ONCE = 64


def sliced_wasserstein(first: Tensor, second: Tensor, num_directions: int = DIRECTIONS, seed: int = 0) -> MetricValue:
    """Return the sliced Wasserstein-2 distance of features (N, D) and (M, D), with every image's influence."""
    check_sets("sliced Wasserstein", first, second, 1)
    x, y = first.double(), second.double()
    square = 0.0
    influences = x.new_zeros(len(x)), y.new_zeros(len(y))
    for u in torch.split(directions(seed, num_directions, x.shape[1]), _AT_ONCE):
        cost, phi, psi = _carry(x @ u.T, y @ u.T)
        square += float(cost.sum()) / num_directions
        influences[0].add_(phi.sum(1) / num_directions)
        influences[1].add_(psi.sum(1) / num_directions)
    value = square**0.5
    factor = 1 / (2 * value) if value > 0 else 0.0
    return MetricValue(value, (influences[0] * factor, influences[1] * factor), least=0.0, better="lower")


def directions(seed: int, count: int, dim: int) -> Tensor:
    """Return unit vectors, uniform on the sphere: (count, dim) float64."""
    key = derived_seed(f"evaluate directions {seed}")
    z = normal(key, Purpose.ORDER, torch.arange(count), (dim,), dtype=torch.float64)
    return z / z.square().sum(1, keepdim=True).sqrt()


def _carry(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """W_2^2 (L,) of the columns of x (N, L) and y (M, L), and the potentials of every x and y."""
    (x, rank_x), (y, rank_y) = x.sort(0), y.sort(0)
    n, m = len(x), len(y)
    # quantiles where either step function jumps, as whole multiples of 1 / (n m)
    ends = torch.unique(torch.cat((torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n)))
    width = torch.diff(ends, prepend=ends.new_zeros(1)).double()[:, None] / (n * m)
    i, j = (ends - 1) // m, (ends - 1) // n
    cost = (width * (x[i] - y[j]).square()).sum(0)
    to_y = torch.zeros_like(x).index_add_(0, i, width * y[j] * n)
    to_x = torch.zeros_like(y).index_add_(0, j, width * x[i] * m)
    return cost, _potential(x, to_y, rank_x), _potential(y, to_x, rank_y)


def _potential(x: Tensor, carried: Tensor, rank: Tensor) -> Tensor:
    """Integrate 2 (x - T(x)) along sorted columns by the trapezoidal rule, centre it, and undo the sorting."""
    gap = x - carried
    steps = (x[1:] - x[:-1]) * (gap[1:] + gap[:-1])
    phi = torch.cat((torch.zeros_like(x[:1]), steps.cumsum(0)))
    return torch.zeros_like(phi).scatter_(0, rank, phi - phi.mean(0))
