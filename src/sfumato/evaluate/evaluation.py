"""Measuring a model: what comes out is a file that says how it was come by.

    FOLDER/bits-KEY.json  quality-KEY.json  memorisation-KEY.json     results; KEY is a hash of all that decides them
    FOLDER/memorisation-KEY.png                                       drawn images above the nearest of training
    FOLDER/parts/                                                     what has been drawn and scored so far (`work`)

A result is a function of its settings: the weights and the images, by their hashes, the seed, the numbers, the sampler,
the extractor. The same settings are answered from the file, others make another. All that takes long is made in parts,
by any number of processes; one of them, the first, puts the parts together and writes the results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.evaluate.bits import Bits, Estimate
from sfumato.evaluate.cache import real_features, split_rows
from sfumato.evaluate.features import Extractor, extract, fitting, open_extractor
from sfumato.evaluate.measure import DEFAULT, compare
from sfumato.evaluate.memorisation import contact_sheet, find_memorised
from sfumato.evaluate.settings import KINDS, Settings
from sfumato.evaluate.subject import Subject
from sfumato.evaluate.work import Stage, Work, key
from sfumato.files import write_atomic
from sfumato.generate.writers import save_png
from sfumato.run.folder import environment

__all__ = ["Evaluation", "results"]

Report = dict[str, Any]


def silent(what: str) -> Callable[[int, int], None]:
    """Report nothing of what is being done."""
    return lambda done, total: None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of one model.

    Attributes:
        subject: the model and its images.
        settings: what is asked.
        folder: for the results.
        batch: images at a time; it changes no result.
        first: whether this process writes the results; others only help with the parts.
        progress: given what is being done, returns who is told how far it is.
    """

    subject: Subject
    settings: Settings
    folder: Path
    batch: int = 64
    first: bool = True
    progress: Callable[[str], Callable[[int, int], None]] = silent

    @cached_property
    def work(self) -> Work:
        """The parts."""
        return Work(self.subject, self.settings, self.folder / "parts", self.batch, self.progress)

    @cached_property
    def extractor(self) -> Extractor:
        """The feature extractor that is asked for, or the most telling that needs no file."""
        shape, depth = self.subject.model.shape, self.subject.data.depth
        name = self.settings.extractor or fitting(shape, depth)[0]
        return open_extractor(name, shape, str(self.subject.device), depth)

    def stages(self, kinds: Sequence[str] = KINDS) -> list[Stage]:
        """Return the parts that are wanted for what is not known yet; whatever can't be measured is found out here.

        Args:
            kinds: out of `KINDS`.

        Raises:
            UserError: settings that the model or its images can't meet, or an extractor that can't be opened.
        """
        unknown = [kind for kind in kinds if self.known(kind) is None]
        if "memorisation" in unknown:
            self.subject.held_out(1)
        return self.work.stages(draw=bool({"quality", "memorisation"} & set(unknown)), score="bits" in unknown)

    def forecast(self, kinds: Sequence[str] = KINDS) -> tuple[int, float]:
        """Return how many evaluations of the network are to be made, and about how many seconds they will take.

        Args and raises: as `stages`.
        """
        left = sum(stage.left for stage in self.stages(kinds))
        return left, left * self.work.seconds() if left else 0.0

    def perform(self, kinds: Sequence[str] = KINDS) -> dict[str, Report]:
        """Measure, and return what each file of results holds, with its path as `file`; nothing where not `first`.

        Args and raises: as `stages`, and OSError where the folder can't be written.
        """
        for stage in self.stages(kinds):
            stage.share(self.progress)
        return {kind: self.known(kind) or self._measure(kind) for kind in kinds} if self.first else {}

    def known(self, kind: str) -> Report | None:
        """Return a result that was found before with the same settings, or None."""
        file, settings = self._file(kind), self.described(kind)
        try:
            report = json.loads(file.read_bytes())
        except (OSError, ValueError):
            return None
        same = isinstance(report, dict) and report.get("settings") == settings
        return {**report, "file": str(file)} if same else None

    def described(self, kind: str) -> dict[str, Any]:
        """Return all that decides a result, as JSON has it."""
        data = self.subject.data
        if kind == "bits":
            return {"num": len(self.subject.held_out(self.settings.scored)), **self.work.scoring}
        extractor = {name: getattr(self.extractor, name) for name in ("name", "sha256", "recipe")}
        real = {"real": self.settings.real} if kind == "quality" else {}
        images = {"data": data.fingerprint, **real, "extractor": extractor}
        return {"num": self.settings.drawn, **self.work.drawing, **images}

    def _file(self, kind: str, suffix: str = "json") -> Path:
        return self.folder / f"{kind}-{key(self.described(kind))}.{suffix}"

    def _measure(self, kind: str) -> Report:
        """Put the parts together, write the result and return it."""
        measure: dict[str, Callable[[], tuple[Any, list[str]]]] = {
            "bits": self._bits,
            "quality": self._quality,
            "memorisation": self._memorisation,
        }
        result, notes = measure[kind]()
        model, data = self.subject.model, self.subject.data
        if not self.subject.own:
            notes.insert(0, f"the images are {data.source_name}, as asked, and may not be what the model learnt from")
        report = {
            "kind": kind,
            "weights": str(model.path),
            "images": data.source_name,
            "settings": self.described(kind),
            "result": result,
            "notes": notes,
            "environment": environment(str(self.subject.device)),
        }
        write_atomic(self._file(kind), json.dumps(_plain(report), indent=2, allow_nan=False) + "\n")
        found = self.known(kind)
        assert found is not None, f"{self._file(kind)} can't be read back"
        return found

    def _bits(self) -> tuple[Report, list[str]]:
        bits, depth = self.work.bits(), self.subject.data.depth
        notes = _depth_notes(depth)
        if self.settings.num is not None and bits.images < self.settings.num:
            notes.append(f"all {bits.images:,} held-out images were scored; {self.settings.num:,} were asked for")
        if self.subject.conditional:
            notes.append("each image was scored given its own labels")
        return {**bits_report(bits), "levels": depth.levels}, notes

    def _quality(self) -> tuple[Report, list[str]]:
        images, extractor, real = self.work.images(), self.extractor, self.settings.real
        report, num = self.progress("features of real images"), min(2 * len(images), self._real_count)
        theirs = real_features(self.subject.data, extractor, real, num, on_progress=lambda done: report(done, num))
        report = self.progress("features of drawn images")
        batches = torch.split(images, self.batch)
        depth = self.subject.data.depth
        ours = extract(extractor, batches, on_progress=lambda done: report(done, len(images)), depth=depth)
        measures = DEFAULT if min(len(images), num) >= extractor.dim else ("frechet-shrunk", *DEFAULT)
        found = compare(theirs, ours, extractor, measures, self.settings.seed)
        # a note is of one measure, or of all
        notes = list(dict.fromkeys(note for measure in found for note in measure.notes))
        if getattr(extractor, "depth", EIGHT) != depth:
            notes.append(f"the images are {depth.words}; {extractor.name} saw them rendered in 8 bits")
        return {"split": real, "measures": [measure.to_dict() for measure in found]}, notes

    @property
    def _real_count(self) -> int:
        return len(split_rows(self.subject.data, self.settings.real))

    def _memorisation(self) -> tuple[Report, list[str]]:
        images, data = self.work.images(), self.subject.data
        found = find_memorised(data, images, self.extractor)
        sheet = contact_sheet(data, images, found)
        file = save_png(sheet, self._file("memorisation", "png"), {"found": found.sentence})
        notes = []
        if data.config.flip:
            notes.append("the model saw training images mirrored too; mirrored copies are not looked for")
        return {**found.to_dict(), "contact_sheet": file.name}, notes


