"""A report as one HTML file: no script, nothing loaded from anywhere, pictures inside it as PNG.

Every word that comes from outside (names of files, folders and labels) is made printable and escaped, and stands in an
element of its own direction (`bdi`), so that neither markup nor right-to-left letters in a name change the page. A
policy in the head forbids the browser to load or run anything even if that failed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.data.formats.fitting import rendered
from sfumato.data.sources.protocol import Unreadable, printable
from sfumato.inspect.advice import Advice
from sfumato.inspect.crowd import LUMA, typical
from sfumato.inspect.report import Report
from sfumato.inspect.words import facts_of

__all__ = ["page"]

SIDE = 96
"""Pixels of a picture's longer side on the page."""
SHOWN = 24
GROUPS = 16
MEMBERS = 6
ROWS = 1000

STYLE = """
:root{--ink:#23232a;--soft:#6b6b76;--line:#e4e4ea;--paper:#fff;--tile:#f6f6f8;--bar:#6f86a8}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ee;--soft:#a0a0ac;--line:#3a3a44;--paper:#1b1b20;--tile:#26262d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;
padding:0 1.2rem}
h1{font-size:1.5rem;font-weight:600;margin:0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2.4rem 0 .4rem}
p{margin:.2rem 0 .8rem}.soft,figcaption,small{color:var(--soft)}
ul.advice{list-style:none;padding:0}ul.advice li{border-left:4px solid var(--line);padding:.25rem .8rem;margin:.5rem 0}
li.trouble{border-color:#c0392b!important}li.mind{border-color:#d9a441!important}li.good{border-color:#4c9a6a!important}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}th{font-weight:500;white-space:nowrap;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:1.2rem}.charts figure{margin:0}
.sheet{display:flex;flex-wrap:wrap;gap:.7rem}.sheet figure{margin:0;width:6.6rem}.pic{background:var(--tile);
height:6.2rem;display:flex;align-items:center;justify-content:center}
img{image-rendering:pixelated;display:block}
figcaption{font-size:.72rem;line-height:1.3;overflow-wrap:anywhere;margin-top:.15rem}
.groups{display:flex;flex-wrap:wrap;gap:.8rem}.groups .sheet{border:1px solid var(--line);padding:.5rem;gap:.5rem}
"""


