"""Noise, schedules, the forward process, its posterior, and the parameterisations, against plain Python numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sfumato.diffusion import noise
from sfumato.diffusion.denoiser import Network, NetworkDenoiser
from sfumato.diffusion.parameterization import PARAMETERIZATIONS
from sfumato.diffusion.prediction import Prediction
from sfumato.diffusion.process import forward_step, marginal, posterior
from sfumato.diffusion.schedule import SCHEDULES, Cosine, Linear
from sfumato.diffusion.variance import Large, Learned, Small, Variance, reverse
from sfumato.verify.check import Errors, Examinations, Setting

EXAMINATIONS = Examinations()

# (counter, key, words): the known answers of philox4x32 with 10 rounds (Salmon et al. 2011, Random123)
KNOWN = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@EXAMINATIONS.add(
    "noise: published vectors",
    0.0,
    "the generator gives the words that its authors publish",
    "the random numbers are not those of other machines: a seed gives other images here, and a training "
    "moved to this machine does not continue identically",
)
def published_vectors(setting: Setting) -> Errors:
    """Philox4x32-10 on the device against the words that its authors publish."""
    wrong = 0
    for counter, key, words in KNOWN:
        first, second, third, fourth = (torch.tensor(word, device=setting.device) for word in counter)
        actual = noise.philox((first, second, third, fourth), (key[0], key[1]))
        wrong += sum(int(a) != b for a, b in zip(actual, words, strict=True))
    return [wrong]


@EXAMINATIONS.add(
    "noise: same key, same number",
    (1e-12, 1e-4),
    "image i gets the same noise in any batch, here and on the CPU",
    "an image depends on its batch or on the device, so samples cannot be reproduced",
)
def same_key(setting: Setting) -> Errors:
    """Normals of a batch on the device against each drawn alone on the CPU, as a largest difference."""
    index, shape = torch.tensor([0, 7, 2**33 + 1]), (3, 5, 5)
    together = noise.normal(11, noise.Purpose.STEP, index.to(setting.device), shape, step=3, dtype=setting.dtype)
    alone = [noise.normal(11, noise.Purpose.STEP, i[None], shape, step=3, dtype=setting.dtype) for i in index]
    return [float((together.cpu() - torch.cat(alone)).abs().max())]


@EXAMINATIONS.add(
    "noise: moments",
    4.5,
    "the noise is standard normal and its numbers are uncorrelated, within 4.5 standard errors",
    "the noise is not N(0, I), as training, sampling and the bound assume",
)
def moments(setting: Setting) -> Errors:
    """Mean, variance, third and fourth moment, and the products of neighbours, in standard errors."""
    count = 2**16
    index = torch.arange(count // 16, device=setting.device)
    z = noise.normal(5, noise.Purpose.PRIOR, index, (16,), dtype=setting.dtype).double()
    # each mean below is of variables with the given mean and variance, if z ~ N(0, 1) independently
    cases = [(z, 0, 1), (z**2, 1, 2), (z**3, 0, 15), (z**4, 3, 96)]
    cases += [(z[:, lag:] * z[:, :-lag], 0, 1) for lag in (1, 2, 4)] + [(z[1:] * z[:-1], 0, 1)]
    worst = max(abs(float(v.mean()) - mean) / (variance / v.numel()) ** 0.5 for v, mean, variance in cases)
    return [worst]


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
    "flow": lambda: [(1 - i / 1000) ** 2 / ((1 - i / 1000) ** 2 + (i / 1000) ** 2) for i in range(1001)],
}


@EXAMINATIONS.add(
    "schedules: closed forms",
    1e-10,
    "every schedule's levels are the products of its published betas",
    "images are noised by other amounts than published, so published networks and settings don't fit",
)
def closed_forms(setting: Setting) -> Errors:
    """alpha^2 and sigma^2 of every schedule with T = 1000 against the papers' formulae."""
    errors = []
    for name, closed in _CLOSED.items():
        abars = torch.tensor(closed(), dtype=torch.float64, device=setting.device)
        level = SCHEDULES[name]()(torch.arange(len(abars), dtype=torch.float64, device=setting.device) / 1000)
        errors += [level.alpha.square() - abars, level.sigma.square() - (1 - abars)]
    return errors


