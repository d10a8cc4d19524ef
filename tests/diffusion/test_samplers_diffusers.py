"""Samplers against diffusers' schedulers on a random function; docs/samplers.md says where definitions differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from sfumato.diffusion.denoiser import Clipped, NetworkDenoiser
from sfumato.diffusion.grid import leading, trailing
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.samplers.ddim import DDIM, Ancestral
from sfumato.diffusion.samplers.dpm import DPMSolver, DPMSolverSDE
from sfumato.diffusion.samplers.heun import Heun
from sfumato.diffusion.samplers.pndm import PNDM
from sfumato.diffusion.samplers.protocol import Sampler, sample, trajectory
from sfumato.diffusion.samplers.unipc import UniPC
from sfumato.diffusion.schedule import Linear
from sfumato.diffusion.variance import Large, Small

from .common import noise, random_function

PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
NAMES = pytest.mark.parametrize("name", PREDICTION)
SCHEDULE, STEPS, SHAPE = Linear(), 20, (3, 4, 4)
SOURCE = noise(2, SHAPE)
ABAR = SCHEDULE(torch.arange(1, 1001, dtype=torch.float64) / 1000).abar


def ready(scheduler, num_steps: int = STEPS):
    """Set their timesteps, and give them float64 levels for their float32 ones."""
    assert torch.allclose(scheduler.alphas_cumprod.double(), ABAR, rtol=1e-3)
    scheduler.alphas_cumprod = ABAR
    scheduler.set_timesteps(num_steps)
    if hasattr(scheduler, "sigmas"):
        exact = torch.cat([((1 - ABAR) / ABAR).sqrt(), torch.zeros(1).double()])
        nearest = (scheduler.sigmas.double()[:, None] - exact).abs().argmin(1)
        scheduler.sigmas = exact[nearest]
    return scheduler


def their_walk(scheduler, x: torch.Tensor, step: Callable[..., torch.Tensor] | None = None) -> list[torch.Tensor]:
    """Their loop; the images after every call of step."""
    out = []
    for i, t in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(x, t)
        output = random_function(given, torch.full((2,), float(t)))
        settings = {} if step is None else {"variance_noise": SOURCE.step(i)}
        x = scheduler.step(output, t, x, **settings).prev_sample
        out.append(x.double())
    return out


def ours(sampler: Sampler, name: str, grid=trailing, num_steps: int = STEPS) -> list[torch.Tensor]:
    denoiser = NetworkDenoiser(random_function, SCHEDULE, PARAMETERIZATIONS[name])
    return [s.x for s in trajectory(denoiser, sampler, grid(num_steps, SCHEDULE), SOURCE)][1:]


def common(name: str) -> dict[str, object]:
    return {"prediction_type": PREDICTION[name], "timestep_spacing": "trailing", "beta_schedule": "linear"}


BETAS = {"beta_start": 1e-4, "beta_end": 0.02}


@NAMES
@pytest.mark.parametrize(("order", "sampler"), [(1, DDIM()), (2, DPMSolver())])
def test_dpm_solver(name: str, order: int, sampler: Sampler) -> None:
    scheduler = ready(DPMSolverMultistepScheduler(**common(name), **BETAS, solver_order=order))
    # their step rounds the image to float32
    assert torch.allclose(ours(sampler, name)[-1], their_walk(scheduler, SOURCE.prior())[-1], rtol=1e-4, atol=2e-5)


class Mended(DPMSolverMultistepScheduler):
    """Their third order with the factor 2 that its last term lacks."""

    def multistep_dpm_solver_third_order_update(self, model_output_list, *args, sample=None, **kwargs):
        x = super().multistep_dpm_solver_third_order_update(model_output_list, *args, sample=sample, **kwargs)
        sigmas = self.sigmas[self.step_index - 2 : self.step_index + 2]
        half = -sigmas.log()
        h, r_0, r_1 = half[3] - half[2], half[2] - half[1], half[1] - half[0]
        m_2, m_1, m_0 = model_output_list[-3:]
        second = ((m_0 - m_1) / r_0 - (m_1 - m_2) / r_1) * h**2 / (r_0 + r_1)
        alpha = 1 / (1 + sigmas[3] ** 2).sqrt()
        return x - alpha * ((torch.expm1(-h) + h) / h**2 - 0.5) * second


@NAMES
def test_dpm_solver_of_order_three_is_theirs_with_the_missing_factor(name: str) -> None:
    settings = common(name) | BETAS | {"solver_order": 3}
    walked = ours(DPMSolver(3), name)[-1]
    assert torch.allclose(walked, their_walk(ready(Mended(**settings)), SOURCE.prior())[-1], rtol=1e-4, atol=2e-5)
    as_it_is = their_walk(ready(DPMSolverMultistepScheduler(**settings)), SOURCE.prior())[-1]
    assert float((walked - as_it_is).abs().max()) > 1e-3


@NAMES
@pytest.mark.parametrize(("order", "sampler"), [(1, Ancestral()), (2, DPMSolverSDE())])
def test_dpm_solver_sde(name: str, order: int, sampler: Sampler) -> None:
    scheduler = ready(
        DPMSolverMultistepScheduler(**common(name), **BETAS, solver_order=order, algorithm_type="sde-dpmsolver++")
    )
    walked = their_walk(scheduler, SOURCE.prior(), step=SOURCE.step)[-1]
    assert torch.allclose(ours(sampler, name)[-1], walked, rtol=1e-4, atol=2e-5)


@NAMES
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc(name: str, p: int, variant) -> None:
    scheduler = ready(UniPCMultistepScheduler(**common(name), **BETAS, solver_order=p, solver_type=variant))
    mine, theirs = ours(UniPC(p, variant), name), their_walk(scheduler, SOURCE.prior())
    # they lower the order of the last step but one when p = 3, and their last step with bh1 is inf * 0
    alike = 18 if p == 3 else 19 if variant == "bh1" else 20
    for i in range(alike):
        assert torch.allclose(mine[i], theirs[i], rtol=1e-7, atol=1e-7)
    assert bool(theirs[-1].isnan().any()) == (variant == "bh1")


@NAMES
def test_euler(name: str) -> None:
    scheduler = ready(EulerDiscreteScheduler(**common(name), **BETAS))
    x = SOURCE.prior() / ABAR[-1].sqrt()  # theirs is x / alpha
    mine, theirs = ours(DDIM(), name), their_walk(scheduler, x)
    assert torch.allclose(mine[-1], theirs[-1], atol=2e-4)  # their float32 holds 150 at the start


@NAMES
def test_heun(name: str) -> None:
    scheduler = ready(HeunDiscreteScheduler(**common(name), **BETAS))
    theirs = their_walk(scheduler, SOURCE.prior() / ABAR[-1].sqrt())
    assert len(theirs) == 2 * STEPS - 1
    assert torch.allclose(ours(Heun(), name)[-1], theirs[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("spacing", "grid"), [("leading", leading), ("trailing", trailing)])
def test_pndm(spacing: str, grid) -> None:
    settings = common("eps") | BETAS | {"timestep_spacing": spacing}
    theirs = their_walk(ready(PNDMScheduler(**settings, skip_prk_steps=True, set_alpha_to_one=True)), SOURCE.prior())
    mine = ours(PNDM(), "eps", grid)
    assert len(theirs) == len(mine) + 1
    # their weights are those of even strides in the last step of "leading" too, which is fifty times as short
    for i in range(STEPS - (spacing == "leading")):
        assert torch.allclose(mine[i], theirs[i + 1], rtol=1e-6, atol=1e-6)


def test_one_step_of_order_two_is_equation_by_hand() -> None:
    """DPM-Solver++(2M) from its formula: D = (1 + 1/(2r)) m_0 - 1/(2r) m_1, r = h_prev / h."""
    denoiser = NetworkDenoiser(random_function, SCHEDULE, PARAMETERIZATIONS["v"])
    times = torch.tensor([0.9, 0.7, 0.4], dtype=torch.float64)
    first, second, third = list(trajectory(denoiser, DPMSolver(2), times, SOURCE))
    levels = [SCHEDULE(t) for t in times.tolist()]
    a, b, c = (float(level.logsnr) / 2 for level in levels)
    r = (b - a) / (c - b)
    m_1, m_0 = denoiser(first.x, 0.9).x0, denoiser(second.x, 0.7).x0
    D = (1 + 1 / (2 * r)) * m_0 - m_1 / (2 * r)
    expected = levels[2].sigma / levels[1].sigma * second.x - levels[2].alpha * math.expm1(b - c) * D
    assert torch.allclose(third.x, expected, rtol=1e-10)
    assert torch.allclose(sample(denoiser, DPMSolver(2), times, SOURCE), expected, rtol=1e-10)


# DDPM and DDIM, whose schedulers draw noise themselves


class Tape:
    """Our noise, in the order that diffusers' schedulers ask for it."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.drawn = [torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(count + 1)]

    def prior(self) -> torch.Tensor:
        return self.drawn[0]

    def step(self, i: int) -> torch.Tensor:
        return self.drawn[1 + i]


