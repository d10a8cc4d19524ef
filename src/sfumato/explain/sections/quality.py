"""How far the samples are from the data: the verdict on those of the page, and the results of `evaluate`."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfumato.evaluate.cache import split_rows
from sfumato.evaluate.results import stored_results
from sfumato.evaluate.text import verdict_of, words
from sfumato.evaluate.verdict import Distance, Verdict, judge_pixels
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure, Missing
from sfumato.run.locate import ASSETS

REAL = 512
"""Training images that the samples are compared with."""
_MOST = 20
"""Results that are shown."""


def collect(context: Context) -> Figure:
    """Judge the samples and read what is stored; raises `Missing` without either."""
    verdict, results = judged(context), evaluated(context)
    if verdict is None and not results:
        raise Missing("there are no images to compare samples with, and no result of sfumato evaluate")
    findings = []
    if verdict is not None:
        findings.append(f"The {verdict.num} samples of this page are {verdict.sentence}.")
    if not any(each["kind"] == "quality" for each in results):
        findings.append(
            "Figures such as the Frechet distance need more samples than a page draws. Measure them with the command "
            "below, and make the page again: they will stand here."
        )
    return Figure(
        name="quality",
        title="Samples against the data, in numbers",
        caption="The verdict compares the samples with training images in two views: the layout, colours and "
        "shapes on a coarse grid; and the detail, the strength of edges, texture and grain. 0 is what two samples "
        "of the data would have on average, 1 the most. Below stand the results that `sfumato evaluate` has "
        "stored for these very weights.",
        code=("evaluate.verdict.judge", "evaluate.metrics.energy.energy_distance"),
        data={
            "views": []
            if verdict is None
            else [[name, asdict(view)] for name, view in vars(verdict).items() if isinstance(view, Distance)],
            "results": results,
        },
        made="the verdict from the samples above and as many as 512 training images"
        + ("; the results by sfumato evaluate" if results else ""),
        command=f"sfumato evaluate {context.command}",
        findings=tuple(findings),
    )


def judged(context: Context) -> Verdict | None:
    """Return the verdict on the page's samples; None without images to compare them with."""
    if context.target is None:
        return None
    codec = context.model.codec
    real, _ = context.target.encoded(split_rows(context.data, "train")[:REAL])
    ours = context.samples.to(context.model.device)
    return judge_pixels(codec.to_pixels(real).cpu(), codec.to_pixels(ours).cpu())


def evaluated(context: Context) -> list[dict[str, Any]]:
    """Return the results of `sfumato evaluate` for these very weights: kind, text, and the measures of quality."""
    if context.model.path.parent == ASSETS:  # no folder is its own
        return []
    shown = (_shown(file, report) for file, report in stored_results(context.model)[:_MOST])
    return [result for result in shown if result is not None]


def _shown(file: Path, report: dict[str, Any]) -> dict[str, Any] | None:
    """A result as it is shown; a damaged one is left out."""
    try:
        measures = report["result"].get("measures", []) if report["kind"] == "quality" else []
        table = [
            [m["name"], m["value"], m["low"], m["high"], m["floor"], m.get("better", ""), str(m["extractor"])]
            for m in measures
        ]
        lines = _sentences(words(report))
        if table:  # the terminal's own table is not shown beside the page's
            numbers = f"{measures[0]['num_generated']:,} samples and {measures[0]['num_real']:,} real images."
            lines = [*filter(None, (verdict_of(report),)), numbers, *report["notes"]]
        return {"kind": str(report["kind"]), "lines": lines, "measures": table, "file": file.name}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _sentences(text: str) -> list[str]:
    """A terminal's lines, each with those that continue it and without its dash."""
    return [" ".join(line.removeprefix("- ").split()) for line in re.sub(r"\n {2,}", " ", text).split("\n")]
