"""`sfumato explain`: the article, with figures of a shipped model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from sfumato.cli.console import check_device, pick_device, progress
from sfumato.cli.options import Device, Force, Json, option
from sfumato.cli.output import check_file, free
from sfumato.cli.report import publish


@dataclass(frozen=True)
class Explain:
    """Write an article on diffusion models as one HTML file, with figures that can be moved.

    It needs no run of your own: its figures are computed here with the shipped model of drawn faces.
    `sfumato report RUN` makes the same figures from your images and your model.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = ("sfumato explain", "sfumato explain --out diffusion.html")

    out: Annotated[Path | None, option("FILE.html")] = None
    """the page; explained.html by default"""
    device: Device = "auto"
    force: Force = False
    json: Json = False

    def perform(self) -> int:
        """Collect, write, and say where the page is."""
        check_device(self.device)
        out = self.out or free(Path("explained.html"))
        check_file(out, self.force, (".html", ".htm"))
        from sfumato.explain import Context

        context = Context.open(Path("faces"), device=pick_device(self.device), report=progress("computing"))
        return publish(context, out, True, self.json)


VERB = Explain
