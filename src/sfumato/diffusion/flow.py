r"""Likelihood by the probability-flow ODE.

The noised data move along a deterministic flow with the same marginals as the random process (Song et al. 2021,
2011.13456, Sec. 4.3). Divide the image by alpha and use the noise level r that it then has as time,

    y = x_t / alpha_t,   r = sigma_t / alpha_t,   u = log r = -logsnr / 2:          dy/du = r eps^(x_t, t)

and the flow needs no drift term. A density carried along changes by the divergence of the field,

    log p(y at r_0) = log p(y at r_1) + int_{u_0}^{u_1} div_y ( r eps^ ) du

so solving both from the data's end to the noise, where the model's density is N(0, I), gives an exact density. The
divergence is a trace: summed over every coordinate (exact, d gradients), or estimated without bias as v^T (d eps^/dy) v
with random signs v (Hutchinson 1990), one gradient. Every example has a step size of its own, so that none depends on
its batch.

u is infinite at pure noise, so on a chain that ends there the flow ends at logsnr = -20, where a cosine chain ends.

The flow starts at the chain's first step t_0 = 1/T and not at 0: the density is that of x_{t_0}. A bound leads from it
to bits of stored values, the noise of the first step being the dequantisation:

    -log p(x_0) <= E[ log q(x_{t_0} | x_0) - log p(x_{t_0}) - log p(x_0 | x_{t_0}) ],    x_{t_0} ~ q
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.diffusion.condition import Condition
from sfumato.diffusion.decoder import Decoder, Discretized
from sfumato.diffusion.denoiser import Denoiser
from sfumato.diffusion.gaussian import Gaussian
from sfumato.diffusion.level import Level
from sfumato.diffusion.process import marginal
from sfumato.diffusion.variance import Variance, reverse

# Dormand and Prince 1980: nodes, stages, and the weights of orders 5 and 4
_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_B5 = (*_A[-1], 0.0)
_B4 = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)

_NOISIEST = -20.0
"""logsnr at which the flow ends where the chain's end is pure noise."""

Field = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(rows (b,) int64, u (b,), state (b, k)) -> derivative (b, k); the rows are the examples of the batch."""


def integrate(
    field: Field, state: Tensor, start: float, end: float, rtol: float, atol: float, most_steps: int = 10_000
) -> tuple[Tensor, Tensor]:
    """Solve d state/du = field from `start` up to `end`, every example with steps of its own.

    A step is accepted where the root mean square over k of error / (atol + rtol |state|) is at most 1.

    Returns the state, (B, k) float64, at `end`, and the number of evaluations of each example, (B,) int64.

    Raises:
        ValueError: an example needs more than `most_steps` steps.
    """
    u = torch.full((len(state),), start, dtype=torch.float64, device=state.device)
    width = torch.full_like(u, (end - start) / 50)
    evaluations = torch.zeros(len(state), dtype=torch.int64, device=state.device)
    state = state.clone()
    for _ in range(most_steps):
        rows = torch.nonzero(u < end - 1e-12 * abs(end - start))[:, 0]
        if len(rows) == 0:
            return state, evaluations
        h = torch.minimum(width[rows], end - u[rows])
        proposal, error = _step(field, rows, u[rows], state[rows], h)
        scale = atol + rtol * torch.maximum(state[rows].abs(), proposal.abs())
        size = (error / scale).square().mean(1).sqrt().nan_to_num(1e6, posinf=1e6)
        accepted = size <= 1
        taken = rows[accepted]
        state[taken] = proposal[accepted]
        u[taken] += h[accepted]
        width[rows] = h * (0.9 * size.clamp(min=1e-10).pow(-0.2)).clamp(0.2, 5.0)
        evaluations[rows] += len(_C)
    raise ValueError(f"the flow needs more than {most_steps} steps at rtol {rtol:g}: allow a larger tolerance")


def _step(field: Field, rows: Tensor, u: Tensor, state: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the pair: the solution of order 5 and its difference from that of order 4."""
    slopes: list[Tensor] = []
    for c, a in zip(_C, _A, strict=True):
        inner = state
        for weight, slope in zip(a, slopes, strict=True):
            inner = inner + (h * weight)[:, None] * slope
        slopes.append(field(rows, u + c * h, inner))
    fifth = sum(b * slope for b, slope in zip(_B5, slopes, strict=True))
    fourth = sum(b * slope for b, slope in zip(_B4, slopes, strict=True))
    assert isinstance(fifth, Tensor)
    return state + h[:, None] * fifth, h[:, None] * (fifth - fourth)


@dataclass(frozen=True)
class FlowResult:
    """log p(x_{t_0}) in nats (B,), the x_T (B, C, H, W) at the flow's other end, and the number of evaluations (B,)."""

    log_prob: Tensor
    latent: Tensor
    evaluations: Tensor


