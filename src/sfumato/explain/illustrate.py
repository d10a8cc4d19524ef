"""Single figures of a model as pictures: what the page shows, for a document or a talk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import wrap

import torch
from PIL import Image, ImageDraw, ImageFont

from sfumato.diffusion import SCHEDULES, Schedule
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure, Missing
from sfumato.explain.sections import bound, network, training
from sfumato.generate import pictures
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.generate.writers import film, save_png
from sfumato.report import figures
from sfumato.report.chart import COLOURS, Axis, Line, chart

Drawn = Image.Image | list[Image.Image]
FILMED = 16


def illustrate(context: Context, name: str, out: Path) -> Path:
    """Draw a figure of `FIGURES` and write it: a PNG, or for `film` a GIF; errors as the sections'."""
    drawn = FIGURES[name](context)
    if isinstance(drawn, list):
        return film(drawn, out)
    return save_png(drawn, out, {"figure": name, "model": context.model.sha256, "seed": context.seed})


def _forward(context: Context) -> Image.Image:
    x_0 = context.model.codec.from_pixels(context.images.x_0[:1])[0]
    return figures.forward(x_0, context.schedule, context.seed, shown=context.shown)


def _reverse(context: Context) -> Image.Image:
    sampling = prepare(context.counted, context.watched("ddim", 50))
    return figures.reverse(sampling, context.seed, condition=context.conditions(2), shown=context.shown)


def _film(context: Context) -> list[Image.Image]:
    sampling = prepare(context.counted, context.watched("ddim", 50))
    frames = figures.Pairs(context.shown, FILMED, len(sampling.times) - 1)
    for _ in sampling.stream(FILMED, context.seed, condition=context.conditions(FILMED), on_state=frames):
        pass
    return frames.pictures(4, 640)


def _training(context: Context) -> Image.Image:
    paths = [] if context.summary is None else context.summary.averaged_grids
    if not paths:
        raise Missing("this model has no sample grids of its training: give a run folder")
    chosen = [paths[n] for n in pictures.evenly(len(paths), 8)]
    return figures.through_training(chosen, [f"{int(path.stem):,}\nimages seen" for path in chosen])


def _samples(context: Context) -> Image.Image:
    num = 64
    made = prepare(context.counted, Recipe()).stream(num, context.seed, condition=context.conditions(num))
    return pictures.grid(torch.cat([context.shown(x) for _, x in made]), 8)


def _schedule(context: Context) -> Image.Image:
    named: dict[str, Schedule] = {name: SCHEDULES[name](context.total) for name in ("linear", "cosine")}
    own = next((name for name, schedule in named.items() if schedule == context.schedule), "")
    if not own:
        named[own := "another"] = context.schedule
    steps = torch.linspace(0, context.total, 201).round()
    lines = [
        Line(
            f"{name}, this model's" if name == own else name,
            steps.tolist(),
            schedule(steps.double() / context.total).abar.tolist(),
            name == own,
        )
        for name, schedule in named.items()
    ]
    return chart(lines, Axis("t"), Axis("abar, the fraction of the image's power that is left", low=0, high=1))


def _bound(context: Context) -> Image.Image:
    steps = bound.bound_steps(context)
    lines = []
    for side, title in bound.SIDES.items():
        if (found := bound.terms(context, side, steps)) is not None:
            total = float((bound.whole(steps, found.bits, context.total) + found.prior).mean())
            lines.append(Line(f"{title}, {total:.2f} bits in all", steps.tolist(), found.bits.mean(0).tolist()))
    return chart(lines, Axis("t", log=True), Axis("bits per dimension of the step from t", log=True))


def _loss(context: Context) -> Image.Image:
    data = training.collect(context).data
    images, levels = data["images"], data["levels"]
    lines = [
        Line(f"t from {k / 10:g} to {(k + 1) / 10:g} of T", images, [row[k] for row in levels])
        for k in (0, 2, 4, 6, 8, 9)
        if any(row[k] is not None for row in levels)
    ]
    return chart(lines, Axis("images seen", low=0), Axis("loss by noise level", log=True))


def _network(context: Context) -> Image.Image:
    """The modules in their order, as boxes: height is resolution, width channels; skips are arcs below."""
    drawing: Figure = network.collect(context)[0]
    units = drawing.data["units"]
    fine, width, height, middle = 2, 880, 370, 120
    page = Image.new("RGB", (fine * width, fine * height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=fine * 12)
    top, widest = max(u["height"] for u in units), max(u["channels"] for u in units)
    pitch = (width - 40) / len(units)
    centres = [20 + pitch * (n + 0.5) for n in range(len(units))]
    tall = [14 + 180 * (u["height"] / top) ** 0.5 for u in units]
    for n, unit in enumerate(units):
        for start in unit["skips"]:
            depth = 20 + 70 * (n - start) / len(units)
            low = middle + max(tall[start], tall[n]) / 2
            box = (centres[start], low - depth, centres[n], low + depth)
            pen.arc([fine * v for v in box], 0, 180, (88, 94, 105), 2 * fine)
    for n, unit in enumerate(units):
        wide = max(3.0, (pitch - 4) * (0.35 + 0.65 * unit["channels"] / widest))
        colour = COLOURS[
            1 if "ttention" in unit["kind"] else 4 if unit["height"] == 1 else 5 if "Conv" in unit["kind"] else 0
        ]
        box = (centres[n] - wide / 2, middle - tall[n] / 2, centres[n] + wide / 2, middle + tall[n] / 2)
        pen.rounded_rectangle([fine * v for v in box], 3 * fine, colour)
    words = f"{drawing.findings[0]} Height is resolution, width channels; arcs are skip connections."
    for n, line in enumerate(wrap(words, 130)):
        pen.text((20 * fine, (height - 34 + 16 * n) * fine), line, (88, 94, 105), font)
    return page.resize((width, height), Image.Resampling.LANCZOS)


FIGURES: dict[str, Callable[[Context], Drawn]] = {
    "forward": _forward,
    "reverse": _reverse,
    "film": _film,
    "samples": _samples,
    "training": _training,
    "schedule": _schedule,
    "bound": _bound,
    "loss": _loss,
    "network": _network,
}
"""Every figure by name."""
