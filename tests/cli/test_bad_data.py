"""A collection of which a tenth is bad, and of which files vanish while it is read: the run finishes and names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.data import dataset
from sfumato.data.sources import opening as sources
from sfumato.data.sources.files import FileSource, folder_source
from sfumato.data.sources.protocol import File

from .conftest import TINY, Command

BAD = {
    7: b"",
    19: b"not a picture",
    31: b"\x89PNG\r\n\x1a\n" + bytes(40),
    44: b"%PDF-1.4",
    52: b"GIF89a",
    58: b"\xff\xd8",
}
VANISH = (40, 41, 47, 55, 59)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty files, six of them bad."""
    place, generator = tmp_path / "photos", np.random.default_rng(0)
    place.mkdir()
    for n in range(60):
        path = place / f"{n:02}.png"
        if n in BAD:
            path.write_bytes(BAD[n])
        else:
            Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(path)
    return place


def test_the_run_finishes_and_its_report_names_exactly_those(
    folder: Path, sfumato: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_WORKERS", "1")
    monkeypatch.setenv("SFUMATO_CACHE", str(folder.parent / "cache"))
    opened, met = dataset.open_data, []

    def vanishing(path: Path) -> FileSource:
        source = folder_source(path)
        file = source.file

        def reached(i: int) -> File:
            if i == 33 and (folder / "40.png").exists():  # midway five of those still to come disappear
                for n in VANISH:
                    (folder / f"{n:02}.png").unlink()
            return file(i)

        source.file = reached  # type: ignore[method-assign]
        return source

    def opening(*words: Any, **options: Any) -> dataset.Dataset:
        met.append(opened(*words, **options))
        return met[-1]

    monkeypatch.setattr(sources, "folder_source", vanishing)
    monkeypatch.setattr("sfumato.train.follow.open_data", opening)
    result = sfumato("train", folder, "--run", "run", "--images", 16, "--data.size", "8,8", *TINY)
    assert result.code == 0, result.err
    assert (Path("run") / "finished.json").exists()
    left_out = {f"{n:02}.png" for n in (*BAD, *VANISH)}
    assert [{origin for origin, _ in data.skipped} for data in met[:1]] == [left_out]
    assert all(reason for _, reason in met[0].skipped)
    assert len(met[0]) == 49
    assert "11 files skipped" in result.out
    assert sum(f"{name}: " in result.out for name in left_out) == 8, "the first eight are shown"
