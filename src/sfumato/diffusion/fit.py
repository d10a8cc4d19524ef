r"""A grid fitted to the model: the N steps that deviate least from its own fine trajectory.

Steps must be short where the model's flow bends (GITS, Chen et al. 2024, 2405.11326). Sample a few
images on a fine grid of F times and keep the images x_i and the predictions m_i = x0^_i. Then a step from time i to any
later j, with the fine trajectory's history, costs no evaluation (see `dpm`; h = lambda_j - lambda_i):

    x^_j = sigma_j/sigma_i x_i - alpha_j expm1(-h) [ m_i + g (m_i - m_p) ]
    cost(p, i, j) = mean over images of | x^_j - x_j |

with p the time before i, and g = 0 (DDIM) or h / 2(lambda_i - lambda_p) (DPM-Solver++, which extrapolates over strides
of different lengths and so has a cost of its own). The N steps from the first time to 0 with the least sum of costs are
a shortest path over pairs of neighbours, found by dynamic programming:

    V_1(p, i) = cost(p, i, end),        V_n(p, i) = min_j [ cost(p, i, j) + w V_{n-1}(i, j) ]

GITS is the case g = 0, with the error measured in x / alpha and w = 1.15. Here it is measured in x, whose size the flow
preserves for data N(0, 1). On other data it contracts some errors and amplifies others, such as those made just before
it is decided which of two images this one becomes. So the sum of costs only proposes candidates: the grids of both
costs with three weights w and the named grids, as the sampler takes them, are tried with the sampler itself, and the
one that ends nearest to the end of the fine trajectory is taken: about F + 13 N evaluations in all. On the images that
it was fitted on no named grid is better; on others one can be, since a few images decide.

All x^_j - x_j are sums of a few stored images, so their norms follow from the images' inner products, and a
hundred thousand steps are tried in a second.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.grid import GRIDS, grid_for, quadratic
from sfumato.diffusion.noise import NoiseSource
from sfumato.diffusion.samplers.ddim import DDIM
from sfumato.diffusion.samplers.dpm import DPMSolver
from sfumato.diffusion.samplers.heun import EDM, Heun
from sfumato.diffusion.samplers.protocol import Sampler, State, sample, trajectory

_FINE = 100
_WEIGHTS = (0.8, 1.0, 1.25)


@torch.no_grad()
def fit_grid(
    denoiser: Denoiser,
    noise: NoiseSource,
    num_steps: int,
    condition: Condition | None = None,
    sampler: Sampler = DPMSolver(2),
    fine: Tensor | None = None,
) -> Tensor:
    """Return N + 1 times, float64, chosen by the model's own measured error; any sampler can use them.

    Args:
        denoiser: the model as it will be sampled, clipping and guidance included.
        noise: the prior of a few images; 16 are enough.
        num_steps: N, at most F.
        sampler: the grid's. A stochastic one has no fixed end: DDIM, DPM-Solver++ or Heun is tried in its place.
        fine: (F + 1,) decreasing to 0, the times to choose from; `quadratic`, F = 100, by default.
    """
    schedule = denoiser.schedule
    if fine is None:
        fine = quadratic(min(_FINE, schedule.num_steps), schedule)
    if not 1 <= num_steps < len(fine):
        raise ValueError(f"{num_steps} steps out of {len(fine) - 1} fine ones: choose from 1 to {len(fine) - 1}")
    solver = _deterministic(sampler)
    states = list(trajectory(denoiser, DPMSolver(2), fine, noise, condition))
    goal, products, proposals = states[-1].x, _products(states), []
    for name in GRIDS:
        with contextlib.suppress(ValueError):  # the chain is too short for it
            proposals.append(grid_for(sampler, name, num_steps, schedule))
    for order in (1, 2):
        costs = step_costs(products, denoiser, fine, order)
        proposals += [fine[shortest_path(costs, num_steps, weight)] for weight in _WEIGHTS]

    def error(times: Tensor) -> float:
        end = sample(denoiser, solver, times, noise, condition)
        return float((end - goal).flatten(1).square().mean(1).sqrt().mean())

    return min(proposals, key=error)


def fitting_evaluations(num_steps: int, sampler: Sampler = DPMSolver(2)) -> int:
    """Return about how many evaluations, each of a batch, `fit_grid` takes for N steps."""
    return _FINE + (len(GRIDS) + 2 * len(_WEIGHTS)) * num_steps * sampler.evaluations


def _deterministic(sampler: Sampler) -> Sampler:
    """The sampler itself, or a stand-in for one whose noise leaves no fixed end to compare with."""
    if not sampler.stochastic:
        return sampler
    if isinstance(sampler, EDM):
        return Heun()
    return DDIM() if sampler.order == 1 else DPMSolver(2)


def _products(states: list[State]) -> Tensor:
    """Mean products of x_0..x_F, m_0..m_{F-1} with one another, (B, 2F + 1, 2F + 1) float64 on the CPU."""
    images = [state.x for state in states] + [state.prediction.x0 for state in states if state.prediction is not None]
    products = []
    for n in range(len(images[0])):  # one image at a time: all of them in float64 could be large
        rows = torch.stack([image[n].flatten() for image in images]).double()
        products.append((rows @ rows.T / rows.shape[1]).cpu())
    return torch.stack(products)


def step_costs(products: Tensor, denoiser: Denoiser, fine: Tensor, order: int) -> Tensor:
    """Return cost(p, i, j), (F + 1, F + 1, F + 1) float64: root mean squares over coordinates, averaged over images.

    Infinite unless p < i < j; p = i stands for "no time before", a first step. `order` is 1 or 2.
    """
    level = denoiser.schedule(fine)
    half = level.logsnr / 2
    last = len(fine) - 1
    costs = torch.full((last + 1,) * 3, torch.inf, dtype=torch.float64)
    for i in range(last):
        later, before = slice(i + 1, last + 1), slice(0, i + 1)
        h = half[later] - half[i]
        ratio = level.sigma[later] / level.sigma[i]
        image = -level.alpha[later] * torch.expm1(-h)
        slope = h / (2 * (half[i] - half[before, None]))  # (p, j)
        first = slope.isinf() | slope.isnan() | (order == 1)  # no history, or an infinite lambda
        slope = image * torch.where(first, 0.0, slope)
        x_i, x_j, m_i, m_p = i, later, last + 1 + i, slice(last + 1, last + 2 + i)
        g = products
        # | ratio x_i - x_j + (image + slope) m_i - slope m_p |^2, term by term: (B, p, j)
        fixed = ratio**2 * g[:, x_i, x_i, None] + torch.diagonal(g, 0, 1, 2)[:, x_j] - 2 * ratio * g[:, x_i, x_j]
        with_i = (ratio * g[:, x_i, m_i, None] - g[:, m_i, x_j])[:, None]
        with_p = ratio * g[:, x_i, m_p, None] - g[:, m_p, x_j]
        own, other = image + slope, -slope
        square = (
            fixed[:, None]
            + own**2 * g[:, m_i, m_i, None, None]
            + other**2 * torch.diagonal(g, 0, 1, 2)[:, m_p, None]
            + 2 * (own * with_i + other * with_p + own * other * g[:, m_i, m_p, None])
        )
        costs[before, i, later] = square.clamp(min=0.0).sqrt().mean(0)
    return costs


def shortest_path(costs: Tensor, num_steps: int, weight: float = 1.0) -> list[int]:
    """Return the nodes 0 = i_0 < ... < i_N = last with the least sum of weight^k costs_k for N from 1 to F."""
    left, choices = costs[:, :, -1], []
    for _ in range(num_steps - 1):
        left, choice = (costs + weight * left).min(2)
        choices.append(choice)
    before, path = 0, [0]
    for choice in reversed(choices):
        here = path[-1]
        path.append(int(choice[before, here]))
        before = here
    return [*path, len(costs) - 1]