def _depth_notes(depth: PixelFormat) -> list[str]:
    """What to know of bits that are not of bytes."""
    if depth == EIGHT:
        return []
    if depth.levels is not None:
        return [f"of {depth.levels:,} levels, not of 256: no figure for 8-bit images can be compared with these"]
    return [
        f"floats have no 256-bin likelihood: this is -log2 of the density, in the data's own units ({depth.low:.5g} to "
        f"{depth.high:.5g}); it may be negative, and figures of other units or of integers can't be compared with it"
    ]


def bits_report(bits: Bits) -> Report:
    """Return bits as plain values, with the interval of each figure and the curve that an image's bits follow."""

    def figure(estimate: Estimate | None) -> Report | None:
        if estimate is None:
            return None
        low, high = estimate.mean - estimate.half_width, estimate.mean + estimate.half_width
        return {**asdict(estimate), "low": low, "high": high}

    report: Report = {name: getattr(bits, name) for name in ("kind", "images", "repeats", "steps")}
    report |= {name: figure(getattr(bits, name)) for name in ("total", "prior", "rate", "distortion")}
    report["curve"] = [{"t": t, "bits": cost, "rmse": rmse} for t, cost, rmse in bits.curve]
    if bits.kind == "vlb":
        report["progressive"] = [{"bits": cost, "rmse": rmse} for cost, rmse in bits.progressive]
    return report


def results(folder: Path, kind: str) -> list[Report]:
    """Return the results of a kind that a folder holds, the oldest first; damaged files are passed over."""
    assert kind in KINDS, kind
    found = []
    for file in folder.glob(f"{kind}-*.json"):
        try:
            report = json.loads(file.read_bytes())
            found.append((str(report["environment"]["written"]), {**report, "file": str(file)}))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [report for _, report in sorted(found, key=lambda pair: (pair[0], pair[1]["file"]))]


def _plain(value: Any) -> Any:
    """Return values as JSON has them: what is not finite is null."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
