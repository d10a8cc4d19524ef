"""`sfumato data check`: look at a collection before an hour is spent on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import facts, print_json, progress
from sfumato.cli.options import Flag, Overrides, option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from sfumato.inspect import Advice, Report

__all__ = ["VERB", "Check"]


@dataclass(frozen=True)
class Check:
    """Look at every image of a collection once, and say what is in it and what to do about it.

    Unreadable and suspicious files with their reasons, sizes, formats, brightness, exact and near copies, odd images,
    the balance of labels; then advice: resolution, preset, memorisation, flips, cropping. The originals are never
    touched, and nothing is written but the files asked for.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato data check ~/photos",
        "sfumato data check ~/photos --out photos.html --fix photos.txt",
        "sfumato data check ~/photos --num 10000 --data.size 64,64 --json",
    )

    source: Annotated[str, Positional, option("NAME|PATH")]
    """a built-in name, or whatever else can be trained on, such as a folder of images"""
    out: Annotated[Path | None, option("FILE.html")] = None
    """write a page with contact sheets: typical, odd and copied images"""
    fix: Annotated[Path | None, option("FILE.txt")] = None
    """write a cleaned list of the files, one a line: without unreadable ones, copies and single colours"""
    num: Annotated[int | None, option("N")] = None
    """look at so many images, spread evenly; at all of them by default"""
    preset: Annotated[str | None, option("NAME")] = None
    """the settings that you mean to train with; recommended by default"""
    json: Flag = False
    """print one JSON object instead of text"""
    overrides: Overrides = ()

    def perform(self) -> int:
        """Look and say."""
        from sfumato.config.presets import resolve
        from sfumato.data import open_source
        from sfumato.inspect import advise, survey
        from sfumato.inspect.cleaned import listable

        if self.num is not None and self.num < 1:
            raise UserError(f"--num is {self.num}: look at one image at least")
        config = resolve(self.preset, overrides={"data.source": self.source, **dict(self.overrides)}).data
        source = open_source(config.source, config.background)
        self._writable(source.name)
        if self.fix is not None:
            listable(source, self.num)
        report = survey(source, config, self.num, progress("looking at images"))
        advice = advise(report, self.preset)
        written = self._write(report, advice)
        if self.json:
            said = [vars(item) for item in advice]
            print_json(report.table() | {"advice": said, "written": {name: str(path) for name, path in written}})
        else:
            from sfumato.inspect.words import summary

            print(summary(report, advice))
            if written:
                print("\n" + facts([(name, str(path)) for name, path in written]))
        return 0

    def _writable(self, name: str) -> None:
        """Refuse places where writing could cost an original, before anything is looked at."""
        for flag, path, suffix in (("--out", self.out, ".html"), ("--fix", self.fix, ".txt")):
            if path is None:
                continue
            if path.suffix.lower() != suffix:
                raise UserError(f"{flag} {path}: the name must end in {suffix}")
            if Path(self.source).is_dir() and path.resolve().is_relative_to(Path(self.source).resolve()):
                raise UserError(f"{flag} {path} lies inside {name}, which is only looked at: choose another place")

    def _write(self, report: Report, advice: list[Advice]) -> list[tuple[str, Path]]:
        """Write the files that were asked for and return what they are."""
        from sfumato.files import write_atomic
        from sfumato.inspect.cleaned import cleaned
        from sfumato.inspect.page import page

        written = []
        if self.fix is not None:
            write_atomic(self.fix, b"".join(os.fsencode(path) + b"\n" for path in cleaned(report)))
            written.append(("list", self.fix))
        if self.out is not None:
            write_atomic(self.out, page(report, advice))
            written.append(("page", self.out))
        return written


VERB = Check
