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
from sfumato.evaluate.features import Extractor, extract
from sfumato.evaluate.jobs import Progress, silent
from sfumato.evaluate.metrics.registry import METRICS, usual

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
) -> tuple[Measurement, ...]:
    """Compare features of generated images (M, D) with those of real ones (N, D), both of one extractor.

    Args:
        real: in random order, ideally 2 M: the first M are compared with the generated ones, and the baseline is the
            first against the second M.
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
    ours, half = real[: len(generated)], min(len(generated), len(real) // 2)
    half = half if half >= FEWEST else 0
    metrics = usual(min(len(ours), len(generated)), extractor.dim) if metrics is None else metrics
    measured: list[Measurement] = []
    for metric in (METRICS[name] for name in metrics):
        baselines = metric(real[:half], real[half : 2 * half], seed) if half else {}
        for name, result in metric(ours, generated, seed).items():
            low, high, error = result.interval(seed) or (None, None, None)
            measured.append(
                Measurement(
                    name, result.value, low, high, error,
                    baselines[name].value if half else None, half,
                    len(ours), len(generated), extractor.name, extractor.sha256, extractor.recipe,
                    tuple(filter(None, (result.note, _baseline_note(len(ours), len(generated), half)))),
                )
            )  # fmt: skip
    return tuple(measured)


def quality(
    data: Dataset,
    generated: Tensor,
    extractor: Extractor,
    split: str = "train",
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[str], Progress] = silent,
) -> tuple[Measurement, ...]:
    """Compare generated images (N, C, H, W), stored values, with a data set's own, as `compare`.

    Args:
        split: which real images, `train` or `held_out`; their features are kept in the cache.
        cache: the cache folder; None is the default one.
        progress: called with what is being done; returns what is called with (done, total).
    """
    check_shape(data, generated)
    num, num_real = len(generated), min(2 * len(generated), len(split_rows(data, split)))
    report = progress("features of real images")
    real = real_features(data, extractor, split, num_real, cache, lambda done: report(done, num_real))
    report_ours = progress("features of generated images")
    ours = extract(extractor, torch.split(generated, 64), lambda done: report_ours(done, num), data.format)
    return compare(real, ours, extractor, metrics, seed)


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
