"""Evaluating a model: each result is a file with its figures and its settings.

    FOLDER/bits-KEY.json  quality-KEY.json  memorisation-KEY.json     results; KEY is a hash of their settings
    FOLDER/memorisation-KEY.png                                       generated images above the nearest training images
    FOLDER/parts/                                                     intermediate results of generating and scoring

A result is a function of its settings: the weights and the images, by their hashes, the seed, the numbers, the sampler,
the extractor. For the same settings the file is read. All long work is done in jobs, by any number of processes; the
first process combines their results and writes the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.errors import UserError
from sfumato.evaluate.features import Extractor, open_extractor
from sfumato.evaluate.jobs import Progress, Stage, silent
from sfumato.evaluate.measurement import FEWEST, Measurement, quality, verdict
from sfumato.evaluate.memorisation import contact_sheet, find_memorised
from sfumato.evaluate.settings import KINDS, Settings
from sfumato.evaluate.stages import Stages, key
from sfumato.evaluate.target import Target
from sfumato.evaluate.verdict import VERSION, Verdict
from sfumato.files import write_atomic
from sfumato.generate.writers import save_png
from sfumato.run.folder import environment

Report = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of one model.

    Attributes:
        target: the model and its images.
        settings: what to measure, and how.
        folder: for the results.
        batch: images at a time; it changes no result.
        first: whether this process writes the results; others only run jobs.
        progress: called with what is being done; returns what is called with (done, total).
    """

    target: Target
    settings: Settings
    folder: Path
    batch: int = 64
    first: bool = True
    progress: Callable[[str], Progress] = silent

    @cached_property
    def stages(self) -> Stages:
        """The jobs."""
        return Stages(self.target, self.settings, self.folder / "parts", self.batch, self.progress)

    @cached_property
    def extractor(self) -> Extractor:
        """The feature extractor that the settings name, or the best that needs no file."""
        data, device = self.target.data, str(self.target.model.device)
        return open_extractor(self.settings.extractor, data.shape, device, data.format)

    def needed(self, kinds: Sequence[str] = KINDS) -> list[Stage]:
        """Return the stages to run for those kinds whose results are not stored yet; raises `UserError` for settings
        that do not fit the model or its images, or an extractor that can't be opened."""
        missing = [kind for kind in kinds if self.stored(kind) is None]
        if "quality" in missing and self.settings.num_generated < FEWEST:
            raise UserError(f"num is {self.settings.num_generated}: quality needs at least {FEWEST} generated images")
        if "memorisation" in missing:
            self.target.held_out(1)
        return self.stages.needed(sample=bool({"quality", "memorisation"} & set(missing)), score="bits" in missing)

    def forecast(self, kinds: Sequence[str] = KINDS) -> tuple[int, float]:
        """Return the number of network evaluations left, and an estimate of their seconds."""
        left = sum(stage.left for stage in self.needed(kinds))
        return left, left * self.stages.seconds() if left else 0.0

    def perform(self, kinds: Sequence[str] = KINDS) -> dict[str, Report]:
        """Measure, and return the contents of each file of results, with its path as `file`; {} where not `first`.
        Raises `UserError` as `needed`, and OSError where the folder can't be written."""
        for stage in self.needed(kinds):
            stage.run(self.progress)
        return {kind: self.stored(kind) or self._measure(kind) for kind in kinds} if self.first else {}

    def stored(self, kind: str) -> Report | None:
        """Return a result that was measured before with the same settings, or None."""
        file = self._file(kind)
        try:
            report = json.loads(file.read_bytes())
        except (OSError, ValueError):  # missing, or damaged
            return None
        same = isinstance(report, dict) and report.get("settings") == self.described(kind)
        return {"compared_with": self.target.data.unlabelled, **report, "file": str(file)} if same else None

    def described(self, kind: str) -> dict[str, Any]:
        """Return the settings that determine a result, as JSON has them."""
        if kind == "bits":
            return {"num": len(self.target.held_out(self.settings.num_scored)), **self.stages.scoring}
        extractor = {name: getattr(self.extractor, name) for name in ("name", "sha256", "recipe")}
        real = {"real": self.settings.real, "verdict": VERSION} if kind == "quality" else {}
        images = {"data": self.target.data.fingerprint, **real, "extractor": extractor}
        return {"num": self.settings.num_generated, **self.stages.sampling, **images}

    def _file(self, kind: str, suffix: str = "json") -> Path:
        return self.folder / f"{kind}-{key(self.described(kind))}.{suffix}"

    def _measure(self, kind: str) -> Report:
        """Combine the results of the jobs, write the result and return it."""
        measure = {"bits": self._bits, "quality": self._quality, "memorisation": self._memorisation}
        result, notes = measure[kind]()
        model, data = self.target.model, self.target.data
        if not self.target.own:
            notes.insert(0, f"{data.source_name} was given as the data and may not be the model's training images")
        report = {
            "kind": kind,
            "weights": str(model.path),
            "images": data.source_name,
            "compared_with": data.unlabelled,
            "settings": self.described(kind),
            "result": result,
            "notes": notes,
            "environment": environment(str(model.device)),
        }
        write_atomic(self._file(kind), json.dumps(plain(report), indent=2, allow_nan=False) + "\n")
        written = self.stored(kind)
        assert written is not None, f"{self._file(kind)} can't be read back"
        return written

    def _bits(self) -> tuple[Report, list[str]]:
        bits, format, num = self.stages.bits(), self.target.data.format, self.settings.num
        notes = _format_notes(format)
        if num is not None and bits.images < num:
            notes.append(f"all {bits.images:,} held-out images were scored; {num:,} were requested")
        if self.target.conditional:
            notes.append("each image was scored given its own labels")
        how = {"kind": self.settings.method, "steps": self.stages.scoring.get("steps", 0), "levels": format.levels}
        return {**how, **bits.to_dict()}, notes

    def _quality(self) -> tuple[Report, list[str]]:
        data, images, extractor, settings = self.target.data, self.stages.images(), self.extractor, self.settings
        measured = quality(data, images, extractor, settings.real, seed=settings.seed, progress=self.progress)
        judged = verdict(data, images, settings.real, progress=self.progress)
        return described(settings.real, measured, judged), notes_on(measured, extractor, data.format)

    def _memorisation(self) -> tuple[Report, list[str]]:
        images, data = self.stages.images(), self.target.data
        memorisation = find_memorised(data, images, self.extractor)
        sheet, text = contact_sheet(data, images, memorisation), {"found": memorisation.sentence}
        file = save_png(sheet, self._file("memorisation", "png"), text)
        notes = ["the model was trained on mirrored images too; mirrored copies are not looked for"]
        return {**memorisation.to_dict(), "contact_sheet": file.name}, notes if data.config.flip else []


