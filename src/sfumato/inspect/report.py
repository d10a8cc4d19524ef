"""The report on a collection: its records, duplicates and outliers, and the figures that text, JSON and page show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.codec.format import EIGHT, PixelFormat, format_of, plain
from sfumato.config.data import DataConfig
from sfumato.data.findings import Finding, findings, inner_range, too_large
from sfumato.data.formats.values import Values
from sfumato.data.mirror import Mirror, evenly, mirror_test
from sfumato.data.sources.protocol import Source, encoded, folder_of, printable
from sfumato.data.store.percentiles import percentile_range
from sfumato.data.store.sizes import SIDES, choose_size
from sfumato.errors import UserError
from sfumato.inspect.duplicates import Duplicates, find_duplicates
from sfumato.inspect.outliers import Outliers, luma, outliers
from sfumato.inspect.scan import Conditions, Look, Records, promised_format, scan, values_of

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FLAT = 3.0
"""Standard deviation of the luma, in grey levels, below which an image has almost no contrast."""


@dataclass(frozen=True, eq=False)
class Report:
    """The results of a scan. A row is an index into `records`.

    Attributes:
        config: how training would read the images.
        total: how many images there are, other files not counted.
        records: (N,) of the readable images that were scanned; `conditions` (N, A) are theirs.
        faults: (index, reason) of the unreadable images.
        others: the same of files that are no images, by content and by name, such as lists of labels.
        format: that training would take, from the values of the scanned images.
        values: of all records together.
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
    others: list[tuple[int, str]] = field(default_factory=list)
    format: PixelFormat = EIGHT
    values: Values = Values()

    def __repr__(self) -> str:
        """The source and the counts; `render` says more."""
        return f"Report({self.source.name!r}: {self.total:,} images, {len(self.faults):,} unreadable)"

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
        """The channels that training would use: as configured, else 1 where no image has colour, 3 where one has, and
        else the images' own number."""
        first = int(self.records["channels"][0]) if len(self.records) else 3
        own = (1 if self.records["grey"].all() else 3) if first in (1, 3) else first
        return self.config.channels or own

    @cached_property
    def findings(self) -> list[Finding]:
        """What is probably wrong with the values, as training notes it."""
        resized = self.config.resample != "nearest" and any(
            bool((self.records[name] != side).any())
            for name, side in zip(("height", "width"), self.size[0], strict=True)
        )
        large = too_large(self.format)
        refused = [Finding("values", f"training refuses these images: {large}", trouble=True)] if large else []
        return refused + findings(self.values, self.format, resized)

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
            "other_files": [{"file": self.source.origin(i), "reason": reason} for i, reason in self.others],
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
                "depth": plain(self.format),
                "values": [self.values.low, self.values.high] if len(r) else None,
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
                {
                    "file": self.origin(i),
                    "why": self.outliers.reason(i),
                    "times": round(float(self.outliers.score[i]), 1),
                }
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
    skipped: Sequence[tuple[str, str]] = (),
) -> Report:
    """Scan a collection, or `num` of its images spread evenly, find its duplicates and outliers, and report.

    `config` says how training would read it; `on_progress` and `workers` are as in `scan`. `skipped` are the files that
    training left out (`Dataset.skipped`), so that those that are no images are known of the whole collection.
    """
    total = len(source)
    indices = np.unique(evenly(total, num or total))
    look = _look(source, config)
    records, conditions, faults = scan(source, indices, on_progress, workers, look)
    if (settled := _settled(records, look)) != look:
        look = settled
        records, conditions, faults = scan(source, indices, on_progress, workers, look)
    others = [(i, reason) for i, reason in faults if _is_other(source.origin(i), reason)]
    unseen = {origin: reason for origin, reason in skipped if _is_other(origin, reason)}
    if unseen and len(indices) < total:
        reasons = ((i, unseen.get(printable(source.origin(i)))) for i in range(total))
        others = sorted({*others, *((i, reason) for i, reason in reasons if reason is not None)})
    records, conditions, misfits = _of_one_width(records, conditions)
    faults = sorted([*(fault for fault in faults if fault not in others), *misfits])
    values = values_of(records)
    duplicates = find_duplicates(records)
    alone = np.setdiff1d(np.arange(len(records)), list(duplicates.spare))
    alone = alone[~records["constant"][alone]]
    mirror, far = mirror_test(records["thumb"][alone]), outliers(records)
    total -= len(others)
    kind = records["kind"][0].decode() if len(records) else "8"
    format = format_of(kind, *(look.range or (0.0, 1.0)))
    return Report(source, config, total, records, conditions, faults, duplicates, far, mirror, others, format, values)


def _look(source: Source, config: DataConfig) -> Look:
    """How training would read the pixels, as far as the configuration says it."""
    range = config.range if config.percentiles is None else percentile_range(source, config)
    return Look(config.background, config.kind, config.hole, config.channels, range, config.clamps)


def _settled(records: Records, look: Look) -> Look:
    """What all images together settle: 8 bits where depths are mixed, and else the range of floats and, where the
    values use little of the range, that of the appearance."""
    kinds = set(records["kind"].tolist())
    if not kinds:
        return look
    if len(kinds) > 1:
        return replace(look, depth="8")
    values, kind = values_of(records), min(kinds).decode()
    if kind == "float" and look.range is None:
        look = replace(look, range=(values.low, values.high))
    format = format_of(kind, *(look.range or (0.0, 1.0)))
    inner = inner_range(values, format) if any(one.trouble for one in findings(values, format, False)) else None
    return replace(look, inner=inner)


def _of_one_width(records: Records, conditions: Conditions) -> tuple[Records, Conditions, list[tuple[int, str]]]:
    """Leave out images of another number of channels than the first, as training does."""
    widths, first = records["channels"], records["channels"][0] if len(records) else 0
    usual = np.isin(widths, (1, 3)) if first in (1, 3) else widths == first
    misfits = [
        (int(record["index"]), f"{record['channels']} channels, where the first picture has {first}")
        for record in records[~usual]
    ]
    return records[usual], conditions[usual], misfits


def _is_other(origin: str, reason: str) -> bool:
    """Whether a file is no image, and does not call itself one."""
    return reason.startswith("not an image") and not promised_format(origin)


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
    listable(report.source, report.scanned + len(report.others))
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
