r"""A schedule maps time to noise level (`level`).

A schedule maps t in [0, 1] (0 = data, 1 = noise) to a level. A chain of T steps is its values at i / T for i = 0..T,
and abar_0 = 1, so that no formula needs a special case for its first step. The published schedules are tables of
beta_1..beta_T; between two entries the angle phi = atan2(sigma, alpha) is interpolated linearly, which is finite at
both ends (0 and pi/2) where logsnr is not.

Flow matching's straight path z_t = (1 - t) x_0 + t eps is not variance preserving, but a level is one number: z_t over
its own scale r_t = sqrt( (1 - t)^2 + t^2 ) is, at logsnr = 2 log( (1 - t) / t ). `FlowPath` is that schedule, and all
that holds for an x_t of it holds for z_t = r_t x_t.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.diffusion.level import Level, exact_device

_BETA_MAX = 0.999  # no published table lets one step destroy everything (IDDPM, Sec. 3.2)
_BETA = "a step's variance at T = 1000 lies above 0 and at most at 1"


Time = Tensor | float | Sequence[float]
"""A time in [0, 1], or one for each row of a batch."""


def as_time(t: Time, num_steps: int) -> Tensor:
    """Return times in float64; a float32 time that is a step of a chain of T but for its rounding is that step."""
    exact = torch.as_tensor(t, dtype=torch.float64)
    if not isinstance(t, Tensor) or t.dtype != torch.float32:
        return exact
    step = (exact * num_steps).round() / num_steps
    return torch.where((exact - step).abs() <= torch.finfo(torch.float32).eps, step, exact)


def one_time(t: Time) -> float | None:
    """Return the one time of all rows, where that is known without looking at each; None elsewhere."""
    if not isinstance(t, Tensor):
        return float(t) if isinstance(t, int | float) else None
    alike = t.numel() and not any(t.stride()) and t.dtype == torch.float64
    return float(t[(0,) * t.ndim]) if alike and t.device.type == "cpu" and not t.requires_grad else None


def noisy(t: Time, x: Tensor, schedule: Schedule) -> Tensor | float:
    """Return the time of a batch x: a float where all rows have one that is known, else (B,) float64 where its levels
    are computed; raises ValueError for t = 0, where there is no noise to predict."""
    one = one_time(t)
    time = as_time(t, schedule.num_steps).to(exact_device(x.device)) if one is None else one
    if time <= 0 if isinstance(time, float) else time.device.type == "cpu" and bool((time <= 0).any()):
        raise ValueError("t = 0 is the image itself, which has no noise to predict: t must lie in (0, 1]")
    return time


def per_row(t: Time, x: Tensor, schedule: Schedule) -> Tensor:
    """Return the time of each row of a batch x, (B,) float64; raises as `noisy`."""
    time = noisy(t, x, schedule)
    return torch.as_tensor(time, dtype=torch.float64, device=exact_device(x.device)).expand(len(x))


def step_levels(schedule: Schedule, s: float, t: float) -> tuple[Level, Level]:
    """Return the levels at s and t of a step from t to s; raises ValueError unless 0 <= s < t <= 1."""
    if not 0 <= s < t <= 1:
        raise ValueError(f"a step from t = {t:g} to s = {s:g} does not go towards the data: give 0 <= s < t <= 1")
    return schedule(s), schedule(t)


@runtime_checkable
class Schedule(Protocol):
    """Maps time to noise level. Implementations are frozen dataclasses and serve as their own configuration."""

    @property
    def num_steps(self) -> int:
        """T, the length of the chain on which networks are trained; time i / T is its i-th step."""

    def __call__(self, t: Tensor | float) -> Level:
        """Return the level at time t, () or (B,) in [0, 1], in float64 and on t's device."""

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the time at which logsnr is reached, in [0, 1], float64: the inverse of the schedule."""


def _checked(t: Time, num_steps: int) -> Tensor:
    """A time of a chain of T in float64, in [0, 1]."""
    t = as_time(t, num_steps)
    if t.device.type == "cpu" and not bool(((t >= 0) & (t <= 1)).all()):  # elsewhere the check would stall the queue
        raise ValueError("time t must lie in [0, 1]: 0 is data, 1 is noise")
    return t


@functools.lru_cache(maxsize=64)
def _nodes(chain: Chain, device: torch.device) -> Level:
    """The levels of a chain at i / T, i = 0..T, computed once for each schedule and device."""
    if chain.num_steps < 1:
        raise ValueError(f"num_steps = {chain.num_steps}: a chain needs at least one step")
    table = chain.log_abar()
    if not bool((table.diff() < 0).all()):  # a NaN fails too
        step = int((~(table.diff() < 0)).nonzero()[0]) + 1
        raise ValueError(f"schedule = {chain}: abar does not fall at step {step}, so the chain adds no noise there")
    return Level.from_log_abar(table).map(lambda column: column.to(device))


@functools.lru_cache(maxsize=1024)
def _level(chain: Chain, t: float) -> Level:
    """The level at a time; a sampler asks for that of a step five times."""
    return chain._levels(t)


def _require(good: bool, name: str, value: float, allowed: str) -> None:
    if not good:  # NaN compares false, so it is refused too
        raise ValueError(f"{name} = {value}: {allowed}")


@dataclass(frozen=True)
class Chain:
    """Base of the schedules given by a table of T entries: a subclass defines `betas()` or `log_abar()`."""

    num_steps: int = 1000

    def betas(self) -> Tensor:
        """Return beta_1..beta_T, (T,) float64; by default beta_t = 1 - abar_t / abar_{t-1} from the table."""
        return -torch.expm1(self.log_abar().diff())

    def log_abar(self) -> Tensor:
        """Return log abar_0..log abar_T, (T + 1,) float64; by default the running sum of log(1 - beta)."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-self.betas()).cumsum(0)])

    def __call__(self, t: Time) -> Level:
        """Return the level at t in [0, 1], ValueError beyond: the table's own entries at i / T, the angle interpolated
        between them."""
        if (one := one_time(t)) is not None:
            level = _level(self, one)
            return level.map(lambda value: value.expand(t.shape)) if isinstance(t, Tensor) and t.ndim else level
        return self._levels(t)

    def _levels(self, t: Time) -> Level:
        """The levels at times, computed anew."""
        t = _checked(t, self.num_steps)
        nodes = _nodes(self, t.device)
        position = t * self.num_steps
        nearest = position.round()
        on_node = (position - nearest).abs() < 1e-9 * self.num_steps
        left = position.floor().clamp(max=self.num_steps - 1).long()
        between = Level.from_angle(torch.lerp(nodes.angle[left], nodes.angle[left + 1], position - left))
        return nodes.map(lambda table: table[nearest.long()]).where(on_node, between)

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the time at which logsnr is reached; beyond the chain's ends, 0 or 1."""
        logsnr = torch.as_tensor(logsnr, dtype=torch.float64)
        angles, angle = _nodes(self, logsnr.device).angle, torch.atan(torch.exp(-logsnr / 2))
        left = (torch.searchsorted(angles, angle, right=True) - 1).clamp(0, self.num_steps - 1)
        part = (angle - angles[left]) / (angles[left + 1] - angles[left])
        return (left + part.clamp(0.0, 1.0)) / self.num_steps


