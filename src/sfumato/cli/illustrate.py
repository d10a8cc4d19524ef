"""`sfumato illustrate`: one figure of a run as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from sfumato.cli.console import check_device, pick_device, print_json, progress, say
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Device, Force, Json, check, option
from sfumato.cli.output import check_file, free
from sfumato.errors import UserError, nearest

NAMES = ("forward", "reverse", "film", "samples", "training", "schedule", "bound", "loss", "network")


@dataclass(frozen=True, kw_only=True)
class Illustrate(ModelOptions):
    """Draw one figure of a run: `sfumato report` draws all of them as one page.

    forward (an image becomes noise), reverse (noise becomes an image), film (the same as a GIF), samples, training (the
    same seeds through training), schedule, bound (bits by t), loss (by noise level), network.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato illustrate runs/faces --figure bound --out bound.png",
        "sfumato illustrate faces --figure film --out film.gif",
    )

    figure: Annotated[str, option("NAME")]
    """which figure: forward, reverse, film, samples, training, schedule, bound, loss or network"""
    out: Annotated[Path | None, option("FILE.png")] = None
    """the picture; RUN-FIGURE.png by default, .gif for film"""
    data: Annotated[str | None, option("NAME|PATH")] = None
    """the images; the model's training data by default"""
    seed: int = 0
    """of the noise and the samples"""
    device: Device = "auto"
    force: Force = False
    json: Json = False

    def perform(self) -> int:
        """Draw and write."""
        check(seed=self.seed)
        check_device(self.device)
        if self.figure not in NAMES:
            raise UserError(f"--figure can't be '{self.figure}'{nearest(self.figure, NAMES)}")
        self.check_source()
        suffix = ".gif" if self.figure == "film" else ".png"
        out = self.out or free(Path(f"{self.name}-{self.figure}{suffix}"))
        check_file(out, self.force, (suffix,), figure="" if self.figure == "film" else self.figure)
        from sfumato.explain import Context
        from sfumato.explain.illustrate import illustrate

        device = pick_device(self.device)
        context = Context.open(
            self.source, self.chosen, device, self.seed, data=self.data, on_progress=progress("reading")
        )
        written = str(illustrate(context, self.figure, out))
        print_json({"out": written, "figure": self.figure}) if self.json else say(written)
        return 0


VERB = Illustrate
