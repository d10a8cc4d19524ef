r"""Energy distance (Szekely and Rizzo 2013) of two sets of features, relative to the distance between them:

    E = 1 - ( A + B ) / ( 2 C ),     A = E|x - x'|, B = E|y - y'| over different pairs of one set, C = E|x - y|

It is 0 on average for sets of one distribution, whatever their size, since A and B leave out the distance of an image
from itself, and 1 where each set is a single point. That makes it the number to judge by: thresholds hold for any
number of images.

**Influences.** With a_i the mean distance of x_i to the others of its set and c_i to the other set,

    psi_i = ( (A + B)/(2C) c_i - a_i ) / C      from dE = -dA/(2C) + (A + B)/(2C^2) dC, dA = 2 (a_i - A), dC = c_i - C
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.evaluate.metrics.protocol import MetricValue, check_sets
from sfumato.evaluate.neighbours import pieces, square_distances


def energy_distance(real: Tensor, generated: Tensor) -> MetricValue:
    """Return the relative energy distance of features (N, D) and (M, D), N, M > 1; 0 where all distances are 0."""
    check_sets("the energy distance", real, generated, 2)
    own, others = _sums(real, real) / (len(real) - 1), _sums(generated, generated) / (len(generated) - 1)
    across, back = _sums(real, generated) / len(generated), _sums(generated, real) / len(real)
    between = float(across.mean())
    if between == 0:
        return MetricValue(0.0, tuple(torch.zeros(len(x), dtype=torch.float64) for x in (real, generated)), most=1.0)
    within = float(own.mean() + others.mean()) / (2 * between)
    influences = tuple((within * c - a) / between for a, c in ((own, across), (others, back)))
    return MetricValue(1 - within, influences, most=1.0, better="lower")


def _sums(x: Tensor, y: Tensor) -> Tensor:
    """For each row x (N, D) the sum of its distances to the rows y (M, D): (N,) float64."""
    same, sums = x is y, torch.zeros(len(x), dtype=torch.float64)
    for first, a in pieces(x):
        for second, b in pieces(y):
            distances = square_distances(a, b).sqrt()
            if same and first == second:
                distances.fill_diagonal_(0.0)
            sums[first : first + len(a)] += distances.sum(1)
    return sums
