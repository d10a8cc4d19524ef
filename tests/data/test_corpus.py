"""A folder as it is met in life, and worse: the good files train, the bad ones are named, and none does harm."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.formats.png import rows_missing
from sfumato.data.sources.protocol import Unreadable, printable

from .corpus import cases
from .encode import Case, adam7, png, rows, shown

CASES = cases()


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)
    assert all((case.pixels is None) == bool(case.reason) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: printable(case.name)[:40])
def test_each_file_becomes_what_it_must(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(case.data)
    if case.pixels is None:
        with pytest.raises(Unreadable) as fault:
            shown(path)
        assert re.search(case.reason, fault.value.reason), fault.value.reason
        assert fault.value.reason.isprintable()
        return
    got = shown(path)
    assert got.shape == case.pixels.shape
    assert np.abs(got.astype(float) - case.pixels).max() <= case.tolerance
    assert read_picture(path).animated == case.animated
    assert header_size(path) == got.shape[:2] or re.fullmatch("orientation .*PNG", case.name), "but for PNG's EXIF"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them in one folder."""
    folder = tmp_path_factory.mktemp("corpus")
    for case in CASES:
        (folder / case.name).write_bytes(case.data)
    return folder


def test_the_good_are_kept_the_bad_are_named_and_none_is_touched(folder: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}
    data = open_data(DataConfig(source=str(folder)))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")} == before
    good = {printable(case.name) for case in CASES if case.pixels is not None}
    assert {origin for origin, _ in data.skipped} == {printable(case.name) for case in CASES} - good
    assert set(data.origins) == good
    assert all(text.isprintable() for pair in data.skipped for text in pair)
    assert data.shape[0] == 3
    text = data.summary()
    assert all(line.isprintable() for line in text.splitlines())
    assert f"{sum(case.animated for case in CASES)} animated or multi-page files" in text
    assert f"{len(CASES) - len(good)} files skipped" in text


@pytest.mark.parametrize("channels", [1, 3])
def test_all_of_it_fits_any_size(folder: Path, channels: int) -> None:
    data = open_data(DataConfig(source=str(folder), size=(12, 20), channels=channels))
    assert data.images.shape == (sum(case.pixels is not None for case in CASES), channels, 12, 20)


@pytest.mark.parametrize(
    ("depth", "colour"), [(1, 0), (2, 0), (4, 0), *((depth, colour) for depth in (8, 16) for colour in (0, 2, 6))]
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (8, 8), (13, 2)])
def test_rows_are_counted_as_the_specification_does(
    depth: int, colour: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    """A stream of the right length is whole; of one byte fewer it is not. Plain and interlaced, all depths."""
    height, width = shape
    channels = {0: 1, 2: 3, 6: 4}[colour]
    if depth >= 8:
        array = np.zeros((height, width, channels), np.uint8 if depth == 8 else np.uint16)
        streams = {False: rows(array), True: adam7(array)}
    else:
        streams = {False: bytes(height * (1 + -(-width * depth // 8)))}
    for interlaced, stream in streams.items():
        path = tmp_path / "picture.png"
        path.write_bytes(png(width, height, stream, depth, colour, interlaced))
        assert not rows_missing(path)
        path.write_bytes(png(width, height, stream[:-1], depth, colour, interlaced))
        assert rows_missing(path)
