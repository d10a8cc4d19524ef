"""The probability-flow likelihood: equal to analytic densities, independent of the batch, its solver of order five."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.conditions.table import Attributes
from sfumato.diffusion.decoder import Decoder, Discretized, density
from sfumato.diffusion.denoiser import NetworkDenoiser
from sfumato.diffusion.flow import Flow, integrate, variational_bits
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.noise import Purpose, normal
from sfumato.diffusion.oracle import ConditionalMixtureOracle, GaussianOracle, MixtureOracle
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.process import marginal, posterior_coefficients
from sfumato.diffusion.schedule import Cosine, FlowPath, Linear, Schedule, ZeroTerminalSNR
from sfumato.diffusion.variance import Optimal, Small

from .common import SCHEDULES, images, random_function

SHAPE = (2, 3)


def signs(count: int, batch: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return normal(1, Purpose.ORACLE, torch.arange(count * batch), shape).reshape(count, batch, *shape).sign().double()


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid", "shifted", "flow"])
def test_time_is_the_inverse_of_the_schedule(name: str) -> None:
    schedule: Schedule = SCHEDULES[name]
    t = torch.linspace(0.001, 1, 777, dtype=torch.float64)
    assert torch.allclose(schedule.time(schedule(t).logsnr), t, atol=1e-9)
    assert float(schedule.time(torch.tensor(math.inf))) == 0
    assert float(schedule.time(torch.tensor(-60.0))) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "schedule"), [("gaussian", Linear()), ("gaussian", Cosine(num_steps=100)), ("mixture", Linear())]
)
def test_densities_are_analytic_up_to_the_prior(kind: str, schedule: Schedule) -> None:
    """The flow ends at N(0, I), the truth at q(x_T): the true prior of the latent removes the only difference."""
    if kind == "gaussian":
        oracle = GaussianOracle(schedule, images(1, SHAPE)[0], images(1, SHAPE, seed=1)[0].square() + 0.05)
    else:
        oracle = MixtureOracle(schedule, torch.tensor([1.0, 2.0]), images(2, SHAPE), torch.full((2, 1, 1), 0.2))
    x = images(4, SHAPE, seed=5)
    got = Flow(oracle, 1e-7, 1e-7).log_prob(x, None)
    standard = (-0.5 * (got.latent.square() + math.log(2 * math.pi))).flatten(1).sum(1)
    corrected = got.log_prob - standard + oracle.log_prob(got.latent, 1.0)
    assert torch.allclose(corrected, oracle.log_prob(x, 1 / schedule.num_steps), atol=2e-4)


def test_hutchinson_is_unbiased_and_exact_for_a_diagonal_field() -> None:
    oracle = GaussianOracle(Linear(), images(1, SHAPE)[0], images(1, SHAPE, seed=1)[0].square() + 0.05)
    x = images(3, SHAPE, seed=5)
    exact, estimate = (Flow(oracle, 1e-7, 1e-7).log_prob(x, p).log_prob for p in (None, signs(1, 3)))
    assert torch.allclose(exact, estimate, atol=1e-6)
    denoiser = NetworkDenoiser(random_function, Cosine(num_steps=50), PARAMETERIZATIONS["v"])
    many = 400
    once = Flow(denoiser, 1e-5, 1e-5).log_prob(x[:1].expand(many, *SHAPE), signs(1, many)).log_prob
    truth = float(Flow(denoiser, 1e-5, 1e-5).log_prob(x[:1], None).log_prob)
    assert float(once.std()) > 0
    assert abs(float(once.mean()) - truth) < 4 * float(once.std()) / many**0.5 + 1e-3


def test_an_example_does_not_depend_on_its_company() -> None:
    denoiser = NetworkDenoiser(random_function, Cosine(num_steps=50), PARAMETERIZATIONS["v"])
    x, probes = images(4, SHAPE, seed=2) * torch.tensor([0.1, 1.0, 3.0, 0.5])[:, None, None], signs(2, 4)
    together = Flow(denoiser).log_prob(x, probes)
    for i in range(4):
        alone = Flow(denoiser).log_prob(x[i : i + 1], probes[:, i : i + 1])
        assert float(together.log_prob[i]) == pytest.approx(float(alone.log_prob[0]), abs=1e-8)
        assert int(together.evaluations[i]) == int(alone.evaluations[0])


def test_each_example_keeps_its_condition() -> None:
    """The solver asks about the rows that are not finished; theirs are the conditions."""
    variances = torch.tensor([0.01, 2.0])[:, None, None]
    oracle = ConditionalMixtureOracle(Linear(), torch.ones(2), images(2, SHAPE), variances, torch.tensor([0, 1]))
    x, condition = images(4, SHAPE, seed=5), Attributes(torch.tensor([[1.0], [0.0], [torch.nan], [0.0]]))
    together = Flow(oracle).log_prob(x, None, condition)
    assert len(together.evaluations.unique()) > 1
    for i in range(4):
        alone = Flow(oracle).log_prob(x[i : i + 1], None, condition.take(torch.tensor([i])))
        assert float(together.log_prob[i]) == pytest.approx(float(alone.log_prob[0]), abs=1e-6)


def test_the_solver_meets_its_tolerance_with_order_five() -> None:
    start = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)

    def rotate(rows: torch.Tensor, u: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return torch.stack([-state[:, 1], state[:, 0]], 1)

    c, s = math.cos(6.0), math.sin(6.0)
    truth = start @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    costs = []
    for tolerance in (1e-4, 1e-9):
        end, evaluations = integrate(rotate, start, 0.0, 6.0, tolerance, tolerance)
        assert float((end - truth).abs().max()) < 30 * tolerance
        costs.append(float(evaluations.double().mean()))
    # order 5: a hundred-thousandth of the error for ten times the steps
    assert costs[1] / costs[0] < 13


@pytest.mark.parametrize("schedule", [ZeroTerminalSNR(base=Linear()), FlowPath(num_steps=20)], ids=["zero", "flow"])
def test_a_chain_that_ends_in_pure_noise_has_the_density_that_is_analytic(schedule) -> None:
    """At logsnr = -20 x_T is N(0, I) but for alpha = 4.5e-5 times the mean, which with this x is 1.3e-3 nats."""
    oracle = GaussianOracle(schedule, images(1, SHAPE)[0], images(1, SHAPE, seed=1)[0].square() + 0.05)
    x = images(3, SHAPE, seed=5)
    got = Flow(oracle, 1e-6, 1e-6).log_prob(x, None)
    assert torch.allclose(got.log_prob, oracle.log_prob(x, 1 / schedule.num_steps), atol=2e-3)
    assert float(got.latent.square().mean()) > 0.01


def test_the_first_step_is_where_the_flow_begins() -> None:
    oracle = GaussianOracle(Linear(), torch.zeros(SHAPE), torch.ones(SHAPE))
    assert Flow(oracle).start == pytest.approx(1e-3)
    assert float(marginal(images(1, SHAPE), Linear()(Flow(oracle).start)).std) == pytest.approx(0.01, rel=1e-3)


STD, RAW = 0.25, 0.25 * images(4000, (1,), seed=1)


def bits(x_0: torch.Tensor, decoder: Decoder) -> float:
    """The mean bound of data N(0, STD^2) under their oracle."""
    oracle = GaussianOracle(Linear(), torch.zeros(1).double(), torch.full((1,), STD**2).double())
    flow, eps = Flow(oracle, 1e-6, 1e-6), images(len(x_0), (1,), seed=2)
    bound = variational_bits(flow, x_0, eps, None, Optimal(oracle.posterior_variance), decoder=decoder)
    assert bound.shape == (len(x_0),)
    return float(bound.mean())


def test_bits_bound_the_truth() -> None:
    """The bound lies above the true bits, and close with the oracle: of 8-bit values, and of a density."""
    x_0 = 2 * ((RAW + 1) * 127.5).round().clamp(0, 255) / 255 - 1
    low = torch.where(x_0 <= -1, -torch.inf, (x_0 - 1 / 255) / STD)
    high = torch.where(x_0 >= 1, torch.inf, (x_0 + 1 / 255) / STD)
    truth = float(-(torch.special.ndtr(high) - torch.special.ndtr(low)).log2().mean())
    assert truth - 0.02 < bits(x_0, Discretized()) < truth + 0.08
    truth = float((RAW.square() / (2 * STD**2)).mean() / math.log(2) + 0.5 * math.log2(2 * math.pi * STD**2))
    assert truth - 0.02 < bits(RAW, density) < truth + 0.02


def test_the_first_step_has_the_width_of_the_second() -> None:
    """beta~_1 is zero, so L_0 takes beta~_2, that of the step from 2/T to 1/T, as the published code does."""
    oracle = GaussianOracle(Linear(), torch.zeros(1).double(), torch.full((1,), STD**2).double())
    x_0, eps = RAW[:20], images(20, (1,), seed=2)
    first, second = Linear()(1 / 1000), Linear()(2 / 1000)
    q = marginal(x_0, first)
    x_t = q.sample(eps)
    step = Gaussian(oracle(x_t, 1 / 1000).x0, posterior_coefficients(first, second)[2].log())
    nats = (q.log_prob(x_t) + density(step, x_0)).flatten(1).sum(1) - oracle.log_prob(x_t, 1 / 1000)
    found = variational_bits(Flow(oracle, 1e-6, 1e-6), x_0, eps, None, Small(), decoder=density)
    torch.testing.assert_close(found, nats / math.log(2), rtol=0, atol=1e-3)


def test_bits_of_sixteen_bit_values_are_eight_more() -> None:
    """Halving a bin costs one bit: of values on the finer grid, log2(65535 / 255) more."""
    eight, sixteen = (bits(2 * ((RAW + 1) * (n - 1) / 2).round() / (n - 1) - 1, Discretized(n)) for n in (256, 65536))
    assert sixteen - eight == pytest.approx(math.log2(65535 / 255), abs=0.02)
