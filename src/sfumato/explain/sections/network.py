"""The network drawn from its own modules, with activations, skip connections and attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.diffusion import marginal
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.inside import Unit, executed
from sfumato.explain.packing import unit
from sfumato.report.text import count

CHANNELS, SIDE, MAPS = 6, 32, 3
_EXAMPLES = 2


@torch.no_grad()
def collect(context: Context) -> tuple[Figure, ...]:
    """Run the network on two images at three times and return what it did."""
    moments, model = context.moments, context.model
    chosen = sorted({round(k * (len(moments.steps) - 1) / 6) for k in (1, 3, 5)})
    steps = [int(moments.steps[k]) for k in chosen]
    num = min(_EXAMPLES, context.effort.examined)
    x_0, eps, rows = context.examples(num)
    activations: list[list[Tensor]] = []
    units: list[Unit] = []
    maps: dict[str, list[Tensor]] = {}
    for step in steps:
        t = torch.full((num,), float(step - 1), device=model.device)
        x_t = marginal(x_0, context.schedule(step / context.total)).sample(eps)
        units, found = executed(model.net, x_t, t, rows)
        activations.append([each.output.float().cpu() for each in units])
        units = [replace(each, output=each.output[:1]) for each in units]
        for name, weights in list(found.items()):
            maps.setdefault(name, []).append(weights[0].float().cpu())
    cost = model.net.cost(*model.shape[1:])
    drawn = [_plain(each) for each in units]
    figures = [
        Figure(
            name="network",
            title="The network, drawn from its own modules",
            caption="Each box is a module, in the order in which they run; its height is its resolution, its width "
            "its channels. Dashed lines are skip connections, which carry fine detail past the coarse middle. Choose "
            "a box to see what it outputs for the image: the channels that vary most.",
            code=("nets.unet.unet.UNet._levels", "nets.unet.blocks.ResidualBlock")
            if model.config.net.__class__.__name__ == "UNetConfig"
            else (),
            data={
                "units": drawn,
                "steps": steps,
                "images": num,
                "maps": [
                    unit(torch.stack([_shown(outputs[n]) for outputs in activations], 1), -1, 1)
                    for n in range(len(units))
                ],
            },
            made=f"the outputs of all modules for {num} images at {len(steps)} times",
            command=f"sfumato illustrate {context.command} --figure network --out network.png",
            findings=(f"{model.net.summary()}: {cost.parameters:,} parameters, {count(cost.flops)}FLOPs an image.",),
        )
    ]
    if maps:
        figures.append(_attention(maps, steps, units))
    return tuple(figures)


def _plain(each: Unit) -> dict[str, Any]:
    _, channels, height, width = each.output.shape
    return {
        "name": each.name, "kind": each.kind, "parameters": each.parameters, "flops": each.flops, "channels": channels,
        "height": height, "width": width, "skips": list(each.skips),
    }  # fmt: skip


def _shown(output: Tensor) -> Tensor:
    """The channels of an output (B, C, H, W) that vary most, each scaled by its own range, (B, k, h, w)."""
    small = F.adaptive_avg_pool2d(output, (min(SIDE, output.shape[2]), min(SIDE, output.shape[3])))
    k = min(CHANNELS, output.shape[1])
    best = small.flatten(2).std(2, unbiased=False).mean(0).topk(k).indices.sort().values
    kept = small[:, best]
    scale = kept.flatten(2).abs().amax(2).clamp(min=1e-6)
    return kept / scale[:, :, None, None]


def _attention(maps: dict[str, list[Tensor]], steps: list[int], units: list[Unit]) -> Figure:
    """A figure of up to three of the attentions, evenly spaced."""
    names = sorted({round(k * (len(maps) - 1) / (MAPS - 1)) for k in range(MAPS)})
    kept = [list(maps)[n] for n in names]
    sizes = {each.name: each.output.shape[2:] for each in units}

    def size(name: str, tokens: int) -> list[int]:
        owner = next((key for key in sizes if name == key or name.startswith(f"{key}.")), "")
        rows = list(sizes.get(owner, ()))
        side = round(tokens**0.5)
        return [int(n) for n in rows] if rows and rows[0] * rows[1] == tokens else [side, tokens // max(1, side)]

    layers = []
    for name in kept:
        weights = torch.stack(maps[name])
        peak = weights.amax(2, keepdim=True)
        layers.append({"name": name, "size": size(name, weights.shape[2]), "weights": unit(weights / peak)})
    return Figure(
        name="attention",
        title="Where a pixel looks",
        caption="In an attention every position takes a weighted mean over all others. Choose a position: the brighter "
        "another one, the more it counts. The mean over the heads is shown, each map scaled to its own maximum.",
        formula=r"\mathrm{softmax}\left( \frac{Q K^T}{\sqrt{d}} \right) V",
        code=("nets.unet.blocks.SelfAttention", "explain.inside.attention_map"),
        data={"layers": layers, "steps": steps},
        made=f"the weights of {len(layers)} attentions for the first image at {len(steps)} times",
    )
