"""`sfumato report`: the illustrated page of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from sfumato.cli.console import check_device, pick_device, print_json, progress, say
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Device, Force, Json, check, option
from sfumato.cli.output import check_file, free
from sfumato.report.text import facts, size

if TYPE_CHECKING:
    from sfumato.explain import Context


@dataclass(frozen=True, kw_only=True)
class ReportVerb(ModelOptions):
    """Explain diffusion with a run's own images and show how the model is doing, in one HTML file.

    The file opens by double-click and loads nothing. It holds the forward process, the posterior, the bound, the
    network inside, the way from noise to images, the samplers, the training, samples with their nearest training
    images, and cards of the data and the model. What a run does not have is left out, and the page says which command
    makes it.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato report runs/faces",
        "sfumato report faces --out faces.html",
        "sfumato report runs/photos --json",
    )

    out: Annotated[Path | None, option("FILE.html")] = None
    """the page; NAME-report.html by default"""
    data: Annotated[str | None, option("NAME|PATH")] = None
    """the images; the model's training data by default"""
    seed: int = 0
    """of the noise and the samples"""
    device: Device = "auto"
    force: Force = False
    json: Json = False

    def perform(self) -> int:
        """Collect, write, and say where the page is."""
        check(seed=self.seed)
        check_device(self.device)
        self.check_source()
        out = self.out or free(Path(f"{self.name}-report.html"))
        check_file(out, self.force, (".html", ".htm"))
        return publish(self.opened(), out, False, self.json)

    def opened(self) -> Context:
        """Open the model and its images."""
        from sfumato.explain import Context

        device = pick_device(self.device)
        return Context.open(
            self.source, self.chosen, device, self.seed, progress("computing"), self.data, progress("reading images")
        )


def publish(context: Context, out: Path, article: bool, as_json: bool) -> int:
    """Make the page, write it, and print where it is, or its figures as JSON."""
    from sfumato.explain import as_html, make
    from sfumato.files import write_atomic

    report = make(context, article)
    content = as_html(report).encode("utf-8")
    write_atomic(out, content)
    if as_json:
        print_json(report.to_dict() | {"file": str(out), "bytes": len(content)})
        return 0
    missing = [(each.section.title, each.missing) for each in report.sections if each.missing]
    say(facts([("page", str(out)), ("size", size(len(content))), ("open it", out.resolve().as_uri())]))
    if missing:
        say("\nnot in it:\n" + facts(missing))
    return 0


VERB = ReportVerb