def _scaled(betas: Tensor, num_steps: int) -> Tensor:
    """Betas for T = 1000, scaled by 1000 / T, at most 0.999."""
    return (betas * (1000 / num_steps)).clamp(max=_BETA_MAX)


@dataclass(frozen=True)
class Linear(Chain):
    """beta_t linear from beta_min to beta_max at T = 1000, scaled by 1000 / T otherwise (DDPM Sec. 4)."""

    beta_min: float = 1e-4
    beta_max: float = 0.02
    _power: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("beta_min", "beta_max"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), _BETA)

    def betas(self) -> Tensor:
        """Return beta_1..beta_T: beta_t^(1/power) is linear."""
        low, high = self.beta_min ** (1 / self._power), self.beta_max ** (1 / self._power)
        roots = torch.linspace(low, high, self.num_steps, dtype=torch.float64)
        return _scaled(roots**self._power, self.num_steps)


@dataclass(frozen=True)
class Quadratic(Linear):
    """sqrt(beta_t) linear ("quad" in the DDPM code, "scaled_linear" in latent diffusion); fields as `Linear`."""

    _power: ClassVar[int] = 2


@dataclass(frozen=True)
class Constant(Chain):
    """beta_t = beta at every step ("const" in the DDPM code) at T = 1000, scaled by 1000 / T otherwise."""

    beta: float = 0.02

    def __post_init__(self) -> None:
        _require(0 < self.beta <= 1, "beta", self.beta, _BETA)

    def betas(self) -> Tensor:
        """Return beta_1..beta_T."""
        return _scaled(torch.full((self.num_steps,), self.beta, dtype=torch.float64), self.num_steps)


@dataclass(frozen=True)
class Cosine(Chain):
    """abar_t = f(t) / f(0), f(t) = cos^2( (t + s) / (1 + s) * pi / 2 ), with beta_t at most 0.999 (IDDPM Eq. 17).

    The offset s keeps the first betas from vanishing.
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        _require(0 <= self.s < math.inf, "s", self.s, "the cosine schedule's offset is 0 or more, such as 0.008")

    def betas(self) -> Tensor:
        """Return beta_1..beta_T."""
        t = torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps
        f = ((t + self.s) / (1 + self.s) * (math.pi / 2)).cos().square()
        return (1 - f[1:] / f[:-1]).clamp(max=_BETA_MAX)


@dataclass(frozen=True)
class Sigmoid(Chain):
    """abar_t = ( S(end) - S(start + t (end - start)) ) / ( S(end) - S(start) ), S(x) = sigmoid(x / tau), at least 1e-9
    (Chen 2023, 2301.10972).

    The part of the sigmoid from `start` to `end` is used; a larger temperature `tau` is nearer to linear.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        finite = math.isfinite(self.start) and math.isfinite(self.end)
        _require(finite and self.start != self.end, "start", self.start, f"it must differ from end = {self.end}")
        _require(0 < self.tau < math.inf, "tau", self.tau, "a temperature is above 0")

    def log_abar(self) -> Tensor:
        """Return log abar_0..log abar_T."""
        t = torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps
        curve = torch.sigmoid((self.start + t * (self.end - self.start)) / self.tau)
        return ((curve[-1] - curve) / (curve[-1] - curve[0])).clamp(min=1e-9).log()