@dataclass(frozen=True)
class Flow:
    """The probability-flow density of a denoiser, solved to the tolerances rtol and atol (see `integrate`)."""

    denoiser: Denoiser
    rtol: float = 1e-4
    atol: float = 1e-4

    @property
    def start(self) -> float:
        """t_0 = 1/T, where the flow begins."""
        return 1 / self.denoiser.schedule.num_steps

    def log_prob(self, x: Tensor, probes: Tensor | None, condition: Condition | None = None) -> FlowResult:
        """Return log p(x) of images at t_0 under the model.

        Args:
            x: (B, C, H, W), images at level t_0.
            probes: (P, B, C, H, W) of random signs for Hutchinson's estimate, averaged over P; None sums the divergence
                over every coordinate, which costs d gradients an evaluation.
            condition: of the images.
        """
        schedule = self.denoiser.schedule
        first, last = schedule(self.start), schedule(1.0)
        if float(last.alpha) == 0:
            last = Level.from_logsnr(torch.tensor(_NOISIEST, device=last.logsnr.device))
        y = x.double().flatten(1) / first.alpha
        state = torch.cat([y, y.new_zeros(len(y), 1)], 1)
        span = float(-first.logsnr / 2), float(-last.logsnr / 2)
        field = _divergence_field(self.denoiser, x, probes, condition)
        state, evaluations = integrate(field, state, *span, self.rtol, self.atol)
        latent = (state[:, :-1] * last.alpha).reshape(x.shape)
        prior = Gaussian(torch.zeros_like(latent), latent.new_zeros(())).log_prob(latent).flatten(1).sum(1)
        change = x[0].numel() * (last.alpha.log() - first.alpha.log())
        return FlowResult(prior + change + state[:, -1], latent.to(x.dtype), evaluations)


def _divergence_field(denoiser: Denoiser, x: Tensor, probes: Tensor | None, condition: Condition | None) -> Field:
    """The field of (y, log density): r eps^ and its divergence."""

    def field(rows: Tensor, u: Tensor, state: Tensor) -> Tensor:
        level = Level.from_logsnr(-2 * u)
        t = denoiser.schedule.time(-2 * u)
        some = None if condition is None else condition.take(rows)
        with torch.enable_grad():
            y = state[:, :-1].detach().requires_grad_()
            x_t = (y * level.alpha[:, None]).reshape(-1, *x.shape[1:]).to(x.dtype)
            eps = denoiser(x_t, t, some).eps.flatten(1).double()
            trace = _trace(eps, y, None if probes is None else probes[:, rows].flatten(2).double())
        r = u.exp()
        return torch.cat([r[:, None] * eps.detach(), (r * trace)[:, None]], 1)

    return field


def _trace(eps: Tensor, y: Tensor, probes: Tensor | None) -> Tensor:
    """sum_i d eps_i / d y_i of each example, exactly or by Hutchinson's estimate, (b,)."""
    num = eps.shape[1] if probes is None else len(probes)
    total = eps.new_zeros(len(eps))
    for i in range(num):
        direction = torch.zeros_like(eps) if probes is None else probes[i]
        if probes is None:
            direction[:, i] = 1.0
        (product,) = torch.autograd.grad(eps, y, direction, retain_graph=i < num - 1)
        total = total + (product * direction).sum(1)
    return total if probes is None else total / num


def variational_bits(
    flow: Flow,
    x_0: Tensor,
    noise: Tensor,
    probes: Tensor | None,
    variance: Variance,
    condition: Condition | None = None,
    decoder: Decoder = Discretized(),
) -> Tensor:
    """Return a bound on -log2 p(x_0) in bits a dimension, (B,): the flow from t_0, the decoder below it.

    Args:
        x_0: (B, C, H, W), values for which the decoder is defined.
        noise: (B, C, H, W) ~ N(0, I), the eps of x_{t_0}.
        probes, condition: as `Flow.log_prob`.
        variance, decoder: as in the bound; with `density` the bits are of a density.
    """
    schedule, t = flow.denoiser.schedule, flow.start
    q = marginal(x_0, schedule(t))
    x_t = q.sample(noise)
    with torch.no_grad():
        prediction = flow.denoiser(x_t, t, condition)
    step = reverse(prediction, x_t, schedule(0.0), schedule(t), variance, schedule(min(2 * t, 1.0)))
    nats = q.log_prob(x_t) + decoder(step, x_0)
    total = nats.flatten(1).sum(1) - flow.log_prob(x_t, probes, condition).log_prob
    return total / (x_0[0].numel() * math.log(2))
