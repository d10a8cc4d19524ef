"""What every source keeps to, whatever the pictures lie in."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import Source, Unreadable, from_arrays, from_dataset, open_data, open_source
from sfumato.data.store.open import open_store

from .encode import saved

COUNT, SIDE = 12, 32
RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
CLASSES = ("cat", "dog", "owl")
LABELS = np.arange(COUNT) % 3
Maker = Callable[[Path, np.ndarray, np.ndarray], Source]


def encoded(image: np.ndarray) -> bytes:
    return saved(Image.fromarray(image), "PNG")


def members(images: np.ndarray, labels: np.ndarray, bad: bool = False) -> list[tuple[str, bytes]]:
    """Pictures by class, in the order of their names; the number in the name is that of the picture."""
    named = [(f"{CLASSES[label]}/{i:03d}.png", encoded(images[i])) for i, label in enumerate(labels)]
    return sorted((name, data[:200] if bad and k else data) for k, (name, data) in enumerate(named))


def folder(path: Path, images: np.ndarray, labels: np.ndarray, bad: bool = False) -> Source:
    for name, data in members(images, labels, bad):
        (path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "set" / name).write_bytes(data)
    return open_source(str(path / "set"))


def listed(path: Path, images: np.ndarray, labels: np.ndarray, bad: bool = False) -> Source:
    folder(path, images, labels, bad)
    lines = [
        f"set/{name}" if k % 2 else str(path / "set" / name) for k, (name, _) in enumerate(members(images, labels))
    ]
    (path / "list.txt").write_text("\n".join([*lines, "", lines[0], ""]))
    return open_source(str(path / "list.txt"))


def zipped(
    path: Path, images: np.ndarray, labels: np.ndarray, method: int = zipfile.ZIP_DEFLATED, bad: bool = False
) -> Source:
    with zipfile.ZipFile(path / "set.zip", "w", method) as archive:
        for name, data in members(images, labels, bad)[::-1]:
            archive.writestr(name, data)
    return open_source(str(path / "set.zip"))


def stored_zip(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    return zipped(path, images, labels, zipfile.ZIP_STORED)


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def tarred(path: Path, images: np.ndarray, labels: np.ndarray, mode: str = "w", bad: bool = False) -> Source:
    name = path / f"set.tar{mode[1:].replace(':', '.')}"
    with tarfile.open(name, mode) as archive:
        for member, data in members(images, labels, bad):
            add(archive, f"./set/{member}", data)
    return open_source(str(name))


def tar_gz(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    return tarred(path, images, labels, "w:gz")


def tar_xz(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    return tarred(path, images, labels, "w:xz")


def shards(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    """WebDataset: KEY.png with KEY.json."""
    (path / "shards").mkdir(exist_ok=True)
    for shard in range(3):
        with tarfile.open(path / "shards" / f"part-{shard:03d}.tar", "w") as archive:
            for i in range(4 * shard, 4 * shard + 4):
                add(archive, f"{i:06d}.json", json.dumps({"class": CLASSES[labels[i]], "caption": ["a", "b"]}).encode())
                add(archive, f"{i:06d}.png", encoded(images[i]))
    return open_source(str(path / "shards" / "part-{000..002}.tar"))


def npz(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    np.savez(path / "set.npz", images=images, labels=labels, classes=np.array(CLASSES))
    return open_source(str(path / "set.npz"))


def cifar_binary(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    (path / "cifar").mkdir(exist_ok=True)
    records = np.concatenate([labels[:, None].astype(np.uint8), planes(images)], 1)
    records[:5].tofile(path / "cifar" / "data_batch_1.bin")
    records[5:].tofile(path / "cifar" / "data_batch_2.bin")
    records[:2].tofile(path / "cifar" / "test_batch.bin")
    (path / "cifar" / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return open_source(str(path / "cifar"))


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def cifar_python(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    (path / "py").mkdir(exist_ok=True)
    for batch, rows in ((1, slice(0, 7)), (2, slice(7, COUNT))):
        table = {"data": planes(images)[rows], "labels": labels[rows].tolist(), "filenames": ["x.png"] * 3}
        (path / "py" / f"data_batch_{batch}").write_bytes(pickle.dumps(table, protocol=2))
    meta = {"label_names": list(CLASSES), "num_vis": 3072}
    (path / "py" / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return open_source(str(path / "py"))


def parquet(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": encoded(image), "path": "../../etc/passwd"} for image in images]
    table = pyarrow.table(
        {"image": pictures, "class": [CLASSES[k] for k in labels], "id": list(map(str, range(COUNT)))}
    )
    files.write_table(table, path / "set.parquet", row_group_size=5)
    return open_source(str(path / "set.parquet"))


def huggingface(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    datasets = pytest.importorskip("datasets")
    from sfumato.data import from_huggingface

    kinds = datasets.Features({"image": datasets.Image(), "class": datasets.ClassLabel(names=list(CLASSES))})
    table = {"image": [Image.fromarray(image) for image in images], "class": labels.tolist()}
    return from_huggingface(datasets.Dataset.from_dict(table, features=kinds))


def arrays(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    return from_arrays(images, labels, CLASSES)


def tensors(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    import torch

    return from_arrays(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels), CLASSES)


class Items:
    """A torch data set as torchvision's are."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels, self.classes = images, labels, list(CLASSES)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[i]), int(self.labels[i])


def torch_dataset(path: Path, images: np.ndarray, labels: np.ndarray) -> Source:
    return from_dataset(Items(images, labels))


