"""Pictures: bytes go in and the same bytes can be read off the page."""

from __future__ import annotations

import tracemalloc
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sfumato.codec.format import EIGHT
from sfumato.codec.pixels import Pixels
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config
from sfumato.diffusion import DDIM, Cosine, GaussianOracle, trailing
from sfumato.errors import UserError
from sfumato.generate import pictures, writers
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import Sampling
from sfumato.generate.writers import Samples, columns_for, film, save_png, write
from sfumato.model import Model


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("num", "columns"), [(1, None), (5, None), (12, 4), (3, 9)])
def test_tiles_inverts_grid_through_a_file(tmp_path: Path, channels: int, num: int, columns: int | None) -> None:
    images = noise(num, channels, 6, 9)
    path = save_png(pictures.grid(images, columns), tmp_path / "deep" / "grid.png")
    shown = images[:, :3] if channels >= 3 else images[:, :1]
    np.testing.assert_array_equal(pictures.tiles(Image.open(path)), shown)


def test_a_tile_is_a_block_of_equal_pixels_on_paper() -> None:
    images = noise(4, 1, 2, 2)
    page = np.asarray(pictures.grid(images, columns=2, gap=1, scale=3))
    assert page.shape == (21, 21)
    np.testing.assert_array_equal(page[3:9, 12:18], images[1, 0].repeat(3, 0).repeat(3, 1))
    assert (page[:3] == pictures.PAPER).all()
    assert (page[9:12] == pictures.PAPER).all()


@pytest.mark.parametrize(
    ("height", "width", "num"), [(8, 8, 100), (16, 16, 100), (28, 28, 64), (16, 48, 9), (64, 64, 16)]
)
def test_small_images_are_enlarged_to_be_seen(height: int, width: int, num: int) -> None:
    assert 600 <= pictures.grid(noise(num, 1, height, width)).width <= 1100


def test_large_images_are_left_as_they_are() -> None:
    assert pictures.grid(noise(1, 3, 8, 2000), columns=1).width == 2002


def test_a_torch_tensor_is_an_array() -> None:
    torch = pytest.importorskip("torch")
    images = noise(2, 3, 4, 4)
    assert pictures.grid(torch.from_numpy(images)).tobytes() == pictures.grid(images).tobytes()


def test_tiles_refuses_another_picture(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "other.png")
    with pytest.raises(UserError, match=r"other\.png is not a grid"):
        pictures.tiles(Image.open(tmp_path / "other.png"))


def test_text_survives_in_any_script(tmp_path: Path) -> None:
    path = save_png(pictures.grid(noise(1, 1, 4, 4)), tmp_path / "a.png", {"seed": 7, "label": "T-shirt é 猫"})
    text = Image.open(path).text  # type: ignore[attr-defined]
    assert (text["seed"], text["label"], text["Software"]) == ("7", "T-shirt é 猫", "sfumato")


def test_strip_puts_rows_under_captions_and_beside_labels() -> None:
    rows = [noise(5, 3, 8, 8), noise(5, 1, 8, 8).repeat(3, 1)]
    bare = np.asarray(pictures.strip(rows, scale=4))
    page = np.asarray(pictures.strip(rows, ["upper", "the\nlower"], ["a", "b", "c", "d", "e"], scale=4))
    assert page.shape[0] > bare.shape[0]
    assert page.shape[1] > bare.shape[1]
    np.testing.assert_array_equal(page[-bare.shape[0] :, -bare.shape[1] :], bare)
    margin = page[:, : page.shape[1] - bare.shape[1]]
    assert (margin < 128).any(), "the labels are drawn"
    assert (margin[:, 0] == pictures.PAPER).all(), "and not cut"


def samples(num: int) -> Samples:
    """A Gaussian's images in batches of two, labelled a, b, c, a, b, c, ..."""
    oracle = GaussianOracle(Cosine(20), torch.tensor(0.2), torch.tensor(0.1))
    sampling = Sampling(Recipe(), oracle, DDIM(), trailing(3, oracle.schedule), (1, 4, 4), torch.device("cpu"))
    vocabulary = AttributeVocabulary((Attribute("kind", ("a", "b", "c")),))
    model = Model(nn.Linear(1, 1), Config(), oracle, Pixels(EIGHT, (1, 4, 4)), vocabulary)  # type: ignore[arg-type]
    condition = Attributes(torch.tensor([[0.0], [1.0], [2.0]]))
    return Samples(model, sampling, num, seed=1, condition=condition, batch=2)


