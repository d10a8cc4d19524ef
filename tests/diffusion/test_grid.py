"""Grids: against diffusers' timestep spacings, and the rules all grids keep."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from sfumato.diffusion import GRIDS, Cosine

THEIRS = {"trailing": "trailing", "leading": "leading", "uniform": "linspace"}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("num_steps", "chain"), [(1000, 1000), (50, 1000), (7, 1000), (10, 100), (33, 100)])
def test_grids_equal_diffusers(name: str, num_steps: int, chain: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=chain, timestep_spacing=THEIRS[name], steps_offset=0)
    scheduler.set_timesteps(num_steps)
    ours = (GRIDS[name](num_steps, Cosine(chain))[:-1] * chain).round().long() - 1
    assert ours.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50, 99, 100])
def test_grids_fall_from_noise_to_data_on_the_chain(name: str, num_steps: int) -> None:
    times = GRIDS[name](num_steps, Cosine(100))
    assert times.shape == (num_steps + 1,)
    assert times.dtype == torch.float64
    assert float(times[-1]) == 0
    assert bool((times.diff() < 0).all())
    assert torch.allclose(times * 100, (times * 100).round(), atol=1e-9)
    if name == "trailing":
        assert float(times[0]) == 1


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("bad", [0, 101, -3])
def test_impossible_counts_are_refused(name: str, bad: int) -> None:
    with pytest.raises(ValueError, match="choose from 1 to 100"):
        GRIDS[name](bad, Cosine(100))
