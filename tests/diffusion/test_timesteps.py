"""Distributions of t against their definitions."""

from __future__ import annotations

import pytest
import torch

from sfumato.diffusion import LogitNormal, Uniform

EVEN = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000


@pytest.mark.parametrize("timesteps", [Uniform(), LogitNormal(), LogitNormal(-0.5, 1.7)], ids=str)
@pytest.mark.parametrize("num_steps", [1, 7, 1000])
def test_even_numbers_become_the_stated_probabilities(timesteps, num_steps) -> None:
    t = timesteps.draw(EVEN, num_steps)
    steps = (t * num_steps).round()
    assert torch.allclose(steps, t * num_steps)
    assert steps.min() >= 1
    assert steps.max() <= num_steps
    p = timesteps.probabilities(num_steps)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    found = torch.bincount(steps.long() - 1, minlength=num_steps) / len(EVEN)
    assert float((found - p).abs().max()) < 1.1e-5


def test_the_logit_of_t_is_normal() -> None:
    z = torch.logit(LogitNormal(0.5, 0.8).draw(EVEN, 10**6))
    assert float(z.median()) == pytest.approx(0.5, abs=1e-3)
    assert float(torch.quantile(z[::2], 0.8413)) == pytest.approx(1.3, abs=3e-3)


def test_the_ends_of_u_stay_on_the_chain() -> None:
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert LogitNormal().draw(ends, 1000)[0] == 1 / 1000
    assert LogitNormal().draw(ends, 1000)[1] <= 1
    with pytest.raises(ValueError, match="std = 0"):
        LogitNormal(std=0.0)
