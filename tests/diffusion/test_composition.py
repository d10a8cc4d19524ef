"""Everything composes: guidance x range x sampler x grid x kind of network, with no special case anywhere.

Whoever adds a wrapper or a sampler adds a line to the lists below (samplers and grids come from their registries).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch

from sfumato.conditions.table import Attributes
from sfumato.diffusion.denoiser import Clipped, Denoiser, NetworkDenoiser, Thresholded
from sfumato.diffusion.grid import GRIDS
from sfumato.diffusion.guidance import Guided
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.samplers.ddim import Ancestral
from sfumato.diffusion.samplers.protocol import Sampler, sample
from sfumato.diffusion.schedule import Cosine
from sfumato.diffusion.variance import Learned

from .common import random_function

SHAPE = (2, 4, 3)
BATCH = 5
CONDITION = Attributes(torch.tensor([[0.0], [1.0], [2.0], [1.0], [float("nan")]]))


def conditional(x: torch.Tensor, time: torch.Tensor, condition: Attributes | None = None) -> torch.Tensor:
    """The random function, pushed by a condition wherever one is given."""
    push = 0.0 if condition is None else condition.table.nan_to_num(-0.7)[:, :, None, None].to(x)
    return random_function(x, time) + 0.3 * push * torch.cos(x)


def with_variance(x: torch.Tensor, time: torch.Tensor, condition: Attributes | None = None) -> torch.Tensor:
    output = conditional(x, time, condition)
    return torch.cat([output, torch.tanh(output.roll(1, -1))], 1)


NETWORKS: dict[str, Denoiser] = {
    "eps": NetworkDenoiser(conditional, Cosine(num_steps=50), PARAMETERIZATIONS["eps"]),
    "v": NetworkDenoiser(conditional, Cosine(num_steps=50), PARAMETERIZATIONS["v"]),
    "learned": NetworkDenoiser(with_variance, Cosine(num_steps=50), PARAMETERIZATIONS["v"]),
}

Wrap = Callable[[Denoiser], Denoiser]
GUIDANCE: dict[str, Wrap] = {
    "unguided": lambda d: d,
    "guided": lambda d: Guided(d, 2.0),
    "rescaled": lambda d: Guided(d, 3.0, interval=(0.2, 0.7), rescale=0.7),
}
RANGES: dict[str, Wrap] = {"free": lambda d: d, "clipped": Clipped, "thresholded": Thresholded}


def samplers(network: str) -> dict[str, Sampler]:
    """Every sampler by its defaults, and the one that uses a learned variance."""
    walk: dict[str, Sampler] = {name: kind() for name, kind in SAMPLERS.items()}
    if network == "learned":
        walk["ddpm-learned"] = Ancestral(Learned())
    return walk


def draw(denoiser: Denoiser, sampler: Sampler, grid: str, rows: slice = slice(None)) -> torch.Tensor:
    times, index = GRIDS[grid](5, denoiser.schedule), torch.arange(BATCH)[rows]
    return sample(denoiser, sampler, times, Noise(3, index, SHAPE, torch.float64), CONDITION.take(index))


WALK = [(*rest, "trailing") for rest in product(GUIDANCE, RANGES, NETWORKS)]
WALK += [("rescaled", "thresholded", "learned", grid) for grid in GRIDS if grid != "trailing"]


@pytest.mark.parametrize(("guidance", "range_", "network", "grid"), WALK)
def test_every_combination_draws_the_same_images_in_any_split(
    guidance: str, range_: str, network: str, grid: str
) -> None:
    """Every sampler: finite, of the right shape, and image i whatever the batch, relative to the largest value (a plain
    eps network's grow as 1/alpha)."""
    denoiser = RANGES[range_](GUIDANCE[guidance](NETWORKS[network]))
    for name, sampler in samplers(network).items():
        whole = draw(denoiser, sampler, grid)
        assert whole.shape == (BATCH, *SHAPE), name
        assert bool(whole.isfinite().all()), name
        parts = torch.cat([draw(denoiser, sampler, grid, rows) for rows in (slice(0, 2), slice(2, 5))])
        assert torch.allclose(whole, parts, rtol=1e-8, atol=1e-8 * float(whole.abs().max())), name


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_two_threads_share_one_chain_of_wrappers(guidance: str) -> None:
    denoiser = RANGES["thresholded"](GUIDANCE[guidance](NETWORKS["learned"]))
    for name, sampler in samplers("learned").items():
        alone = [draw(denoiser, sampler, "trailing", slice(i, i + 2)) for i in range(2)]
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(draw, denoiser, sampler, "trailing", slice(i, i + 2)) for i in range(2)]
            for one, job in zip(alone, jobs, strict=True):
                assert torch.equal(one, job.result()), name


@pytest.mark.parametrize("name", ["guided", "rescaled"])
def test_guidance_does_something(name: str) -> None:
    """The walk above would pass if a wrapper were ignored."""
    plain = draw(NETWORKS["v"], SAMPLERS["ddim"](), "trailing")
    guided = draw(GUIDANCE[name](NETWORKS["v"]), SAMPLERS["ddim"](), "trailing")
    assert float((plain - guided)[:4].flatten(1).norm(dim=1).min()) > 0.01
    assert torch.allclose(plain[4], guided[4], atol=1e-9), "a row without a condition is unconditional"
