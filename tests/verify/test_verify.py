"""Every check passes here, and for every check there is a mistake that makes it fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from sfumato.diffusion import (
    SAMPLERS,
    Discretized,
    Gaussian,
    Learned,
    Level,
    Prediction,
    Sampler,
    State,
    V,
    flow,
    guidance,
    noise,
)
from sfumato.diffusion import process as diffusion_process
from sfumato.diffusion import schedule as diffusion_schedule
from sfumato.diffusion.variance import bounds
from sfumato.verify import Finding, Setting, Skipped, examinations, examine, network, sampling, scoring, verify

DOUBLE, SINGLE = (Setting(torch.device("cpu"), dtype) for dtype in (torch.float64, torch.float32))
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _fresh_tables() -> Iterator[None]:
    """A planted schedule must not stay in the tables' cache."""
    diffusion_schedule._nodes.cache_clear()
    yield
    diffusion_schedule._nodes.cache_clear()


@pytest.fixture
def device_setting(device: torch.device) -> Setting:
    return Setting(device)


# All is well


def test_every_check_passes(device_setting: Setting) -> None:
    wrong = [f"{c.name}: {c.measured} > {c.limit}: {c.sentence}" for c in verify(device_setting) if not c.passed]
    assert wrong == []


def test_in_single_precision_only_orders_are_skipped() -> None:
    quick = {n: e for n, e in examinations().items() if "covariance" not in n and not n.startswith("network")}
    for check in examine(quick, SINGLE):
        assert check.outcome == ("skipped" if check.name.endswith(": order") else "passed"), check


@pytest.mark.slow
def test_the_compiled_network_is_checked_when_asked() -> None:
    (check,) = examine({"network: compiled": examinations()["network: compiled"]}, replace(SINGLE, compile=True))
    assert check.outcome == "passed", check


# A mistake for each


@dataclass(frozen=True)
class LowerOrder:
    """A sampler with an error of one half order less than promised in every step."""

    inner: Sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, denoiser: Any, state: State, s: float, source: Any, condition: object = None) -> State:
        after = self.inner.step(denoiser, state, s, source, condition)
        return replace(after, x=after.x + 50 * (state.t - s) ** (self.inner.order + 0.5))


@dataclass(frozen=True)
class Fainter:
    """A stochastic sampler that adds a tenth less noise."""

    inner: Sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, denoiser: Any, state: State, s: float, source: Any, condition: object = None) -> State:
        @dataclass(frozen=True)
        class Faint:
            def step(self, i: int) -> torch.Tensor:
                return 0.9 * source.step(i)

        return self.inner.step(denoiser, state, s, Faint(), condition)


def scaled(patch: Patch, where: Any, name: str, factor: float) -> None:
    """Let a function return a multiple of what it should."""
    true = getattr(where, name)
    patch.setattr(where, name, lambda *a, **k: factor * true(*a, **k))


