r"""Exact denoisers: distributions whose optimal denoiser is known in closed form.

If the data are N(m, s^2), noising keeps them Gaussian, q(x_t) = N(alpha m, alpha^2 s^2 + sigma^2), and the best guess
of x_0 is the conditional mean of a joint Gaussian:

    E[x_0 | x_t] = m + alpha s^2 / (alpha^2 s^2 + sigma^2) (x_t - alpha m)
    E[eps | x_t] = sigma / (alpha^2 s^2 + sigma^2) (x_t - alpha m)

A mixture weighs its components by their responsibility for x_t, r_k(x_t) ~ w_k q_k(x_t), and a finite data set is the
mixture of its points with s = 0: a softmax over them. So a sampler can be run, an objective evaluated and a likelihood
checked with no network and a known answer. The finite-set oracle is also what a network becomes that has memorised its
data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.level import Level
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.schedule import Schedule, per_row


def posterior_variance(variance: Tensor, level: Level) -> Tensor:
    """Return Var[x_0 | x_t] = s^2 sigma^2 / (alpha^2 s^2 + sigma^2) of Gaussian data with variances s^2.

    The variance broadcasts to an image, (C, H, W); the result has its shape for a level (), and a first axis of B for a
    level (B,), or one shaped for images of more axes than the variance (`Level.shaped`).
    """
    level = level.map(lambda c: c.reshape(-1, *[1] * variance.ndim) if c.ndim == 1 else c)
    noise, variance = level.sigma.square(), variance.to(level.sigma)
    return variance * noise / (level.alpha.square() * variance + noise)


def _log_normal(x_t: Tensor, level: Level, mean: Tensor, variance: Tensor) -> Tensor:
    """log q(x_t) = log N(x_t; alpha mean, alpha^2 variance + sigma^2) of data N(mean, variance)."""
    noised = level.alpha.square() * variance + level.sigma.square()
    return -0.5 * ((x_t - level.alpha * mean).square() / noised + noised.log() + math.log(2 * math.pi))


def _conditional_mean(x_t: Tensor, level: Level, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """(E[x_0 | x_t], E[eps | x_t] / sigma) of data N(mean, variance)."""
    scaled = (x_t - level.alpha * mean) / (level.alpha.square() * variance + level.sigma.square())
    return mean + level.alpha * variance * scaled, scaled


@dataclass(frozen=True)
class GaussianOracle:
    """Data N(mean, variance), coordinate by coordinate; both broadcast to (C, H, W), and the variance is s^2 >= 0."""

    schedule: Schedule
    mean: Tensor
    variance: Tensor

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return E[x_0 | x_t] and E[eps | x_t]; the condition is ignored."""
        level = self.schedule(t).like(x_t)
        x0, scaled = _conditional_mean(x_t, level, self.mean.to(x_t), self.variance.to(x_t))
        return Prediction(x0, level.sigma * scaled)

    def posterior_variance(self, level: Level) -> Tensor:
        """Return Var[x_0 | x_t] at a level, coordinate by coordinate, for `Optimal`."""
        return posterior_variance(self.variance, level)

    def log_prob(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """Return log q(x_t) in nats, (B,)."""
        level = self.schedule(t).like(x_t)
        return _log_normal(x_t, level, self.mean.to(x_t), self.variance.to(x_t)).flatten(1).sum(1)

    def sample(self, count: int, seed: int, shape: tuple[int, ...]) -> Tensor:
        """Return `count` samples of x_0, (count, *shape) float64; number i is a function of (seed, i)."""
        z = normal(seed, Purpose.ORACLE, torch.arange(count), shape, dtype=torch.float64)
        return self.mean.double() + self.variance.double().sqrt() * z


@dataclass(frozen=True)
class MixtureOracle:
    """Data sum_k weight_k N(mean_k, variance_k): weights (K,), normalised here, means (K, ...) of any images, variances
    (K,) or of axes that broadcast to the means, such as (K, 1, 1, 1)."""

    schedule: Schedule
    weights: Tensor
    means: Tensor
    variances: Tensor

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return the components' conditional means weighted by their responsibilities; the condition is ignored."""
        return self._mean(self._log_components(x_t, t), x_t, t)

    def log_prob(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """Return log q(x_t) in nats, (B,)."""
        return self._log_components(x_t, t).logsumexp(1)

    def sample(self, count: int, seed: int) -> Tensor:
        """Return `count` samples of x_0, (count, C, H, W) float64; number i is a function of (seed, i)."""
        index = torch.arange(count)
        edges = (self.weights.double() / self.weights.double().sum()).cumsum(0)
        which = torch.searchsorted(edges, uniform(seed, Purpose.ORACLE, index)).clamp(max=len(edges) - 1)
        z = normal(seed, Purpose.ORACLE, index, tuple(self.means.shape[1:]), step=1, dtype=torch.float64)
        return self.means.double()[which] + self.variances.double()[which].sqrt() * z

    def __post_init__(self) -> None:
        if self.variances.ndim == 1:
            column = self.variances.reshape(-1, *[1] * (self.means.ndim - 1))
            object.__setattr__(self, "variances", column)

    def _level(self, x_t: Tensor, t: Tensor | float) -> Level:
        """The level at t with an axis for the components, () or (B, 1, 1, 1, 1)."""
        return self.schedule(t).like(x_t).map(lambda c: c[:, None] if c.ndim else c)

    def _log_components(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """log ( w_k q_k(x_t) ), (B, K)."""
        weights, level = self.weights.to(x_t), self._level(x_t, t)
        log_q = _log_normal(x_t[:, None], level, self.means.to(x_t), self.variances.to(x_t))
        return log_q.flatten(2).sum(2) + (weights / weights.sum()).log()

    def _mean(self, log_components: Tensor, x_t: Tensor, t: Tensor | float) -> Prediction:
        """The components' conditional means weighted by the softmax of log_components, (B, K)."""
        weight = log_components.softmax(1)
        weight = weight.reshape(*weight.shape, *[1] * (x_t.ndim - 1))
        level = self._level(x_t, t)
        x0, scaled = _conditional_mean(x_t[:, None], level, self.means.to(x_t), self.variances.to(x_t))
        return Prediction((weight * x0).sum(1), (weight * level.sigma * scaled).sum(1))


@dataclass(frozen=True)
class ConditionalMixtureOracle(MixtureOracle):
    """A mixture with labelled components: an exact conditional denoiser with its exact classifier.

    A condition whose `table` is (B, 1) selects the components of one of the labels (K,), NaN all of them: the
    unconditional distribution is the mixture itself, q(x_t) = sum_c q(c) q(x_t | c).
    """

    labels: Tensor

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return E[x_0 | x_t, c] and E[eps | x_t, c]."""
        return self._mean(self._log_components(x_t, t) + self._mask(x_t, condition), x_t, t)

    def class_log_prob(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Tensor:
        """Return log q(c | x_t) in nats, (B,), the exact classifier; 0 where the condition is NaN."""
        log_components = self._log_components(x_t, t)
        return (log_components + self._mask(x_t, condition)).logsumexp(1) - log_components.logsumexp(1)

    def _mask(self, x_t: Tensor, condition: Condition | None) -> Tensor:
        """0 for the components that the condition selects, -inf for the others, (B, K)."""
        if condition is None:
            return x_t.new_zeros(1, len(self.labels))
        table: Tensor = condition.table  # type: ignore[attr-defined]
        selected = (self.labels.to(table) == table) | table.isnan()
        return torch.where(selected, 0.0, -math.inf).to(x_t)


@dataclass(frozen=True)
class FiniteOracle:
    """Data are the given points (N, C, H, W) and nothing else, each equally likely: the perfect memoriser."""

    schedule: Schedule
    points: Tensor

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return the softmax-weighted mean of the points and the eps that goes with it; the condition is ignored.

        The softmax is over -|| x_t - alpha x_i ||^2 / (2 sigma^2), without the term that is the same for all, and in
        float64: near the data sigma^2 is tiny and the products large.
        """
        x, points = x_t.double().flatten(1), self.points.to(x_t.device, torch.float64).flatten(1)
        level = self.schedule(per_row(t, x_t, self.schedule)).like(x)
        log_weights = level.alpha * (x @ points.T) - level.alpha.square() * points.square().sum(1) / 2
        x0 = (log_weights / level.sigma.square()).softmax(1) @ points
        eps = (x - level.alpha * x0) / level.sigma
        return Prediction(x0.reshape(x_t.shape).to(x_t), eps.reshape(x_t.shape).to(x_t))
