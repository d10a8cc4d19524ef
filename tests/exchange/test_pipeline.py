"""`sfumato.Pipeline`: the command line's images, in the forms that notebooks want."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sfumato
from sfumato.codec.format import PixelFormat
from sfumato.codec.pixels import Pixels
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import from_dict
from sfumato.errors import UserError
from sfumato.model import save

from .models import NET, random_model

CONFIG = from_dict({"net": NET})
ONE = AttributeVocabulary((Attribute("class", ("cat", "dog")),))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> sfumato.Pipeline:
    return sfumato.Pipeline(random_model(tmp_path_factory.mktemp("p") / "x.safetensors", CONFIG, (3, 8, 12), ONE))


def test_it_samples_what_the_library_samples(pipe: sfumato.Pipeline) -> None:
    images = pipe(5, seed=4, label="class=all", guidance=2.0, steps=3)
    expected = sfumato.sample(pipe.model, 5, sfumato.Recipe(steps=3, guidance=2.0), seed=4, condition="class=all")
    assert torch.equal(images.x, expected)
    ddim = pipe(2, recipe=sfumato.Recipe("ddim", steps=9), steps=2)
    assert torch.equal(ddim.x, sfumato.sample(pipe.model, 2, sfumato.Recipe("ddim", steps=2)))


def test_images_are_pictures_and_arrays(pipe: sfumato.Pipeline) -> None:
    images = pipe(3, steps=2)
    values = sfumato.to_bytes(images.x).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(images.arrays, values)
    assert len(images) == 3
    for image, value in zip(images, values, strict=True):
        np.testing.assert_array_equal(np.asarray(image), value)
    assert images[-1].size == (12, 8)
    shown = Image.open(io.BytesIO(images._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(images.grid()))


def test_grey_images_of_sixteen_bits(tmp_path: Path) -> None:
    net = CONFIG.net.build(CONFIG.interface(1))
    save(tmp_path / "x.safetensors", net.state_dict(), CONFIG, Pixels(PixelFormat("16", 0, 65535), (1, 8, 8)), images=1)
    images = sfumato.Pipeline.from_pretrained(tmp_path / "x.safetensors")(2, steps=1)
    assert (images.arrays.dtype, images.arrays.shape) == (np.uint16, (2, 8, 8, 1))
    assert images[0].mode == "L"


def test_saved_and_loaded_it_is_the_same(pipe: sfumato.Pipeline, tmp_path: Path) -> None:
    for _ in range(2):  # an earlier one is replaced
        pipe.save_pretrained(tmp_path / "saved")
    again = sfumato.Pipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(2, seed=9, steps=2).x, pipe(2, seed=9, steps=2).x)
    assert again.model.vocabulary == ONE
    assert sfumato.load(tmp_path / "saved").images == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num": 0}, "num = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"guidance": 2.0, "label": "unconditional"}, "guidance needs a label"),
        ({"label": "cow"}, "no value 'cow'|no label 'cow'"),
        ({"steps": 2000}, "steps is 2000"),
    ],
)
def test_mistakes(asked: dict[str, Any], message: str, pipe: sfumato.Pipeline, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        pipe(**asked)


def test_it_is_not_saved_over_a_file(pipe: sfumato.Pipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        pipe.save_pretrained(tmp_path / "file")
