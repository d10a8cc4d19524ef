"""Images that are no bytes of RGB, all the way: read, trained on, drawn, saved, read back, scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.data.formats.png import encode
from sfumato.evaluate.target import open_target
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import load

from .conftest import TINY, Command

FIELDS = np.cumsum(np.cumsum(np.random.default_rng(0).normal(size=(32, 8, 12, 5)), 1), 2)
"""Smooth fields of five bands, higher than wide."""


def deep(folder: Path) -> list[str]:
    for i, field in enumerate(FIELDS):
        values = (32768 + 3000 * field[..., 0]).clip(0, 65535).astype(np.uint16)
        Image.fromarray(values).save(folder / f"{i}.png")
    return []


def deep_colour(folder: Path) -> list[str]:
    for i, field in enumerate(FIELDS):
        (folder / f"{i}.png").write_bytes(encode((32768 + 3000 * field[..., :4]).clip(0, 65535).astype(np.uint16)))
    return ["--data.channels", "4"]


def bands(folder: Path) -> list[str]:
    for i, field in enumerate(FIELDS):
        np.save(folder / f"{i}.npy", (280 + field).astype(np.float32))
    return []


def pairs(folder: Path) -> list[str]:
    for i, field in enumerate(FIELDS):
        np.save(folder / f"{i}.npy", (128 + 12 * field[..., :2]).clip(0, 255).astype(np.uint8))
    return []


@pytest.mark.parametrize(
    ("make", "channels", "dtype", "suffix", "said"),
    [
        (deep, 1, np.uint16, ".png", "65,536 levels"),
        (deep_colour, 4, np.uint16, ".png", "65,536 levels"),
        (bands, 5, np.float32, ".npy", "floats have no 256-bin likelihood"),
        (pairs, 2, np.uint8, ".npy", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_from_import_to_evaluation(make, channels, dtype, suffix, said, sfumato: Command, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    options = [*make(tmp_path / "set"), "--data.held_out", "0.3"]
    assert sfumato("train", "set", "--run", "run", "--images", "160", "--optim.lr", "0.01", *options, *TINY).code == 0
    model = load(tmp_path / "run")
    assert model.shape == (channels, 8, 12)
    assert model.codec.format.dtype == dtype
    for out in ("drawn.npz", "drawn", "grid.png", "film.gif"):
        done = sfumato("sample", "run", "--num", 6, "--steps", 4, "--sampler", "ddim", "--out", out)
        assert done.code == 0, done.err
    drawn = np.load("drawn.npz")["images"]
    assert (drawn.shape, drawn.dtype) == ((6, 8, 12, channels), dtype)
    assert (len(np.unique(drawn)) > 256) == (dtype != np.uint8)
    images = model.codec.decode(sample(model, 6, Recipe("ddim", steps=4))).permute(0, 2, 3, 1).numpy()
    assert np.abs(images.astype(float) - drawn).max() <= 1 + 1e-5 * model.codec.scale  # rounding, at the most
    assert sorted(path.name for path in Path("drawn").iterdir())[:2] == [f"00000{n}{suffix}" for n in (0, 1)]
    back = open_data(DataConfig(source="drawn", channels=channels, held_out=0.0))
    assert np.array_equal(back.images.transpose(0, 2, 3, 1), drawn)
    assert Image.open("grid.png").mode == ("RGB" if channels >= 3 else "L")
    scored = sfumato("evaluate", "run", "--bits", "--num", 4)
    assert scored.code == 0, scored.err
    assert said in scored.out
    compared = sfumato("evaluate", "run", "--quality", "--num", 8, "--sampler", "ddim", "--steps", 3, "--json")
    assert compared.code == 0, compared.err
    known = json.loads(sfumato("info", "run", "--json").out)
    assert known["depth"]["kind"] == model.codec.format.kind
    assert (model.codec.format.words in sfumato("info", "run").out) == (dtype != np.uint8)
    assert sfumato("data", "set", "--out", "sheet.png").code == 0


def test_a_stack_of_pages(sfumato: Command, refused, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    deep(tmp_path / "set")
    assert sfumato("train", "set", "--run", "run", "--images", "16", *TINY).code == 0
    words = ["sample", "run", "--num", 3, "--steps", 2, "--sampler", "ddim", "--out"]
    assert sfumato(*words, "stack.tif").code == 0
    assert sfumato(*words, "drawn.npz").code == 0
    with Image.open("stack.tif") as stack:
        pages = [np.array(stack) for page in range(stack.n_frames) if stack.seek(page) is None]
    assert np.array_equal(np.stack(pages), np.load("drawn.npz")["images"][..., 0])
    (tmp_path / "others").mkdir()
    bands(tmp_path / "others")
    assert sfumato("train", "others", "--run", "more", "--images", "16", *TINY).code == 0
    assert "5 channels, floating-point" in refused("sample", "more", "--num", 1, "--steps", 2, "--out", "stack.tif")


def test_other_images_are_read_in_the_models_own_units(sfumato: Command, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    bands(tmp_path / "set")
    assert sfumato("train", "set", "--run", "run", "--images", "16", *TINY).code == 0
    np.save("others.npy", 1000 * FIELDS)
    subject = open_target(Path("run"), data="others.npy")
    assert subject.data.format == subject.model.codec.format == load(tmp_path / "run").codec.format
    words = ["--box", "2,2,4,4", "--num", 1, "--steps", 2, "--out", "edit.png"]
    done = sfumato("edit", "inpaint", "run", "set/3.npy", *words)
    assert done.code == 0, done.err
