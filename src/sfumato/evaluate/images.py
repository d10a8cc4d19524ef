"""Images measured against other images, without a model: two folders, archives, arrays or built-in sets.

Both are read as training data is. Those that are measured are brought to the size, channels and format of those that
they are measured against. All images of both are compared, as Frechet distances are published; precision, recall,
density and coverage, which change with the ratio of the numbers, compare as many of each. With a number given, every
metric does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.sources.opening import open_source
from sfumato.data.sources.protocol import Unreadable
from sfumato.errors import UserError, plural
from sfumato.evaluate.evaluation import described, notes_on, plain
from sfumato.evaluate.features import open_extractor
from sfumato.evaluate.jobs import Progress, silent
from sfumato.evaluate.measurement import quality, verdict
from sfumato.evaluate.target import brought_to
from sfumato.evaluate.verdict import MOST
from sfumato.run.folder import environment

_LOOKED_AT = 512
"""Pictures whose own size is read, to say how they were brought to another."""


def measure_images(
    ours: str,
    theirs: str,
    extractor: str | None = None,
    num: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[str], Progress] = silent,
) -> dict[str, Any]:
    """Return a report on the images `ours` against `theirs`, as `Evaluation.perform` returns one on quality.

    Args:
        ours, theirs: built-in names or paths, as `DataConfig.source`.
        extractor: as `open_extractor`.
        num: the most images of each to use, chosen at random; None uses all.
        seed: of the bootstrap and of random metrics.

    Raises:
        UserError: images that can't be opened, fewer than the metrics need, or an extractor that doesn't take them.
    """
    if num is not None and num < 1:
        raise UserError(f"num is {num}: it must be at least 1")
    real = open_data(DataConfig(theirs, held_out=0.0), on_progress=progress("reading images"))
    config = brought_to(DataConfig(ours, held_out=0.0), real.shape, real.format)
    images = open_data(config, on_progress=progress("reading images"))
    found = open_extractor(extractor, real.shape, device, real.format)
    measured = quality(real, images, found, seed=seed, progress=progress, num=num)
    judged = verdict(real, images, progress=progress, num=min(num or MOST, MOST))
    counts = "" if num is not None else _counts(len(images.train), len(real.train))
    notes = [_resized(ours, images), counts, *notes_on(measured, found, real.format)]
    report: dict[str, Any] = plain(
        {
            "kind": "quality",
            "images": images.source_name,
            "real": real.source_name,
            "names": [ours, theirs],
            "compared_with": real.unlabelled,
            "settings": {
                "seed": seed,
                "images": images.fingerprint,
                "data": real.fingerprint,
                "extractor": {name: getattr(found, name) for name in ("name", "sha256", "recipe")},
            },
            "result": described("all", measured, judged),
            "notes": [note for note in notes if note],
            "environment": environment(device),
        }
    )
    return report


def _resized(name: str, images: Dataset) -> str:
    """A note on the size that the measured images had."""
    source = open_source(name)
    sizes = set()
    for i in range(min(len(source), _LOOKED_AT)):
        with suppress(Unreadable):
            sizes.add(source.size(i))
    height, width = images.shape[1:]
    if sizes <= {(height, width)}:
        return ""
    (low_h, low_w), (high_h, high_w) = (tuple(map(end, zip(*sizes, strict=True))) for end in (min, max))
    own = f"{low_w}x{low_h}" if len(sizes) == 1 else f"{low_w}x{low_h} to {high_w}x{high_h}"
    return f"the images of {name} are {own}: they were cropped at the centre and resized to {width}x{height}"


def _counts(ours: int, theirs: int) -> str:
    """A note where the numbers of images differ."""
    if ours == theirs:
        return ""
    return (
        f"{plural(ours, 'image')} against {theirs:,}: precision, recall, density and coverage compare "
        f"{min(ours, theirs):,} of each, the distances all"
    )
