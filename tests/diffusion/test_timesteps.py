"""Distributions of t against their definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from sfumato.diffusion import Cosine, FlowPath, Linear, LogitNormal, LogNormal, Shifted, Uniform, ZeroTerminalSNR
from sfumato.diffusion.chains import LogNoise

EVEN = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000


KINDS = [Uniform(), LogitNormal(), LogitNormal(-0.5, 1.7), LogNormal(), LogNormal(0.3, 2.0)]
CHAINS = {
    "one step": Linear(1),
    "linear 7": Linear(7),
    "cosine": Cosine(1000),
    "log-noise": LogNoise(1000),
    "log-noise without most levels": LogNoise(20, 0.1, 1.0),
    "flow": FlowPath(100),
    "to pure noise": ZeroTerminalSNR(base=Linear(100)),
    "shifted": Shifted(Cosine(100), -1.5),
}


@pytest.mark.parametrize("timesteps", KINDS, ids=str)
@pytest.mark.parametrize("schedule", list(CHAINS.values()), ids=list(CHAINS))
def test_even_numbers_become_the_stated_probabilities(timesteps, schedule) -> None:
    num_steps = schedule.num_steps
    t = timesteps.draw(EVEN, schedule)
    steps = (t * num_steps).round()
    assert torch.allclose(steps, t * num_steps)
    assert steps.min() >= 1
    assert steps.max() <= num_steps
    p = timesteps.probabilities(schedule)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    found = torch.bincount(steps.long() - 1, minlength=num_steps) / len(EVEN)
    assert float((found - p).abs().max()) < 1.1e-5


def test_the_logit_of_t_is_normal() -> None:
    z = torch.logit(LogitNormal(0.5, 0.8).draw(EVEN, Linear(10**6)))
    assert float(z.median()) == pytest.approx(0.5, abs=1e-3)
    assert float(torch.quantile(z[::2], 0.8413)) == pytest.approx(1.3, abs=3e-3)


@pytest.mark.parametrize("schedule", [LogNoise(4000), Cosine(4000), Shifted(Cosine(4000), 1.0)], ids=str)
def test_the_logarithm_of_the_noise_is_normal_on_every_chain(schedule) -> None:
    z = -schedule(LogNormal(-1.2, 1.2).draw(EVEN, schedule)).logsnr / 2
    assert float(z.median()) == pytest.approx(-1.2, abs=4e-3)
    for quantile, expected in ((0.8413447, 0.0), (0.1586553, -2.4), (0.9772499, 1.2)):
        assert float(torch.quantile(z[::2], quantile)) == pytest.approx(expected, abs=6e-3)


def test_probabilities_of_the_noise_are_differences_of_phi() -> None:
    """Of 20 levels, a factor of 10^(1/19) apart, the first and the last get what lies beyond them."""
    p, step = LogNormal().probabilities(LogNoise(20, 0.1, 1.0)).tolist(), math.log(10) / 19
    below = [0.5 * (1 + math.erf((math.log(0.1) + (k - 0.5) * step + 1.2) / 1.2 / 2**0.5)) for k in range(21)]
    assert p[1:-1] == pytest.approx([after - before for before, after in pairwise(below[1:-1])], rel=1e-9)
    assert (p[0], p[-1]) == (pytest.approx(below[1]), pytest.approx(1 - below[-2]))


@pytest.mark.parametrize("timesteps", [LogitNormal(), LogNormal()], ids=str)
@pytest.mark.parametrize("schedule", list(CHAINS.values()), ids=list(CHAINS))
def test_the_ends_of_u_stay_on_the_chain(timesteps, schedule) -> None:
    ends = timesteps.draw(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), schedule)
    assert ends[0] == 1 / schedule.num_steps
    assert ends[0] <= ends[1] <= 1


@pytest.mark.parametrize("kind", [LogitNormal, LogNormal])
def test_a_width_of_nothing_is_refused(kind) -> None:
    for name, value in (("std", 0.0), ("std", math.nan), ("std", math.inf), ("mean", math.nan), ("mean", math.inf)):
        with pytest.raises(ValueError, match=f"{name} = "):
            kind(**{name: value})
