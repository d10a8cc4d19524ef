"""A model whose x_0 is not pixels, through every verb that samples or edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.edit import INPAINTERS

from ..codec.haar import Haar  # noqa: F401  registers the codec
from .conftest import Command, trained


@pytest.fixture(scope="module")
def haar(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    return trained(tmp_path_factory, "haar", "faces", "--images", "16", "--codec.kind", "haar")


@pytest.fixture
def image(tmp_path: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return pixels


@pytest.mark.parametrize("method", INPAINTERS)
def test_known_pixels_stay_as_they_are(method: str, sfumato: Command, haar: Path, image: np.ndarray) -> None:
    words = ("--box", "0,0,5,7", "--method", method, "--num", 1, "--steps", 3, "--repeats", 2, "--out", "out")
    assert sfumato("edit", "inpaint", haar, "a.png", *words).code == 0
    painted = (np.asarray(Image.open("out/1.png")) != image).any(2)
    assert painted[:7, :5].any()
    assert not painted[7:].any()
    assert not painted[:, 5:].any()


@pytest.mark.parametrize(
    "line",
    [
        "info RUN",
        "sample RUN --num 2 --steps 3 --out a.npz",
        "sample RUN --num 2 --steps 3 --out b.gif",
        "edit vary RUN a.png --num 2 --steps 3",
        "edit invert RUN a.png --steps 3",
        "edit interpolate RUN --num 3 --steps 3",
        "edit colorize RUN a.png --num 2 --steps 3",
        "edit upscale RUN a.png --degrade --num 2 --steps 3",
        "edit deblur RUN a.png --method moments --num 2 --steps 3",
    ],
)
def test_other_verbs_work_all_the_same(line: str, sfumato: Command, haar: Path, image: np.ndarray) -> None:
    result = sfumato(*[haar if word == "RUN" else word for word in line.split()])
    assert result.code == 0, result.err
    if "npz" in line:
        assert np.load("a.npz")["images"].shape == (2, 16, 16, 3)