def forward(patch: Patch, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Change what the network returns, given its input and its output."""
    kind = type(network.small_network())
    true = kind.forward
    patch.setattr(kind, "forward", lambda self, x, *rest: change(x, true(self, x, *rest)))


def betas(patch: Patch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the betas of the linear and quadratic schedules."""
    true = diffusion_schedule.Linear.betas
    patch.setattr(diffusion_schedule.Linear, "betas", lambda self: change(true(self)))


def coefficients(patch: Patch, a: float, v: float) -> None:
    """Scale the posterior's weight of x_t and its variance."""
    true = diffusion_process.posterior_coefficients

    def wrong(level_s: Level, level_t: Level) -> tuple[torch.Tensor, ...]:
        first, second, variance = true(level_s, level_t)
        return a * first, second, v * variance

    patch.setattr(diffusion_process, "posterior_coefficients", wrong)


def one_step_back(patch: Patch) -> None:
    """Swap two neighbouring levels of every chain, behind the check of its table."""
    true = diffusion_schedule.Level.from_log_abar

    def wrong(table: torch.Tensor) -> Level:
        order = torch.arange(len(table))
        order[500], order[501] = 501, 500
        return true(table[order])

    patch.setattr(diffusion_schedule.Level, "from_log_abar", wrong)


def batch_dependent(patch: Patch) -> None:
    true = noise.normal
    patch.setattr(noise, "normal", lambda seed, p, index, *r, **k: true(seed, p, index, *r, **k) + 1e-3 * len(index))


def narrower_bins(patch: Patch) -> None:
    patch.setattr(scoring, "Discretized", lambda: Discretized(257))


def scale_of_the_paper(patch: Patch) -> None:
    """w + 1 in the place of w, as Ho and Salimans count."""
    patch.setattr(guidance, "_weight", lambda scale, interval, t: float(scale) + 1)


def louder_gradient(patch: Patch) -> None:
    true = Prediction.with_score
    patch.setattr(
        Prediction, "with_score", lambda p, gradient, level: true(p, gradient * level.sigma.to(gradient), level)
    )


def unlike(x: torch.Tensor) -> bool:
    """Whether images lie otherwise than channels_last."""
    return not x.is_contiguous(memory_format=torch.channels_last)


MISTAKES: dict[str, Callable[[Patch], None]] = {
    "noise: published vectors": lambda patch: patch.setattr(noise, "_ROUNDS", 9),
    "noise: same key, same number": batch_dependent,
    "noise: moments": lambda patch: scaled(patch, noise, "normal", 1.02),
    "schedules: closed forms": lambda patch: betas(patch, lambda table: table.roll(1)),
    "schedules: from data to noise": one_step_back,
    "forward process: composes": lambda patch: scaled(patch, diffusion_process, "snr_drop", 0.999),
    "posterior: Bayes' rule": lambda patch: coefficients(patch, 1.0, 1.001),
    "reverse mean: from the noise": lambda patch: coefficients(patch, 1.001, 1.0),
    "reverse variance: small, large, learned": lambda patch: patch.setattr(
        Learned, "logvar", lambda self, a, b, p, n=None: torch.lerp(*(x.exp() for x in bounds(a, b)), 0.3).log()
    ),
    "wrappers: consistent": lambda patch: patch.setattr(
        Prediction, "with_x0", lambda self, x0, x_t, level: replace(self, x0=x0)
    ),
    "parameterisations: convert": lambda patch: patch.setattr(
        V, "direction", lambda self, schedule, t: (schedule(t).sigma, -schedule(t).alpha)
    ),
    "guidance: the guided density": scale_of_the_paper,
    "guidance: the exact classifier": louder_gradient,
    "bound: exact on Gaussian data": lambda patch: scaled(patch, Gaussian, "kl", 0.999),
    "decoder: 256 probabilities": narrower_bins,
    "flow: density": lambda patch: scaled(patch, flow, "_trace", 0.99),
    "network: equals float64 on the CPU": lambda patch: forward(
        patch, lambda x, out: out + 1e-2 * (x.dtype == torch.float32)
    ),
    "network: any batch": lambda patch: forward(patch, lambda x, out: out + 1e-2 * len(x)),
    "network: any memory layout": lambda patch: forward(patch, lambda x, out: out + 1e-2 * unlike(x)),
    "network: gradients": lambda patch: forward(
        patch, lambda x, out: out + 1e-2 * (x.dtype == torch.float32) * (out - out.detach())
    ),
    "network: compiled": lambda patch: patch.setattr(
        torch, "compile", lambda net: lambda *inputs: (1 + 1e-3) * net(*inputs)
    ),
}


def plant(name: str, patch: Patch) -> None:
    """Make the mistake that belongs to a check."""
    if not name.startswith("sampler "):
        MISTAKES[name](patch)
        return
    sampler = name.removeprefix("sampler ").partition(":")[0]
    wrong = Fainter if "covariance" in name else LowerOrder
    patch.setitem(sampling.KINDS, sampler, lambda: wrong(AS_THEY_ARE[sampler]()))


AS_THEY_ARE = dict(sampling.KINDS)


@pytest.mark.parametrize("name", examinations())
def test_every_check_can_fail(name: str, monkeypatch: Patch) -> None:
    plant(name, monkeypatch)
    (check,) = examine({name: examinations()[name]}, replace(DOUBLE, compile=True))
    assert check.outcome == "failed", check
    assert check.measured is not None, f"it must fail by what it measures, not by an exception: {check.sentence}"
    assert len(check.sentence) > 20


def test_no_mistake_is_without_its_check() -> None:
    assert set(MISTAKES) == {name for name in examinations() if not name.startswith("sampler ")}
    assert sum(name.startswith("sampler ") for name in examinations()) == len(SAMPLERS) + 1


# The reference that orders are measured against, and the running of checks


def test_the_quantile_flow_is_the_ode() -> None:
    """Against scipy's integration of dy/du = r eps^ for the same mixture."""
    from scipy.integrate import solve_ivp

    from sfumato.diffusion import MixtureOracle

    schedule = sampling.Smooth()
    means, variances = (torch.tensor(v, dtype=torch.float64)[:, None] for v in (sampling.MEANS, sampling.VARIANCES))
    oracle = MixtureOracle(schedule, torch.tensor(sampling.WEIGHTS, dtype=torch.float64), means, variances)
    x = torch.tensor([-1.5, -0.2, 0.0, 0.9], dtype=torch.float64)

    def slope(u: float, y: Any) -> Any:
        level = Level.from_logsnr(torch.tensor(-2 * u, dtype=torch.float64))
        at = torch.from_numpy(y)[:, None] * level.alpha
        return math.exp(u) * oracle(at, float(schedule.time(level.logsnr))).eps[:, 0].numpy()

    first, last = schedule(sampling.NOISY), schedule(sampling.CLEAN)
    span = [-float(level.logsnr) / 2 for level in (first, last)]
    end = solve_ivp(slope, span, (x / first.alpha).numpy(), rtol=1e-10, atol=1e-12).y[:, -1] * float(last.alpha)
    got = sampling.flow(x, sampling.NOISY, sampling.CLEAN)
    assert torch.allclose(got, torch.from_numpy(end), atol=1e-7)


def test_outcomes() -> None:
    def raises(error: Exception) -> Callable[[Setting], Finding]:
        def examination(setting: Setting) -> Finding:
            raise error

        return examination

    checks = {
        check.name: check
        for check in examine(
            {
                "good": lambda s: Finding(1.0, 1.0, "fine", "harm"),
                "bad": lambda s: Finding(1.1, 1.0, "fine", "harm"),
                "nan": lambda s: Finding(math.nan, 1.0, "fine", "harm"),
                "skip": raises(Skipped("because")),
                "error": raises(RuntimeError("no\nkernel")),
            },
            DOUBLE,
        )
    }
    assert {n: (c.outcome, c.passed, c.sentence) for n, c in checks.items()} == {
        "good": ("passed", True, "fine"),
        "bad": ("failed", False, "harm"),
        "nan": ("failed", False, "harm"),
        "skip": ("skipped", True, "because"),
        "error": ("failed", False, "it stopped with RuntimeError: no kernel"),
    }
