"""PixelFormat and channels from files to batches: what is kept, what mixtures become, what is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.codec.format import EIGHT, SIXTEEN, PixelFormat
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.formats.png import encode
from sfumato.diffusion.noise import Purpose, uniform
from sfumato.errors import UserError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (24, 6, 8, 4)).astype(np.uint16)
BANDS = RNG.normal(size=(24, 6, 8, 5)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def opened(source: Path, **options: object) -> Dataset:
    return open_data(DataConfig(source=str(source), **options))  # type: ignore[arg-type]


def grey(folder: Path, count: int = 24) -> None:
    for i in range(count):
        Image.fromarray(DEEP[i, ..., 0]).save(folder / f"{i:02}.png")


def test_sixteen_bits_are_kept_where_all_have_them(folder: Path) -> None:
    grey(folder)
    data = opened(folder)
    assert data.format == SIXTEEN
    assert np.array_equal(data.images[:, 0], DEEP[..., 0])
    assert "16-bit" in data.summary()
    assert opened(folder, depth="8").format == EIGHT
    assert np.array_equal(opened(folder, depth="8").images[:, 0], np.rint(DEEP[..., 0] / 257))


@pytest.mark.parametrize("name", ["00", "99"])
def test_one_picture_of_bytes_makes_all_bytes_unless_asked(folder: Path, name: str) -> None:
    """Wherever among the others it comes; the rows are those of pictures that were brought to 8 bits one by one."""
    grey(folder)
    Image.fromarray(np.full((6, 8), 77, np.uint8)).save(folder / f"{name}.png")
    data, row = opened(folder), 0 if name == "00" else 24
    assert data.format == EIGHT
    assert data.images.dtype == np.uint8
    assert (data.images[row] == 77).all()
    assert np.array_equal(data.images[5, 0], np.rint(DEEP[5, ..., 0] / 257))
    assert any("converted to 8" in note for note in data.notes)
    wide = opened(folder, depth="16")
    assert (wide.images[row] == 77 * 257).all()
    assert np.array_equal(wide.images[5, 0], DEEP[5, ..., 0])


def test_colour_of_sixteen_bits_with_and_without_its_opacity(folder: Path) -> None:
    for i, pixels in enumerate(DEEP):
        (folder / f"{i:02}.png").write_bytes(encode(pixels))
    whole = opened(folder, channels=4)
    assert np.array_equal(whole.images.transpose(0, 2, 3, 1), DEEP)
    over = opened(folder, background="black").images.transpose(0, 2, 3, 1)
    assert np.array_equal(over, np.rint(DEEP[..., :3] * (DEEP[..., 3:] / 65535)))
    assert opened(folder, channels=2).shape == (2, 6, 8)


def test_an_opaque_picture_among_others_is_opaque(folder: Path) -> None:
    clear = RNG.integers(0, 256, (6, 8, 4)).astype(np.uint8)
    Image.fromarray(clear).save(folder / "0.png")
    Image.fromarray(clear[..., :3]).save(folder / "1.png")
    Image.fromarray(clear[..., 0]).save(folder / "2.png")
    images = opened(folder, channels=4, held_out=0.0).images.transpose(0, 2, 3, 1)
    assert np.array_equal(images[0], clear)
    assert np.array_equal(images[1, ..., :3], clear[..., :3])
    assert np.array_equal(images[2, ..., :3], clear[..., [0, 0, 0]])
    assert (images[1:, ..., 3] == 255).all()


def test_bands_of_floats(folder: Path) -> None:
    for i, pixels in enumerate(BANDS):
        np.save(folder / f"{i:02}.npy", pixels if i % 2 else pixels.transpose(2, 0, 1))
    np.save(folder / "nan.npy", np.full((6, 8, 5), np.nan))
    np.save(folder / "few.npy", BANDS[0, ..., :2])
    data = opened(folder)
    assert np.array_equal(data.images.transpose(0, 2, 3, 1), BANDS)
    assert data.format == PixelFormat("float", float(BANDS.min()), float(BANDS.max()))
    x = data.format.to_model(torch.from_numpy(np.array(data.images)))
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    assert dict(data.skipped) == {
        "nan.npy": "floating-point values that are not finite numbers",
        "few.npy": "2 channels, where the first picture has 5",
    }


def test_a_range_that_is_given_counts(folder: Path) -> None:
    np.save(folder.with_suffix(".npy"), BANDS)
    data = opened(folder.with_suffix(".npy"), range=(-1.0, 3.0))
    assert data.format == PixelFormat("float", -1.0, 3.0)
    assert any("beyond data.range" in note for note in data.notes)
    assert not any("beyond" in note for note in opened(folder.with_suffix(".npy"), range=(-9.0, 9.0)).notes)
    assert data.fingerprint != opened(folder.with_suffix(".npy")).fingerprint
    grey(folder)
    assert opened(folder, range=(0.0, 1.0)).format == PixelFormat("float", 0.0, 1.0), "integers become floats"
    assert opened(folder, range=(0.0, 10_000.0), depth="float").format == PixelFormat("float", 0.0, 10_000.0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bands_cannot_be_other_channels(folder: Path, channels: int) -> None:
    np.save(folder.with_suffix(".npy"), BANDS)
    with pytest.raises(UserError, match=f"5 channels can't be converted to {channels}"):
        opened(folder.with_suffix(".npy"), channels=channels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_batches_keep_values_and_mirror_them(folder: Path, dtype: type) -> None:
    np.save(folder.with_suffix(".npy"), DEEP[..., :2].astype(dtype))
    data = opened(folder.with_suffix(".npy"), flip=True)
    batch = data.batch(torch.arange(40), 3)
    plain = torch.from_numpy(np.array(data.images))[batch.index].numpy()
    got = batch.x.numpy()
    assert got.dtype == plain.dtype == dtype
    mirrored = [np.array_equal(a, b[..., ::-1]) for a, b in zip(got, plain, strict=True)]
    assert 8 < sum(mirrored) < 32
    assert all(m or np.array_equal(a, b) for m, a, b in zip(mirrored, got, plain, strict=True))


def test_random_crops_are_places_in_the_whole_and_functions_of_their_address(folder: Path) -> None:
    """Each position of the stream has a cut of its own; all that fit are met, and the middle is what is scored."""
    for i in range(4):  # the value says where a pixel was: 3 rows and 3 columns more than the size
        Image.fromarray(np.arange(27 * 27, dtype=np.uint16).reshape(27, 27) + 1000 * i).save(folder / f"{i}.png")
    data = opened(folder, size=(24, 24), crop="random", held_out=0.0)
    assert data.shape == (1, 24, 24)
    assert data.whole is not None
    assert data.whole.shape == (4, 1, 27, 27)
    assert np.array_equal(data.images, data.whole[:, :, 1:25, 1:25])
    whole, again = data.batch(torch.arange(300), 5), data.batch(torch.arange(100, 200), 5)
    assert torch.equal(whole.x[100:200], again.x)
    corners = whole.x[:, 0, 0, 0].numpy().astype(int) - 1000 * whole.index.numpy()
    assert {(c // 27, c % 27) for c in corners.tolist()} == {(y, x) for y in range(4) for x in range(4)}
    drawn = (4 * uniform(5, Purpose.CROP, torch.arange(300), (2,))).long()
    assert corners.tolist() == (27 * drawn[:, 0] + drawn[:, 1]).tolist(), "by numbers that nothing else uses"
    n, (top, left) = 7, divmod(int(corners[7]), 27)
    cut = data.whole[int(whole.index[n]), :, top : top + 24, left : left + 24]
    assert np.array_equal(whole.x[n].numpy(), cut)
    assert data.fingerprint != opened(folder, size=(24, 24), held_out=0.0).fingerprint


def test_letterboxes(folder: Path) -> None:
    Image.fromarray(np.full((4, 8, 3), 9, np.uint8)).save(folder / "0.png")
    Image.fromarray(np.full((8, 4, 3), [9, 10, 11], np.uint8)).save(folder / "1.png")
    images = opened(folder, size=(8, 8), crop="letterbox", background="#102030", held_out=0.0).images
    assert (images[0, :, 2:6] == 9).all()
    assert images[0, :, 0, 0].tolist() == images[1, :, 0, 0].tolist() == [16, 32, 48]
