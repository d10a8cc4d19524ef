r"""The texts of the page, written once as Markdown, as HTML for the page and as Markdown for a code host.

Paragraphs, `- ` lists, `## ` headings, tables, **strong**, *emphasis*, `code`, [links](address), $formulae$ and
$$formulae$$ on lines of their own. Four lines are the project's own:

    @figure NAME [ILLUSTRATION] | WHAT  the section's figure of that name; for a code host a picture of `illustrate`, or
                                        what the figure shows, which only the page has
    @code NAME                          the source of a function, without its docstring
    @article SENTENCES                  a paragraph of the article alone, on the model that it is made with
    @more TITLE ... @end                a derivation that the report folds away and the article shows
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from sfumato.explain.mathml import mathml
from sfumato.explain.source import body, highlighted, source

TEXTS = Path(__file__).parent / "text"
_INLINE = re.compile(r"\$([^$]+)\$|`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A piece of a text: its kind (p, ul, h3, table, math, code, sh, figure, article, more) and its content."""

    kind: str
    text: str = ""
    inner: tuple[Block, ...] = ()


def read(name: str) -> tuple[Block, ...]:
    """Return the blocks of a text of `text/`; () where there is none."""
    path = TEXTS / f"{name}.md"
    return tuple(blocks(path.read_text(encoding="utf-8"))) if path.is_file() else ()


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a text."""
    pieces = iter(re.split(r"\n\s*\n", re.sub(r"^(@.*)$", r"\n\1\n", text.strip(), flags=re.MULTILINE)))
    for piece in pieces:
        yield from _block(piece.strip(), pieces)


def _block(piece: str, rest: Iterator[str]) -> Iterator[Block]:
    if not piece:
        return
    if piece.startswith("@more"):
        inner: list[Block] = []
        for following in rest:
            if following.strip() == "@end":
                yield Block("more", piece[5:].strip(), tuple(inner))
                return
            inner += _block(following.strip(), rest)
        raise ValueError(f"{piece} has no @end")
    if piece.startswith("@"):
        kind, _, argument = piece[1:].partition(" ")
        if kind not in ("figure", "code", "article"):
            raise ValueError(f"'@{kind}' is not understood")
        yield Block(kind, argument.strip())
    elif piece.startswith("$$"):
        yield Block("math", piece.strip("$").strip())
    elif piece.startswith("```"):
        yield Block("sh", piece.partition("\n")[2].removesuffix("```").rstrip())
    elif piece.startswith("## "):
        yield Block("h3", piece[3:])
    elif piece.startswith("- "):
        yield Block("ul", piece)
    elif piece.startswith("|"):
        yield Block("table", piece)
    else:
        yield Block("p", " ".join(piece.split()))


def inline(text: str) -> str:
    """Return a line of text as HTML."""

    def one(match: re.Match[str]) -> str:
        formula, code, strong, emphasis, words, address = match.groups()
        if formula is not None:
            return mathml(formula)
        if code is not None:
            return f"<code>{escape(code)}</code>"
        if strong is not None:
            return f"<strong>{inline(strong)}</strong>"
        if emphasis is not None:
            return f"<em>{inline(emphasis)}</em>"
        # a page that opens without a network links only to itself
        return f"<a href='{escape(address)}'>{inline(words)}</a>" if address.startswith("#") else inline(words)

    out, end = "", 0
    for match in _INLINE.finditer(text):
        out += escape(text[end : match.start()], quote=False) + one(match)
        end = match.end()
    return out + escape(text[end:], quote=False)


def as_html(content: tuple[Block, ...], figures: Mapping[str, str], article: bool) -> str:
    """Return blocks as HTML, with the figures that are there in their places and the others after the text."""
    left = dict(figures)
    parts = [_html(block, left, article) for block in content]
    return "\n".join([*parts, *left.values()])


def _html(block: Block, figures: dict[str, str], article: bool) -> str:
    simple: dict[str, Callable[[], str]] = {
        "p": lambda: f"<p>{inline(block.text)}</p>",
        "article": lambda: f"<p>{inline(block.text)}</p>" if article else "",
        "h3": lambda: f"<h3>{inline(block.text)}</h3>",
        "ul": lambda: "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items(block.text)) + "</ul>",
        "math": lambda: f"<div class='formula'>{mathml(block.text, block=True)}</div>",
        "sh": lambda: f"<pre class='sh' tabindex='0'><code>{escape(block.text)}</code></pre>",
        "code": lambda: code_html(block.text, whole=False),
        "table": lambda: _table(block.text),
        "figure": lambda: figures.pop(block.text.split()[0], ""),
    }
    if block.kind != "more":
        return simple[block.kind]()
    inner = "\n".join(_html(each, figures, article) for each in block.inner)
    opened = " open" if article else ""
    return f"<details class='more'{opened}><summary>{inline(block.text)}</summary>{inner}</details>"


def code_html(name: str, whole: bool = True) -> str:
    """Return the source of a function as HTML, and where it stands."""
    text, place = source(name)
    shown = highlighted(text if whole else body(name))
    return f"<div class='source'><pre tabindex='0'><code>{shown}</code></pre><p class='soft'>{escape(place)}</p></div>"


def items(text: str) -> list[str]:
    """Return the items of a list."""
    return [" ".join(item.split()) for item in re.split(r"^- ", text, flags=re.MULTILINE) if item.strip()]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table, the head first."""
    lines = [line.strip().strip("|") for line in text.splitlines()]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for n, line in enumerate(lines) if n != 1]


def _table(text: str) -> str:
    head, *body_ = rows(text)
    titles = "".join(f"<th scope='col'>{inline(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{inline(cell)}</td>' for cell in row)}</tr>" for row in body_)
    return (
        f"<div class='scroll' tabindex='0'><table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def as_document(title: str, content: tuple[Block, ...], images: str = "images") -> str:
    """Return blocks as a section of Markdown, as a code host shows it."""
    return "\n\n".join([f"## {title}", *filter(None, (_document(block, images) for block in content))])


def _document(block: Block, images: str) -> str:
    if block.kind == "math":
        return f"$$\n{block.text}\n$$"
    if block.kind == "code":
        return f"```py\n# {source(block.text)[1].partition(',')[0]}\n{body(block.text)}\n```"
    if block.kind == "sh":
        return f"```sh\n{block.text}\n```"
    if block.kind == "h3":
        return f"### {block.text}"
    if block.kind == "more":
        return "\n\n".join([f"**{block.text}**", *(_document(each, images) for each in block.inner)])
    if block.kind == "figure":
        _, _, rest = block.text.partition(" ")
        file, _, what = (part.strip() for part in rest.partition("|"))
        return f"![{what}]({images}/{file}.png)" if file else f"*In the page of `sfumato explain` a figure: {what}.*"
    return block.text