def published_walk(scheduler, num_steps: int, tape: Tape, **settings: object) -> torch.Tensor:
    """Their loop as their pipeline writes it, in float64, with the tape's noise."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(scheduler.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-3)
    scheduler.alphas_cumprod = (1 - betas).cumprod(0)  # theirs is a float32 running product, good to 1e-4
    scheduler.set_timesteps(num_steps)
    x = tape.prior()
    generator = torch.Generator().manual_seed(0)
    torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    for t in scheduler.timesteps:
        output = random_function(x, torch.full((2,), float(t)))
        x = scheduler.step(output, t, x, generator=generator, **settings).prev_sample
    return x


@pytest.mark.parametrize("name", PREDICTION)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), [(Small(), "fixed_small"), (Large(), "fixed_large")])
@pytest.mark.parametrize("num_steps", [100, 50])
def test_ancestral_trajectory_equals_diffusers_ddpm(name, clip, ours, theirs, num_steps) -> None:
    scheduler = DDPMScheduler(
        prediction_type=PREDICTION[name], variance_type=theirs, clip_sample=clip, timestep_spacing="leading"
    )
    tape = Tape(num_steps)
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    mine = sample(Clipped(denoiser) if clip else denoiser, Ancestral(ours), leading(num_steps, denoiser.schedule), tape)
    expected = published_walk(scheduler, num_steps, tape)
    assert torch.allclose(mine, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PREDICTION)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("spacing", "grid"), [("leading", leading), ("trailing", trailing)])
def test_ddim_trajectory_equals_diffusers(name, clip, eta, spacing, grid) -> None:
    scheduler = DDIMScheduler(
        prediction_type=PREDICTION[name], clip_sample=clip, timestep_spacing=spacing, set_alpha_to_one=True
    )
    tape = Tape(50)
    denoiser = NetworkDenoiser(random_function, Linear(), PARAMETERIZATIONS[name])
    mine = sample(Clipped(denoiser) if clip else denoiser, DDIM(eta), grid(50, denoiser.schedule), tape)
    expected = published_walk(scheduler, 50, tape, eta=eta, use_clipped_model_output=True)
    assert torch.allclose(mine, expected, rtol=1e-6, atol=1e-6)