@EXAMINATIONS.add(
    "schedules: from data to noise",
    1e-9,
    "noise grows at every step, from none at t = 0 to at most 1/1000 of the image's variance at t = 1",
    "a chain does not lead from data to noise: samples start from the wrong noise or steps go backwards",
)
def ends(setting: Setting) -> Errors:
    """The schedules' least fall of logsnr from step to step and their ends, as the largest error."""
    errors: list[Tensor | float] = []
    for schedule in SCHEDULES.values():
        t = torch.arange(1001, dtype=torch.float64, device=setting.device) / 1000
        level = schedule()(t)
        fall = -(level.logsnr[1:].diff())
        errors += [(-fall).clamp(min=0), float((fall == 0).any()), level.alpha[0] - 1, level.sigma[0]]
        errors += [(level.abar[-1] - 1e-3).clamp(min=0), schedule().time(level.logsnr[1:]) - t[1:]]
    return errors


@EXAMINATIONS.add(
    "forward process: composes",
    (1e-10, 1e-5),
    "two steps of noise are one larger step: means and variances add up",
    "training adds noise differently from the chain that sampling reverses",
)
def composes(setting: Setting) -> Errors:
    """x_0 -> x_s -> x_t against x_0 -> x_t: means and variances, for neighbours and far pairs."""
    x_0, errors = setting.random(0, 4, 2, 3, 3), []
    for schedule in (Linear(), Cosine()):
        for s, t in ((0.001, 0.002), (0.3, 0.301), (0.2, 0.7), (0.5, 0.99)):
            halfway, whole = marginal(x_0, schedule(s)), marginal(x_0, schedule(t))
            step = forward_step(halfway.mean, schedule(s), schedule(t))
            factor = forward_step(torch.ones_like(x_0), schedule(s), schedule(t)).mean.square()
            errors += [step.mean - whole.mean, (factor * halfway.variance + step.variance) / whole.variance - 1]
    return errors


@EXAMINATIONS.add(
    "posterior: Bayes' rule",
    (1e-9, 1e-4),
    "the posterior of a step is Bayes' rule for two Gaussians",
    "the ancestral sampler's steps and every term of the bound are wrong",
)
def bayes(setting: Setting) -> Errors:
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
    return errors


@EXAMINATIONS.add(
    "reverse mean: from the noise",
    (1e-9, 1e-3),
    "a step's mean from the predicted noise is DDPM's Eq. 11",
    "each step of sampling moves the image by the wrong amount",
)
def mean_from_noise(setting: Setting) -> Errors:
    """The reverse step's mean through the predicted noise, DDPM Eq. 11 in plain numbers, at every hundredth step."""
    schedule, betas, errors = Linear(), _betas(1), []
    abars, x_t, eps = _product(betas), setting.random(3, 4, 2, 3, 3), setting.random(4, 4, 2, 3, 3)
    for i in range(100, 1001, 100):
        abar, beta = abars[i], betas[i - 1]
        x0 = (x_t - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        mean = (x_t - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta)
        step = reverse(Prediction(x0, eps), x_t, schedule((i - 1) / 1000), schedule(i / 1000), Small())
        errors.append(step.mean - mean)
    return errors


@EXAMINATIONS.add(
    "reverse variance: small, large, learned",
    (1e-9, 1e-4),
    "fixed and learned variances are the papers', on the whole chain and on a respaced one",
    "ancestral samples are too noisy or too smooth, most of all in few steps, and so is every term of the bound",
)
def variances(setting: Setting) -> Errors:
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
    return errors


def _constant(output: Tensor) -> Network:
    """A network with one output."""
    return lambda x, time, condition: output


@EXAMINATIONS.add(
    "parameterisations: convert",
    (1e-9, 1e-2),
    "eps, x0, v, mu and velocity networks are all read as the image and noise that they mean",
    "a network's output is misread: samples of some parameterisations are noise or tinted",
)
def convert(setting: Setting) -> Errors:
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
            "velocity": eps - x_0,
        }
        for name, output in outputs.items():
            actual = NetworkDenoiser(_constant(output), schedule, PARAMETERIZATIONS[name])(x_t, i / 1000)
            errors += [actual.x0 - x_0, actual.eps - eps]
    return errors
