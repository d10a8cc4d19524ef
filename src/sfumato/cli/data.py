"""`sfumato data`: list the built-in data sets, or describe one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import print_json, progress, say
from sfumato.cli.options import Force, Json, Overrides, check, option
from sfumato.cli.output import check_file, free, is_ours
from sfumato.conditions.attributes import plain
from sfumato.errors import UserError
from sfumato.report.text import facts
from sfumato.run.locate import SHIPPED

if TYPE_CHECKING:
    from sfumato.data import Dataset


@dataclass(frozen=True)
class Data:
    """List the built-in data sets, or describe one of them or a folder of images.

    Every image is checked and decoded; unreadable files are listed with the reason. The source's own labels are shown
    unless `data.labels` names another file. A contact sheet is written, with a row for each value of the first
    attribute.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato data",
        "sfumato data faces --data.attributes glasses",
        "sfumato data ~/photos --data.size 64,64 --out photos.png",
    )

    source: Annotated[str | None, Positional, option("[NAME|PATH]")] = None
    """a built-in name, or a folder of images (sub-folders are labels); without it, the built-in names are listed"""
    out: Annotated[Path | None, option("FILE.png")] = None
    """the contact sheet; NAME-sheet.png in this folder by default"""
    num: int = 100
    """how many images the sheet shows"""
    force: Force = False
    json: Json = False
    overrides: Overrides = ()

    def perform(self) -> int:
        """List or describe."""
        if self.source is None:
            return self._list()
        from sfumato.config.presets import resolve
        from sfumato.data import open_data, open_source
        from sfumato.generate.writers import save_png
        from sfumato.report.figures import contact_sheet

        out = self.out or Path(f"{Path(self.source).resolve().name}-sheet.png")
        check(self.num)
        if self.out is None and out.exists() and not is_ours(out):
            out = free(out)
        if out.suffix.lower() != ".png":
            raise UserError(f"--out {out}: a contact sheet is a .png file")
        check_file(out, self.force)
        overrides = dict(self.overrides)
        if "data.labels" not in overrides and open_source(self.source).attributes:
            overrides["data.labels"] = "source"
        config = resolve(overrides={"data.source": self.source, **overrides}).data
        data = open_data(config, on_progress=progress("reading images"))
        save_png(contact_sheet(data, self.num), out, {"source": data.source_name})
        if self.json:
            print_json(_described(data) | {"sheet": str(out)})
        else:
            say(data.summary())
            say(facts([("sheet", str(out))]))
        return 0

    def _list(self) -> int:
        from sfumato.data import BUILTIN, describe_sources

        if self.json:
            names = ("count", "shape", "labels", "about", "licence")
            print_json({name: {key: getattr(source, key) for key in names} for name, source in BUILTIN.items()})
        else:
            say("\n".join(describe_sources()))
            models = ", ".join(SHIPPED)
            say(
                "\nor give a folder of images; `sfumato data faces` shows one. For some a model comes along "
                f"({models}): `sfumato info faces` describes it"
            )
        return 0


def _described(data: Dataset) -> dict[str, Any]:
    """Return a data set as JSON has it."""
    from sfumato.codec import format as formats

    return {
        "source": data.source_name,
        "count": len(data),
        "shape": data.shape,
        "depth": formats.plain(data.format),
        "train": len(data.train),
        "held_out": len(data.held_out),
        "attributes": [plain(attribute) for attribute in data.attributes],
        "counts": data.counts,
        "quarantined": [{"file": origin, "reason": reason} for origin, reason in data.skipped],
        "notes": data.notes,
        "fingerprint": data.fingerprint,
    }


VERB = Data
