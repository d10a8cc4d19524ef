"""Orders of convergence, measured: the flow of a mixture solved to 1e-11 by another solver, and exact covariances.

The flow is walked from t = 1 to t = 0.05 in strides even in logsnr (PNDM, whose polynomial is in t, in strides even in
t too). It stops short of 0 because the last step to 0 is of first order by definition, whatever came before: its error
is about (sigma / s)^2 at the last non-zero time, for data of width s, and falls with the grid's end, not with its
strides. It starts from a level so noisy that the low orders of a multistep method's first steps don't show.
"""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.diffusion.flow import integrate
from sfumato.diffusion.level import Level
from sfumato.diffusion.oracle import GaussianOracle, MixtureOracle
from sfumato.diffusion.samplers.ddim import DDIM, Ancestral
from sfumato.diffusion.samplers.dpm import DPMSolver, DPMSolverSDE
from sfumato.diffusion.samplers.heun import EDM, Heun
from sfumato.diffusion.samplers.pndm import PNDM
from sfumato.diffusion.samplers.protocol import Sampler, sample
from sfumato.diffusion.samplers.unipc import UniPC
from sfumato.diffusion.schedule import Linear
from sfumato.diffusion.variance import Large, Optimal, Small

from .common import noise

SCHEDULE, END = Linear(), 0.05
ORACLE = MixtureOracle(
    SCHEDULE,
    torch.tensor([0.3, 0.5, 0.2]).double(),
    torch.tensor([[-0.8, -0.5], [0.6, 0.7], [0.5, -0.6]]).double(),
    torch.tensor([[0.09, 0.06], [0.04, 0.12], [0.2, 0.05]]).double(),
)
START = noise(64, (2,), seed=8).prior()


def even_in_logsnr(num_steps: int) -> torch.Tensor:
    times = SCHEDULE.time(
        torch.linspace(float(SCHEDULE(1.0).logsnr), float(SCHEDULE(END).logsnr), num_steps + 1, dtype=torch.float64)
    )
    times[0], times[-1] = 1.0, END
    return times


def even_in_t(num_steps: int) -> torch.Tensor:
    return torch.linspace(1, END, num_steps + 1, dtype=torch.float64)


