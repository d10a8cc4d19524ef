"""Write docs/explained.md from the texts of the package, and with --pictures the pictures in it.

    python scripts/explained.py [--pictures]

`sfumato explain` shows the same texts with figures that can be moved.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sfumato.explain import markdown
from sfumato.explain.registry import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# What a diffusion model is

An article with formulae, pictures and the lines of code that are the formulae. `sfumato explain` writes the same text
as one HTML file whose figures can be moved, and `sfumato report RUN` makes these figures from your own images and your
own model. This page is made from the texts in `src/sfumato/explain/text` by `python scripts/explained.py`.
"""
PICTURES = {
    "explained-forward": "forward",
    "explained-schedule": "schedule",
    "explained-bound": "bound",
    "explained-network": "network",
    "explained-reverse": "reverse",
}
"""The pictures by the figure of `sfumato illustrate faces` that they are."""


def document() -> str:
    """Return the page."""
    parts = [
        markdown.as_document(section.title, markdown.read(section.name)) for section in SECTIONS if not section.own
    ]
    page = HEAD + "\n" + "\n\n".join(parts) + "\n"
    for section in SECTIONS:  # a link to a section leads to its heading
        anchor = re.sub(r"[^\w -]", "", section.title.lower()).replace(" ", "-")
        page = page.replace(f"](#{section.name})", f"](#{anchor})")
    return page


def main(words: list[str]) -> None:
    (ROOT / "docs" / "explained.md").write_text(document(), encoding="utf-8")
    if "--pictures" in words:
        from sfumato.explain import Context
        from sfumato.explain.illustrate import illustrate

        context = Context.open(Path("faces"))
        for file, figure in PICTURES.items():
            print(illustrate(context, figure, ROOT / "docs" / "images" / f"{file}.png"))


if __name__ == "__main__":
    main(sys.argv[1:])
