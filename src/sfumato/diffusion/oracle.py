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
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.schedule import Level, Schedule

__all__ = ["ConditionalMixtureOracle", "FiniteOracle", "GaussianOracle", "MixtureOracle"]


@dataclass(frozen=True)
class GaussianOracle:
    """Data N(mean, variance), coordinate by coordinate.

    Attributes:
        schedule: the schedule.
        mean: (C, H, W) or anything that broadcasts to it.
        variance: likewise, the squares s^2, at least 0.
    """

    schedule: Schedule
    mean: Tensor
    variance: Tensor

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return E[x_0 | x_t] and E[eps | x_t]; the condition is ignored."""
        level = self.schedule(t).like(x_t)
        mean, variance = self.mean.to(x_t), self.variance.to(x_t)
        scaled = (x_t - level.alpha * mean) / (level.alpha.square() * variance + level.sigma.square())
        return Prediction(mean + level.alpha * variance * scaled, level.sigma * scaled)

    def posterior_variance(self, level: Level) -> Tensor:
        """Return Var[x_0 | x_t] = s^2 sigma^2 / (alpha^2 s^2 + sigma^2), coordinate by coordinate, for `Optimal`.

        Args:
            level: () or (B,).
        """
        level = level.map(lambda c: c.reshape(-1, *[1] * self.variance.ndim) if c.ndim else c)
        noise, variance = level.sigma.square(), self.variance.to(level.sigma)
        return variance * noise / (level.alpha.square() * variance + noise)

    def log_prob(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """Return log q(x_t) in nats, (B,), with q(x_t) = N(alpha mean, alpha^2 variance + sigma^2)."""
        level = self.schedule(t).like(x_t)
        return _log_normal(x_t, level, self.mean.to(x_t), self.variance.to(x_t)).flatten(1).sum(1)

    def sample(self, count: int, seed: int, shape: tuple[int, ...]) -> Tensor:
        """Return `count` draws of x_0, (count, *shape) float64, by address (seed, image)."""
        z = normal(seed, Purpose.ORACLE, torch.arange(count), shape, dtype=torch.float64)
        return self.mean.double() + self.variance.double().sqrt() * z


@dataclass(frozen=True)
class MixtureOracle:
    """Data sum_k weight_k N(mean_k, variance_k).

    Attributes:
        schedule: the schedule.
        weights: (K,), positive; they are normalised.
        means: (K, C, H, W).
        variances: (K, C, H, W) or (K, 1, 1, 1), at least 0.
    """

    schedule: Schedule
    weights: Tensor
    means: Tensor
    variances: Tensor

    def _log_components(self, x_t: Tensor, level: Level) -> Tensor:
        """log ( w_k q_k(x_t) ), (B, K)."""
        weights = self.weights.to(x_t)
        log_q = _log_normal(x_t[:, None], _deeper(level), self.means.to(x_t), self.variances.to(x_t))
        return log_q.flatten(2).sum(2) + (weights / weights.sum()).log()

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return the components' conditional means weighted by their responsibilities; the condition is ignored."""
        level = self.schedule(t).like(x_t)
        return self._mean(self._log_components(x_t, level), x_t, level)

    def _mean(self, log_components: Tensor, x_t: Tensor, level: Level) -> Prediction:
        """The components' conditional means weighted by the softmax of log_components, (B, K)."""
        share = log_components.softmax(1)
        share = share.reshape(*share.shape, *[1] * (x_t.ndim - 1))
        deeper, means, variances = _deeper(level), self.means.to(x_t), self.variances.to(x_t)
        spread = deeper.alpha.square() * variances + deeper.sigma.square()
        scaled = (x_t[:, None] - deeper.alpha * means) / spread
        x0 = means + deeper.alpha * variances * scaled
        return Prediction((share * x0).sum(1), (share * deeper.sigma * scaled).sum(1))

    def log_prob(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """Return log q(x_t) in nats, (B,)."""
        return self._log_components(x_t, self.schedule(t).like(x_t)).logsumexp(1)

    def sample(self, count: int, seed: int) -> Tensor:
        """Return `count` draws of x_0, (count, C, H, W) float64, by address (seed, image)."""
        index = torch.arange(count)
        edges = (self.weights.double() / self.weights.double().sum()).cumsum(0)
        which = torch.searchsorted(edges, uniform(seed, Purpose.ORACLE, index)).clamp(max=len(edges) - 1)
        z = normal(seed, Purpose.ORACLE, index, tuple(self.means.shape[1:]), step=1, dtype=torch.float64)
        return self.means.double()[which] + self.variances.double()[which].sqrt() * z


@dataclass(frozen=True)
class ConditionalMixtureOracle(MixtureOracle):
    """A mixture whose components bear labels, and so a conditional denoiser with everything that guides it known.

    A condition whose `table` is (B, 1) picks the components of one label, NaN all of them: the unconditional
    distribution is the mixture itself, q(x_t) = sum_c q(c) q(x_t | c).

    Attributes:
        labels: (K,), the label of each component.
        schedule, weights, means, variances: as `MixtureOracle`.
    """

    labels: Tensor

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return E[x_0 | x_t, c] and E[eps | x_t, c]."""
        level = self.schedule(t).like(x_t)
        return self._mean(self._log_components(x_t, level) + self._mask(x_t, condition), x_t, level)

    def class_log_prob(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Tensor:
        """Return log q(c | x_t) in nats, (B,), the exact classifier; 0 where the condition is NaN."""
        log_components = self._log_components(x_t, self.schedule(t).like(x_t))
        return (log_components + self._mask(x_t, condition)).logsumexp(1) - log_components.logsumexp(1)

    def _mask(self, x_t: Tensor, condition: Condition | None) -> Tensor:
        """0 for the components that the condition picks, -inf for the others, (B, K)."""
        if condition is None:
            return x_t.new_zeros(1, len(self.labels))
        table: Tensor = condition if isinstance(condition, Tensor) else condition.table  # type: ignore[attr-defined]
        picked = (self.labels.to(table) == table) | table.isnan()
        return torch.where(picked, 0.0, -math.inf).to(x_t)


@dataclass(frozen=True)
class FiniteOracle:
    """Data are the given images and nothing else, each equally likely: the perfect memoriser.

    Attributes:
        schedule: the schedule.
        points: (N, C, H, W).
    """

    schedule: Schedule
    points: Tensor

    def _log_weights(self, x_t: Tensor, level: Level) -> Tensor:
        """-|| x_t - alpha x_i ||^2 / (2 sigma^2), (B, N) float64, without the term that all points share.

        Near the data sigma^2 is tiny and the products large, so float32 would not do.
        """
        points = self.points.to(x_t.device, torch.float64).flatten(1)
        x, alpha, sigma = x_t.double().flatten(1), level.alpha.flatten(1).double(), level.sigma.flatten(1).double()
        return (alpha * (x @ points.T) - alpha.square() * points.square().sum(1) / 2) / sigma.square()

    def __call__(self, x_t: Tensor, t: Tensor | float, condition: Condition | None = None) -> Prediction:
        """Return the softmax-weighted mean of the points and the eps that goes with it; the condition is ignored."""
        exact = self.schedule(torch.as_tensor(t, dtype=torch.float64, device=x_t.device).expand(len(x_t)))
        level = exact.like(x_t.double())
        share = self._log_weights(x_t, level).softmax(1)
        x0 = (share @ self.points.to(x_t.device, torch.float64).flatten(1)).reshape(x_t.shape)
        eps = (x_t.double() - level.alpha * x0) / level.sigma
        return Prediction(x0.to(x_t.dtype), eps.to(x_t.dtype))


def _deeper(level: Level) -> Level:
    """Give a broadcast level (B, 1, 1, 1) one more axis for the components, (B, 1, 1, 1, 1)."""
    return level.map(lambda c: c if c.ndim == 0 else c[:, None])


def _log_normal(x_t: Tensor, level: Level, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x_t; alpha mean, alpha^2 variance + sigma^2), coordinate by coordinate."""
    spread = level.alpha.square() * variance + level.sigma.square()
    return -0.5 * ((x_t - level.alpha * mean).square() / spread + spread.log() + math.log(2 * math.pi))
