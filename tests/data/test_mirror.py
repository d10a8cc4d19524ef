"""The mirror test of a data set, and what a preset may do by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.data.mirror import Mirror, mirror_test_of

RNG = np.random.default_rng(4)


def stacked(path: Path, pictures: np.ndarray) -> DataConfig:
    np.save(path / "a.npy", pictures)
    return DataConfig(str(path / "a.npy"), held_out=0.0)


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 3), (12, 20, 5)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_the_training_images_are_tested_whatever_their_form(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    noise, ramp = RNG.uniform(0, 0.3, (120, *shape)), np.linspace(0, 0.7, 20).reshape(20, *[1] * (len(shape) - 2))
    scale = {"u1": 255, "u2": 65535, "f4": 7.0}[dtype]
    for pictures, verdict in ((noise, "flip"), (noise + ramp, "keep")):
        mirror = mirror_test_of(open_data(stacked(tmp_path, (pictures * scale).astype(dtype))))
        assert mirror.verdict == verdict
        assert mirror.allows == (verdict == "flip")
        assert mirror.num == 120


def test_copies_are_no_neighbours(tmp_path: Path) -> None:
    """Each image twice: its nearest other image would be itself."""
    pictures = RNG.integers(0, 256, (110, 8, 8), np.uint8).repeat(2, axis=0)
    mirror = mirror_test_of(open_data(stacked(tmp_path, pictures)))
    assert (mirror.num, mirror.verdict) == (110, "flip")


def test_only_evidence_allows_mirroring() -> None:
    mirrors = [
        Mirror(99, 0.5, 1.0, 0.0), Mirror(500, 0.5, 1.0, 0.0), Mirror(500, 0.9, 1.2, 0.0), Mirror(500, 0.9, 1.6, 0.0),
        Mirror(0, 0.5, 1.0, 1.0),
    ]  # fmt: skip
    allowed = {mirror.verdict: mirror.allows for mirror in mirrors}
    assert allowed == {"unsure": False, "flip": True, "some": False, "keep": False, "symmetric": False}
    assert "3 images are too few" in Mirror(3, 0.5, 1.0, 0.0).reason
