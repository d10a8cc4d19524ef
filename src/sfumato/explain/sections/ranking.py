"""The training images that cost most and least, with the same noise for all, so that the order is stable."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.diffusion import Noise, marginal
from sfumato.errors import command
from sfumato.evaluate.cache import split_rows
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import u8
from sfumato.report.figures import spaced

SHOWN, TIMES, BATCH = 12, 4, 64


@torch.no_grad()
def losses(context: Context, rows: Tensor, steps: Tensor) -> Tensor:
    """Return each image's squared error of eps at some steps, relative to the mean over the images, (n, K); the noise
    of a step is the same for every image."""
    model, columns = context.model, []
    noise = Noise(context.seed, torch.zeros(1, dtype=torch.int64, device=model.device), model.shape)
    for part in torch.split(torch.arange(len(rows)), BATCH):
        x_0, condition = context.needed.encoded(rows[part])
        found = []
        for k, step in enumerate(steps.tolist()):
            t, eps = step / context.total, noise.step(k).expand_as(x_0)
            prediction = context.denoiser(marginal(x_0, context.schedule(t)).sample(eps), t, condition)
            found.append((prediction.eps - eps).square().flatten(1).mean(1))
        columns.append(torch.stack(found, 1))
    errors = torch.cat(columns).double().cpu()
    return errors / errors.mean(0).clamp(min=1e-300)


def collect(context: Context) -> Figure:
    """Rank some training images."""
    rows = split_rows(context.data, "train")[: context.effort.ranked]
    steps = spaced(context.schedule, TIMES, -3.0, 3.0)
    relative = losses(context, rows, steps)
    cost = relative.mean(1)
    order = cost.argsort(descending=True)
    count = min(context.effort.fitting(SHOWN, 2, 3), len(rows) // 2)
    ends = {"most": order[:count], "least": order[len(order) - count :].flip(0)}
    agreement = _agreement(relative)
    names = context.captions(rows)
    return Figure(
        name="ranking",
        title="Images that cost most and least",
        caption="Images on which the network errs most are rare, damaged, wrongly cropped, or simply rich in "
        "detail; those on which it errs least are plain, or occur many times. Look at the first row before "
        "training longer: what does not belong to the data can be left out.",
        code=("explain.sections.ranking.losses",),
        data={
            side: {
                "pictures": u8(context.pictures(rows[chosen])),
                "cost": cost[chosen].tolist(),
                "names": [names[n] for n in chosen.tolist()],
            }
            for side, chosen in ends.items()
        }
        | {"steps": steps.tolist(), "all": sorted(cost.tolist()), "number": len(rows)},
        made=f"the error of the noise at {len(steps)} times for {len(rows)} of {len(context.data.train):,} "
        "training images, the same noise for all of them; 1 is the mean image",
        command=command("data", "check", context.model.config.data.source),
        findings=(
            f"Two halves of the times rank the images alike with a correlation of {agreement:.2f}; 1 would be the "
            "same order.",
        )
        if agreement == agreement
        else (),
    )


def _agreement(relative: Tensor) -> float:
    """Spearman's correlation of the ranks by the even and by the odd times; NaN with one time."""
    if relative.shape[1] < 2 or len(relative) < 3:
        return float("nan")
    ranks = torch.stack([relative[:, k::2].mean(1).argsort().argsort().double() for k in (0, 1)])
    return float(torch.corrcoef(ranks)[0, 1])
