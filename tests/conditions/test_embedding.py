"""Attributes as vectors, against the written-out formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.conditions.embedding import WAVES, AttributeEmbedding, NumberEmbedding, ValueEmbedding
from sfumato.conditions.table import Attributes
from sfumato.errors import UserError


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
    module = AttributeEmbedding((2, 0, 3), 6)
    condition = torch.tensor([[1, -0.5, 2], [math.nan, 0.25, 0], [0, math.nan, math.nan], [math.nan] * 3])
    wanted = sum(part(condition[:, a]) for a, part in enumerate(module.parts))
    torch.testing.assert_close(module(Attributes(condition), 4), wanted)
    torch.testing.assert_close(module(None, 2), wanted[[3, 3]])
    with pytest.raises(UserError, match="3 attributes"):
        module(Attributes(condition[:, :2]), 4)
