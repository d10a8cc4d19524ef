"""The report on a collection: its records, duplicates and outliers, and the figures that text, JSON and page show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.config.data import DataConfig
from sfumato.data.sources.protocol import Source, encoded, folder_of, printable
from sfumato.data.store.build import SIDES, choose_size
from sfumato.errors import UserError
from sfumato.inspect.duplicates import Duplicates, find_duplicates
from sfumato.inspect.outliers import Mirror, Outliers, evenly, luma, mirror_test, outliers
from sfumato.inspect.scan import Conditions, Records, scan

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FLAT = 3.0
"""Standard deviation of the luma, in grey levels, below which an image has almost no contrast."""


@dataclass(frozen=True, eq=False)
class Report:
    """The results of a scan. A row is an index into `records`.

    Attributes:
        config: how training would read the images.
        total: how many images there are.
        records: (N,) of the readable images that were scanned; `conditions` (N, A) are theirs.
        faults: (index, reason) of the unreadable images.
    """

    source: Source
    config: DataConfig
    total: int
    records: Records
    conditions: Conditions
    faults: list[tuple[int, str]]
    duplicates: Duplicates
    outliers: Outliers
    mirror: Mirror

    @property
    def scanned(self) -> int:
        """How many images were scanned; fewer than all for a sample."""
        return len(self.records) + len(self.faults)

    @property
    def distinct(self) -> int:
        """How many images are left without exact and near duplicates."""
        return len(self.records) - len(self.duplicates.spare)

    @cached_property
    def size(self) -> tuple[tuple[int, int], str]:
        """(height, width) that training would use, and why."""
        if self.config.size is not None:
            height, width = self.config.size
            return (height, width), f"size {height}x{width}, as configured"
        if not len(self.records):
            return (SIDES[-1], SIDES[-1]), "no image was readable, so this is the default"
        return choose_size(list(zip(self.records["height"].tolist(), self.records["width"].tolist(), strict=True)))

    @property
    def channels(self) -> int:
        """The channels that training would use: as configured, else 1 where no image has colour, else 3."""
        return self.config.channels or (1 if self.records["grey"].all() else 3)

    def origin(self, row: int) -> str:
        """Where an image comes from, in printable characters."""
        return printable(self.source.origin(int(self.records["index"][row])))

    @cached_property
    def suspicious(self) -> list[tuple[int, str]]:
        """(row, reason) of images that can be read and are probably unwanted, in order."""
        r = self.records
        height, width = r["height"], r["width"]
        tests = (
            (r["constant"], "a single colour"),
            (~r["constant"] & (r["contrast"] < FLAT), "almost no contrast: {contrast:.1f} levels"),
            (np.minimum(height, width) < 8, "tiny: {width}x{height}"),
            (np.maximum(width / height, height / width) > 4, "a strip: {width}x{height}"),
            (r["cut_short"], "an edge has the grey that fills a JPEG whose data ended early: perhaps truncated"),
            (r["misnamed"], "the suffix is of another format: it is {format}"),
            (r["animated"], "several frames or pages: only the first is used"),
        )
        rows = list[tuple[int, str]]()
        for mask, words in tests:
            for row in np.flatnonzero(mask).tolist():
                facts = {name: r[name][row] for name in ("width", "height", "contrast")}
                rows.append((row, words.format(**facts, format=bytes(r["format"][row]).decode())))
        return sorted(rows, key=lambda item: item[0])

    @property
    def lost_to_crop(self) -> NDArray[np.float64]:
        """(N,): the fraction of each image's pixels that a centred crop to the training proportions leaves out."""
        (height, width), _ = self.size
        ratio = self.records["width"] / self.records["height"] * height / width
        return np.asarray(1 - np.minimum(ratio, 1 / ratio))

    @property
    def enlarged(self) -> int:
        """How many images are smaller than the training size."""
        (height, width), _ = self.size
        return int(((self.records["height"] < height) | (self.records["width"] < width)).sum())

    def counts(self, a: int) -> dict[str, int]:
        """How many images have each value of attribute a, and how many none; {} for a number."""
        values, column = self.source.attributes[a].values, self.conditions[:, a]
        absent = np.isnan(column)
        occurrences = np.bincount(column[~absent].astype(int), minlength=len(values)).tolist() if values else []
        counts = dict(zip(values, occurrences, strict=True))
        return counts | ({"(not given)": int(absent.sum())} if values and absent.any() else {})

    def across_split(self) -> float:
        """How many groups of near duplicates are expected to be on both sides of the split.

        With the held-out fraction h, all n near duplicates train with probability (1 - h)^n and all are held out with
        h^n.
        """
        h = self.config.held_out
        return float(sum(1 - h ** len(group) - (1 - h) ** len(group) for group in self.duplicates.near))

    def table(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        r, duplicates, mirror = self.records, self.duplicates, self.mirror
        (height, width), why = self.size
        return {
            "source": self.source.name,
            "total": self.total,
            "looked_at": self.scanned,
            "readable": len(r),
            "unreadable": [{"file": self.source.origin(i), "reason": reason} for i, reason in self.faults],
            "suspicious": [{"file": self.origin(row), "reason": reason} for row, reason in self.suspicious],
            "formats": _tally(r["format"]),
            "modes": _tally(r["mode"]),
            "bits": {str(k): v for k, v in Counter(r["bits"][r["bits"] > 0].tolist()).most_common()},
            "with_alpha": int(r["alpha"].sum()),
            "animated": int(r["animated"].sum()),
            "grey": int(r["grey"].sum()),
            "sizes": dict(Counter(f"{w}x{h}" for h, w in zip(r["height"], r["width"], strict=True)).most_common(12)),
            "num_sizes": len(np.unique(np.stack([r["height"], r["width"]]), axis=1).T),
            "quantiles": {
                "at": list(QUANTILES),
                "shorter_side": _quantiles(np.minimum(r["height"], r["width"])),
                "aspect": _quantiles(r["width"] / r["height"]),
                "brightness": _quantiles(luma(r["mean"])),
                "contrast": _quantiles(r["contrast"]),
            },
            "mean_colour": r["mean"].mean(0).round(1).tolist() if len(r) else None,
            "training": {
                "size": [height, width],
                "why": why,
                "channels": self.channels,
                "enlarged": self.enlarged,
                "lost_to_crop": round(float(self.lost_to_crop.sum()) / max(1, len(r)), 4),
            },
            "attributes": {x.name: self.counts(a) or "a number" for a, x in enumerate(self.source.attributes)},
            "exact_copies": [[self.origin(row) for row in group] for group in duplicates.exact],
            "near_copies": [[self.origin(row) for row in group] for group in duplicates.near],
            "mirrored_copies": [[self.origin(row) for row in pair] for pair in duplicates.mirrored],
            "copies_exhaustive": duplicates.exhaustive,
            "distinct": self.distinct,
            "odd": [
                {"file": self.origin(i), "why": self.outliers.reason(i), "z": round(float(self.outliers.score[i]), 1)}
                for i in self.outliers.far()[:200]
            ],
            "mirror": {
                "verdict": mirror.verdict,
                "num": mirror.num,
                "share": round(mirror.fraction, 3),
                "farther": round(mirror.farther, 3),
                "symmetric": round(mirror.symmetric, 3),
            },
        }


def check(
    source: Source,
    config: DataConfig,
    num: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Report:
    """Scan a collection, or `num` of its images spread evenly, find its duplicates and outliers, and report.

    `config` says how training would read it; `on_progress` and `workers` are as in `scan`.
    """
    total = len(source)
    records, conditions, faults = scan(
        source, np.unique(evenly(total, num or total)), on_progress, workers, config.background
    )
    duplicates = find_duplicates(records)
    alone = np.setdiff1d(np.arange(len(records)), list(duplicates.spare))
    alone = alone[~records["constant"][alone]]
    mirror = mirror_test(records[alone])
    return Report(source, config, total, records, conditions, faults, duplicates, outliers(records), mirror)


def listable(source: Source, num: int | None) -> None:
    """Raise `UserError` where `cleaned` can't list: images that are not files of a folder, or a scan of only a
    sample."""
    if folder_of(source) is None:
        raise UserError(f"--fix lists the files of a folder, and '{source.name}' is not a folder of images")
    if num is not None and num < len(source):
        raise UserError("--fix needs a scan of every image: leave out --num")


def cleaned(report: Report) -> list[Path]:
    """Return the absolute paths of the files that a model should learn from, in the collection's order.

    Unreadable files, exact and near duplicates except the first, and images of a single colour are left out; outliers
    and mirrored duplicates stay. Raises `UserError` as `listable`, or where a path has a line break.
    """
    listable(report.source, report.scanned)
    files, paths = encoded(report.source), list[Path]()
    assert files is not None
    for row in sorted(set(np.flatnonzero(~report.records["constant"]).tolist()) - report.duplicates.spare):
        file = files.file(int(report.records["index"][row]))
        assert isinstance(file, Path)
        paths.append(file)
        if len(str(file).splitlines()) > 1:
            raise UserError(f"--fix writes one path a line, and '{report.origin(row)}' has a line break: rename it")
    return paths


def _tally(column: NDArray[np.bytes_]) -> dict[str, int]:
    """How often each text occurs, the commonest first; empty ones are not counted."""
    return {text.decode(): count for text, count in Counter(column.tolist()).most_common() if text}


def _quantiles(values: NDArray[Any]) -> list[float]:
    """`QUANTILES` of values."""
    return [round(float(v), 3) for v in np.quantile(values, QUANTILES)] if len(values) else []
