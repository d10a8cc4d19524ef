"""Schedules: against diffusers' tables, against high-precision arithmetic, and the rules every level obeys."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from sfumato.diffusion.level import Level, broadcast
from sfumato.diffusion.schedule import SCHEDULES as REGISTRY
from sfumato.diffusion.schedule import (
    Chain,
    Constant,
    Cosine,
    Linear,
    Quadratic,
    Schedule,
    Shifted,
    Sigmoid,
    ZeroTerminalSNR,
    per_row,
    resolution_shift,
)

from .common import SCHEDULES

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def chain_times(schedule: Schedule) -> torch.Tensor:
    return torch.arange(schedule.num_steps + 1, dtype=torch.float64) / schedule.num_steps


@EVERY
def test_a_level_is_one_number(schedule: Schedule) -> None:
    level = schedule(torch.linspace(0, 1, 313, dtype=torch.float64))
    assert level.alpha.dtype == level.sigma.dtype == level.logsnr.dtype == torch.float64
    assert torch.allclose(level.alpha.square() + level.sigma.square(), torch.ones(313, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(level.abar, torch.sigmoid(level.logsnr), rtol=1e-9, atol=1e-15)
    assert torch.allclose(level.sigma.square(), torch.sigmoid(-level.logsnr), rtol=1e-9, atol=1e-15)


@EVERY
def test_noise_only_grows_from_clean(schedule: Schedule) -> None:
    level = schedule(torch.linspace(0, 1, 2 * schedule.num_steps + 1, dtype=torch.float64))
    assert bool((level.logsnr.diff() < 0).all())
    assert level.alpha[0] == 1
    assert level.sigma[0] == 0
    assert level.logsnr[0] == math.inf


@EVERY
def test_a_batch_of_times_equals_one_by_one(schedule: Schedule) -> None:
    t = torch.tensor([0.0, 0.1, 1 / 3, 0.5, 1.0], dtype=torch.float64)
    together = schedule(t)
    for i, value in enumerate(t.tolist()):
        alone = schedule(value)
        assert alone.alpha.shape == ()
        assert alone.logsnr == together.logsnr[i]


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        (Linear(), {"beta_schedule": "linear"}),
        (Quadratic(), {"beta_schedule": "scaled_linear"}),
        (Cosine(), {"beta_schedule": "squaredcos_cap_v2"}),
        (Cosine(num_steps=123), {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 123}),
        (
            Linear(num_steps=250),
            {"beta_schedule": "linear", "num_train_timesteps": 250, "beta_start": 4e-4, "beta_end": 0.08},
        ),
        (Constant(), {"trained_betas": [0.02] * 1000}),
    ],
)
def test_tables_equal_diffusers(schedule: Chain, settings: dict) -> None:
    theirs = DDPMScheduler(**settings).alphas_cumprod.double()
    ours = schedule(chain_times(schedule)).abar[1:]
    assert torch.allclose(ours, theirs, rtol=2e-4, atol=1e-9)  # theirs is a float32 running product
    assert torch.allclose(schedule.betas(), DDPMScheduler(**settings).betas.double(), rtol=1e-4, atol=1e-7)


def test_sigmoid_follows_its_formula() -> None:
    def s(x: float) -> float:
        return 1 / (1 + math.exp(-x / 0.7))

    level = Sigmoid(num_steps=200, start=0.0, end=3.0, tau=0.7)(torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64))
    for i, u in enumerate((0.25, 0.5)):
        assert float(level.abar[i]) == pytest.approx((s(3) - s(3 * u)) / (s(3) - s(0)), rel=1e-12)
    assert float(level.abar[2]) == pytest.approx(1e-9)


def test_betas_of_a_table_of_levels_multiply_back() -> None:
    schedule = Sigmoid(num_steps=200)
    assert torch.allclose((1 - schedule.betas()).cumprod(0), schedule.log_abar().exp()[1:], rtol=1e-10)


@pytest.mark.parametrize("name", REGISTRY)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 50, 4000])
def test_any_length_of_chain(name: str, num_steps: int) -> None:
    schedule = REGISTRY[name](num_steps=num_steps)
    betas = schedule.betas()
    assert betas.shape == (num_steps,)
    assert bool(((betas > 0) & (betas < 1))[:-1].all())
    assert 0 < betas[-1] < 1 or (name == "flow" and betas[-1] == 1)  # all of the image is gone at the end
    assert bool((schedule(chain_times(schedule)).logsnr.diff() < 0).all())


def test_total_noise_is_the_same_for_any_length() -> None:
    ends = [float(Linear(num_steps=n)(1.0).logsnr) for n in (250, 1000, 4000)]
    assert max(ends) - min(ends) < 0.4


@pytest.mark.parametrize("base", [Linear(), Quadratic(), Cosine(num_steps=100)])
def test_zero_terminal_snr_equals_diffusers(base: Chain) -> None:
    schedule = ZeroTerminalSNR(base=base)
    theirs = rescale_zero_terminal_snr(base.betas())
    ours = schedule(chain_times(schedule))
    assert torch.allclose(ours.abar[1:], (1 - theirs).cumprod(0), rtol=1e-6, atol=1e-9)
    assert ours.alpha[-1] == 0
    assert ours.logsnr[-1] == -math.inf
    assert ours.alpha[1] == pytest.approx(float(base(1 / base.num_steps).alpha), rel=1e-12)


def test_shift_adds_to_logsnr_and_keeps_the_clean_end() -> None:
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    shifted = Shifted(Cosine(), resolution_shift(256))(t)
    assert resolution_shift(256) == pytest.approx(2 * math.log(64 / 256))
    assert torch.allclose(shifted.logsnr[1:], Cosine()(t).logsnr[1:] - 2 * math.log(4), atol=1e-12)
    assert shifted.alpha[0] == 1
    assert shifted.sigma[0] == 0


def test_shift_equals_the_noise_of_averaged_pixels() -> None:
    # simple diffusion's argument: averaging d x d pixels divides the noise variance by d^2, the signal stays
    logsnr = torch.tensor([0.7], dtype=torch.float64)
    level = Level.from_logsnr(logsnr + resolution_shift(128))
    averaged = 2 * (level.alpha / (level.sigma / 2)).log()
    assert torch.allclose(averaged, logsnr)


@pytest.mark.parametrize("bad", [-0.1, 1.01, [0.5, 2.0]])
def test_times_outside_are_refused(bad) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        Linear()(torch.tensor(bad))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(beta_min=-1e-4), "beta_min = -0.0001"),
        (lambda: Linear(beta_max=math.nan), "beta_max = nan"),
        (lambda: Quadratic(beta_min=0.0), "beta_min = 0.0"),
        (lambda: Constant(beta=1.5), "beta = 1.5"),
        (lambda: Cosine(s=-1), "s = -1"),
        (lambda: Cosine(s=math.inf), "s = inf"),
        (lambda: Sigmoid(start=3.0, end=3.0), "start = 3.0"),
        (lambda: Sigmoid(end=math.nan), "must differ from end = nan"),
        (lambda: Sigmoid(tau=0.0), "tau = 0.0"),
        (lambda: Shifted(Linear(), math.nan), "shift = nan"),
        (lambda: resolution_shift(0), "size = 0"),
        # legal one by one, together without noise: both ends of the sigmoid are 1 to the last bit
        (lambda: Sigmoid(start=40.0, end=80.0)(0.5), "abar does not fall at step 1"),
        (lambda: Cosine(s=1e17)(0.5), "abar does not fall at step 1"),
    ],
)
def test_schedules_that_are_none_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("num_steps", [7, 1000, 4000])
def test_single_precision_times_reach_the_steps(num_steps: int) -> None:
    """i / T rounds to 3e-8 beside the step in float32, which is a step's thousandth on a long chain."""
    schedule = Cosine(num_steps)
    exact = chain_times(schedule)
    single = exact.float()
    assert torch.equal(schedule(single).logsnr, schedule(exact).logsnr)
    assert torch.equal(per_row(single[1:], torch.zeros(num_steps, 1), schedule), exact[1:])
    between = torch.tensor([0.5004321], dtype=torch.float32)
    assert torch.equal(schedule(between).logsnr, schedule(between.double()).logsnr)