@dataclass(frozen=True)
class FlowPath(Chain):
    """The straight path z_t = (1 - t) x_0 + t eps of flow matching and rectified flow (Lipman et al. 2022, 2210.02747;
    Liu et al. 2022, 2209.03003), divided by its scale: alpha = (1 - t) / r, sigma = t / r, r = sqrt((1 - t)^2 + t^2).

    Exact at every t, not only at the chain's steps. t = 1 is pure noise (alpha = 0, z_1 = x_1 = eps), so the network
    must not predict eps; `Velocity` is what flow matching predicts. T says which times are steps: the chain's first is
    t = 1/T, where sigma / alpha = 1 / (T - 1), and below it nothing is learned.
    """

    def log_abar(self) -> Tensor:
        """Return log abar_0..log abar_T = log sigmoid(logsnr); the last is -inf."""
        t = torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps
        return torch.nn.functional.logsigmoid(self(t).logsnr)

    def __call__(self, t: Time) -> Level:
        """Return the level at t in [0, 1]; raises ValueError for t outside."""
        t = _checked(t, self.num_steps)
        scale = torch.hypot(1 - t, t)
        return Level((1 - t) / scale, t / scale, 2 * (torch.log1p(-t) - t.log()))

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the time at which logsnr is reached, t = sigmoid(-logsnr / 2)."""
        return torch.sigmoid(-torch.as_tensor(logsnr, dtype=torch.float64) / 2)


@dataclass(frozen=True)
class ZeroTerminalSNR(Chain):
    """A chain rescaled so that its last step is pure noise: alpha_t' = (alpha_t - alpha_T) alpha_1 / (alpha_1 -
    alpha_T) (Lin et al. 2023, 2305.08891, Alg. 1).

    The first step keeps its level and the last reaches alpha = 0 exactly, where a predicted eps says nothing about x_0:
    such a chain needs v- or x0-prediction. `num_steps` is the base's.
    """

    num_steps: int = 0
    base: Chain = Linear()

    def __post_init__(self) -> None:
        if self.num_steps not in (0, self.base.num_steps):
            raise ValueError(f"num_steps = {self.num_steps}, but the base has {self.base.num_steps}: leave it out")
        object.__setattr__(self, "num_steps", self.base.num_steps)

    def log_abar(self) -> Tensor:
        """Return log abar_0..log abar_T; the last is -inf."""
        alpha = (self.base.log_abar() / 2).exp()
        first, last = alpha[1], alpha[-1]
        rescaled = (alpha[1:] - last) * (first / (first - last)) if self.num_steps > 1 else alpha[1:] * 0
        return 2 * torch.cat([alpha[:1], rescaled]).log()


def resolution_shift(size: int, reference: int = 64) -> float:
    """Return 2 log(reference / size), what to add to logsnr for images of another size (simple diffusion, 2301.11093,
    Sec. 2.1).

    A larger image averages the noise of more pixels, so the same logsnr hides less of it. Raises ValueError for a size
    that is not positive.
    """
    _require(min(size, reference) > 0, "size", min(size, reference), "an image has at least one pixel")
    return 2 * math.log(reference / size)


@dataclass(frozen=True)
class Shifted:
    """A schedule with logsnr'(t) = logsnr(t) + shift, such as `resolution_shift(256)` (2301.11093)."""

    base: Schedule
    shift: float

    def __post_init__(self) -> None:
        _require(math.isfinite(self.shift), "shift", self.shift, "what is added to logsnr must be finite")

    @property
    def num_steps(self) -> int:
        """T of the base schedule."""
        return self.base.num_steps

    def __call__(self, t: Tensor | float) -> Level:
        """Return the shifted level at t in [0, 1]."""
        return Level.from_logsnr(self.base(t).logsnr + self.shift)

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the time at which the shifted logsnr is reached."""
        return self.base.time(torch.as_tensor(logsnr, dtype=torch.float64) - self.shift)


SCHEDULES: dict[str, type[Chain]] = {
    "linear": Linear,
    "cosine": Cosine,
    "sigmoid": Sigmoid,
    "quadratic": Quadratic,
    "constant": Constant,
    "flow": FlowPath,
}
