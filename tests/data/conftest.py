"""What the tests of the data share: a cache of their own, and folders of small made images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test decodes into a cache that nobody else sees."""
    cache = tmp_path / "own-cache"
    monkeypatch.setenv("SFUMATO_CACHE", str(cache))
    return cache


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Return a function that fills a folder with distinct PNGs of noise: make_folder("name", 12, size=(8, 8))."""

    def make(name: str, count: int, size: tuple[int, int] = (8, 8), channels: int = 3, first: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            shape = (*size, 3) if channels == 3 else size
            pixels = np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:04d}.png")
        return folder

    return make