MAKERS: list[Maker] = [
    *(folder, listed, zipped, stored_zip, tarred, tar_gz, tar_xz, shards, npz, cifar_binary, cifar_python, parquet),
    *(huggingface, arrays, tensors, torch_dataset),
]
BY_NAME = (folder, listed, zipped, stored_zip, tarred, tar_gz, tar_xz)
"""Those whose order is that of the names."""


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Maker:
    maker: Maker = request.param
    return maker


def order(make: Maker) -> list[int]:
    """Which picture comes when."""
    return sorted(range(COUNT), key=lambda i: (LABELS[i], i)) if make in BY_NAME else list(range(COUNT))


def test_the_same_pixels_and_labels_whatever_the_container(make: Maker, tmp_path: Path) -> None:
    source = make(tmp_path, IMAGES, LABELS)
    assert len(source) == COUNT
    (attribute,) = source.attributes
    assert attribute.name == "class"
    for place, i in enumerate(order(make)):
        picture = source.read(place)
        np.testing.assert_array_equal(picture.pixels, IMAGES[i])
        assert attribute.text(picture.condition[0]) == CLASSES[LABELS[i]]
        assert source.size(place) == (SIDE, SIDE)


def test_order_origin_and_name_are_stable_and_printable(make: Maker, tmp_path: Path) -> None:
    first, second = make(tmp_path, IMAGES, LABELS), make(tmp_path, IMAGES, LABELS)
    origins = [first.origin(i) for i in range(COUNT)]
    assert origins == [second.origin(i) for i in range(COUNT)]
    assert len(set(origins)) == COUNT
    assert all(text.isprintable() and text for text in [*origins, first.name])
    assert first.name == second.name


def test_the_key_changes_with_the_contents_and_only_then(make: Maker, tmp_path: Path) -> None:
    key = make(tmp_path, IMAGES, LABELS).key()
    if make in (arrays, tensors, torch_dataset, huggingface):  # of the contents; the others know files by their times
        assert make(tmp_path, IMAGES.copy(), LABELS).key() == key
    time.sleep(0.02)
    other = IMAGES.copy()
    other[7, 3, 4, 1] ^= 255
    assert make(tmp_path, other, LABELS).key() != key


def test_reading_is_in_any_order_and_twice_alike(make: Maker, tmp_path: Path) -> None:
    source = make(tmp_path, IMAGES, LABELS)
    forward = [source.read(i).pixels for i in range(COUNT)]
    for i in (11, 3, 3, 0, 10):
        np.testing.assert_array_equal(source.read(i).pixels, forward[i])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that begin as copies")
def test_a_copy_of_the_process_reads_beside_this_one(make: Maker, tmp_path: Path) -> None:
    """`sfumato data check` looks at pictures in copies of itself: they must not share a place in a file."""
    source = make(tmp_path, IMAGES, LABELS)
    source.read(0)  # whatever is opened when first used is open now
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            good = all((source.read(i).pixels == IMAGES[order(make)[i]]).all() for _ in range(20) for i in range(COUNT))
            os.write(theirs, b"+" if good else b"-")
        finally:
            os._exit(0)
    for _ in range(20):
        for i in range(COUNT):
            np.testing.assert_array_equal(source.read(i).pixels, IMAGES[order(make)[i]])
    os.waitpid(child, 0)
    assert os.read(ours, 1) == b"+"
    os.close(ours)
    os.close(theirs)


def test_processes_store_what_one_does(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for workers in ("0", "1"):
        monkeypatch.setenv("SFUMATO_WORKERS", workers)
        stored = open_store(make(tmp_path, IMAGES, LABELS), DataConfig(size=(16, 16)), tmp_path / workers)
        found.append(
            (np.array(stored.images).tobytes(), stored.digests, stored.origins, stored.labels.conditions.tobytes())
        )
    assert found[0] == found[1]
    assert len(found[0][1]) == COUNT


def test_it_opens_as_data_with_its_labels(make: Maker, tmp_path: Path) -> None:
    data = open_data(DataConfig(labels="source", held_out=0), source=make(tmp_path, IMAGES, LABELS))
    assert data.counts == {"class": dict.fromkeys(CLASSES, 4)}
    np.testing.assert_array_equal(data.images[0], IMAGES[order(make)[0]].transpose(2, 0, 1))


# One bad picture among good ones is an ordinary event


def with_bad_folder(path: Path) -> Source:
    return folder(path, IMAGES[:2], LABELS[:2], bad=True)


def with_bad_zip(path: Path) -> Source:
    return zipped(path, IMAGES[:2], LABELS[:2], bad=True)


def with_bad_tar(path: Path) -> Source:
    return tarred(path, IMAGES[:2], LABELS[:2], bad=True)


def with_bad_parquet(path: Path) -> Source:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"image": [encoded(IMAGES[0]), encoded(IMAGES[1])[:200]]})
    files.write_table(table, path / "set.parquet")
    return open_source(str(path / "set.parquet"))


def with_bad_dataset(path: Path) -> Source:
    class Breaking(Items):
        def __getitem__(self, i: int) -> tuple[Image.Image, int]:
            if i == 1:
                raise RuntimeError("this one\nis broken")
            return super().__getitem__(i)

    return from_dataset(Breaking(IMAGES[:2], LABELS[:2]))


@pytest.mark.parametrize(
    "make_bad",
    [with_bad_folder, with_bad_zip, with_bad_tar, with_bad_parquet, with_bad_dataset],
    ids=lambda f: f.__name__,
)
def test_a_bad_picture_is_unreadable_and_no_crash(make_bad: Callable[[Path], Source], tmp_path: Path) -> None:
    source = make_bad(tmp_path)
    np.testing.assert_array_equal(source.read(0).pixels, IMAGES[0])
    with pytest.raises(Unreadable) as caught:
        source.read(1)
    assert caught.value.reason.isprintable()
