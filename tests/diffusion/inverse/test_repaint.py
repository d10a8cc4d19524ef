"""RePaint: Algorithm 1 by hand, where the walk goes, what it draws, and how far it is from the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.conditions.table import Attributes
from sfumato.diffusion.denoiser import Clipped, NetworkDenoiser, Thresholded
from sfumato.diffusion.grid import trailing
from sfumato.diffusion.guidance import Guided
from sfumato.diffusion.inverse.operators import Mask
from sfumato.diffusion.inverse.posterior import MomentMatching, PiGDM
from sfumato.diffusion.inverse.repaint import RePaint
from sfumato.diffusion.noise import Noise
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import forward_step, marginal
from sfumato.diffusion.samplers import SAMPLERS
from sfumato.diffusion.samplers.ddim import DDIM, Ancestral
from sfumato.diffusion.samplers.protocol import Sampler, State, sample, trajectory
from sfumato.diffusion.schedule import Linear, ZeroTerminalSNR
from sfumato.diffusion.variance import Small

from ..common import images, noise, random_function
from .cases import OPERATORS, PIXELS, SCHEDULE, SHAPE, D, smooth
from .exact import exact_posterior

NETWORK = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS["eps"])
KNOWN = images(1, SHAPE, seed=9).clamp(-1, 1)
GRID = trailing(10, Linear())


@dataclass(frozen=True)
class Counting:
    """A denoiser that remembers when it was asked."""

    times: list[float] = field(default_factory=list)
    schedule: Linear = Linear()

    def __call__(self, x_t: Tensor, t: float, condition: object = None) -> Prediction:
        self.times.append(round(t, 6))
        return NETWORK(x_t, t)


# By hand


def test_plain_replacement_is_equation_8() -> None:
    state, s = State(images(2, SHAPE), 0.5, step=3), 0.4
    inner = DDIM().step(NETWORK, state, s, noise(2, SHAPE))
    level, z = Linear()(s), noise(2, SHAPE).step((1 << 30) + 3)
    expected = torch.where(PIXELS, level.alpha * KNOWN + level.sigma * z, inner.x)
    assert torch.allclose(
        RePaint(DDIM(), KNOWN, PIXELS, repeats=1).step(NETWORK, state, s, noise(2, SHAPE)).x, expected
    )


def test_a_step_with_three_repeats_is_algorithm_1() -> None:
    state, s, source = State(images(2, SHAPE), 0.5, step=3), 0.4, noise(2, SHAPE)
    level_s, level_t, x_t, x_s = Linear()(s), Linear()(0.5), state.x, state.x
    for r in range(3):
        if r:
            x_t = forward_step(x_s, level_s, level_t).sample(source.step((2 << 30) + (r << 20) + 4))
        plain = Ancestral(Small()).step(NETWORK, State(x_t, 0.5, step=3 + (r << 20)), s, source)
        known = marginal(KNOWN, level_s).sample(source.step((1 << 30) + (r << 20) + 3))
        x_s = torch.where(PIXELS, known, plain.x)
    ours = RePaint(Ancestral(), KNOWN, PIXELS, repeats=3).step(NETWORK, state, s, source)
    assert torch.allclose(ours.x, x_s, atol=1e-12)
    assert (ours.t, ours.step) == (s, 4)


def test_the_way_down_and_back() -> None:
    """Stretches of three steps, each walked twice; the last stretch has what is left of the grid."""
    denoiser, times = Counting(), trailing(5, Linear())
    states = list(trajectory(denoiser, RePaint(DDIM(), KNOWN, PIXELS, 2, jump=3), times, noise(1, SHAPE)))
    assert denoiser.times == [1.0, 0.8, 0.6, 1.0, 0.8, 0.6, 0.4, 0.2, 0.4, 0.2]
    assert [s.t for s in states] == times.tolist()
    assert [s.step for s in states] == list(range(6))


@pytest.mark.parametrize(("repeats", "jump"), [(1, 1), (4, 1), (3, 4), (2, 99)])
def test_evaluations_are_those_promised(repeats: int, jump: int) -> None:
    denoiser, sampler = Counting(), RePaint(DDIM(), KNOWN, PIXELS, repeats, jump)
    sample(denoiser, sampler, GRID, noise(1, SHAPE))
    assert len(denoiser.times) == 10 * sampler.evaluations == 10 * repeats
    assert sampler.stochastic
    assert sampler.order == 1


# What it draws


def test_no_random_number_is_drawn_twice() -> None:
    drawn: list[int] = []

    class Tape:
        def prior(self) -> Tensor:
            return noise(1, SHAPE).prior()

        def step(self, i: int) -> Tensor:
            drawn.append(i)
            return noise(1, SHAPE).step(i)

    sample(NETWORK, RePaint(Ancestral(), KNOWN, PIXELS, 5, jump=2), GRID, Tape())
    # inner and known draw in all but the last step's repeats; forward jumps once a repeat and stretch
    assert len(drawn) == len(set(drawn)) == 2 * 45 + 5 * 4
    assert max(drawn) < 2**32
    noise(1, SHAPE).step((2 << 30) + (1023 << 20) + (1 << 20) - 1)  # the last address there is


def test_image_i_does_not_depend_on_the_batch() -> None:
    sampler = RePaint(Ancestral(), KNOWN.float(), PIXELS, 3, jump=2)
    together = sample(NETWORK, sampler, GRID, Noise(5, torch.arange(4), SHAPE))
    alone = sample(NETWORK, sampler, GRID, Noise(5, torch.tensor([2]), SHAPE))
    assert torch.allclose(together[2], alone[0], atol=1e-5)
    assert float((together[0] - together[1]).abs().max()) > 0.1


def test_a_multistep_sampler_forgets_what_was_thrown_away() -> None:
    asked: list[tuple[Any, ...]] = []

    @dataclass(frozen=True)
    class Remembering:
        order: int = 2
        evaluations: int = 1
        stochastic: bool = False

        def step(self, denoiser: Any, state: State, s: float, noise: Any, condition: Any = None) -> State:
            asked.append(state.history)
            plain = DDIM().step(denoiser, state, s, noise, condition)
            return replace(plain, history=(*state.history, round(state.t, 6))[-2:])

    sample(NETWORK, RePaint(Remembering(), KNOWN, PIXELS, 2, jump=2), trailing(4, Linear()), noise(1, SHAPE))
    first, again = [(), (1.0,)], [(), (1.0,)]
    second, last = [(1.0, 0.75), (0.75, 0.5)], [(), (0.5,)]
    assert asked == first + again + second + last


# The ends


def test_nothing_known_is_the_sampler_and_everything_known_is_known() -> None:
    nothing = RePaint(Ancestral(), KNOWN, torch.zeros_like(PIXELS), repeats=1)
    assert torch.equal(
        sample(NETWORK, nothing, GRID, noise(2, SHAPE)), sample(NETWORK, Ancestral(), GRID, noise(2, SHAPE))
    )
    everything = RePaint(Ancestral(), KNOWN, torch.ones_like(PIXELS), repeats=2)
    assert torch.equal(sample(NETWORK, everything, GRID, noise(2, SHAPE)), KNOWN.expand(2, *SHAPE))


def test_what_is_under_the_hole_does_not_matter() -> None:
    hidden = torch.where(PIXELS, KNOWN, torch.nan)
    a, b = (sample(NETWORK, RePaint(DDIM(), k, PIXELS, 3), GRID, noise(2, SHAPE)) for k in (KNOWN, hidden))
    assert torch.equal(a, b)


def test_pure_noise_at_the_end_of_the_chain() -> None:
    net = NetworkDenoiser(random_function, ZeroTerminalSNR(base=Linear()), PARAMETERIZATIONS["v"])
    x = sample(net, RePaint(Ancestral(), KNOWN, PIXELS, 3, jump=10), GRID, noise(2, SHAPE))
    assert bool(x.isfinite().all())
    assert torch.equal(x[:, PIXELS.expand(SHAPE)], KNOWN[:, PIXELS.expand(SHAPE)].expand(2, -1))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="bool"):
        RePaint(DDIM(), KNOWN, PIXELS.float())
    for repeats in (0, 1025):
        with pytest.raises(ValueError, match="repeats"):
            RePaint(DDIM(), KNOWN, PIXELS, repeats)
    with pytest.raises(ValueError, match="jump"):
        RePaint(DDIM(), KNOWN, PIXELS, jump=0)


# Everything composed


def labelled(x: Tensor, time: Tensor, condition: Attributes | None) -> Tensor:
    shift = 0.0 if condition is None else 0.3 * condition.table.nan_to_num(0.0)[:, :1, None, None]
    return random_function(x, time) * 0.5 + shift


LABELLED = NetworkDenoiser(labelled, Linear(), PARAMETERIZATIONS["v"])
MASK = Mask(PIXELS)
DENOISERS: dict[str, Callable[[Tensor], Any]] = {
    "plain": lambda y: LABELLED,
    "guided, clipped": lambda y: Clipped(Guided(LABELLED, 1.5)),
    "clipped around pigdm around guided": lambda y: Clipped(PiGDM(Guided(LABELLED, 1.5), MASK, y, 0.1)),
    "guided around moments, thresholded": lambda y: Thresholded(Guided(MomentMatching(LABELLED, MASK, y, 0.1), 1.5)),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("denoiser", DENOISERS.values(), ids=DENOISERS.keys())
def test_every_sampler_and_wrapper_composes(name: str, denoiser: Callable[[Tensor], Any]) -> None:
    sampler, known = SAMPLERS[name](), KNOWN.float()
    condition = Attributes(torch.tensor([[1.0], [float("nan")]]))
    for walk in (sampler, RePaint(sampler, known, PIXELS, 2, jump=2)):
        x = sample(
            denoiser(MASK.forward(known)), walk, trailing(6, Linear()), Noise(0, torch.arange(2), SHAPE), condition
        )
        assert x.dtype == torch.float32
        assert bool(x.isfinite().all())
        if isinstance(walk, RePaint):
            assert torch.equal(x[:, PIXELS.expand(SHAPE)], known[:, PIXELS.expand(SHAPE)].expand(2, -1))


# How far from the truth


def missing_mean(sampler: Sampler, n: int = 120) -> Tensor:
    """Mean of the samples where nothing is known."""
    x = sample(smooth(), sampler, trailing(30, SCHEDULE), Noise(0, torch.arange(n), SHAPE, torch.float64))
    return x.mean(0)[~PIXELS.expand(SHAPE)]


def test_replacement_is_biased_and_repeats_help() -> None:
    """On correlated Gaussian data: plain replacement hardly hears the known part, ten repeats mostly do."""
    y = OPERATORS["mask"].forward(smooth().sample(1, seed=4))
    truth = exact_posterior(smooth(), OPERATORS["mask"], y, 0.0)
    open_ = ~PIXELS.expand(SHAPE)
    right, prior = truth.mean.reshape(SHAPE)[open_], smooth().mean.reshape(SHAPE)[open_]
    std = truth.covariance.diagonal().reshape(SHAPE)[open_].sqrt()

    def shift(mean: Tensor) -> float:
        return float(((mean - right) / std).square().mean().sqrt())

    plain, ten = (shift(missing_mean(RePaint(Ancestral(), y, PIXELS, r))) for r in (1, 10))
    assert open_.sum() + int(PIXELS.sum()) * 3 == D
    assert plain < 0.8 * shift(prior)
    assert plain > 0.2
    assert ten < 0.6 * plain
