"""`sfumato export`: write a model in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from sfumato.cli.console import print_json, say
from sfumato.cli.model import ModelOptions
from sfumato.cli.options import Flag, Json, option, settings
from sfumato.errors import UserError
from sfumato.exchange.formats import EXPORTS, check_out


@dataclass(frozen=True, kw_only=True)
class Export(ModelOptions):
    """Write a model in another format: diffusers (a folder that its pipelines load), safetensors (the weights, and all
    facts as JSON), onnx (a graph for any runtime) or html (a page that samples in a browser). docs/exchange.md says
    what each holds."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato export runs/faces --to diffusers --out faces-diffusers",
        "sfumato export runs/faces --to safetensors --set dtype=float16 --out faces-weights",
        "sfumato export runs/faces --to onnx",
        "sfumato export runs/faces --to html --out faces.html",
    )

    to: Annotated[str | None, option("|".join(EXPORTS))] = None
    """the format"""
    set: Annotated[tuple[str, ...], option("KEY=VALUE ...")] = ()
    """options of the format"""
    out: Annotated[Path | None, option("DIR|FILE")] = None
    """where to write: a folder, or a file where the format is one; by default MODEL-FORMAT here"""
    force: Flag = False
    """replace an earlier export"""
    json: Json = False

    def perform(self) -> int:
        """Write, and say how to load it."""
        if self.to is None:
            raise UserError(f"export needs a format: give --to, one of {', '.join(EXPORTS)}")
        suffix = EXPORTS[self.to].suffix if self.to in EXPORTS else ""
        options, out = settings(self.set), self.out or Path(self.name + (suffix or f"-{self.to}"))
        check_out(out, self.to, self.force)
        self.check_source()
        import torch

        from sfumato.exchange.export import export

        model = self.load(torch.device("cpu"))
        written = export(model, self.to, out, options, self.force)
        if self.json:
            print_json({"out": str(out), "format": self.to, **written.facts})
        else:
            say("\n".join([str(out), *(f"  {line}" for line in written.lines)]))
        return 0


VERB = Export
