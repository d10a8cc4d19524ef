"""The time vector against the written-out formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.nets.embedding import TimeEmbedding, sinusoid


@pytest.mark.parametrize("dim", [4, 32, 128])
def test_sinusoid_is_the_formula(dim: int) -> None:
    times = np.array([0.0, 0.5, 1.0, 17.25, 499.0, 999.0])
    rows = np.zeros((len(times), dim))
    for row, t in enumerate(times):
        for i in range(dim // 2):
            angle = t * 10000.0 ** (-i / (dim // 2 - 1))
            rows[row, i], rows[row, dim // 2 + i] = np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(sinusoid(torch.tensor(times), dim).numpy(), rows, atol=1e-12)
    np.testing.assert_allclose(sinusoid(torch.tensor(times).float(), dim).numpy(), rows, atol=2e-4)


def test_inner_products_depend_on_the_distance_alone() -> None:
    times = torch.arange(0, 1000, 10, dtype=torch.float64)
    rows = sinusoid(times, 64)
    products = rows @ rows.T
    for offset in (0, 1, 7):
        diagonal = products.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-9, rtol=0)


def test_time_embedding_is_two_dense_layers_with_silu_between() -> None:
    torch.manual_seed(0)
    module, time = TimeEmbedding(8, 12).double(), torch.tensor([3.0, 700.0], dtype=torch.float64)
    hidden = sinusoid(time, 8) @ module.first.weight.T + module.first.bias
    expected = (hidden / (1 + torch.exp(-hidden))) @ module.second.weight.T + module.second.bias
    torch.testing.assert_close(module(time), expected)
