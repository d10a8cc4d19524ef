"""Time and class vectors against the written-out formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.errors import UserError
from sfumato.nets.embedding import (
    WAVES,
    ConditionEmbedding,
    NumberEmbedding,
    TimeEmbedding,
    ValueEmbedding,
    sinusoid,
)


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


def test_not_given_is_a_row_of_its_own() -> None:
    torch.manual_seed(0)
    module = ValueEmbedding(3, 5)
    rows = module(torch.tensor([math.nan, 0, 1, 2]))
    torch.testing.assert_close(rows, module.table.weight)
    assert len({tuple(row) for row in rows.tolist()}) == 4


@pytest.mark.parametrize("value", [-2.0, 3.0])
def test_value_outside_the_table(value: float) -> None:
    with pytest.raises(IndexError):
        ValueEmbedding(3, 5)(torch.tensor([value]))


def test_a_number_is_the_formula() -> None:
    torch.manual_seed(0)
    module, x = NumberEmbedding(7).double(), np.array([-7.9, -0.3, 0.0, 1.5, 7.9])
    row = np.array([[f(math.pi / 8 * 2**k * v) for f in (math.sin, math.cos) for k in range(WAVES)] for v in x])
    wanted = torch.tensor(row) @ module.dense.weight.T + module.dense.bias
    torch.testing.assert_close(module(torch.tensor(x)), wanted)
    # all of what lies within eight deviations is told apart, as the line of the slowest pair: no two rows are close
    rows = torch.cat([f(math.pi / 8 * 2.0**k * torch.linspace(-7.9, 7.9, 800)[:, None])
                      for k in range(WAVES) for f in (torch.sin, torch.cos)], 1)  # fmt: skip
    far = torch.cdist(rows, rows) + 9 * torch.eye(800) + 9 * torch.eye(800).roll(1, 0) + 9 * torch.eye(800).roll(-1, 0)
    assert far.min() > 0.1


def test_a_number_that_is_not_given_has_a_vector_of_its_own_and_no_gradient_of_nan() -> None:
    torch.manual_seed(0)
    module, x = NumberEmbedding(4), torch.tensor([math.nan, 0.0])
    out = module(x)
    torch.testing.assert_close(out[:1], module.absent.weight)
    assert not torch.allclose(out[0], out[1])
    out.square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in module.parameters())


def test_a_condition_is_the_sum_of_its_attributes() -> None:
    torch.manual_seed(0)
    module = ConditionEmbedding((2, 0, 3), 6)
    condition = torch.tensor([[1, -0.5, 2], [math.nan, 0.25, 0], [0, math.nan, math.nan], [math.nan] * 3])
    wanted = sum(part(condition[:, a]) for a, part in enumerate(module.parts))
    torch.testing.assert_close(module(condition, 4), wanted)
    torch.testing.assert_close(module(None, 2), wanted[[3, 3]])
    with pytest.raises(UserError, match="3 attributes"):
        module(condition[:, :2], 4)