@pytest.fixture(scope="module")
def destination() -> torch.Tensor:
    """Where the flow takes START at t = END, by Dormand and Prince in lambda: dy/dlambda = -e^{-lambda} eps."""
    first, last = SCHEDULE(1.0), SCHEDULE(END)

    def field(rows: torch.Tensor, half: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        level = Level.from_logsnr(2 * half)
        return -(-half).exp()[:, None] * ORACLE(y * level.alpha[:, None], SCHEDULE.time(2 * half)).eps

    y, _ = integrate(field, START / first.alpha, float(first.logsnr) / 2, float(last.logsnr) / 2, 1e-11, 1e-11)
    return y * last.alpha


def slope(counts: list[int], errors: list[float]) -> float:
    """The order: minus the slope of log error against log N, by least squares."""
    points = torch.tensor([[math.log(n), math.log(abs(e))] for n, e in zip(counts, errors, strict=True)])
    centred = points - points.mean(0)
    return -float((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum())


def error(sampler: Sampler, times: torch.Tensor, destination: torch.Tensor) -> float:
    return float((sample(ORACLE, sampler, times, noise(64), start=START) - destination).abs().mean())


DETERMINISTIC: dict[str, tuple[Sampler, list[int]]] = {
    "ddim": (DDIM(), [64, 128, 256]),
    "heun": (Heun(), [32, 64, 128]),
    "edm-without-churn": (EDM(churn=0.0), [32, 64, 128]),
    "dpmpp-2": (DPMSolver(2), [32, 64, 128]),
    "dpmpp-3": (DPMSolver(3), [64, 128, 256]),
    "unipc-1": (UniPC(1), [32, 64, 128]),
    "unipc-1-bh1": (UniPC(1, "bh1"), [32, 64, 128]),
    "unipc-2": (UniPC(2), [32, 64, 128]),
    "unipc-2-bh1": (UniPC(2, "bh1"), [32, 64, 128]),
    "unipc-3": (UniPC(3), [96, 128, 192, 256]),
    "pndm": (PNDM(), [64, 128, 256]),
}


@pytest.mark.parametrize(("sampler", "counts"), DETERMINISTIC.values(), ids=DETERMINISTIC.keys())
def test_the_order_is_the_stated_one(sampler: Sampler, counts: list[int], destination: torch.Tensor) -> None:
    assert not sampler.stochastic
    errors = [error(sampler, even_in_logsnr(n), destination) for n in counts]
    assert slope(counts, errors) == pytest.approx(sampler.order, abs=0.15)


def test_pndm_has_its_order_on_times_that_are_even(destination: torch.Tensor) -> None:
    counts = [128, 192, 256]
    errors = [error(PNDM(), even_in_t(n), destination) for n in counts]
    assert slope(counts, errors) == pytest.approx(2, abs=0.15)


def test_higher_orders_are_worth_their_evaluations(destination: torch.Tensor) -> None:
    """At 48 evaluations each: what the orders are for."""
    ddim, second, third, unipc = (
        error(sampler, even_in_logsnr(48), destination) for sampler in (DDIM(), DPMSolver(2), DPMSolver(3), UniPC(2))
    )
    assert third < second / 3 < error(Heun(), even_in_logsnr(24), destination) / 3 < ddim / 3
    assert unipc < second / 3


# In distribution: every sampler is linear on Gaussian data, so its covariance can be had without drawing


class Units:
    """Image 0 is the response to x_T alone, image 1 + i to the noise of step i alone, for each of d coordinates."""

    def __init__(self, num_steps: int, dim: int) -> None:
        self.num_steps, self.dim = num_steps, dim

    def _unit(self, which: int) -> torch.Tensor:
        x = torch.zeros(self.num_steps + 1, self.dim, self.dim, dtype=torch.float64)
        x[which] = torch.eye(self.dim, dtype=torch.float64)
        return x.flatten(0, 1)

    def prior(self) -> torch.Tensor:
        return self._unit(0)

    def step(self, i: int) -> torch.Tensor:
        return self._unit(1 + i)


class Turned:
    """Gaussian data with mean 0 and correlated coordinates: a diagonal oracle in turned axes."""

    schedule = SCHEDULE

    def __init__(self) -> None:
        angle = torch.tensor(0.6, dtype=torch.float64)
        self.axes = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        self.variance = torch.tensor([0.3, 0.02], dtype=torch.float64)
        self.inner = GaussianOracle(SCHEDULE, torch.zeros(2).double(), self.variance)

    def __call__(self, x_t, t, condition=None):
        inner = self.inner(x_t @ self.axes, t)
        return type(inner)(inner.x0 @ self.axes.T, inner.eps @ self.axes.T)

    def covariance(self, t: float) -> torch.Tensor:
        level = self.schedule(t)
        return self.axes @ torch.diag(level.alpha**2 * self.variance + level.sigma**2) @ self.axes.T


def covariance_error(sampler: Sampler, num_steps: int) -> torch.Tensor:
    oracle = Turned()
    # x_T of the chain is N(0, I) but for alpha_T^2 = 4e-5: start from its exact covariance
    source = Units(num_steps, 2)
    root = torch.linalg.cholesky(oracle.covariance(1.0))
    start = source.prior() @ root.T
    x = sample(oracle, sampler, even_in_logsnr(num_steps), source, start=start)
    return x.T @ x - oracle.covariance(END)


@pytest.mark.parametrize(
    ("sampler", "counts"),
    [
        (Ancestral(Small()), [80, 160, 320]),
        (Ancestral(Large()), [80, 160, 320]),
        (DDIM(0.5), [80, 160, 320]),
        (DPMSolverSDE(), [80, 160, 320]),
    ],
    ids=["small", "large", "ddim-half", "sde"],
)
def test_the_order_in_distribution_is_the_stated_one(sampler: Sampler, counts: list[int]) -> None:
    assert sampler.stochastic
    errors = [float(covariance_error(sampler, n).abs().max()) for n in counts]
    assert slope(counts, errors) == pytest.approx(sampler.order, abs=0.15)


def test_churn_leaves_the_covariance_right() -> None:
    """S_churn / N at each step: the noise added in all is the same for every N, and Heun's order is kept."""
    counts = [40, 80, 160]
    errors = [
        float(covariance_error(EDM(churn=4 / n, s_min=0.0, s_max=1e9, s_noise=1.0), n).abs().max()) for n in counts
    ]
    assert slope(counts, errors) == pytest.approx(2, abs=0.15)


def test_a_fixed_churn_costs_an_order_in_the_variance() -> None:
    counts, fixed = [80, 160, 320], EDM(churn=0.1, s_min=0.0, s_max=1e9, s_noise=1.0)
    errors = [float(covariance_error(fixed, n).abs().max()) for n in counts]
    assert slope(counts, errors) == pytest.approx(fixed.order, abs=0.15)
    assert (fixed.order, EDM(churn=0.0).order) == (1, 2)


def test_the_second_order_sde_step_bears_no_other_variance() -> None:
    """The variance of x_0 is in its extrapolation; with the optimal variance, exact alone, it counts twice."""
    oracle = GaussianOracle(SCHEDULE, torch.zeros(1).double(), torch.tensor([0.25]).double())

    def variance(sampler: Sampler) -> float:
        x = sample(oracle, sampler, even_in_logsnr(40), Units(40, 1))
        level = SCHEDULE(END)
        return float(x.square().sum() / (level.alpha**2 * 0.25 + level.sigma**2))

    assert variance(Ancestral(Optimal(oracle.posterior_variance))) == pytest.approx(1, abs=1e-4)
    assert variance(DPMSolverSDE()) == pytest.approx(1, abs=0.02)
    assert variance(Ancestral(Small())) < 0.9
