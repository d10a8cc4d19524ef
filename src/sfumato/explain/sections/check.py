"""What `sfumato data check` finds in the images that the model was trained on, from a bounded number of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from sfumato.config.keys import typed
from sfumato.data import open_source
from sfumato.data.mirror import evenly
from sfumato.data.sources.protocol import Source, Unreadable, printable
from sfumato.errors import UserError, command, plural
from sfumato.explain.context import Context, cut
from sfumato.explain.figure import Figure, Missing
from sfumato.explain.packing import u8
from sfumato.inspect import Report, advise, check
from sfumato.inspect.render import figures, picture

SIDE, SHOWN, GROUPS = 48, 12, 6
"""Side of a picture in pixels, pictures of a sheet, and groups of duplicates of which two are shown."""
_PIXELS = 1_000_000_000
_LEAST = 16


def collect(context: Context) -> Figure:
    """Scan the collection; raises `Missing` where it can't be opened as files any more."""
    config = context.data.config
    try:
        source = open_source(config.source)
    except UserError as error:
        raise Missing(f"the collection can't be read again: {error}") from None
    num = scanned(source, context.effort.checked)
    report = check(source, config, num, workers=0, skipped=context.data.skipped)
    advice = advise(report)
    troubles, open_ = (sum(item.level == level for item in advice) for level in ("trouble", "mind"))
    where = f"{report.scanned:,} of {report.total:,} images" if report.scanned < report.total else "all images"
    return Figure(
        name="check",
        title="Check of the collection",
        caption="What the images are like as files, before training reads them: whether they can be read, how "
        "large they are, which are unlike the others, and which occur more than once.",
        data={
            "advice": [
                {"level": item.level, "title": item.topic, "text": typed(item.text, bare=True)} for item in advice
            ],
            "rows": [
                [name, os.path.basename(value) if name == "source" else cut(value, 300)]
                for name, value in figures(report)
            ],
            "sheets": list(_sheets(report)),
            "unreadable": [[cut(printable(source.origin(i))), reason] for i, reason in report.faults[:SHOWN]],
            "num_unreadable": len(report.faults),
        },
        code=("inspect.report.check", "inspect.advice.advise"),
        made=f"a scan of {where}, evenly spaced",
        command=command("data", "check", config.source, "--out", "check.html"),
        findings=(
            f"{where[0].upper()}{where[1:]} were scanned: {plural(troubles, 'finding')} of trouble, {open_} to decide.",
        ),
    )


def scanned(source: Source, most: int) -> int:
    """Return how many images are scanned: at most `most`, and fewer where they are large, by the sizes of a few."""
    areas = []
    for i in evenly(len(source), min(_LEAST, len(source))):
        try:
            width, height = source.size(int(i))
        except Unreadable:
            continue
        areas.append(width * height)
    mean = sum(areas) / len(areas) if areas else 1.0
    return max(_LEAST, min(most, int(_PIXELS / max(1.0, mean))))


def _sheets(report: Report) -> Iterator[dict[str, Any]]:
    """Typical, outlying and suspicious images, and groups of duplicates, those that there are."""
    outliers, copies = report.outliers, [*report.duplicates.exact, *report.duplicates.near]
    sheets: list[tuple[str, Sequence[tuple[int, str]]]] = [
        ("Typical", [(row, "") for row in outliers.typical(SHOWN)]),
        ("Farthest from the others", [(row, outliers.reason(row)) for row in outliers.farthest()[:SHOWN]]),
        (f"Suspicious ({len(report.suspicious):,})", report.suspicious[:SHOWN]),
        (
            f"Duplicates ({len(copies):,} groups), two of each",
            [(row, f"group {n + 1}") for n, group in enumerate(copies[:GROUPS]) for row in group[:2]],
        ),
    ]
    for title, rows in sheets:
        kept = [(tile(report, row), row, note) for row, note in rows]
        shown = [(pixels, row, note) for pixels, row, note in kept if pixels is not None]
        if shown:
            yield {
                "title": title,
                "pictures": u8(np.stack([pixels for pixels, _, _ in shown])),
                "captions": [cut(report.origin(row).rsplit("/", 1)[-1], 40) for _, row, _ in shown],
                "notes": [cut(note) for _, _, note in shown],
            }


def tile(report: Report, row: int) -> Any:
    """Return an image on white within a square, (3, SIDE, SIDE) bytes; None where it cannot be read any more."""
    try:
        image = picture(report, row).convert("RGBA")
    except Unreadable:
        return None
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    page = Image.new("RGBA", (SIDE, SIDE), "white")
    page.alpha_composite(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.asarray(page.convert("RGB")).transpose(2, 0, 1)
