"""A page as one HTML file without external resources; pictures are data URIs.

Every text that comes from outside (names of files, folders and labels) goes through `text`: it is made printable and
escaped, and stands in an element of its own direction (`bdi`), so that neither markup nor right-to-left letters in a
name change the page. A content security policy forbids the browser to load or run anything even if that failed, but
for the scripts that the page was made with, which are named by their hashes.

All other functions take text as it is and return HTML; `page` puts HTML together.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from sfumato.config.keys import typed
from sfumato.data.sources.protocol import printable

STYLE = """
:root{--ink:#23232a;--soft:#6b6b76;--line:#e4e4ea;--paper:#fff;--tile:#f6f6f8;--bar:#6f86a8}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ee;--soft:#a0a0ac;--line:#3a3a44;--paper:#1b1b20;--tile:#26262d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;
padding:0 1.2rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;font-weight:600;margin:0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2.4rem 0 .4rem}
p{margin:.2rem 0 .8rem}.soft,figcaption,small{color:var(--soft)}
ul.findings{list-style:none;padding:0}ul.findings li{border-left:4px solid var(--line);padding:.25rem .8rem;
margin:.5rem 0}
ul.findings .trouble{border-color:#c0392b}ul.findings .mind{border-color:#d9a441}ul.findings .good{border-color:#4c9a6a}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}th{font-weight:500;min-width:7rem;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:1.2rem}.charts figure{margin:0}
.charts rect{fill:var(--bar)}
.sheet{display:flex;flex-wrap:wrap;gap:.7rem}.sheet figure{margin:0;width:6.6rem}.pic{background:var(--tile);
height:6.2rem;display:flex;align-items:center;justify-content:center}
img{image-rendering:pixelated;display:block}
figcaption{font-size:.72rem;line-height:1.3;overflow-wrap:anywhere;margin-top:.15rem}
.groups{display:flex;flex-wrap:wrap;gap:.8rem}.groups .sheet{border:1px solid var(--line);padding:.5rem;gap:.5rem}
"""
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; style-src 'unsafe-inline'"
RANDOM = Path(__file__).parent / "assets" / "random.js"
"""The counter-based noise as a script, `RANDOM.normals(...)`, for pages that make images."""


def page(title: str, subtitle: str, body: Iterable[str]) -> str:
    """Return a page of HTML parts below a title."""
    head = f"<h1>{text(title)}</h1><p class='soft'>{text(subtitle)}</p>"
    return document(title, head + "\n".join(body), STYLE)


def document(title: str, body: str, style: str, script: str = "", data: str = "") -> str:
    """Return a whole file: a body of HTML with a style sheet, a script that runs at its end, and JSON for it, in which
    no `<` stands, as the element `data`."""
    policy, end = POLICY, ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
        end = f"<script type='application/json' id='data'>{data}</script>\n<script>{script}</script>"
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width,initial-scale=1'><meta name='generator' content='sfumato'>"
        f"<title>{escape(printable(title))}</title><style>{style}</style></head><body>{body}{end}</body></html>\n"
    )


def text(content: str) -> str:
    """Return text from anywhere, safe to stand in an element."""
    return f"<bdi>{escape(printable(content))}</bdi>"


def section(title: str, content: str, note: str = "") -> str:
    """Return a heading, a note in a softer colour, and HTML."""
    return f"<h2>{text(title)}</h2>{f'<p class=soft>{text(note)}</p>' if note else ''}{content}"


def findings(items: Iterable[tuple[str, str, str]]) -> str:
    """Return a list of findings, each (`trouble`, `mind` or `good`; title; sentence), with that colour at its side.

    Keys of the configuration are said as options."""
    lines = (
        f"<li class='{level}'><b>{text(title)}</b><br>{text(typed(sentence, bare=True))}</li>"
        for level, title, sentence in items
    )
    return f"<ul class='findings'>{''.join(lines)}</ul>"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return names and values in two columns."""
    return "<table>" + "".join(f"<tr><th>{text(a)}</th><td>{text(b)}</td></tr>" for a, b in rows) + "</table>"


def picture(image: Image.Image, side: int = 96) -> str:
    """Return an image, scaled to a longer side of about `side` pixels; a small one by a whole factor, without blur."""
    width, height = image.size
    scale = side / max(width, height)
    if scale >= 1:
        image = image.resize((width * int(scale), height * int(scale)), Image.Resampling.NEAREST)
    else:
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    content = BytesIO()
    image.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return f"<img src='data:image/png;base64,{data}' width='{image.width}' height='{image.height}' alt=''>"


def figure(content: str, *captions: str) -> str:
    """Return a tile: HTML in the middle, lines of text below it."""
    lines = "<br>".join(text(line) for line in captions if line)
    return f"<figure><div class='pic'>{content}</div><figcaption>{lines}</figcaption></figure>"


def sheet(figures: Iterable[str]) -> str:
    """Return tiles side by side."""
    return f"<div class='sheet'>{''.join(figures)}</div>"


def histogram(title: str, values: ArrayLike, low: float, high: float) -> str:
    """Return a chart of 24 bins from `low` to `high`; values beyond count in the outermost."""
    counts, _ = np.histogram(np.clip(values, low, high), bins=24, range=(low, max(high, low + 1e-9)))
    return bars(title, counts.tolist(), f"{low:g} to {high:g}")


def bars(title: str, counts: Sequence[int], caption: str) -> str:
    """Return a chart of bars."""
    top, width = max(1, *counts), 240 / len(counts)
    rectangles = "".join(
        f"<rect x='{k * width:.1f}' y='{80 - 78 * count / top:.1f}' width='{max(1.0, width - 1.5):.1f}' "
        f"height='{78 * count / top:.1f}'/>"
        for k, count in enumerate(counts)
    )
    return (
        f"<figure><svg viewBox='0 0 240 81' width='100%' role='img'>{rectangles}<path d='M0 80.5H240' stroke='#8888'/>"
        f"</svg><figcaption><b>{text(title)}</b>: {text(caption)}; tallest {max(counts):,}</figcaption></figure>"
    )
