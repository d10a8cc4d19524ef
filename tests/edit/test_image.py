"""Images and masks from files: fitted as the training data are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.codec.format import EIGHT
from sfumato.codec.pixels import Pixels, to_model
from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.edit import read_box, read_image, read_mask, read_transparency
from sfumato.errors import UserError

RNG = np.random.default_rng(5)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    Image.fromarray(pixels, mode).save(path, **options)
    return path


def fitting(shape: tuple[int, int, int], background: str = "white") -> Any:
    """As much of a model as reading images uses."""
    data = DataConfig("x", shape[1:], shape[0], background=background)
    return SimpleNamespace(codec=Pixels(EIGHT, shape), config=SimpleNamespace(data=data))


@pytest.mark.parametrize(("given", "channels"), [((20, 30, 3), 3), ((20, 30, 3), 1), ((13, 9), 3), ((8, 8, 4), 3)])
def test_an_image_is_fitted_as_the_training_data_are(
    tmp_path: Path, given: tuple[int, ...], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    path = saved(folder / "a.png", RNG.integers(0, 256, given, np.uint8))
    saved(folder / "b.png", RNG.integers(0, 256, given, np.uint8))
    data = open_data(DataConfig(str(folder), (8, 8), channels, held_out=0.0, background="red"))
    fitted = read_image(fitting((channels, 8, 8), "red"), path)
    trained = {to_model(torch.from_numpy(data.images[n].copy())).numpy().tobytes() for n in range(2)}
    assert fitted.x.numpy().tobytes() in trained


def test_what_was_done_is_said(tmp_path: Path) -> None:
    wide = saved(tmp_path / "wide.png", RNG.integers(0, 256, (20, 30, 3), np.uint8))
    assert read_image(fitting((3, 8, 8)), wide).note == "cut from 30x20 to 20x20, resized to 8x8"
    assert read_image(fitting((1, 20, 30)), wide).note == "made grey"
    assert read_image(fitting((3, 20, 30)), wide).note == ""
    grey = saved(tmp_path / "grey.png", RNG.integers(0, 256, (8, 8), np.uint8))
    fitted = read_image(fitting((3, 8, 8)), grey)
    assert fitted.note == ""
    assert (fitted.x == fitted.x[:1]).all()


def test_a_mask_is_light_where_to_paint(tmp_path: Path) -> None:
    values = np.array([[0, 127, 128, 255]] * 4, np.uint8)
    assert read_mask(saved(tmp_path / "m.png", values), (4, 4))[0].tolist() == [False, False, True, True]
    colours = np.zeros((2, 2, 3), np.uint8)
    colours[0, 0] = (255, 255, 0)
    colours[1, 1] = (255, 0, 0)
    assert read_mask(saved(tmp_path / "c.png", colours), (2, 2)).tolist() == [[True, False], [False, False]]
    clear = np.full((2, 2, 4), 255, np.uint8)
    clear[0, :, 3] = 0
    assert read_mask(saved(tmp_path / "t.png", clear), (2, 2)).tolist() == [[False, False], [True, True]]


def test_a_mask_of_zeros_and_ones_is_light_where_it_is_one(tmp_path: Path) -> None:
    """As a segmentation writes it: black to the eye."""
    ones = np.zeros((8, 8), np.uint8)
    ones[2:5, 1:4] = 1
    for name, pixels in (("8", ones), ("16", ones.astype(np.uint16)), ("rgb", ones[..., None].repeat(3, 2))):
        hole = read_mask(saved(tmp_path / f"{name}.png", pixels), (8, 8))
        assert torch.equal(hole, torch.from_numpy(ones > 0)), name


def test_a_dark_drawing_on_transparent_ground_is_a_mask(tmp_path: Path) -> None:
    drawn = np.zeros((6, 6, 4), np.uint8)
    drawn[1:3, 2:5, 3] = 255
    assert torch.equal(read_mask(saved(tmp_path / "m.png", drawn), (6, 6)), torch.from_numpy(drawn[..., 3] > 0))


def test_a_mask_that_paints_nothing_is_refused(tmp_path: Path) -> None:
    dark, opaque = np.full((6, 6), 40, np.uint8), np.full((6, 6, 4), 255, np.uint8)
    opaque[..., 3] = 200
    for pixels, read in ((dark, read_mask), (opaque, read_transparency)):
        with pytest.raises(UserError, match=r"nothing to paint|half opacity"):
            read(saved(tmp_path / "m.png", pixels), (6, 6))
    assert not read_mask(saved(tmp_path / "m.png", 0 * dark), (6, 6)).any(), "black all over means nothing"
    edge = np.zeros((6, 12), np.uint8)
    edge[:, 0] = 255
    with pytest.raises(UserError, match="nothing is left to paint of it when it is cut from 12x6 to 6x6"):
        read_mask(saved(tmp_path / "m.png", edge), (6, 6))
    with pytest.raises(UserError, match="nothing is left to paint"):
        read_box(tmp_path / "m.png", (0, 0, 2, 6), (6, 6))


def test_a_mask_of_another_size_takes_the_nearest(tmp_path: Path) -> None:
    small = np.array([[0, 255], [255, 0]], np.uint8)
    got = read_mask(saved(tmp_path / "m.png", small), (6, 6))
    assert torch.equal(got, torch.from_numpy(small.repeat(3, 0).repeat(3, 1) > 0))
    large = RNG.integers(0, 2, (18, 18), np.uint8) * 255
    got = read_mask(saved(tmp_path / "l.png", large), (6, 6))
    assert torch.equal(got, torch.from_numpy(large[1::3, 1::3] > 0)), "the middle of each block"


def test_a_mask_as_large_as_the_file_covers_what_it_covers_there(tmp_path: Path) -> None:
    pixels = np.zeros((12, 24, 3), np.uint8)
    mask = np.zeros((12, 24), np.uint8)
    pixels[3:9, 9:18], mask[3:9, 9:18] = 255, 255
    fitted = read_image(fitting((3, 4, 4)), saved(tmp_path / "i.png", pixels)).x
    hole = read_mask(saved(tmp_path / "m.png", mask), (4, 4))
    box = read_box(tmp_path / "i.png", (9, 3, 9, 6), (4, 4))
    assert torch.equal(hole, box)
    assert torch.equal(hole, fitted[0] > 0)
    assert hole.sum() == 6


@pytest.mark.parametrize("box", [(-1, 0, 2, 2), (0, 0, 0, 1), (5, 0, 2, 1), (0, 3, 1, 2)])
def test_a_box_must_be_within_the_image(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    path = saved(tmp_path / "i.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(UserError, match="which is 6 wide and 4 high"):
        read_box(path, box, (4, 6))


def test_transparent_pixels_are_to_be_painted(tmp_path: Path) -> None:
    pixels = np.full((2, 3, 4), 255, np.uint8)
    pixels[0, :, 3] = (0, 127, 128)
    path = saved(tmp_path / "i.png", pixels)
    assert read_transparency(path, (2, 3)).tolist() == [[True, True, False], [False, False, False]]


def test_transparency_turns_with_its_image(tmp_path: Path) -> None:
    pixels = np.full((2, 3, 4), 255, np.uint8)
    pixels[0, 0, 3] = 0
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    path = saved(tmp_path / "i.webp", pixels, exif=exif, lossless=True)
    assert read_transparency(path, (3, 2)).nonzero().tolist() == [[0, 1]]


def test_an_image_without_transparency_needs_a_mask(tmp_path: Path) -> None:
    path = saved(tmp_path / "i.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(UserError, match="no transparent pixels to paint: give a mask"):
        read_transparency(path, (4, 6))


def test_what_is_no_image_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image at all")
    (tmp_path / "empty.png").touch()
    for name, said in (
        ("text.png", "can't be used: not an image: text"),
        ("empty.png", "can't be used: an empty file"),
        ("none.png", "does not exist: give an image file"),
        (".", "is not a file: give an image file"),
    ):
        with pytest.raises(UserError, match=said):
            read_image(fitting((3, 8, 8)), tmp_path / name)
