"""`sfumato import`: read a model of another library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from sfumato.cli.console import print_json, say
from sfumato.cli.options import Flag, Json, option, settings
from sfumato.errors import UserError, similar
from sfumato.exchange.formats import IMPORTS
from sfumato.run.locate import HUB, hub_files


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read a model of another library, so that it samples, edits, is evaluated and trained on here.

    Nothing in the file is run. Where the other library is installed, a batch goes through both networks and the largest
    difference is printed. docs/exchange.md says what is read, from which versions.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato import ddpm-cat-256 --out runs/cats",
        "sfumato import hf:google/ddpm-cat-256",
        "sfumato import results/model-100.pt --set size=64 --out faces.safetensors",
    )

    source: Annotated[Path, Positional, option("FILE_OR_FOLDER")]
    """a checkpoint, or a folder of a pipeline; or hf:USER/NAME, which is downloaded"""
    # `as` is a word of Python
    as_: Annotated[str, arg(name="as", metavar="|".join(("auto", *IMPORTS)), help_behavior_hint="")] = "auto"
    """its format; auto recognises it"""
    set: Annotated[tuple[str, ...], option("KEY=VALUE ...")] = ()
    """what the file does not say, such as size=64; it is asked for where it is needed"""
    out: Annotated[Path | None, option("RUN|FILE.safetensors")] = None
    """a new run folder, or a weights file; by default runs/NAME"""
    data: Annotated[str | None, option("PATH")] = None
    """its images, for evaluate and diagnose"""
    force: Flag = False
    """overwrite a weights file"""
    json: Json = False

    def perform(self) -> int:
        """Read, write, compare, and say what it is."""
        options, source, name = settings(self.set), self.source, self.source.resolve()
        out = self.out or Path("runs") / (name.stem if name.is_file() else name.name)
        if not source.exists() and str(source).startswith(HUB):
            source, out = hub_files(str(source)), self.out or Path("runs") / name.name.partition("@")[0]
        if not source.exists():
            hint = similar(source)
            raise UserError(
                f"{source} does not exist: give a file or a folder of another library, or {HUB}USER/NAME{hint}"
            )
        from sfumato.exchange.imports import difference, read_model, write_model

        imported = read_model(source, self.as_, options, None if source == self.source else str(self.source))
        model = write_model(imported, out, self.data, self.force)
        error, why = None, ""
        try:
            error = difference(model, imported)
        except ModuleNotFoundError as missing:
            why = f"not compared: {imported.library} is not installed"
            if str(missing.name).replace("_", "-") != imported.library.replace("_", "-"):
                why = f"not compared: {imported.library} needs {missing.name}, which is not installed"
        except UserError as reason:
            why = f"not compared: {reason}"
        facts: dict[str, Any] = {
            "out": str(out), "weights": str(model.path), "library": imported.library, "shape": list(imported.shape),
            "network": model.net.summary(), "kind": imported.kind, "images": imported.images,
            "classes": list(model.attributes[0].values) if len(model.attributes) == 1 else [],
            "labels": [attribute.name for attribute in model.attributes], "difference": error,
            "notes": list(imported.notes),
        }  # fmt: skip
        if self.json:
            print_json(facts)
            return 0
        compared = (
            f"largest difference from the network of {imported.library}: {error:.2g}" if error is not None else why
        )
        shape = "x".join(map(str, imported.shape))
        lines = [f"{model.net.summary()}, for images of {shape}", *imported.notes, *([compared] if compared else [])]
        say("\n".join([str(out), *(f"  {line}" for line in lines)]))
        if error is not None and error > _SAME:
            say(f"  warning: it is more than {_SAME:g}, so the two networks do not compute the same", error=True)
        return 0


_SAME = 1e-3
"""A larger difference of outputs of about 1 is no rounding."""
VERB = Import