def described(split: str, measured: Sequence[Measurement], judged: Verdict | None) -> Report:
    """Return the result of a measurement of quality, as JSON has it."""
    table = None if judged is None else judged.to_dict()
    return {"split": split, "verdict": table, "measures": [measurement.to_dict() for measurement in measured]}


def notes_on(measured: Sequence[Measurement], extractor: Extractor, format: PixelFormat) -> list[str]:
    """Return what the reader must know of measurements by an extractor, of one of them or of all."""
    notes = list(dict.fromkeys(note for measurement in measured for note in measurement.notes))
    if extractor.format != format:
        notes.append(f"the images are {format.words}; for {extractor.name} they were converted to 8 bits")
    return notes


def _format_notes(format: PixelFormat) -> list[str]:
    """Notes on bits of other formats than 8 bits."""
    if format == EIGHT:
        return []
    if format.levels is not None:
        return [f"the values have {format.levels:,} levels: these figures can't be compared with those of 8-bit images"]
    return [
        "floats have no 256-bin likelihood: this is -log2 of the density, in the data's own units "
        f"({format.low:.5g} to {format.high:.5g}); it may be negative, and figures of other units or of integers can't "
        "be compared with it"
    ]


def plain(value: Any) -> Any:
    """Return values as JSON has them: what is not finite is null."""
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
