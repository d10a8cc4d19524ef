"""What a survey found: the records, the groups, and the figures that words, JSON and the page are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data.sources.protocol import Source, printable
from sfumato.data.store.store import SIDES, choose_size
from sfumato.inspect.copies import Copies, find_copies
from sfumato.inspect.crowd import LUMA, Mirror, Oddness, mirror_test, oddness
from sfumato.inspect.gather import gather
from sfumato.inspect.look import Sights

__all__ = ["FLAT", "QUANTILES", "Report", "survey"]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FLAT = 3.0
"""Standard deviation of the luma, in grey levels, below which a picture shows next to nothing."""


@dataclass(frozen=True, eq=False)
class Report:
    """What is known of a collection.

    Attributes:
        source: the pictures.
        config: how training would read them.
        total: how many there are.
        sights: (N,) records of the readable ones that were looked at.
        faults: (index, reason) of the unreadable ones.
        copies: groups of copies, as places in `sights`.
        odd: how far each is from the others.
        mirror: whether left and right matter.
    """

    source: Source
    config: DataConfig
    total: int
    sights: Sights
    faults: list[tuple[int, str]]
    copies: Copies
    odd: Oddness
    mirror: Mirror

    @property
    def looked_at(self) -> int:
        """How many pictures were looked at; fewer than all where a sample was asked for."""
        return len(self.sights) + len(self.faults)

    @property
    def distinct(self) -> int:
        """How many pictures are left without exact and near copies."""
        return len(self.sights) - len(self.copies.spare)

    @cached_property
    def size(self) -> tuple[tuple[int, int], str]:
        """(height, width) that training would use, and why."""
        if self.config.size is not None:
            height, width = self.config.size
            return (height, width), f"size {height}x{width}, as asked"
        if not len(self.sights):
            return (SIDES[-1], SIDES[-1]), "there is no picture to choose by"
        return choose_size(list(zip(self.sights["height"].tolist(), self.sights["width"].tolist(), strict=True)))

    @property
    def channels(self) -> int:
        """1 where no picture has colour (or grey is asked for), else 3."""
        return self.config.channels or (1 if self.sights["grey"].all() else 3)

    def origin(self, place: int) -> str:
        """Where the picture of a record comes from, in printable characters."""
        return printable(self.source.origin(int(self.sights["index"][place])))

    @property
    def suspicious(self) -> list[tuple[int, str]]:
        """(place, why) of pictures that can be read and are probably not what somebody wants, in order."""
        s, found = self.sights, list[tuple[int, str]]()
        height, width = s["height"], s["width"]
        tests = (
            (s["constant"], "a single colour"),
            (~s["constant"] & (s["contrast"] < FLAT), "almost no contrast: {contrast:.1f} levels"),
            (np.minimum(height, width) < 8, "tiny: {width}x{height}"),
            (np.maximum(width / height, height / width) > 4, "a strip: {width}x{height}"),
            (s["cut_short"], "an edge is the grey that fills a JPEG whose data ended early: perhaps cut short"),
            (s["misnamed"], "its name promises another format: it is {format}"),
            (s["animated"], "animated or several pages: only the first is used"),
        )
        for mask, words in tests:
            for i in np.flatnonzero(mask).tolist():
                facts = {name: s[name][i] for name in ("width", "height", "contrast")}
                found.append((i, words.format(**facts, format=bytes(s["format"][i]).decode())))
        return sorted(found, key=lambda item: item[0])

    @property
    def lost_to_crop(self) -> NDArray[np.float64]:
        """(N,): the share of each picture's pixels that a centred cut to the training proportions leaves out."""
        (height, width), _ = self.size
        ratio = self.sights["width"] / self.sights["height"] * height / width
        lost: NDArray[np.float64] = 1 - np.minimum(ratio, 1 / ratio)
        return lost

    @property
    def enlarged(self) -> int:
        """How many pictures are smaller than the training size."""
        (height, width), _ = self.size
        return int(((self.sights["height"] < height) | (self.sights["width"] < width)).sum())

    def counts(self, a: int) -> dict[str, int]:
        """How many pictures have each value of attribute a, and how many none; {} for a number."""
        attribute: Attribute = self.source.attributes[a]
        if not attribute.values:
            return {}
        column = self.sights["condition"][:, a]
        given = np.bincount(column[~np.isnan(column)].astype(int), minlength=len(attribute.values))
        counts = dict(zip(attribute.values, given.tolist(), strict=True))
        return counts | ({"(not given)": int(np.isnan(column).sum())} if np.isnan(column).any() else {})

    def kept(self) -> list[int]:
        """The places that a cleaned list keeps: readable, not a single colour, the first of every group of copies."""
        spare = self.copies.spare
        return [place for place in range(len(self.sights)) if place not in spare and not self.sights["constant"][place]]

    def across_split(self) -> float:
        """How many groups of near copies are expected to lie on both sides of the split.

        Each picture is held out by the hash of its own pixels, so of n near copies all train with chance (1 - h)^n and
        all are held out with h^n, h the share held out.
        """
        h = self.config.held_out
        return float(sum(1 - h ** len(group) - (1 - h) ** len(group) for group in self.copies.near))

    def table(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        s = self.sights
        luma = s["mean"] @ LUMA
        (height, width), why = self.size
        return {
            "source": self.source.name,
            "total": self.total,
            "looked_at": self.looked_at,
            "readable": len(s),
            "unreadable": [{"file": self.source.origin(i), "reason": reason} for i, reason in self.faults],
            "suspicious": [{"file": self.origin(i), "reason": reason} for i, reason in self.suspicious],
            "formats": _tally(s["format"]),
            "modes": _tally(s["mode"]),
            "bits": {str(k): v for k, v in Counter(s["bits"][s["bits"] > 0].tolist()).most_common()},
            "with_alpha": int(s["alpha"].sum()),
            "animated": int(s["animated"].sum()),
            "grey": int(s["grey"].sum()),
            "sizes": dict(Counter(f"{w}x{h}" for h, w in zip(s["height"], s["width"], strict=True)).most_common(12)),
            "num_sizes": len(np.unique(np.stack([s["height"], s["width"]]), axis=1).T),
            "quantiles": {
                "at": list(QUANTILES),
                "shorter_side": _quantiles(np.minimum(s["height"], s["width"])),
                "aspect": _quantiles(s["width"] / s["height"]),
                "brightness": _quantiles(luma),
                "contrast": _quantiles(s["contrast"]),
            },
            "mean_colour": s["mean"].mean(0).round(1).tolist() if len(s) else None,
            "training": {
                "size": [height, width],
                "why": why,
                "channels": self.channels,
                "enlarged": self.enlarged,
                "lost_to_crop": round(float(self.lost_to_crop.sum()) / max(1, len(s)), 4),
            },
            "attributes": {
                attribute.name: self.counts(a) or "a number" for a, attribute in enumerate(self.source.attributes)
            },
            "exact_copies": [[self.origin(i) for i in group] for group in self.copies.exact],
            "near_copies": [[self.origin(i) for i in group] for group in self.copies.near],
            "mirrored_copies": [[self.origin(i) for i in pair] for pair in self.copies.mirrored],
            "copies_exhaustive": self.copies.exhaustive,
            "distinct": self.distinct,
            "odd": [{"file": self.origin(i), "why": self.odd.reason(i), "z": round(float(self.odd.score[i]), 1)}
                    for i in self.odd.odd(200)],
            "mirror": {"verdict": self.mirror.verdict, "num": self.mirror.num, "share": round(self.mirror.share, 3),
                       "farther": round(self.mirror.farther, 3), "symmetric": round(self.mirror.symmetric, 3)},
        }  # fmt: skip


def survey(
    source: Source,
    config: DataConfig,
    num: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Report:
    """Look at a collection.

    Args:
        source: the pictures.
        config: how training would read them: size, channels, share held out.
        num: look at so many, spread evenly; all when None.
        on_progress: called with (looked at, in all).
        workers: processes; see `gather`.
    """
    total = len(source)
    indices = np.unique(np.linspace(0, total - 1, min(total, num or total)).round().astype(np.int64))
    sights, faults = gather(source, indices, on_progress, workers)
    copies = find_copies(sights)
    alone = np.setdiff1d(np.arange(len(sights)), list(copies.spare))
    alone = alone[~sights["constant"][alone]]
    return Report(source, config, total, sights, faults, copies, oddness(sights), mirror_test(sights[alone]))


def _tally(column: NDArray[np.bytes_]) -> dict[str, int]:
    """How often each text occurs, the commonest first; empty ones are not counted."""
    return {text.decode(): count for text, count in Counter(column.tolist()).most_common() if text}


def _quantiles(values: NDArray[Any]) -> list[float]:
    """`QUANTILES` of values."""
    return [round(float(v), 3) for v in np.quantile(values, QUANTILES)] if len(values) else []
