"""What a section of the page is made of: frozen values, which a view in JavaScript of the same name draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sfumato.errors import UserError


class Missing(UserError):
    """A run lacks what a section shows; the message says what, and which command makes it."""


@dataclass(frozen=True)
class Figure:
    """A figure and everything that stands around it.

    Attributes:
        name: its address on the page, and the name of its view (`assets/views/NAME.js`).
        title: a few words.
        caption: what is seen and what it means.
        data: what the view draws: JSON values and packed arrays.
        formula: LaTeX of the subset that `mathml` reads; empty for none.
        code: dotted names below `sfumato` whose source is shown.
        live: what the page computes itself, when something is moved.
        made: what was computed beforehand, and from what.
        command: the command that makes it, or more of it.
        findings: sentences with this run's figures.
    """

    name: str
    title: str
    caption: str
    data: Mapping[str, Any] = field(repr=False)
    formula: str = ""
    code: tuple[str, ...] = ()
    live: str = ""
    made: str = ""
    command: str = ""
    findings: tuple[str, ...] = ()


Collect = Callable[[Any], Figure | tuple[Figure, ...]]


@dataclass(frozen=True)
class Section:
    """A section before it is collected.

    Attributes:
        name: its address, and the file of its text (`text/NAME.md`).
        title: of the heading.
        collect: from a `Context` to its figure or figures; raises `Missing`.
        part: a heading above it, where a part of the page begins.
        own: whether it is about a run of the reader's own, and no part of the article.
    """

    name: str
    title: str
    collect: Collect = field(repr=False)
    part: str = ""
    own: bool = False


@dataclass(frozen=True)
class Collected:
    """A section with its figures, or why it has none."""

    section: Section
    figures: tuple[Figure, ...]
    missing: str = ""
