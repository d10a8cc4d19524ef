"""The bound's terms by t in bits per dimension, of training and held-out images, and what each image costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.diffusion import Bound, Noise, Noised, Prediction, bits_per_dim, marginal, prior_term
from sfumato.evaluate.cache import split_rows
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import f32, u8
from sfumato.explain.sections import distances
from sfumato.report.figures import spaced

SIDES = {"train": "training images", "held_out": "held-out images"}
_WORST, _THUMBNAILS = 4, 48


@dataclass(frozen=True, eq=False)
class Terms:
    """Of n images at K times: `bits` of the bound's term and the squared errors of eps and of x_0, each (n, K)."""

    rows: Tensor
    bits: Tensor
    eps: Tensor
    x0: Tensor
    prior: Tensor


def bound_steps(context: Context) -> Tensor:
    """Return the steps at which the bound is measured: the first, whose term is L_0, and others even in logsnr."""
    inner = spaced(context.schedule, context.effort.terms, -12, 30)
    return inner if int(inner[0]) == 1 else torch.cat([inner.new_ones(1), inner])


@torch.no_grad()
def terms(context: Context, side: str, steps: Tensor) -> Terms | None:
    """Measure up to `effort.scored` images of a side of the split; the same noise for both sides. None without any."""
    if not len(getattr(context.data, side)):
        return None
    rows = split_rows(context.data, side)[: context.effort.scored]
    model, total = context.model, context.total
    x_0, condition = context.needed.encoded(rows)
    bound = Bound(context.variance, model.codec.decoder)
    noise = Noise(context.seed, torch.arange(len(rows), device=model.device), model.shape)
    columns: list[list[Tensor]] = [[], [], []]
    for k, step in enumerate(steps.tolist()):
        t, eps = step / total, noise.step(k)
        x_t = marginal(x_0, context.schedule(t)).sample(eps)
        prediction = context.denoiser(x_t, t, condition)
        noised = Noised(x_0, eps, x_t, torch.full((len(rows),), t, dtype=torch.float64), context.schedule)
        columns[0].append(bound.losses(prediction, noised) / (total * math.log(2)))
        columns[1].append((prediction.eps - eps).square().flatten(1).mean(1))
        columns[2].append((prediction.x0 - x_0).square().flatten(1).mean(1))
    bits, eps_error, x0_error = (torch.stack(column, 1).double().cpu() for column in columns)
    prior = bits_per_dim(prior_term(x_0, context.schedule(1.0))).double().cpu()
    return Terms(rows, bits, eps_error, x0_error, prior)


def whole(steps: Tensor, bits: Tensor, total: int) -> Tensor:
    """Return the sum over all T terms from those at some steps, (n,): between them log bits is linear in log t."""
    every = np.log(np.arange(2, total + 1))
    inner = torch.stack([
        torch.from_numpy(np.exp(np.interp(every, np.log(steps[1:].numpy()), row))).sum()
        for row in bits[:, 1:].clamp(min=1e-12).log().numpy()
    ]) if len(steps) > 1 else torch.zeros(len(bits), dtype=torch.float64)  # fmt: skip
    return bits[:, 0] + inner


def loss_weight(context: Context, steps: Tensor) -> Tensor:
    """Return the weight of a squared error of eps in this run's loss by t, with how often t is drawn, (K,)."""
    t = steps.double() / context.total
    level = context.schedule(t)
    shape = (len(steps), 1, 1, 1)
    zero, one = torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    x0 = (-level.sigma / level.alpha.clamp(min=1e-12)).reshape(shape)
    objective = context.model.config.diffusion.build_objective(context.model.codec.decoder)
    simple = getattr(objective, "simple", objective)
    if isinstance(simple, Bound):
        return bound_weight(context, steps)
    weight = simple.losses(Prediction(x0, one), Noised(zero, zero, zero, t, context.schedule))
    often = context.model.config.diffusion.timesteps.probabilities(context.schedule)[steps - 1] * context.total
    return weight * often


