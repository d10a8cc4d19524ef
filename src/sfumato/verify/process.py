"""Schedules, the forward process, its posterior, and the ways to predict: against formulae in plain Python numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sfumato.diffusion.denoiser import Network, NetworkDenoiser
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import forward_step, marginal, posterior
from sfumato.diffusion.schedule import SCHEDULES, Cosine, Linear
from sfumato.diffusion.variance import Large, Learned, Small, Variance, reverse
from sfumato.verify.check import Examination, Finding, Setting, largest

__all__ = ["examinations"]


def examinations() -> dict[str, Examination]:
    """Return the examinations of the process by name."""
    return {
        "schedules: closed forms": closed_forms,
        "schedules: from data to noise": ends,
        "forward process: composes": composes,
        "posterior: Bayes' rule": bayes,
        "reverse mean: from the noise": mean_from_noise,
        "reverse variance: small, large, learned": variances,
        "parameterisations: convert": convert,
    }


def _product(betas: Sequence[float]) -> list[float]:
    """abar_0..abar_T of betas, by plain multiplication."""
    abars = [1.0]
    for beta in betas:
        abars.append(abars[-1] * (1 - beta))
    return abars


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _betas(power: int) -> list[float]:
    """1000 published betas from 1e-4 to 0.02 whose power-th root is linear."""
    low, high = 1e-4 ** (1 / power), 0.02 ** (1 / power)
    return [(low + (high - low) * i / 999) ** power for i in range(1000)]


# abar_0..abar_1000 of each schedule from its paper; the cosine's last step is capped at beta = 0.999 (IDDPM Sec. 3.2)
_CLOSED: dict[str, Callable[[], list[float]]] = {
    "linear": lambda: _product(_betas(1)),
    "quadratic": lambda: _product(_betas(2)),
    "constant": lambda: [0.98**i for i in range(1001)],
    "cosine": lambda: [
        (math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
        for i in range(1000)
    ],
    "sigmoid": lambda: [
        max((_sigmoid(3) - _sigmoid(-3 + 6 * i / 1000)) / (_sigmoid(3) - _sigmoid(-3)), 1e-9) for i in range(1001)
    ],
}


def closed_forms(setting: Setting) -> Finding:
    """alpha^2 and sigma^2 of every schedule with T = 1000 against the papers' formulae."""
    errors = []
    for name, closed in _CLOSED.items():
        abars = torch.tensor(closed(), dtype=torch.float64, device=setting.device)
        level = SCHEDULES[name]()(torch.arange(len(abars), dtype=torch.float64, device=setting.device) / 1000)
        errors += [level.alpha.square() - abars, level.sigma.square() - (1 - abars)]
    return Finding(
        largest(*errors),
        1e-10,
        "every schedule's levels are the products of its published betas",
        "images are noised by other amounts than published, so published networks and settings don't fit",
    )


def ends(setting: Setting) -> Finding:
    """The schedules' least fall of logsnr from step to step and their ends, as the largest error."""
    errors: list[Tensor | float] = []
    for schedule in SCHEDULES.values():
        t = torch.arange(1001, dtype=torch.float64, device=setting.device) / 1000
        level = schedule()(t)
        fall = -(level.logsnr[1:].diff())
        errors += [(-fall).clamp(min=0), float((fall == 0).any()), level.alpha[0] - 1, level.sigma[0]]
        errors += [(level.abar[-1] - 1e-3).clamp(min=0), schedule().time(level.logsnr[1:]) - t[1:]]
    return Finding(
        largest(*errors),
        1e-9,
        "noise grows at every step, from none at t = 0 to at most 1/1000 of the image's variance at t = 1",
        "a chain does not lead from data to noise: samples start from the wrong noise or steps go backwards",
    )


def composes(setting: Setting) -> Finding:
    """x_0 -> x_s -> x_t against x_0 -> x_t: means and variances, for neighbours and far pairs."""
    x_0, errors = setting.random(0, 4, 2, 3, 3), []
    for schedule in (Linear(), Cosine()):
        for s, t in ((0.001, 0.002), (0.3, 0.301), (0.2, 0.7), (0.5, 0.99)):
            halfway, whole = marginal(x_0, schedule(s)), marginal(x_0, schedule(t))
            step = forward_step(halfway.mean, schedule(s), schedule(t))
            factor = forward_step(torch.ones_like(x_0), schedule(s), schedule(t)).mean.square()
            errors += [step.mean - whole.mean, (factor * halfway.variance + step.variance) / whole.variance - 1]
    return Finding(
        largest(*errors),
        setting.limit(1e-10, 1e-5),
        "two steps of noise are one larger step: means and variances add up",
        "training noises images otherwise than the chain that sampling reverses",
    )


