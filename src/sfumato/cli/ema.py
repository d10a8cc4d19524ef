"""`sfumato ema`: averages of a run's weights of other lengths, computed after training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import print_json, say
from sfumato.cli.options import Force, Json, option
from sfumato.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Ema:
    """Compute an average of a run's weights of any length, after training (EDM2, Karras et al. 2024).

    The run must have been trained with --ema.snapshots 32 or so. The length is the standard deviation of the average's
    profile over the time trained: 0.05 looks back over about a tenth of the training. Sample from the file that is
    written, and compare.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato ema runs/faces --length 0.05",
        "sfumato ema runs/faces@200k --length 0.03,0.1,0.15",
    )

    source: Annotated[Path, Positional, option("RUN")]
    """a run, or RUN@200k for the average up to that checkpoint"""
    length: Annotated[str, option("X[,X...]")]
    """the lengths, each above 0 and at most 0.25"""
    out: Annotated[Path | None, option("FILE.safetensors")] = None
    """the weights file; RUN/weights/ema-LENGTH.safetensors by default"""
    force: Force = False
    json: Json = False

    def perform(self) -> int:
        """Compute, write, and print what was written."""
        lengths = self._lengths()
        if self.out is not None and len(lengths) > 1:
            raise UserError("--out names one file: give one --length, or leave --out out")
        if self.out is not None and self.out.exists() and not self.force:
            raise UserError(f"{self.out} is there: choose another --out, or --force")
        from sfumato.files import write_atomic
        from sfumato.run.folder import Run
        from sfumato.run.locate import at, run_of
        from sfumato.train.snapshots import average

        place = at(self.source)[0]
        run = run_of(place / "ema.safetensors") or Run(place)
        for length in lengths:
            found = average(self.source, length)
            mark = "" if run.path == place else f"-{found.model.images}"
            out = self.out or run.weights / f"ema-{length:g}{mark}.safetensors"
            write_atomic(out, found.packed())
            if self.json:
                facts = {"out": str(out), "length": length, "error": found.error, "snapshots": found.snapshots}
                print_json(facts | {"images": found.model.images})
            else:
                say(
                    f"length {length:g} at {found.model.images:,} images, from {found.snapshots} states: its profile "
                    f"is {100 * found.error:.2g} % off\n{out}"
                )
        return 0

    def _lengths(self) -> list[float]:
        """Return the lengths; raises `UserError` for what is no number."""
        try:
            return [float(part) for part in self.length.split(",")]
        except ValueError:
            raise UserError(f"--length can't be '{self.length}': write 0.05, or 0.03,0.05,0.1") from None


VERB = Ema
