"""Arrays as pictures: which axis is what, what numbers become, and files that lie."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.formats.fitting import read_values
from sfumato.data.formats.rows import make_rows
from sfumato.data.sources.arrays import ArraySource, array_source, as_pixels, from_arrays
from sfumato.data.sources.files import folder_source
from sfumato.data.sources.protocol import Blob, Unreadable
from sfumato.data.store import answers
from sfumato.data.store import format as disk
from sfumato.data.store.open import open_store
from sfumato.errors import UserError

RNG = np.random.default_rng(0)


def file_of(array: np.ndarray) -> Blob:
    content = io.BytesIO()
    np.save(content, array)
    return Blob(content.getvalue())


@pytest.mark.parametrize("stored", [(6, 8), (6, 8, 5), (5, 6, 8), (6, 8, 1), (1, 6, 8), (6, 8, 6)])
def test_the_channels_axis_is_the_shorter_one(stored: tuple[int, ...], tmp_path: Path) -> None:
    array = RNG.integers(0, 256, stored).astype(np.uint8)
    first = len(stored) == 3 and stored[0] < stored[2]
    expected = array.transpose(1, 2, 0) if first else array.reshape(6, 8, -1)
    np.save(tmp_path / "a.npy", array)
    for file in (tmp_path / "a.npy", file_of(array)):
        assert np.array_equal(read_picture(file).pixels, expected)
        assert header_size(file) == (6, 8)


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        ("u1", "u1"), ("<u2", "u2"), (">u2", "u2"), ("<i2", "f4"), ("<i8", "f4"), ("<f2", "f4"), ("<f4", "f4"),
        (">f8", "f4"),
    ],
)  # fmt: skip
def test_numbers_keep_their_values(dtype: str, becomes: str) -> None:
    array = np.array([[0, 1], [77, 255]]).astype(dtype)
    got = read_picture(file_of(array)).pixels[..., 0]
    assert got.dtype == np.dtype(becomes)
    assert got.tolist() == [[0, 1], [77, 255]]


def test_truth_is_black_and_white() -> None:
    assert as_pixels(np.array([[[True], [False]]])).ravel().tolist() == [255, 0]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[1.0, np.nan]]), "not finite"),
        (np.array([[1.0, 1e300]]), "not finite"),
        (np.array([[1, 2**24 + 1]]), "beyond 16,777,216"),
        (np.array([["a", "b"]]), "not supported"),
        (np.array([[1j, 2]]), "not supported"),
        (np.zeros(5), "not a picture"),
        (np.zeros((2, 3, 4, 5)), "not a picture"),
        (np.zeros((0, 4)), "not a picture"),
        (np.zeros((1500, 1500, 1500), bool), "too large"),
    ],
)
def test_what_has_no_rule(array: np.ndarray, reason: str) -> None:
    if array.nbytes < 1e6:
        with pytest.raises(Unreadable, match=reason):
            read_values(read_picture(file_of(array)), "white")


def test_files_that_lie(tmp_path: Path) -> None:
    good = file_of(np.zeros((4, 4), np.uint8)).data
    huge = good.replace(b"(4, 4)", b"(4000000000, 4000000000)".ljust(6))
    objects = io.BytesIO()
    np.save(objects, np.array([[{}]]), allow_pickle=True)
    for content in (good[:-3], good[:20], huge, objects.getvalue(), good.replace(b"|u1", b"|O8")):
        (tmp_path / "a.npy").write_bytes(content)
        for file in (tmp_path / "a.npy", Blob(content)):
            with pytest.raises(Unreadable):
                read_picture(file)


@pytest.mark.parametrize(
    ("shape", "expected"), [((9, 6, 8), (6, 8, 1)), ((9, 6, 8, 4), (6, 8, 4)), ((9, 4, 6, 8), (6, 8, 4))]
)
def test_one_file_of_many_pictures(shape: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path) -> None:
    array = RNG.normal(size=shape)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", images=array, other=np.zeros(3))
    for name in ("a.npy", "a.npz"):
        source = array_source(tmp_path / name)
        assert (len(source), source.size(0)) == (9, expected[:2])
        assert source.read(3).pixels.shape == expected
        last = array if expected[2] == 1 or shape[3] == 4 else array.transpose(0, 2, 3, 1)
        assert np.array_equal(source.read(3).pixels, last[3].reshape(expected).astype(np.float32))


def test_one_bad_picture_does_not_cost_the_others(tmp_path: Path) -> None:
    array = RNG.normal(size=(5, 4, 4))
    array[2, 1, 1] = np.inf
    np.save(tmp_path / "a.npy", array)
    source = array_source(tmp_path / "a.npy")
    with pytest.raises(Unreadable, match="not finite"):
        source.read(2)
    assert source.read(3).pixels.dtype == np.float32


def test_labels_are_the_class(tmp_path: Path) -> None:
    images = np.zeros((4, 3, 3), np.uint8)
    np.savez(tmp_path / "named.npz", images=images, labels=[1, 0, 1, 1], classes=["cat", "dog"])
    np.savez(tmp_path / "plain.npz", images=images, labels=["b", "a", "a", "c"])
    for name, values, codes in (("named", ("cat", "dog"), [1, 0, 1, 1]), ("plain", ("a", "b", "c"), [1, 0, 0, 2])):
        source = array_source(tmp_path / f"{name}.npz")
        assert source.attributes[0].values == values
        assert [source.read(i).condition for i in range(4)] == [(float(code),) for code in codes]
    assert array_source(tmp_path / "named.npz").key() != array_source(tmp_path / "plain.npz").key()


KERAS = ("x_train", "y_train", "x_test", "y_test")
MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels")


@pytest.mark.parametrize("keys", [KERAS, MEDMNIST, ("X_train", "Y_train", "X_val", "Y_val")])
@pytest.mark.parametrize("column", [False, True])
def test_the_keys_of_the_field_and_their_parts(keys: tuple[str, ...], column: bool, tmp_path: Path) -> None:
    train, test = RNG.integers(0, 256, (4, 8, 8)).astype(np.uint8), RNG.integers(0, 256, (2, 8, 8)).astype(np.uint8)
    labels = np.array([7, 10, 9, 7]), np.array([10, 9])
    if column:
        labels = labels[0][:, None], labels[1][:, None]
    arrays = dict(zip(keys, (train, labels[0], test, labels[1]), strict=True))
    np.savez(tmp_path / "a.npz", **{key: arrays[key] for key in sorted(keys)}, other=np.array([{}]))
    data = open_data(DataConfig(str(tmp_path / "a.npz"), labels="source"))
    assert data.attributes[0].values == ("7", "9", "10")
    assert data.train.tolist() == [0, 1, 2, 3]
    assert data.held_out.tolist() == [4, 5]
    assert np.array_equal(data.images[:, 0], np.concatenate([train, test]))
    assert data.table[:, 0].tolist() == [0, 2, 1, 0, 2, 1]
    assert f"held out are the 2 images of '{keys[2]}'" in data.summary()


def test_other_names_of_images_and_labels(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (5, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "xy.npz", X=images, y=np.array([1.0, 0.0, 1.0, 1.0, 1.0]))
    np.savez(tmp_path / "positional.npz", images, np.array([b"b", b"a", b"b", b"b", b"b"]))
    np.savez(tmp_path / "dsprites.npz", imgs=images, latents_values=np.zeros((5, 6)), metadata=np.array([{}]))
    for name, values in (("xy", ("0", "1")), ("positional", ("a", "b")), ("dsprites", None)):
        source = array_source(tmp_path / f"{name}.npz")
        assert np.array_equal(source.read(3).pixels[..., 0], images[3])
        assert tuple(a.values for a in source.attributes) == ((values,) if values else ())
        assert [source.read(i).condition for i in range(2)] == ([(1.0,), (0.0,)] if values else [(), ()])


def test_rows_of_labels(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "one.npz", images=images, labels=np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    np.savez(tmp_path / "many.npz", images=images, labels=np.array([[0, 1], [1, 1], [0, 0]]))
    one, many = array_source(tmp_path / "one.npz"), array_source(tmp_path / "many.npz")
    assert [one.read(i).condition for i in range(3)] == [(2.0,), (0.0,), (1.0,)]
    assert [a.name for a in many.attributes] == ["label0", "label1"]
    assert [many.read(i).condition for i in range(3)] == [(0.0, 1.0), (1.0, 1.0), (0.0, 0.0)]


def test_a_part_without_labels_has_none(tmp_path: Path) -> None:
    arrays = {"x_train": np.zeros((2, 6, 6)), "y_train": np.array([0, 1]), "x_test": np.ones((2, 6, 6))}
    np.savez(tmp_path / "a.npz", **arrays)
    conditions = [array_source(tmp_path / "a.npz").read(i).condition for i in range(4)]
    assert conditions[:2] == [(0.0,), (1.0,)]
    assert all(np.isnan(value) for (value,) in conditions[2:])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros((2, 3, 3)), "b": np.zeros(2)}, "no array 'images'"),
        ({"images": np.zeros((3, 3))}, "number x height x width"),
        ({"images": np.zeros((3, 9))}, "signals of length L are number x 1 x L"),
        ({"x_train": np.zeros((3, 4, 4)), "x_test": np.zeros((3, 5, 4))}, "parts that don't fit together"),
        ({"x_train": np.zeros((3, 4, 4)), "y_train": np.zeros(2, int)}, "one integer or text for each of 3"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(3, int)}, "one integer or text for each"),
        ({"images": np.zeros((2, 3, 3)), "labels": np.array([0, 5]), "classes": np.array(["a", "b"])}, "beyond its 2"),
        ({"images": np.array([{}, {}, {}])}, "an array of objects, which a pickle holds: save numbers"),
    ],
)
def test_files_that_cannot_be_used(arrays: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=said) as error:
        len(array_source(tmp_path / "a.npz"))
    assert "\n" not in str(error.value)


def test_an_array_of_objects_is_told_from_a_short_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, {}, {}]))
    with pytest.raises(UserError, match="an array of objects, which a pickle holds: save numbers") as error:
        len(array_source(tmp_path / "a.npy"))
    assert "damaged" not in str(error.value)
    np.save(tmp_path / "b.npy", np.zeros((9, 4, 4)))
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-9])
    with pytest.raises(UserError, match="damaged: the header promises more than the file holds") as error:
        len(array_source(tmp_path / "b.npy"))
    assert "array of objects" not in str(error.value)


@pytest.mark.parametrize("shape", [(30, 1, 100), (30, 1, 1, 100), (30, 100, 1, 1)])
def test_signals_keep_their_length(shape: tuple[int, ...], tmp_path: Path) -> None:
    """One row of L values is a picture of height 1; it is never shrunk to a single value."""
    signals = RNG.normal(size=shape).astype(np.float32)
    np.save(tmp_path / "s.npy", signals)
    data = open_data(DataConfig(str(tmp_path / "s.npy")))
    assert sorted(data.shape[1:]) == [1, 100]
    assert np.array_equal(np.array(data.images).reshape(30, 100), signals.reshape(30, 100))
    assert "100 (height x width), as strips or signals have it" in data.summary() or "100x1" in data.summary()


# ---- blocks ----


def several() -> dict[str, np.ndarray]:
    """Arrays of 40 pictures in which some differ from the others."""
    colour = RNG.integers(0, 256, (40, 9, 8, 3), np.uint8)
    colour[7:12] = colour[7:12, :, :, :1]
    colour[30] = colour[3]
    floats = RNG.normal(size=(40, 9, 8)).astype(np.float32)
    holed, unit, large = floats.copy(), RNG.random((40, 9, 8, 3)), RNG.integers(-9, 9, (40, 9, 8))
    holed[4, 2, 3], holed[20], holed[33, 0, 0] = np.nan, np.nan, np.inf
    unit[5:9] *= 255
    large[11] = 2**30
    planar = RNG.integers(0, 2**16, (40, 3, 9, 8)).astype(">u2")
    masks = np.array([[0, 0, 0], [255, 0, 0], [0, 7, 9]], np.uint8)[RNG.integers(0, 3, (40, 9, 8))]
    return {"colour": colour, "floats": floats, "holed": holed, "unit": unit, "large": large, "planar": planar,
            "masks": masks, "bands": RNG.integers(0, 9, (40, 9, 8, 5), np.uint8)}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("colour", {}), ("colour", {"channels": 1}), ("colour", {"channels": 4}), ("colour", {"depth": "float"}),
        ("colour", {"size": (5, 6), "crop": "letterbox"}), ("colour", {"depth": "16", "channels": 3}),
        ("floats", {}), ("floats", {"range": (-0.5, 0.5), "clamp": True}), ("floats", {"percentiles": (5.0, 95.0)}),
        ("holed", {}), ("holed", {"nodata": "nan", "size": (6, 6)}), ("unit", {"depth": "8"}), ("large", {}),
        ("planar", {}), ("planar", {"depth": "8"}), ("masks", {"size": (6, 6)}), ("bands", {}),
    ],
)  # fmt: skip
def test_pictures_that_are_stored_many_at_once_are_stored_as_one_by_one(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", images=several()[name], labels=RNG.integers(0, 3, 40))
    monkeypatch.setattr(disk, "CHUNK", 25)  # lines of the journal end within blocks
    stores, read = [], ArraySource.read
    for together in (17, 1):
        monkeypatch.setattr(ArraySource, "together", together)
        singly: list[int] = []
        monkeypatch.setattr(ArraySource, "read", lambda self, i, singly=singly: singly.append(i) or read(self, i))
        cache = tmp_path / f"cache{together}"
        open_store(array_source(tmp_path / "a.npz"), DataConfig(**options), cache)
        stores.append({path.name: path.read_bytes() for path in cache.rglob("*") if path.is_file()})
        if together > 1 and name not in ("holed", "unit", "large") and "percentiles" not in options:
            assert singly == [], "all of them in blocks"
    assert stores[0] == stores[1]
    assert {"images.npy", "digests.npy", "conditions.npy", "origins.txt", "index.json"} <= set(stores[0])


def test_an_import_of_arrays_needs_little_memory_beside_them(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (6000, 32, 32, 3), np.uint8)
    source = from_arrays(images)
    tracemalloc.start()
    try:
        open_store(source, DataConfig(), tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 2


def test_a_block_that_fails_in_any_way_costs_only_its_faulty_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(pixels: np.ndarray, form: object) -> None:
        raise ValueError("what nobody thought of")

    monkeypatch.setattr(answers, "make_rows", failing)
    source = from_arrays(RNG.integers(0, 256, (40, 8, 8), np.uint8))
    stored = open_store(source, DataConfig(), tmp_path / "cache")
    assert len(stored.images) == 40
    assert not stored.skipped


def test_files_that_are_alike_are_stored_together_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(60):
        pixels = RNG.integers(0, 256, (8, 8, 3 if k % 9 else 4), np.uint8)
        pixels = pixels if k % 7 else pixels[..., 0]
        Image.fromarray(pixels).resize((8, 8 + (k == 30))).save(folder / f"{k:02}.png")
    (folder / "33.png").write_bytes(b"not a picture")
    monkeypatch.setattr(disk, "CHUNK", 25)
    stores, together, real = [], list[int](), make_rows
    for most in (16, 1):
        monkeypatch.setattr(answers, "_TOGETHER", most)
        monkeypatch.setattr(answers, "make_rows", lambda some, form: together.append(len(some)) or real(some, form))
        stored = open_store(folder_source(folder), DataConfig(size=(8, 8)), tmp_path / f"cache{most}")
        assert [origin for origin, _ in stored.skipped] == ["33.png"]
        stores.append({p.name: p.read_bytes() for p in (tmp_path / f"cache{most}").rglob("*") if p.is_file()})
    assert stores[0] == stores[1]
    assert max(together) > 4
    assert min(together) > 1