def bound_weight(context: Context, steps: Tensor) -> Tensor:
    """Return the weight of a squared error of eps in the bound with the small variance, 1/2 (SNR_s / SNR_t - 1)."""
    t = steps.double() / context.total
    before = context.schedule((t - 1 / context.total).clamp(min=0.5 / context.total))
    return 0.5 * torch.expm1(before.logsnr - context.schedule(t).logsnr)


def collect(context: Context) -> tuple[Figure, ...]:
    """Measure both sides and return the figure."""
    steps = bound_steps(context)
    sides = {side: found for side in SIDES if (found := terms(context, side, steps)) is not None}
    data: dict[str, Any] = {
        "steps": steps.tolist(),
        "total": context.total,
        "sides": {},
        "weights": {"bound": f32(bound_weight(context, steps)), "run": f32(loss_weight(context, steps))},
    }
    findings = []
    for side, found in sides.items():
        total = whole(steps, found.bits, context.total) + found.prior
        half = 1.96 * float(total.std()) / math.sqrt(len(total)) if len(total) > 1 else math.nan
        figures = {"total": float(total.mean()), "half": half, "L_T": float(found.prior.mean())}
        figures["L_0"] = float(found.bits[:, 0].mean())
        data["sides"][side] = {
            "name": SIDES[side], "bits": f32(found.bits), "eps": f32(found.eps), "x0": f32(found.x0),
            "captions": list(context.captions(found.rows)), "figures": figures,
        }  # fmt: skip
        findings.append(
            f"{len(total)} {SIDES[side]}: about {figures['total']:.3f} ± {half:.3f} bits per dimension, of which L_0 "
            f"{figures['L_0']:.3f} and L_T {figures['L_T']:.2g}."
        )
    shown = "held_out" if "held_out" in sides else "train"
    data |= {"shown": shown, **_thumbnails(context, sides[shown])}
    return (_figure(context, data, steps, findings), distances.figure(context, steps, sides[shown].x0.mean(0)))


def _figure(context: Context, data: dict[str, Any], steps: Tensor, findings: list[str]) -> Figure:
    return Figure(
        name="bound",
        title="The bound, term by term",
        caption="Each step back that the model gets wrong costs bits. The curve shows what the step from t costs; "
        "nearly all of it is paid close to the data, where tiny errors of pixels count. Choose a t: the images that "
        "cost most there. The second chart compares the weight that the bound and the loss of this run give to an "
        "error of the noise.",
        formula=r"-\log p(x_0) \le L_T + \sum_{t>1} D_{\mathrm{KL}}( q(x_{t-1} \mid x_t, x_0)"
        r" \Vert p_\theta(x_{t-1} \mid x_t) ) + L_0",
        code=(
            "diffusion.likelihood.bound_term",
            "diffusion.likelihood.prior_term",
            "diffusion.decoder.Discretized",
        ),
        data=data,
        made=f"{len(steps)} of {context.total:,} terms of each image, with the same noise for both sides; the total "
        "takes the terms between them from a line in log t and log bits",
        command=f"sfumato evaluate {context.command} --bits --method vlb",
        findings=tuple(findings),
    )


def _thumbnails(context: Context, found: Terms) -> dict[str, Any]:
    """The images that cost most at some time, as bytes, and for each time which they are."""
    most = max(1, min(_WORST, len(found.rows)))
    limit = context.effort.fitting(_THUMBNAILS)
    worst = found.bits.topk(most, dim=0).indices.T
    used = sorted(set(worst.flatten().tolist()), key=lambda n: -float(found.bits[n].sum()))[:limit]
    place = {n: k for k, n in enumerate(used)}
    return {
        "worst": [[[n, place[n]] for n in row if n in place] for row in worst.tolist()],
        "thumbnails": u8(context.pictures(found.rows[used])),
    }
