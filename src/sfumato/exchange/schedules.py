"""Chains of other libraries, which come as tables of betas."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sfumato.diffusion.chains import Table
from sfumato.diffusion.schedule import Chain, Cosine, Linear, Quadratic

_NEAR = 2e-6
"""Betas that differ by this fraction or less are the same: tables are stored in float32."""


def chain_of(betas: Sequence[float]) -> Chain:
    """Return the named chain whose betas these are, but for float32; else one of the betas themselves. Raises
    ValueError for no betas, or one outside (0, 1]."""
    table = torch.tensor([float(beta) for beta in betas], dtype=torch.float64)
    steps, unit = len(table), len(table) / 1000
    named: list[Chain] = [Cosine(steps)]
    if steps and 0 < table[0] <= 1 and 0 < table[-1] <= 1:
        low, high = (round(float(end) * unit, 9) for end in (table[0], table[-1]))
        if 0 < low <= 1 and 0 < high <= 1:
            named += [Linear(steps, low, high), Quadratic(steps, low, high)]
    for chain in named if steps else []:
        if torch.allclose(chain.betas(), table, rtol=_NEAR, atol=1e-8):
            return chain
    return Table(values=tuple(table.tolist()))
