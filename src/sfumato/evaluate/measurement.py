"""Measured numbers with everything that makes them comparable.

A distance between finite sets of equal distributions is not 0, and depends on the number of images, the extractor, and
how it resized the images. So a `Measurement` carries all of that, an interval, and a baseline: the same metric between
two disjoint halves of real data, each of as many images as were generated (or as many as there are). A model can't do
better than its baseline except by chance; a distance is read as "so many times the baseline".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.errors import UserError, nearest
from sfumato.evaluate.cache import check_shape, real_features, split_rows
from sfumato.evaluate.features import Extractor, extract, open_extractor
from sfumato.evaluate.jobs import Progress, silent
from sfumato.evaluate.metrics.registry import EQUAL, METRICS, usual
from sfumato.evaluate.verdict import MOST, Verdict, judge

FEWEST = 6
"""The fewest real images in each half of a baseline."""


@dataclass(frozen=True)
class Measurement:
    """One number and what it depends on.

    Attributes:
        value: the number.
        low, high: its 95 % bootstrap interval; None where the metric has none.
        error: its standard error; None likewise.
        baseline: the same between two disjoint halves of the real images; None where there are too few.
        baseline_num: images in each half.
        num_real, num_generated: images compared.
        extractor, extractor_sha256, recipe: as in `Extractor`.
        notes: on the number, in sentences.
        better: `lower` or `higher`; empty where neither is.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    error: float | None
    baseline: float | None
    baseline_num: int
    num_real: int
    num_generated: int
    extractor: str
    extractor_sha256: str
    recipe: str
    notes: tuple[str, ...] = ()
    better: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them; files of results call the baseline `floor`."""
        table = {**asdict(self), "notes": list(self.notes)}
        return {name.replace("baseline", "floor"): value for name, value in table.items()}


def compare(
    real: Tensor,
    generated: Tensor,
    extractor: Extractor,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    whole: bool = False,
) -> tuple[Measurement, ...]:
    """Compare features of generated images (M, D) with those of real ones (N, D), both of one extractor.

    Args:
        real: in random order, ideally 2 M: the first M are compared with the generated ones, and the baseline is the
            first against the second M. With `whole` all of both are compared, except by metrics in `EQUAL`.
        metrics: names out of `METRICS`; None is all that are suitable for this number of images.
        seed: of the bootstrap and of random metrics.

    Raises:
        UserError: too few images, features that are not finite or not the extractor's, or no such metric.
    """
    if unknown := [name for name in metrics or () if name not in METRICS]:
        raise UserError(f"there is no metric '{unknown[0]}'{nearest(unknown[0], METRICS)}")
    for features in (real, generated):
        if features.ndim != 2 or features.shape[1] != extractor.dim:
            raise UserError(
                f"features of shape {tuple(features.shape)}, but {extractor.name} makes {extractor.dim} numbers an "
                "image: use the features of this extractor"
            )
    alike, half = min(len(real), len(generated)), min(len(generated), len(real) // 2)
    half = half if half >= FEWEST else 0
    metrics = usual(alike, extractor.dim) if metrics is None else metrics
    measured: list[Measurement] = []
    for chosen in metrics:
        metric, equal = METRICS[chosen], chosen in EQUAL
        ours = real if whole and not equal else real[: len(generated)]
        theirs = generated[:alike] if whole and equal else generated
        baselines = metric(real[:half], real[half : 2 * half], seed) if half else {}
        for name, result in metric(ours, theirs, seed).items():
            low, high, error = result.interval(seed) or (None, None, None)
            measured.append(
                Measurement(
                    name, result.value, low, high, error,
                    baselines[name].value if half else None, half,
                    len(ours), len(theirs), extractor.name, extractor.sha256, extractor.recipe,
                    tuple(filter(None, (extractor.blind, result.note, _baseline_note(len(ours), len(theirs), half)))),
                    result.better,
                )
            )  # fmt: skip
    return tuple(measured)


def quality(
    data: Dataset,
    generated: Tensor | Dataset,
    extractor: Extractor,
    split: str = "train",
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[str], Progress] = silent,
    num: int | None = None,
) -> tuple[Measurement, ...]:
    """Compare generated images (N, C, H, W), stored values, with a data set's own, as `compare`; or those of another
    data set, all with all, or `num` of each.

    Args:
        generated: a data set must be of the same shape and format.
        split: which real images, `train` or `held_out`; their features are kept in the cache.
        cache: the cache folder; None is the default one.
        progress: called with what is being done; returns what is called with (done, total).
        num: how many images to compare of another data set; None is all.
    """
    count = len(generated.train) if isinstance(generated, Dataset) else len(generated)
    whole = isinstance(generated, Dataset) and num is None
    num_real = None if whole else 2 * min(count, num or count)
    real, ours = _features(data, generated, extractor, split, num_real, num, cache, progress)
    return compare(real, ours, extractor, metrics, seed, whole)


def verdict(
    data: Dataset,
    generated: Tensor | Dataset,
    split: str = "train",
    cache: Path | None = None,
    progress: Callable[[str], Progress] = silent,
    num: int = MOST,
) -> Verdict | None:
    """Return the verdict on images, as `quality` takes them; None where there are too few."""
    extractor = open_extractor("wavelets", data.shape, format=data.format)
    return judge(*_features(data, generated, extractor, split, num, num, cache, progress), data.shape)


def _features(
    data: Dataset,
    generated: Tensor | Dataset,
    extractor: Extractor,
    split: str,
    num_real: int | None,
    num: int | None,
    cache: Path | None,
    progress: Callable[[str], Progress],
) -> tuple[Tensor, Tensor]:
    """Features of up to `num_real` real and `num` generated images, those of data sets from the cache."""

    def stored(what: str, images: Dataset, split: str, most: int | None) -> Tensor:
        total, report = len(split_rows(images, split)[:most]), progress(what)
        return real_features(images, extractor, split, total, cache, lambda done: report(done, total))

    real = stored("features of real images", data, split, num_real)
    if isinstance(generated, Dataset):
        assert (generated.shape, generated.format) == (data.shape, data.format), "two data sets of one format"
        return real, stored("features of the images", generated, "train", num)
    check_shape(data, generated)
    images, report = generated[:num], progress("features of generated images")
    return real, extract(extractor, torch.split(images, 64), lambda done: report(done, len(images)), data.format)


def _baseline_note(real: int, generated: int, half: int) -> str | None:
    """A note on the baseline, where it has fewer images than were generated."""
    if not half:
        return f"no baseline: {real:,} real images are too few to compare two halves of them"
    if half < generated:
        return (
            f"the baseline compares {half:,} with {half:,} real images, all that there are, so it is higher than one "
            f"of {generated:,} would be"
        )
    return None
