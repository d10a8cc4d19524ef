"""A range from percentiles of the pictures' values.

At most `PICTURES` pictures are decoded for it, and about `SAMPLE` values of each are kept, both evenly spaced, so that
each picture counts alike. Missing data don't count. The same pictures give the same range.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sfumato.config.data import DataConfig
from sfumato.data.formats.decode import read_picture
from sfumato.data.formats.fitting import read_values
from sfumato.data.formats.values import SAMPLE
from sfumato.data.sources.protocol import File, Picture, Source, Unreadable, encoded, files_of
from sfumato.data.workers import Pace, run
from sfumato.errors import UserError

PICTURES = 1000
SAMPLER = "sfumato.data.store.percentiles:sampler"
"""The workers' function."""


def percentile_range(source: Source, config: DataConfig, protected: bool = False) -> tuple[float, float]:
    """Return the values at `config.percentiles`, read in worker processes from the first file on where `protected`;
    raises `UserError` where no picture is readable, or both values are equal."""
    assert config.percentiles is not None
    indices = np.unique(np.linspace(0, len(source) - 1, min(len(source), PICTURES)).astype(int)).tolist()
    parts = [part for part in _samples(source, indices, config, protected) if len(part)]
    if not parts:
        raise UserError(f"no readable image in '{source.name}', of whose values data.percentiles could be taken")
    low, high = np.percentile(np.concatenate(parts).astype(np.float64), config.percentiles, method="nearest").tolist()
    if not low < high:
        raise UserError(
            f"data.percentiles: {low:g} is the value at both: set them further apart, or give data.range and data.clamp"
        )
    return low, high


def sampler(setup: bytes) -> Callable[[File], bytes]:
    """Return the workers' function, which gives some values of a file; `setup` is [background, nodata] as JSON."""
    background, nodata = json.loads(setup)
    return lambda file: _values(read_picture(file), background, nodata).tobytes()


def _values(picture: Picture, background: str, nodata: float | None) -> NDArray[np.float32]:
    """Some values of a picture, without holes."""
    values = read_values(picture, background, "float", nodata).pixels.ravel()
    return np.asarray(values[:: max(1, len(values) // SAMPLE)])


def _samples(source: Source, indices: list[int], config: DataConfig, protected: bool) -> Iterator[NDArray[np.float32]]:
    if (files := encoded(source)) is not None:
        setup = json.dumps([config.background, config.hole]).encode()
        for answer in run(SAMPLER, setup, files_of(files, indices), Pace(len(indices), protected)):
            yield np.zeros(0, np.float32) if isinstance(answer, str) else np.frombuffer(answer, np.float32)
        return
    for i in indices:
        try:
            yield _values(source.read(i), config.background, config.hole)
        except Unreadable:
            continue
