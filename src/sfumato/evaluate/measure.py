"""Measured numbers with everything that makes them comparable.

A distance between finite sets is not 0 where nothing differs, and depends on how many images there are, which extractor
looked, and how it resized them. So a `Measure` carries all of that, an interval, and a floor: the same measure between
two disjoint halves of real data, each of as many images as were generated (or as many as there are). A model can't do
better than its floor except by chance; a distance is read as "so many times the floor".
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
from sfumato.evaluate.bootstrap import Linearised
from sfumato.evaluate.cache import check_shape, real_features
from sfumato.evaluate.features import Extractor, check_finite, extract
from sfumato.evaluate.frechet import frechet_distance, frechet_note
from sfumato.evaluate.kernel import kid
from sfumato.evaluate.neighbours import K, neighbourhoods
from sfumato.evaluate.sliced import sliced_wasserstein

__all__ = ["MEASURES", "Measure", "compare", "quality"]

Estimator = Callable[[Tensor, Tensor, int], dict[str, Linearised]]

MEASURES: dict[str, Estimator] = {
    "frechet": lambda real, generated, seed: {"frechet": frechet_distance(real, generated)},
    "frechet-shrunk": lambda real, generated, seed: {"frechet-shrunk": frechet_distance(real, generated, shrink=True)},
    "kid": lambda real, generated, seed: {"kid": kid(real, generated)},
    "neighbourhoods": lambda real, generated, seed: {**neighbourhoods(real, generated)},
    "sliced-wasserstein": lambda real, generated, seed: {
        "sliced-wasserstein": sliced_wasserstein(real, generated, seed=seed)
    },
}
"""What can be measured between two sets of features; `neighbourhoods` gives precision, recall, density and coverage."""

DEFAULT = ("frechet", "kid", "neighbourhoods", "sliced-wasserstein")


@dataclass(frozen=True)
class Measure:
    """One number and what it depends on.

    Attributes:
        name: of the measure.
        value: the number.
        low, high: its 95 % bootstrap interval.
        error: its standard error.
        floor: the same between two disjoint halves of the real images; None where there are too few.
        floor_num: images in each half.
        num_real, num_generated: images compared.
        extractor: its name.
        extractor_sha256: the hash of its weights and recipe.
        recipe: how it resizes and scales.
        notes: what to know about the number, in sentences.
    """

    name: str
    value: float
    low: float
    high: float
    error: float
    floor: float | None
    floor_num: int
    num_real: int
    num_generated: int
    extractor: str
    extractor_sha256: str
    recipe: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        return {**asdict(self), "notes": list(self.notes)}


def compare(
    real: Tensor,
    generated: Tensor,
    extractor: Extractor,
    measures: Sequence[str] = DEFAULT,
    seed: int = 0,
) -> tuple[Measure, ...]:
    """Measure generated images against real ones by their features.

    Args:
        real: (N, D) features of real images in random order, best twice as many as generated: the first M are compared
            with those generated, and the floor is the first against the second M.
        generated: (M, D) features of generated images.
        extractor: which made both.
        measures: names out of `MEASURES`.
        seed: of the bootstrap and the directions.

    Returns:
        The measures, in the order asked for.

    Raises:
        UserError: too few images, features that are not finite or not the extractor's, or no such measure.
    """
    for name in measures:
        if name not in MEASURES:
            raise UserError(f"there is no measure '{name}'{nearest(name, MEASURES)}")
    _check(real, extractor, "real")
    _check(generated, extractor, "generated")
    half = min(len(generated), len(real) // 2)
    ours = real[: len(generated)]
    found: list[Measure] = []
    for name in measures:
        floors = MEASURES[name](real[:half], real[half : 2 * half], seed) if half > K else {}
        for key, estimate in MEASURES[name](ours, generated, seed).items():
            interval = estimate.interval(seed)
            floor = floors[key].value if key in floors else None
            found.append(
                Measure(
                    key, estimate.value, interval.low, interval.high, interval.error, floor, half if floors else 0,
                    len(ours), len(generated), extractor.name, extractor.sha256, extractor.recipe,
                    _notes(key, len(ours), len(generated), half if floors else 0, extractor),
                )
            )  # fmt: skip
    return tuple(found)


def quality(
    data: Dataset,
    generated: Tensor,
    extractor: Extractor,
    split: str = "train",
    measures: Sequence[str] = DEFAULT,
    seed: int = 0,
    cache: Path | None = None,
) -> tuple[Measure, ...]:
    """Measure generated images against a data set's own.

    Args:
        data: the real images.
        generated: (N, C, H, W), values of the data's depth.
        extractor: makes the features; those of real images are kept in the cache.
        split: which real images, `train` or `held_out`.
        measures: names out of `MEASURES`.
        seed: of the bootstrap and the directions.
        cache: the cache folder; None is the default one.

    Returns and raises: as `compare`.
    """
    check_shape(data, generated)
    ours = extract(extractor, torch.split(generated, 64), depth=data.depth)
    return compare(real_features(data, extractor, split, 2 * len(ours), cache), ours, extractor, measures, seed)


def _check(features: Tensor, extractor: Extractor, which: str) -> None:
    """Refuse features that can't be measured."""
    if len(features) < 2:
        raise UserError(f"{len(features)} {which} images are too few to compare: give at least two, and best thousands")
    if features.ndim != 2 or features.shape[1] != extractor.dim:
        raise UserError(
            f"the {which} features have shape {tuple(features.shape)} and {extractor.name} makes {extractor.dim} "
            "numbers an image: use the features of this extractor"
        )
    check_finite(torch.as_tensor(features), extractor.name)


def _notes(name: str, real: int, generated: int, floor: int, extractor: Extractor) -> tuple[str, ...]:
    """What to know about a number."""
    notes = []
    if name == "frechet" and (note := frechet_note(min(real, generated), extractor.dim)):
        notes.append(note)
    if not floor:
        notes.append(f"{real:,} real images are too few for a floor: no two halves of them can be compared")
    elif floor < generated:
        notes.append(
            f"the floor is of {floor:,} against {floor:,} images, all that there are, and so higher than one of "
            f"{generated:,} would be"
        )
    return tuple(notes)
