"""A report as one HTML file that opens by double-click: the texts, the figures around their views, the scripts."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from sfumato.explain import markdown
from sfumato.explain.figure import Collected, Figure
from sfumato.explain.mathml import mathml
from sfumato.explain.packing import embedded
from sfumato.explain.report import Report
from sfumato.report import html

ASSETS = Path(__file__).parent / "assets"
RUNTIME = ("core", "noise", "draw", "widgets", "export")


def script(views: tuple[str, ...]) -> str:
    """Return the runtime and some views as one script."""
    files = [f"{name}.js" for name in RUNTIME] + [f"views/{name}.js" for name in views] + ["start.js"]
    return "\n".join(path.read_text(encoding="utf-8") for path in (html.RANDOM, *(ASSETS / file for file in files)))


def as_html(report: Report) -> str:
    """Return the page."""
    figures = [figure for each in report.sections for figure in each.figures]
    data = embedded({"shared": report.shared, "figures": {figure.name: figure.data for figure in figures}})
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    return html.document(report.title, _body(report), style, script(tuple(f.name for f in figures)), data)


def _body(report: Report) -> str:
    facts = "".join(f"<div><dt>{html.text(a)}</dt><dd>{html.text(b)}</dd></div>" for a, b in report.facts)
    sections = "\n".join(_section(each, report.article) for each in report.sections)
    return (
        "<a class='skip' href='#main'>Skip to the content</a><div class='layout'>"
        f"<nav aria-label='Contents'><details open><summary>Contents</summary>{_contents(report)}</details></nav><div>"
        f"<header class='top'><button type='button' id='theme'>Theme</button><h1>{html.text(report.title)}</h1>"
        f"<p class='lead'>{html.text(report.subtitle)}</p><dl class='facts'>{facts}</dl>"
        "<noscript><p class='missing'>The figures need JavaScript, which this page brings along and which loads "
        "nothing. Texts, formulae and code are here without it.</p></noscript></header>"
        f"<main id='main' tabindex='-1'>{sections}</main>"
        f"<footer><p>{_footer(report)}</p></footer></div></div>"
    )


def _contents(report: Report) -> str:
    parts: list[tuple[str, list[str]]] = []
    for each in report.sections:
        if each.section.part or not parts:
            parts.append((each.section.part, []))
        parts[-1][1].append(f"<li><a href='#{each.section.name}'>{escape(each.section.title)}</a></li>")
    return "".join(f"<b>{escape(title)}</b><ol>{''.join(items)}</ol>" for title, items in parts)


def _footer(report: Report) -> str:
    return (
        f"Made by <code>{escape(report.command)}</code>. One file: it loads nothing from the network, and its scripts "
        "and style can be read in its source. What a figure computes live and what was computed beforehand stands "
        "below it."
    )


def _section(each: Collected, article: bool) -> str:
    section = each.section
    part = f"<p class='part'>{escape(section.part)}</p>" if section.part else ""
    figures = {figure.name: _figure(figure) for figure in each.figures}
    missing = f"<p class='missing'>Not in this report: {html.text(each.missing)}</p>" if each.missing else ""
    text = markdown.as_html(markdown.read(section.name), figures, article)
    return (
        f"{part}<section id='{section.name}' aria-labelledby='h-{section.name}'>"
        f"<h2 id='h-{section.name}'>{escape(section.title)}</h2>{text}{missing}</section>"
    )


def _figure(figure: Figure) -> str:
    name = figure.name
    formula = f"<div class='formula'>{mathml(figure.formula, block=True)}</div>" if figure.formula else ""
    findings = "".join(f"<li>{html.text(line)}</li>" for line in figure.findings)
    return (
        f"<figure id='fig-{name}' data-view='{name}'><h3>{escape(figure.title)}</h3>"
        f"<div class='view' role='group' aria-label='{escape(figure.title, quote=True)}'></div><figcaption>"
        f"<p>{markdown.inline(figure.caption)}</p>{f'<ul class=findings>{findings}</ul>' if findings else ''}{formula}"
        f"{''.join(_details(figure))}<div class='tools' role='group' aria-label='Take from this figure'></div>"
        "</figcaption></figure>"
    )


def _details(figure: Figure) -> Iterator[str]:
    if figure.code:
        code = "".join(markdown.code_html(name) for name in figure.code)
        yield f"<details><summary>Show the code</summary>{code}</details>"
    lines = [("computed in the page", figure.live), ("computed beforehand", figure.made), ("command", figure.command)]
    rows = "".join(
        f"<p><b>{name}:</b> {f'<code>{html.text(value)}</code>' if name == 'command' else html.text(value)}</p>"
        for name, value in lines
        if value
    )
    if rows:
        yield f"<details><summary>How it was made</summary>{rows}</details>"
