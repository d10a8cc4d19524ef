"""The whole report of a model: its title and facts, and every section of the registry."""

from __future__ import annotations

import os
from pathlib import Path

from sfumato.errors import plural
from sfumato.explain.context import Context
from sfumato.explain.registry import SECTIONS
from sfumato.explain.report import Report, collect
from sfumato.nets.cost import parameters
from sfumato.report.text import count, duration


def make(context: Context, article: bool = False) -> Report:
    """Collect the report, or the article, which leaves out what only the owner of a run wants."""
    sections = [each for each in SECTIONS if not (article and each.own)]
    collected, shared = collect(context, sections), context.shared()
    parts = Path(os.path.abspath(context.name)).parts
    name = "/".join(parts[-2:]) if parts[-1] == "run" else parts[-1]  # the demo calls its run folder so
    title = "What a diffusion model is" if article else f"{name}: how it was made, and how it is doing"
    subtitle = (
        "An article whose figures can be moved. Formulae stand beside the code that computes them. The figures are "
        "made with the model of small faces that comes with Sfumato; numbers of other data say so."
        if article
        else "Diffusion explained with this run's own images, and what its network has learned. Move the figures: most "
        "of them compute as you do."
    )
    made = "explain" if article else f"report {context.command}"
    return Report(title, subtitle, article, _facts(context), shared, collected, f"sfumato {made}")


def _facts(context: Context) -> tuple[tuple[str, str], ...]:
    """The names and values at the top of the page."""
    model, (channels, height, width) = context.model, context.model.codec.image_shape
    diffusion = model.config.diffusion
    rows = [
        ("image size", f"{width}x{height}, {plural(channels, 'channel')}"),
        ("parameters", count(parameters(model.net))),
        ("images seen in training", f"{model.images:,}"),
        ("the network predicts", diffusion.parameterization),
        ("steps of the chain", f"{context.total:,}"),
        ("weights", f"{model.kind}, sha256 {model.sha256[:12]}"),
    ]
    if context.target is not None:
        rows.insert(
            0, ("data", f"{os.path.basename(context.data.source_name)}, {len(context.data.train):,} images train")
        )
    if context.summary is not None and context.summary.seconds:
        rows.append(("time of training", duration(context.summary.seconds)))
    return tuple(rows)