def bayes(setting: Setting) -> Finding:
    """q(x_s | x_t, x_0) by precisions, 1/v = a^2/var_ts + 1/sigma_s^2, in plain numbers, against `posterior`."""
    x_t, x_0, errors = setting.random(1, 4, 2, 3, 3), setting.random(2, 4, 2, 3, 3), []
    for schedule in (Linear(), Cosine()):
        for s, t in ((0.1, 0.101), (0.2, 0.7), (0.5, 0.99)):
            (abar_s, abar_t) = (float(schedule(u).abar) for u in (s, t))
            ratio, noise = math.sqrt(abar_t / abar_s), 1 - abar_t / abar_s
            variance = 1 / (ratio**2 / noise + 1 / (1 - abar_s))
            mean = variance * (ratio / noise * x_t + math.sqrt(abar_s) / (1 - abar_s) * x_0)
            actual = posterior(x_t, x_0, schedule(s), schedule(t))
            errors += [actual.mean - mean, actual.variance / variance - 1]
    return Finding(
        largest(*errors),
        setting.limit(1e-9, 1e-4),
        "the posterior of a step is Bayes' rule for two Gaussians",
        "the ancestral sampler's steps and every term of the bound are wrong",
    )


def mean_from_noise(setting: Setting) -> Finding:
    """The reverse step's mean through the predicted noise, DDPM Eq. 11 in plain numbers, at every hundredth step."""
    schedule, betas, errors = Linear(), _betas(1), []
    abars, x_t, eps = _product(betas), setting.random(3, 4, 2, 3, 3), setting.random(4, 4, 2, 3, 3)
    for i in range(100, 1001, 100):
        abar, beta = abars[i], betas[i - 1]
        x0 = (x_t - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        mean = (x_t - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta)
        step = reverse(Prediction(x0, eps), x_t, schedule((i - 1) / 1000), schedule(i / 1000), Small())
        errors.append(step.mean - mean)
    return Finding(
        largest(*errors),
        setting.limit(1e-9, 1e-3),
        "a step's mean from the predicted noise is DDPM's Eq. 11",
        "each step of sampling moves the image by the wrong amount",
    )


def variances(setting: Setting) -> Finding:
    """beta~, beta and IDDPM Eq. 15 between them in plain numbers, on neighbours and on steps of a respaced chain."""
    schedule, abars, x_t, errors = Linear(), _product(_betas(1)), setting.random(7, 4, 2, 3, 3), []
    for s, t in ((1, 2), (499, 500), (20, 40), (900, 1000)):
        beta = 1 - abars[t] / abars[s]
        tilde = beta * (1 - abars[s]) / (1 - abars[t])
        prediction = Prediction(x_t, x_t, torch.full_like(x_t, 0.3))
        expected: tuple[tuple[Variance, float], ...] = (
            (Small(), math.log(tilde)),
            (Large(), math.log(beta)),
            (Learned(), 0.3 * math.log(beta) + 0.7 * math.log(tilde)),
        )
        errors += [rule.logvar(schedule(s / 1000), schedule(t / 1000), prediction) - log for rule, log in expected]
    return Finding(
        largest(*errors),
        setting.limit(1e-9, 1e-4),
        "fixed and learned variances are the papers', on the whole chain and on a respaced one",
        "ancestral samples are too noisy or too smooth, most of all in few steps, and so is every term of the bound",
    )


def _constant(output: Tensor) -> Network:
    """A network with one output."""
    return lambda x, time, condition: output


def convert(setting: Setting) -> Finding:
    """A network that outputs the truth, in each parameterisation by its own formula, must be read as the truth."""
    schedule, betas, errors = Linear(), _betas(1), []
    abars, x_0, eps = _product(betas), setting.random(5, 4, 2, 3, 3), setting.random(6, 4, 2, 3, 3)
    for i in (100, 400, 700):
        abar, before, beta = abars[i], abars[i - 1], betas[i - 1]
        alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
        x_t = alpha * x_0 + sigma * eps
        a = math.sqrt(1 - beta) * (1 - before) / (1 - abar)
        outputs = {
            "eps": eps,
            "x0": x_0,
            "v": alpha * eps - sigma * x_0,
            "mu": a * x_t + math.sqrt(before) * beta / (1 - abar) * x_0,
        }
        for name, output in outputs.items():
            actual = NetworkDenoiser(_constant(output), schedule, PARAMETERIZATIONS[name])(x_t, i / 1000)
            errors += [actual.x0 - x_0, actual.eps - eps]
    return Finding(
        largest(*errors),
        setting.limit(1e-9, 1e-2),
        "eps, x0, v and mu-networks are all read as the image and noise that they mean",
        "a network's output is misread: samples of some parameterisations are noise or tinted",
    )
