"""`sfumato data check`: inspect a collection of images before training on it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import print_json, progress, say
from sfumato.cli.options import Flag, Force, Overrides, option
from sfumato.cli.output import check_file
from sfumato.errors import UserError
from sfumato.report.text import facts

if TYPE_CHECKING:
    from sfumato.inspect import Advice, Report


@dataclass(frozen=True)
class Check:
    """Scan every image of a collection once, describe it and give advice.

    Unreadable and suspicious files with their reasons, sizes, formats, brightness, duplicates, outliers, the balance of
    labels; then advice: resolution, preset, memorisation, flips, cropping. The originals are never changed, and only
    the requested files are written.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato data check ~/photos",
        "sfumato data check ~/photos --out photos.html --fix photos.txt",
        "sfumato data check ~/photos --num 10000 --data.size 64,64 --json",
    )

    source: Annotated[str, Positional, option("NAME|PATH")]
    """a built-in name, or other training data, such as a folder of images"""
    out: Annotated[Path | None, option("FILE.html")] = None
    """write a page with contact sheets: typical images, outliers, duplicates"""
    fix: Annotated[Path | None, option("FILE.txt")] = None
    """write a cleaned list of the files, one a line: without unreadable ones, duplicates and single colours"""
    num: Annotated[int | None, option("N")] = None
    """scan only this many images, evenly spaced; all by default"""
    preset: Annotated[str | None, option("NAME")] = None
    """the preset to train with; the recommended one by default"""
    force: Force = False
    json: Flag = False
    """print one JSON object instead of text"""
    overrides: Overrides = ()

    def perform(self) -> int:
        """Scan and report."""
        from sfumato.config.presets import resolve
        from sfumato.data import open_source
        from sfumato.inspect import advise, check
        from sfumato.inspect.render import as_text
        from sfumato.inspect.report import listable

        if self.num is not None and self.num < 1:
            raise UserError(f"--num is {self.num}: scan at least 1 image")
        config = resolve(self.preset, overrides={"data.source": self.source, **dict(self.overrides)}).data
        source = open_source(config.source)
        self._check_outputs(source.name)
        if self.fix is not None:
            listable(source, self.num)
        if "data.flip" not in dict(self.overrides):  # a preset's mirroring waits for the mirror test, as in training
            config = replace(config, flip=False)
        report = check(source, config, self.num, progress("scanning images"))
        advice = advise(report, self.preset)
        written = self._write(report, advice)
        if self.json:
            table = {"advice": [vars(item) for item in advice], "written": {k: str(path) for k, path in written}}
            print_json(report.table() | table)
        else:
            say(as_text(report, advice, page=self.out is not None))
            if written:
                say("\n" + facts([(name, str(path)) for name, path in written]))
        return 0 if len(report.records) else 2

    def _check_outputs(self, name: str) -> None:
        """Refuse paths where writing could overwrite an original, before the scan."""
        for flag, path, suffix in (("--out", self.out, ".html"), ("--fix", self.fix, ".txt")):
            if path is None:
                continue
            check_file(path, self.force, (suffix,), flag)
            if Path(self.source).is_dir() and path.resolve().is_relative_to(Path(self.source).resolve()):
                raise UserError(f"{flag} {path} is inside {name}, which is never written to: choose another folder")

    def _write(self, report: Report, advice: list[Advice]) -> list[tuple[str, Path]]:
        """Write the requested files and return their kinds and paths."""
        from sfumato.files import write_atomic
        from sfumato.inspect.render import as_html
        from sfumato.inspect.report import cleaned

        written = []
        if self.fix is not None:
            write_atomic(self.fix, b"".join(os.fsencode(path) + b"\n" for path in cleaned(report)))
            written.append(("list", self.fix))
        if self.out is not None:
            write_atomic(self.out, as_html(report, advice))
            written.append(("page", self.out))
        return written


VERB = Check