def test_files_of_a_folder_hold_their_own_number_and_label_also_when_it_is_continued(tmp_path: Path) -> None:
    write(samples(3), tmp_path / "some")
    for name in ("some", "whole"):
        write(samples(7), tmp_path / name)
        for n in range(7):
            text = Image.open(tmp_path / name / f"{n:06}.png").text  # type: ignore[attr-defined]
            assert (text["index"], text["label"]) == (str(n), "abc"[n % 3])
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "some" / file.name).read_bytes()


def test_an_array_written_batch_by_batch_is_the_file_that_numpy_writes_of_all_at_once(tmp_path: Path) -> None:
    made = samples(7)
    write(made, tmp_path / "parts.npz")
    arrays = {
        "images": made.model.codec.decode(made.all()).permute(0, 2, 3, 1).numpy(),
        "metadata": np.array("{}"),
        "labels": np.array(list("abcabca")),
        "conditions": np.array([[0], [1], [2], [0], [1], [2], [0]], np.float32),
    }
    np.savez_compressed(tmp_path / "whole.npz", **arrays)
    assert (tmp_path / "parts.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.parametrize("out", ["folder", "array.npz"])
def test_memory_does_not_grow_with_the_number_of_images(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of noise, which no compression makes smaller; at most the present batch and the one before are alive."""
    batches = deque[weakref.ref[torch.Tensor]](maxlen=8)

    def stream(self: Samples, first: int = 0) -> Iterator[tuple[int, torch.Tensor]]:
        for start in range(first, self.num, 64):
            x = torch.rand(64, 1, 4, 4)
            batches.append(weakref.ref(x))
            assert sum(batch() is not None for batch in batches) <= 2
            yield start, x

    monkeypatch.setattr(Samples, "stream", stream)
    monkeypatch.setattr(writers, "image_file", lambda *_: (".png", b"x"))
    for disk in ("write_atomic", "check_writable"):
        monkeypatch.setattr(writers, disk, lambda *_: None)

    def peak(num: int) -> int:
        tracemalloc.start()
        write(samples(num), tmp_path / f"{num}-{out}")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(64)  # what is loaded on first use
    few, many = (512, 4096) if out == "folder" else (2048, 65536)
    assert peak(many) - peak(few) < 2**15  # a byte of each image of the array, or a word of each label, would be more


def test_a_grey_film_is_exact_and_holds_its_last_frame(tmp_path: Path) -> None:
    frames = [noise(4, 1, 8, 8) for _ in range(3)]
    frames[1] = 255 - frames[0]
    frames[2] = frames[0] // 2
    path = film([pictures.grid(f, scale=2) for f in frames], tmp_path / "film.gif", seconds=1, hold=2)
    opened = Image.open(path)
    assert opened.n_frames == 3  # type: ignore[attr-defined]
    waits = []
    for n, frame in enumerate(frames):
        opened.seek(n)
        waits.append(opened.info["duration"])
        np.testing.assert_array_equal(np.asarray(opened.convert("L")), np.asarray(pictures.grid(frame, scale=2)))
    assert waits == [500, 500, 2000]


def test_a_film_of_few_colours_is_exact(tmp_path: Path) -> None:
    colours = noise(30, 3)
    frames = [pictures.grid(colours[noise(9, 8, 8) % (10 * n + 10)].transpose(0, 3, 1, 2)) for n in range(3)]
    opened = Image.open(film(frames, tmp_path / "film.gif"))
    for n, frame in enumerate(frames):
        opened.seek(n)
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), np.asarray(frame))


@pytest.mark.parametrize(
    ("num", "conditions", "columns"),
    [
        (64, 2, 8),
        (64, 10, 10),
        (20, 10, 10),
        (12, 6, 6),
        (10, 10, 5),
        (4, 2, 2),
        (30, 31, None),
        (9, 1, None),
        (16, 256, None),
    ],
)
def test_the_columns_of_a_grid_follow_the_conditions_and_it_stays_about_square(
    num: int, conditions: int, columns: int | None
) -> None:
    assert columns_for(num, conditions, 16, 16) == columns


def test_wide_images_have_fewer_columns() -> None:
    assert [columns_for(64, 2, 16, width) for width in (16, 64, 4)] == [8, 4, 16]
