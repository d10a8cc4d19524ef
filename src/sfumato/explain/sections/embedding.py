"""The time as the network reads it: the matrix of sines, and similarities before and after the learned layers."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.explain.context import Context
from sfumato.explain.figure import Figure, Missing
from sfumato.explain.packing import unit
from sfumato.nets.embedding import TimeEmbedding, sinusoid

TIMES = 64


@torch.no_grad()
def collect(context: Context) -> Figure:
    """Return the figure; raises `Missing` for a network with another embedding of time."""
    net = context.model.net
    layer = next((module for module in net.modules() if isinstance(module, TimeEmbedding)), None)
    if layer is None:
        raise Missing("this network has no sinusoidal embedding of the time")
    steps = torch.linspace(1, context.total, min(TIMES, context.total)).round()
    rows = sinusoid(steps - 1, layer.dim)
    learned = layer((steps - 1).to(context.model.device)).cpu()
    near = float(cosine(rows)[len(steps) // 2, len(steps) // 2 + 1])
    after = float(cosine(learned)[len(steps) // 2, len(steps) // 2 + 1])
    return Figure(
        name="embedding",
        title="The time as a vector",
        caption="One network serves all noise levels, so it must be told t. A bare number would be a poor input; "
        "each t becomes a row of sines and cosines of many frequencies. The squares show how alike the vectors of "
        "two times are: before the learned layers it depends on their distance alone, after them on what the "
        "network has to do differently.",
        formula=r"e_i(t) = \sin(\omega_i t) ,\quad e_{i+h}(t) = \cos(\omega_i t) ,\quad \omega_i = "
        r"10000^{-i/(h-1)}",
        code=("nets.embedding.sinusoid", "nets.embedding.TimeEmbedding"),
        data={
            "steps": steps.long().tolist(),
            "rows": unit(rows, -1, 1),
            "before": unit(cosine(rows), -1, 1),
            "after": unit(cosine(learned), -1, 1),
        },
        made=f"the embedding of {len(steps)} times, by the trained network",
        findings=(
            f"In the middle of the chain two neighbours of these {len(steps)} times have a similarity of "
            f"{near:.3f} before the learned layers and {after:.3f} after them.",
        ),
    )


def cosine(rows: Tensor) -> Tensor:
    """Return the cosine similarity of all pairs of rows, (N, N)."""
    scaled = torch.nn.functional.normalize(rows.double(), dim=1)
    return scaled @ scaled.T
