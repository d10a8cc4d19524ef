"""How far posterior methods are from the true posterior, where that is known: the tables of docs/inverse.md.

Two worlds of 3x4x4 "images" with exact denoisers: a Gaussian whose neighbouring pixels and channels are correlated, and
a mixture of two such that the measurement can hardly tell apart. Every method gets the exact denoiser of the prior and
the same grid; the last row, the exact posterior's own denoiser, is what the sampler and the number of samples leave.

Samples are counted to the component that they are likelier of, and measured along its posterior's principal axes, in
its standard deviations (axes that the measurement fixes exactly are left out):

    shift     root mean square over axes of the samples' mean; 0 is right
    variance  mean over axes of the samples' variance; 1 is right, less is overconfident
    weight    share of samples of the first component; the heading says what is right

Example: python -m benchmarks.inverse --samples 400 --steps 100
"""

from __future__ import annotations

import argparse
import math

import torch
from tests.diffusion.inverse.exact import DenseOracle, dense_matrix, exact_posterior
from torch import Tensor

from sfumato.diffusion import (
    DPS,
    Ancestral,
    Blur,
    Cosine,
    Denoiser,
    Downscale,
    DPMSolver,
    Grayscale,
    LinearOperator,
    Mask,
    MomentMatching,
    Noise,
    PiGDM,
    RePaint,
    Sampler,
    gaussian_kernel,
    sample,
    trailing,
)
from sfumato.diffusion.variance import MeasuredVariance, noise_errors

SHAPE = (3, 4, 4)
SCHEDULE = Cosine()
TASKS: dict[str, tuple[LinearOperator, float]] = {
    "inpaint": (Mask(torch.arange(4).expand(1, 4, 4) < 2), 0.0),
    "colourise": (Grayscale(), 0.05),
    "enlarge": (Downscale(2), 0.05),
    "deblur": (Blur(gaussian_kernel(0.8)), 0.05),
}
Method = tuple[Denoiser, Sampler]
SAMPLER = DPMSolver(2)
"""Of order two, so that little of what is measured is its own."""


def correlated(variance: float) -> Tensor:
    """Covariance of the 48 coordinates, falling with the distance between pixels and between channels."""
    place = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in SHAPE))
    return variance * torch.exp(-torch.cdist(place, place) / 2)


def gaussian(matrix: Tensor) -> DenseOracle:
    """Smooth images around a slope."""
    mean = torch.linspace(-0.4, 0.4, 4, dtype=torch.float64).expand(SHAPE).reshape(1, -1)
    return DenseOracle(SCHEDULE, SHAPE, torch.ones(1, dtype=torch.float64), mean, correlated(0.16)[None])


def mixture(matrix: Tensor) -> DenseOracle:
    """Two kinds, 0.4 and 0.6: far apart in what is measured least, a little apart in what is measured most."""
    axes = torch.linalg.svd(matrix)[2]
    offset = 1.5 * axes[-1] + 0.1 * axes[0]
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    return DenseOracle(SCHEDULE, SHAPE, weights, torch.stack([offset, -offset]), torch.stack([correlated(0.04)] * 2))


WORLDS = {"Gaussian": gaussian, "mixture": mixture}


def measured_variance(prior: DenseOracle) -> MeasuredVariance:
    """Var[x_0 | x_t] of the prior's denoiser, averaged over images and coordinates, as it is measured for a network."""
    times = torch.linspace(0.02, 1.0, 25, dtype=torch.float64)
    noise = Noise(1, torch.arange(256), SHAPE, torch.float64)
    return MeasuredVariance(SCHEDULE, times, noise_errors(prior, prior.sample(256, 1), times, noise).mean(0))


