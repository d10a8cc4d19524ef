from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from sfumato.conditions.attributes import Attribute
from sfumato.config.data import DataConfig
from sfumato.data import open_data, open_source
from sfumato.data.sources.published import find_idx, read_idx
from sfumato.errors import UserError


def idx_bytes(array: np.ndarray) -> bytes:
    """The format as the MNIST page writes it down."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_pair(folder: Path, stem: str = "train-", gz: bool = False, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 5, 7), dtype=np.uint8)
    labels = (np.arange(count) % 3).astype(np.uint8)
    for array, name in ((images, "images-idx3-ubyte"), (labels, "labels-idx1-ubyte")):
        data = idx_bytes(array)
        path = folder / f"{stem}{name}{'.gz' if gz else ''}"
        path.write_bytes(gzip.compress(data) if gz else data)
    return images, labels


@pytest.mark.parametrize("gz", [False, True])
def test_a_folder_of_idx_files_is_a_data_set(tmp_path: Path, gz: bool) -> None:
    images, labels = write_pair(tmp_path / "set", gz=gz)
    data = open_data(DataConfig(source=str(tmp_path / "set"), labels="source"))
    assert data.shape == (1, 5, 7)
    assert np.array_equal(data.images[:, 0], images)
    assert np.array_equal(data.table[:, 0], labels)
    assert data.attributes == (Attribute("class", ("0", "1", "2")),)


def test_one_file_of_images_is_a_data_set_too(tmp_path: Path) -> None:
    images, _ = write_pair(tmp_path / "set")
    source = open_source(str(tmp_path / "set" / "train-images-idx3-ubyte"))
    assert len(source) == 30
    assert np.array_equal(source.read(4).pixels[..., 0], images[4])
    assert source.read(4).condition == (1.0,)


def test_train_is_preferred_and_a_file_to_its_gzip(tmp_path: Path) -> None:
    write_pair(tmp_path / "set", "t10k-")
    assert find_idx(tmp_path / "set") == tmp_path / "set" / "t10k-images-idx3-ubyte"
    write_pair(tmp_path / "set", "train-", gz=True)
    write_pair(tmp_path / "set", "train-")
    found = find_idx(tmp_path / "set")
    assert found is not None
    assert found.name == "train-images-idx3-ubyte"


def test_images_without_labels(tmp_path: Path) -> None:
    write_pair(tmp_path / "set")
    (tmp_path / "set" / "train-labels-idx1-ubyte").unlink()
    data = open_data(DataConfig(source=str(tmp_path / "set")))
    assert data.attributes == ()
    assert data.vocabulary is data.conditions is None


def test_several_candidates_are_named(tmp_path: Path) -> None:
    write_pair(tmp_path / "set", "a-")
    write_pair(tmp_path / "set", "b-")
    with pytest.raises(UserError, match="a-images-idx3-ubyte, b-images-idx3-ubyte"):
        find_idx(tmp_path / "set")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an idx"),
        (b"\x89PNG\r\n\x1a\n", "not an idx"),
        (bytes([0, 0, 13, 3]), "not an idx"),  # floats
        (bytes([0, 0, 8, 3]) + bytes(5), "not as long"),
        (idx_bytes(np.zeros((4, 3, 3), np.uint8))[:-1], "not as long"),
        (idx_bytes(np.zeros((4, 3, 3), np.uint8)) + b"x", "not as long"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "not as long"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words):
        read_idx(path)


@pytest.mark.parametrize("keep", [0, 10, 40, -4])
def test_a_broken_gzip_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(240, dtype=np.uint8).reshape(10, 4, 6)))[:keep])
    with pytest.raises(UserError):
        read_idx(path)


def test_labels_must_fit_the_images(tmp_path: Path) -> None:
    write_pair(tmp_path / "set")
    labels = tmp_path / "set" / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(29, np.uint8)))
    with pytest.raises(UserError, match="29 labels for 30 images"):
        open_data(DataConfig(source=str(tmp_path / "set")))
