"""The report as lines for a terminal, and as a page with contact sheets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from sfumato.data.formats.fitting import read_values, rendered
from sfumato.data.sources.protocol import Unreadable
from sfumato.errors import plural
from sfumato.inspect.advice import Advice
from sfumato.inspect.outliers import luma
from sfumato.inspect.report import Report
from sfumato.report import html
from sfumato.report.text import WIDTH, listed, listing, wrapped

NAMED, FULL = 8, 3
"""Files of each kind, and findings that need a decision, that the text has in full; page and JSON have all."""
SHOWN, GROUPS, MEMBERS, ROWS = 24, 16, 6, 1000
"""What the page shows: images of a sheet, groups of duplicates, images of a group, rows of a table."""


def as_text(report: Report, advice: Sequence[Advice], page: bool = False) -> str:
    """Return the figures, the advice, and the first files of each kind; `page` is whether a page is written too."""
    more = "the page has all" if page else "--out page.html or --json"
    lines = [wrapped(value, f"{name[:12]:<13}") for name, value in figures(report)]
    lines += ["", *_advice(advice, "the page says more" if page else "--out page.html says more")]
    far = [(report.origin(row), report.outliers.reason(row)) for row in report.outliers.far()]
    groups = [[report.origin(row) for row in g] for g in (*report.duplicates.exact, *report.duplicates.near)]
    for title, items in (
        ("no images", [(report.source.origin(i), reason) for i, reason in report.others]),
        ("unreadable", [(report.source.origin(i), reason) for i, reason in report.faults]),
        ("suspicious", [(report.origin(row), reason) for row, reason in report.suspicious]),
        ("outliers", far),
        ("duplicates", [(first, "= " + ", ".join(others[:3])) for first, *others in groups]),
    ):
        lines += listing(title, items, NAMED, more)
    return "\n".join(lines)


def _advice(advice: Sequence[Advice], more: str) -> list[str]:
    """What changes something in full, the settings, and the rest in a line each, without its evidence."""
    open_ = [item for item in advice if item.level != "good"]
    full = [item for item in open_ if item.level == "trouble" or item in open_[:FULL]]
    settings = [item for item in advice if item.topic in ("labels", "settings", "resolution") and item not in full]
    lines = [wrapped(f"{item.topic}: {item.text}", "!! " if item.level == "trouble" else " ! ") for item in full]
    lines += [_line(f" ! {item.topic}: {item.text}") for item in open_ if item not in (*full, *settings)]
    lines += [wrapped(f"{item.topic}: {item.text}", "ok " if item.level == "good" else " ! ") for item in settings]
    quiet = [item.topic for item in advice if item.level == "good" and item not in settings]
    rest = wrapped(f"nothing to decide: {', '.join(quiet)} ({more})", "ok ")
    return [*lines, rest] if quiet else lines


def _line(text: str) -> str:
    """A text up to its evidence, on one line."""
    first = re.split(r"(?<=.{24})[:;.] ", text, maxsplit=1)[0]
    return first if len(first) <= WIDTH else f"{first[: WIDTH - 4]} ..."


def as_html(report: Report, advice: Sequence[Advice]) -> str:
    """Return the page; it reads the images that it shows."""
    parts = [
        html.findings((item.level, item.topic, item.text) for item in advice),
        html.section("Figures", html.table(figures(report))),
        *_charts(report),
        *_sheets(report),
    ]
    if faults := report.faults:
        rest = f"and {len(faults) - ROWS:,} more; --json names all" if len(faults) > ROWS else ""
        rows = [(report.source.origin(i), reason) for i, reason in faults[:ROWS]]
        parts.append(html.section(f"Unreadable files ({len(faults):,})", html.table(rows), rest))
    subtitle = "Findings of `sfumato data check` on this collection of images."
    return html.page(_title(report.source.name), subtitle, parts)


def _title(name: str) -> str:
    """The last part of a path: the page may be shown to others."""
    return os.path.basename(name) if os.path.isabs(name) else name


def _without_home(name: str) -> str:
    """A path with ~ for the home folder."""
    home = os.path.expanduser("~")
    return f"~{name[len(home) :]}" if len(home) > 1 and name.startswith(home + os.sep) else name


def figures(report: Report) -> list[tuple[str, str]]:
    """Return names and values of the main figures; those of files only where images are files."""
    table, r = report.table(), report.records
    sample = "" if report.scanned == report.total else f", {report.scanned:,} of them scanned"
    readable = f"{len(r):,}, {report.distinct:,} of them distinct"
    readable = f"{report.total:,}{sample}: {readable}" if sample else readable
    others = "".join(
        f"; {plural(len(files), f'{what} file')}"
        for what, files in (("unreadable", report.faults), ("other", report.others))
        if files
    )
    rows = [("source", _without_home(report.source.name)), ("images", readable + others)]
    if not len(r):
        return rows
    sizes = [f"{size} ({count:,})" for size, count in list(table["sizes"].items())[:4]]
    more = f", and {plural(table['num_sizes'] - 4, 'other size')}" if table["num_sizes"] > 4 else ""
    rows.append(("size", ", ".join(sizes) + more + " (width x height)"))
    if table["formats"]:
        rows.append(("format", listed(table["formats"])))
        deep = f"; 16 bits: {table['bits']['16']:,}" if "16" in table["bits"] else ""
        rows.append(("mode", listed(table["modes"]) + deep))
    if report.format.kind != "8":
        rows.append(
            ("depth", f"{report.format.words}; values from {report.values.low:.5g} to {report.values.high:.5g}")
        )
    rows.append(("colour", f"{len(r) - table['grey']:,} in colour, {table['grey']:,} grey"))
    for name, unit in (("brightness", " (of 255)"), ("contrast", "")):
        low, middle, high = (table["quantiles"][name][k] for k in (1, 3, 5))
        rows.append((name, f"median {middle:.0f}, nine tenths from {low:.0f} to {high:.0f}{unit}"))
    for a, attribute in enumerate(report.source.attributes):
        counts, given = report.counts(a), int((~np.isnan(report.conditions[:, a])).sum())
        rows.append((attribute.name, listed(counts) if counts else f"a number, given for {given:,}"))
    return rows


def _charts(report: Report) -> list[str]:
    """The distributions of what varies."""
    r = report.records
    if not len(r):
        return []
    sides = np.minimum(r["height"], r["width"]).astype(float)
    charts = [
        html.histogram("brightness", luma(r["mean"]), 0, 255),
        html.histogram("contrast", r["contrast"], 0, 128),
        html.histogram("shorter side", sides, 0, float(sides.max())),
        html.histogram("width / height", r["width"] / r["height"], 0.25, 4),
    ]
    for a, attribute in enumerate(report.source.attributes):
        if counts := dict(list(report.counts(a).items())[:20]):
            charts.append(html.bars(attribute.name, list(counts.values()), ", ".join(name[:40] for name in counts)))
    return [html.section("Distributions", f"<div class='charts'>{''.join(charts)}</div>")]


def _sheets(report: Report) -> list[str]:
    """Typical, outlying and suspicious images, and groups of duplicates."""
    parts, outliers = [], report.outliers
    if typical := outliers.typical(SHOWN):
        parts.append(html.section("Typical", _sheet(report, [(row, "") for row in typical])))
    if farthest := [(row, f"{outliers.reason(row)}, {outliers.score[row]:.1f}") for row in outliers.farthest()[:SHOWN]]:
        far = len(outliers.far())
        note = f"{far:,} far from the others" if far else "No image is far from the others; these are the farthest"
        note += " (the number is the distance as a multiple of the limit)."
        parts.append(html.section("Outliers", _sheet(report, farthest), note))
    if report.suspicious:
        title = f"Suspicious ({len(report.suspicious):,})"
        parts.append(html.section(title, _sheet(report, report.suspicious[:SHOWN])))
    duplicates = report.duplicates
    for name, groups in (
        ("Exact duplicates", duplicates.exact),
        ("Near duplicates", duplicates.near),
        ("Mirrored duplicates", [list(pair) for pair in duplicates.mirrored]),
    ):
        if groups:
            title = f"{name} ({len(groups):,}{f', {GROUPS} shown' if len(groups) > GROUPS else ''})"
            sheets = [_sheet(report, [(row, "") for row in group[:MEMBERS]]) for group in groups[:GROUPS]]
            parts.append(html.section(title, f"<div class='groups'>{''.join(sheets)}</div>"))
    return parts


def _sheet(report: Report, rows: Sequence[tuple[int, str]]) -> str:
    """Images with their names and a note each."""
    return html.sheet(html.figure(_picture(report, row), report.origin(row), note) for row, note in rows)


def picture(report: Report, row: int) -> Image.Image:
    """Return one whole image as it is shown; raises `Unreadable` where it cannot be read any more."""
    image = report.source.read(int(report.records["index"][row]))
    config, format = report.config, report.format
    reading = read_values(image, config.background, format.kind, config.hole)
    pixels = rendered(reading.pixels, (format.low, format.high) if format.levels is None else None)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _picture(report: Report, row: int) -> str:
    """One image, or why it cannot be read any more."""
    try:
        return html.picture(picture(report, row))
    except Unreadable as fault:
        return html.text(fault.reason)
