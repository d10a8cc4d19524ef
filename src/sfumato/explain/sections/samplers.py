"""Samplers from the same noise side by side, and their quality against the evaluations of the network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sfumato.diagnose.statistics import image_statistics
from sfumato.diffusion import SAMPLERS
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure
from sfumato.explain.packing import u8
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.generate.variance import training_rows

COMPARED = ("ddim", "dpmpp-2", "heun", "ddpm")
_REAL = 256


def collect(context: Context) -> Figure:
    """Sample with each sampler at each number of evaluations, from the same noise and conditions."""
    num, total, counts = context.effort.compared, context.total, context.effort.evaluations
    converged, middle = min(2 * counts[-1], total), counts[min(1, len(counts) - 1)]
    condition = context.conditions(num)

    def drawn(name: str, evaluations: int) -> Tensor:
        steps = max(1, min(total, evaluations // SAMPLERS[name]().evaluations))
        images = sample(
            context.counted, num, Recipe(name, steps=steps), seed=context.seed, condition=condition, batch=num
        )
        return context.model.codec.to_pixels(images)

    reference = drawn("ddim", converged)
    made = {name: [drawn(name, n) for n in counts] for name in COMPARED}
    grain = None
    if context.target is not None:
        x_0, _ = context.needed.encoded(training_rows(context.data)[:_REAL])
        grain = image_statistics(context.model.codec.to_pixels(x_0)).grain
    rows: list[dict[str, Any]] = [
        {
            "sampler": name,
            "evaluations": list(counts),
            "error": [_rms(images, reference) for images in made[name]] if name != "ddpm" else None,
            "grain": [image_statistics(images).grain for images in made[name]],
        }
        for name in COMPARED
    ]
    shown = min(context.effort.shown, num)
    best = min(rows[:3], key=lambda row: row["error"][counts.index(middle)])
    codec = context.model.codec
    pictures = torch.stack([
        torch.stack([context.shown(codec.from_pixels(images[:shown])) for images in made[name]]) for name in COMPARED
    ])  # fmt: skip
    return Figure(
        name="samplers",
        title="The same noise, other samplers",
        caption="Every sampler starts from the same noise. The deterministic ones follow the same path and differ "
        "by how well they follow it; ddpm adds noise of its own in every step and ends elsewhere. Evaluations "
        "of the network are what sampling costs: a step of heun takes two, of the others one. Errors are "
        "differences from ddim with many steps.",
        code=(
            "diffusion.samplers.ddim.DDIM.step",
            "diffusion.samplers.dpm.DPMSolver.step",
            "diffusion.samplers.ddim.Ancestral.step",
        ),
        data={"rows": rows, "evaluations": list(counts), "grain": grain, "pictures": u8(pictures)},
        made=f"{num} images by each sampler with {counts[0]} to {counts[-1]} evaluations each; the error is the "
        f"root mean square difference from ddim with {converged} evaluations; fine detail is the standard "
        "deviation of the finest diagonal differences, which few evaluations smooth away. Quality measured on "
        "many samples: docs/choose-a-sampler.md",
        command=f"sfumato sample {context.command} --sampler dpmpp-2 --steps 10 --seed {context.seed}",
        findings=(
            f"With {middle} evaluations {best['sampler']} is nearest to the converged images: "
            f"{best['error'][counts.index(middle)]:.3f} of a range of 2.",
        ),
    )


def _rms(x: Tensor, y: Tensor) -> float:
    return float((x - y).double().square().mean().sqrt())