def page(report: Report, advice: Sequence[Advice]) -> str:
    """Return the page."""
    name = _text(report.source.name)
    body = [
        f"<h1>{name}</h1><p class='soft'>What sfumato saw in this collection of images.</p>",
        "<ul class='advice'>",
        *(f"<li class='{item.level}'><b>{_text(item.topic)}</b><br>{_text(item.text)}</li>" for item in advice),
        "</ul><h2>Figures</h2>",
        _table(facts_of(report)),
        _charts(report),
        *_sheets(report),
        *_listing("Files that can't be used", [(report.source.origin(i), reason) for i, reason in report.faults]),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(printable(report.source.name))}</title><style>{STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _text(text: str) -> str:
    """Text from outside, safe to stand in an element."""
    return f"<bdi>{escape(printable(text))}</bdi>"


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    return "<table>" + "".join(f"<tr><th>{_text(a)}</th><td>{_text(b)}</td></tr>" for a, b in rows) + "</table>"


def _charts(report: Report) -> str:
    """Histograms of what varies."""
    s = report.sights
    if not len(s):
        return ""
    luma = s["mean"] @ LUMA
    sides = np.minimum(s["height"], s["width"]).astype(float)
    charts = [
        _histogram("brightness", luma, 0, 255),
        _histogram("contrast", s["contrast"], 0, 128),
        _histogram("shorter side", sides, 0, float(sides.max())),
        _histogram("width / height", np.clip(s["width"] / s["height"], 0.25, 4), 0.25, 4),
    ]
    for a, attribute in enumerate(report.source.attributes):
        counts = list(report.counts(a).items())[:20]
        if counts:
            names = ", ".join(value for value, _ in counts)
            charts.append(_bars(attribute.name, [count for _, count in counts], names))
    return "<h2>Distributions</h2><div class='charts'>" + "".join(charts) + "</div>"


def _histogram(title: str, values: NDArray[np.floating], low: float, high: float) -> str:
    """A histogram of 24 bins as a picture drawn with rectangles."""
    counts, _ = np.histogram(np.clip(values, low, high), bins=24, range=(low, max(high, low + 1e-9)))
    return _bars(title, counts.tolist(), f"{low:g} to {high:g}")


def _bars(title: str, counts: Sequence[int], meaning: str) -> str:
    """Bars with what they mean."""
    top, width = max(1, *counts), 240 / len(counts)
    bars = "".join(
        f"<rect x='{k * width:.1f}' y='{80 - 78 * count / top:.1f}' width='{max(1.0, width - 1.5):.1f}' "
        f"height='{78 * count / top:.1f}'/>"
        for k, count in enumerate(counts)
    )
    return (
        f"<figure><svg viewBox='0 0 240 81' width='100%' fill='#6f86a8' role='img'>{bars}"
        f"<path d='M0 80.5H240' stroke='#8888'/></svg>"
        f"<figcaption><b>{_text(title)}</b>: {_text(meaning)}; tallest {max(counts):,}</figcaption></figure>"
    )


def _sheets(report: Report) -> list[str]:
    """Typical, odd, suspicious pictures and groups of copies, each with its names."""
    parts = []
    if plain := typical(report.odd, SHOWN):
        parts += ["<h2>Typical</h2>", _sheet(report, [(place, "") for place in plain])]
    far = report.odd.odd()
    oddest = np.argsort(-report.odd.score, kind="stable")[:SHOWN].tolist()
    said = f"{len(far):,} lie far from the others" if far else "None lies far from the others; these lie farthest"
    reasons = [(place, f"{report.odd.reason(place)}, {report.odd.score[place]:.1f} sd") for place in oddest]
    if oddest:
        parts += [f"<h2>Odd</h2><p class='soft'>{said}. A robust z of 5 and more counts as far.</p>"]
        parts += [_sheet(report, reasons)]
    if report.suspicious:
        parts += [f"<h2>To look at ({len(report.suspicious):,})</h2>", _sheet(report, report.suspicious[:SHOWN])]
    copies = report.copies
    for title, groups in (
        ("Exact copies", copies.exact),
        ("Near copies", copies.near),
        ("Mirrored copies", [list(pair) for pair in copies.mirrored]),
    ):
        if groups:
            shown = f", {GROUPS} shown" if len(groups) > GROUPS else ""
            sheets = [_sheet(report, [(place, "") for place in group[:MEMBERS]]) for group in groups[:GROUPS]]
            parts.append(f"<h2>{title} ({len(groups):,}{shown})</h2><div class='groups'>{''.join(sheets)}</div>")
    return parts


def _sheet(report: Report, places: Sequence[tuple[int, str]]) -> str:
    """Pictures with their names and something said of each."""
    figures = []
    for place, said in places:
        note = f"<br>{_text(said)}" if said else ""
        figures.append(
            f"<figure><div class='pic'>{_picture(report, place)}</div>"
            f"<figcaption>{_text(report.origin(place))}{note}</figcaption></figure>"
        )
    return f"<div class='sheet'>{''.join(figures)}</div>"


def _picture(report: Report, place: int) -> str:
    """One picture, whole, its longer side about `SIDE` pixels."""
    try:
        pixels = rendered(report.source.read(int(report.sights["index"][place])).pixels)
    except Unreadable as fault:  # it was readable a moment ago
        return _text(fault.reason)
    height, width, channels = pixels.shape
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels))
    scale = SIDE / max(height, width)
    if scale >= 1:
        image = image.resize((width * int(scale), height * int(scale)), Image.Resampling.NEAREST)
    else:
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    content = BytesIO()
    image.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return f"<img src='data:image/png;base64,{data}' width='{image.width}' height='{image.height}' alt=''>"


def _listing(title: str, items: Sequence[tuple[str, str]]) -> list[str]:
    """A heading and a table of files with reasons."""
    if not items:
        return []
    more = f"<p class='soft'>and {len(items) - ROWS:,} more; --json names all</p>" if len(items) > ROWS else ""
    return [f"<h2>{title} ({len(items):,})</h2>", _table(items[:ROWS]), more]