def test_times_may_be_a_list() -> None:
    times = [0.25, 1 / 3, 1.0]
    assert torch.equal(Linear()(times).logsnr, Linear()(torch.tensor(times, dtype=torch.float64)).logsnr)


def test_there_is_no_noise_to_predict_at_0() -> None:
    for t in (0.0, [0.5, 0.0]):
        with pytest.raises(ValueError, match=r"t must lie in \(0, 1\]"):
            per_row(t, torch.zeros(2, 3), Linear())


def test_levels_from_each_description_agree() -> None:
    logsnr = torch.linspace(-12, 12, 25, dtype=torch.float64)
    level = Level.from_logsnr(logsnr)
    for other in (Level.from_log_abar(2 * level.alpha.log()), Level.from_angle(level.angle)):
        assert torch.allclose(other.logsnr, logsnr, atol=1e-9)
        assert torch.allclose(other.sigma, level.sigma, rtol=1e-9)


def test_broadcast_is_by_example_in_the_images_dtype() -> None:
    x = torch.ones(3, 2, 4, 4, dtype=torch.float32)
    level = Linear()(torch.tensor([0.1, 0.5, 0.9])).like(x)
    assert level.alpha.shape == (3, 1, 1, 1)
    assert level.alpha.dtype == torch.float32
    assert broadcast(torch.tensor(0.5, dtype=torch.float64), x).shape == ()


@EVERY
def test_the_level_of_one_time_is_that_of_a_row_among_others(schedule: Schedule) -> None:
    times = torch.tensor([0.0, 1 / 3, 0.4, 1.0], dtype=torch.float64)
    levels = schedule(times)
    for k, t in enumerate(times):
        for same in (t, float(t), t.expand(3), t.expand(2, 3)):
            level = schedule(same)
            assert level.alpha.shape == getattr(same, "shape", ())
            for name in ("alpha", "sigma", "logsnr"):
                own = getattr(level, name)
                assert torch.equal(own, getattr(levels, name)[k].expand_as(own))
    slope = torch.tensor(0.40031, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(schedule(slope).alpha, slope)[0] < 0


def test_schedules_are_values() -> None:
    assert Linear() == Linear()
    assert hash(Cosine(num_steps=10)) == hash(Cosine(num_steps=10))
    assert Linear() != Linear(beta_max=0.03)