def methods(prior: DenseOracle, operator: LinearOperator, y: Tensor, noise_std: float) -> dict[str, Method]:
    """Every method on one task, by name: what denoises, and what steps."""
    found: dict[str, Method] = {}
    for scale in (0.03, 0.1, 0.3, 1.0):
        found[f"DPS, scale {scale:g}"] = DPS(prior, operator, y, noise_std, scale), SAMPLER
    found["PiGDM, the paper's r_t"] = PiGDM(prior, operator, y, noise_std), SAMPLER
    found["PiGDM, measured variance"] = PiGDM(prior, operator, y, noise_std, measured_variance(prior)), SAMPLER
    for n in (1, 5, 20):
        found[f"moment matching, {n} iteration{'s'[: n > 1]}"] = (
            MomentMatching(prior, operator, y, noise_std, n),
            SAMPLER,
        )
    found["the true posterior's denoiser"] = exact_posterior(prior, operator, y, noise_std), SAMPLER
    if isinstance(operator, Mask):
        for repeats, jump in ((1, 1), (10, 1), (10, 10)):
            name = f"RePaint, {repeats} repeats, jump {jump}" if repeats > 1 else "plain replacement"
            found[name] = prior, RePaint(Ancestral(), y, operator.mask, repeats, jump)
        found["the true posterior's denoiser, ancestral"] = exact_posterior(prior, operator, y, noise_std), Ancestral()
    return found


def compare(x: Tensor, truth: DenseOracle) -> tuple[float, float, float]:
    """Return (shift, variance, weight) of samples (n, C, H, W); see the head of this file."""
    values, axes = torch.linalg.eigh(truth.covariances)
    kept = values > 1e-9
    along = torch.einsum("kdj,nkd->nkj", axes, x.double().flatten(1)[:, None] - truth.means)
    z = torch.where(kept, along / values.clamp(min=1e-12).sqrt(), 0.0)
    log_share = truth.weights.log() - (z.square() + torch.where(kept, values.clamp(min=1e-12).log(), 0.0)).sum(2) / 2
    which = log_share.argmax(1)
    shift, variance = 0.0, 0.0
    for k in which.unique().tolist():
        own = z[which == k, k][:, kept[k]]
        shift += len(own) / len(x) * float(own.mean(0).square().mean().sqrt())
        variance += len(own) / len(x) * float(own.var(0, correction=0).mean())
    return shift, variance, float((which == 0).double().mean())


def main() -> None:
    options = argparse.ArgumentParser(description="The bias of posterior methods where the posterior is known.")
    options.add_argument("--samples", type=int, default=400, help="samples of each method (400)")
    options.add_argument("--steps", type=int, default=100, help="steps of the grid (100)")
    options.add_argument("--tasks", nargs="*", default=[*TASKS], choices=[*TASKS], help="which tasks (all)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    noise = Noise(0, torch.arange(arguments.samples), SHAPE, torch.float64)
    for world, build in WORLDS.items():
        for task in arguments.tasks:
            operator, noise_std = TASKS[task]
            prior = build(dense_matrix(operator, SHAPE))
            clean = operator.forward(prior.sample(1, 5))
            y = clean + noise_std * Noise(2, torch.arange(1), tuple(clean.shape[1:]), torch.float64).prior()
            truth = exact_posterior(prior, operator, y, noise_std)
            weight = f", weight {float(truth.weights[0]):.3f}" if len(truth.weights) > 1 else ""
            print(f"\n{world}, {task}, noise {noise_std:g}{weight}\n\n| method | shift | variance | weight |")
            print("|---|---|---|---|")
            for name, (denoiser, sampler) in methods(prior, operator, y, noise_std).items():
                x = sample(denoiser, sampler, trailing(arguments.steps, SCHEDULE), noise)
                shift, variance, share = compare(x, truth)
                last = f"{share:.3f}" if weight else ""
                print(f"| {name} | {shift:.3f} | {variance:.3f} | {last} |", flush=True)
    print(f"\nchance alone: shift {1 / math.sqrt(arguments.samples):.3f}")


if __name__ == "__main__":
    main()
