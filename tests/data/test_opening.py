"""What the user writes, and which source that is: CelebA, CIFAR, tables, ids, data in memory; and what is none."""

from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import Unreadable, from_arrays, from_dataset, from_huggingface, open_data, open_source
from sfumato.errors import UserError

from .encode import noise

MakeFolder = Callable[..., Path]
RNG = np.random.default_rng(3)


# ---- CelebA ----


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    """CelebA's folder, of six faces."""
    faces = tmp_path / "celeba" / "img_align_celeba"
    faces.mkdir(parents=True)
    for k in range(1, 7):
        (faces / f"{k:06d}.jpg").write_bytes(noise(k))
    rows = [f"{k:06d}.jpg {' '.join(str(2 * (k >> bit & 1) - 1).rjust(2) for bit in range(3))}" for k in range(1, 7)]
    (tmp_path / "celeba" / "list_attr_celeba.txt").write_text("6\nBald Male Young\n" + "\n".join(rows) + "\n")
    parts = "\n".join(f"{k:06d}.jpg {(0, 0, 1, 0, 2, 0)[k - 1]}" for k in range(1, 7))
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text(parts)
    return tmp_path / "celeba"


def kaggles(celeba: Path) -> None:
    """Turn the folder into Kaggle's copy: lists as CSV, pictures one folder deeper."""
    for name, first, header in (("list_attr_celeba", 2, "Bald,Male,Young"), ("list_eval_partition", 0, "partition")):
        lines = (celeba / f"{name}.txt").read_text().splitlines()[first:]
        table = [f"image_id,{header}", *(",".join(line.split()) for line in lines)]
        (celeba / f"{name}.csv").write_text("\n".join(table) + "\n")
        (celeba / f"{name}.txt").unlink()
    (celeba / "list_bbox_celeba.csv").write_text("image_id,x_1,y_1,width,height\n000001.jpg,95,71,226,313\n")
    (celeba / "img_align_celeba").rename(celeba / "inner")
    (celeba / "img_align_celeba").mkdir()
    (celeba / "inner").rename(celeba / "img_align_celeba" / "img_align_celeba")


@pytest.mark.parametrize("change", [lambda celeba: None, kaggles], ids=["published", "kaggle"])
def test_celeba_holds_out_the_faces_that_do_not_train(celeba: Path, change: Callable[[Path], None]) -> None:
    change(celeba)
    source = open_source(str(celeba))
    assert [source.origin(i) for i in range(len(source))] == [f"{k:06d}.jpg" for k in range(1, 7)]
    assert [attribute.name for attribute in source.attributes] == ["Bald", "Male", "Young"]
    conditions = [tuple(float(k >> bit & 1) for bit in range(3)) for k in range(1, 7)]
    assert [source.read(i).condition for i in range(6)] == conditions
    data = open_data(DataConfig(str(celeba), labels="source", attributes=("Male",)))
    assert [data.origins[i] for i in data.train] == [f"{k:06d}.jpg" for k in (1, 2, 4, 6)]
    assert [data.origins[i] for i in data.held_out] == ["000003.jpg", "000005.jpg"]
    assert data.counts == {"Male": {"no": 3, "yes": 3}}
    assert "held out are the 2 images of parts 1 and 2 of list_eval_partition." in data.summary()
    assert len(open_data(DataConfig(str(celeba), held_out=0)).train) == 6


def test_celeba_without_parts_is_all_faces_and_a_changed_list_changes_the_key(celeba: Path) -> None:
    key = open_source(str(celeba)).key()
    (celeba / "list_eval_partition.txt").unlink()
    assert len(open_source(str(celeba))) == 6
    assert open_source(str(celeba)).key() == key, "the same pictures, another split"
    (celeba / "list_attr_celeba.txt").write_text((celeba / "list_attr_celeba.txt").read_text() + "\n")
    assert open_source(str(celeba)).key() != key
    (celeba / "Anno").mkdir()
    (celeba / "list_attr_celeba.txt").rename(celeba / "Anno" / "list_attr_celeba.txt")
    assert open_source(str(celeba)).attributes
    assert not open_source(str(celeba / "img_align_celeba")).attributes


def test_a_partition_that_trains_nothing_is_one_line(celeba: Path) -> None:
    (celeba / "list_eval_partition.txt").write_text("000001.jpg 1\n")
    with pytest.raises(UserError, match="to train on"):
        open_source(str(celeba))


# ---- CIFAR ----


def test_cifar_100_has_two_attributes_and_a_file_is_that_file(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 3072), np.uint8)
    for name, rows in (("train", slice(0, 3)), ("test", slice(3, 4))):
        labels = np.array([[1, 5], [0, 7], [1, 5], [0, 0]], np.uint8)[rows]
        np.concatenate([labels, pixels[rows]], 1).tofile(tmp_path / f"{name}.bin")
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"fine{k}" for k in range(10)))
    (tmp_path / "coarse_label_names.txt").write_text("fish\nflowers\n")
    source = open_source(str(tmp_path))
    assert len(source) == 3
    words = [a.text(x) for a, x in zip(source.attributes, source.read(2).condition, strict=True)]
    assert [a.name for a in source.attributes] == ["superclass", "class"]
    assert words == ["flowers", "fine5"]
    np.testing.assert_array_equal(source.read(1).pixels, pixels[1].reshape(3, 32, 32).transpose(1, 2, 0))
    assert len(open_source(str(tmp_path / "test.bin"))) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 3000, bytes([99]) + bytes(3072)])
def test_a_batch_of_cifar_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match="batch"):
        len(open_source(str(tmp_path)))


# ---- tables ----


def test_parquet_labels_are_plain_columns_and_a_folder_is_its_files(tmp_path: Path) -> None:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for part in range(2):
        rows = range(6 * part, 6 * part + 6)
        columns = {
            "caption": [f"picture {k}" for k in rows],
            "img": [noise(k) if k != 8 else None for k in rows],
            "kind": [("a", "b", None)[k % 3] for k in rows],
            "age": [1.5 * k for k in rows],
            "boxes": [[k] for k in rows],
        }
        files.write_table(pyarrow.table(columns), tmp_path / f"{part}.parquet", row_group_size=4)
    source = open_source(str(tmp_path))
    assert len(source) == 12
    assert [attribute.name for attribute in source.attributes] == ["kind", "age"]
    assert source.origin(7).endswith("[7]")
    assert np.isnan(source.read(2).condition[0])
    assert source.attributes[1].text(source.read(7).condition[1]) == "10.5"
    for k in (11, 0, 5, 6):
        np.testing.assert_array_equal(source.read(k).pixels, np.asarray(Image.open(io.BytesIO(noise(k)))))
    with pytest.raises(Unreadable, match="no bytes"):
        source.read(8)


@pytest.mark.parametrize("keep", [0, 3, 200])
def test_parquet_that_is_damaged_or_has_no_pictures_is_one_line(tmp_path: Path, keep: int) -> None:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files.write_table(pyarrow.table({"image": [noise(1)] * 9}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:keep])
    files.write_table(pyarrow.table({"text": ["no pictures"]}), tmp_path / "b.parquet")
    for name, words in (("a", "can't be read as Parquet"), ("b", "no column of pictures: it has text")):
        with pytest.raises(UserError, match=words) as caught:
            open_source(str(tmp_path / f"{name}.parquet"))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("set.parquet", "pyarrow", "parquet"), ("hf:x", "datasets", "datasets")]
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    real = builtins.__import__

    def without(module: str, *args: Any, **options: Any) -> ModuleType:
        if module.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{module}'")
        return real(module, *args, **options)

    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=rf"pip install 'sfumato\[{extra}\]'") as caught:
        open_source(str(tmp_path / name) if name.startswith("set") else name)
    assert "\n" not in str(caught.value)


class FakeTable:
    """What is asked of a `datasets.Dataset`, where that library isn't there."""

    _fingerprint = "f1"

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
        self.columns, self.features = columns, features

    def __len__(self) -> int:
        return len(self.columns["image"])

    def __getitem__(self, key: Any) -> Any:
        return self.columns[key] if isinstance(key, str) else {name: cells[key] for name, cells in self.columns.items()}

    def select_columns(self, names: list[str]) -> FakeTable:
        return FakeTable({name: self.columns[name] for name in names}, {name: self.features[name] for name in names})

    def cast_column(self, name: str, kind: object) -> FakeTable:
        self.cast = (name, kind)
        return self


def feature(kind: str, **values: Any) -> Any:
    return type(kind, (SimpleNamespace,), {})(**values)


def fake_datasets(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    module = SimpleNamespace(load_dataset=load, Dataset=FakeTable, Image=lambda decode: ("undecoded", decode))
    monkeypatch.setitem(sys.modules, "datasets", module)  # type: ignore[arg-type]


def made(image: str = "image") -> FakeTable:
    columns = {
        "image": [{"bytes": noise(k), "path": None} for k in range(4)],
        "label": [0, 1, -1, 1],
        "tags": [["a"]] * 4,
        "text": list("wxyz"),
    }
    features = {
        "image": feature("Image"),
        "label": feature("ClassLabel", names=["cat", "dog"]),
        "tags": feature("List"),
        "text": feature("Value", dtype="string"),
    }
    return FakeTable(columns, features)


def test_an_id_of_the_hub_is_loaded_by_its_name_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, split: str) -> FakeTable:
        asked.append((name, split))
        return made()

    fake_datasets(monkeypatch, load)
    source = open_source("hf:own/cats:validation")
    open_source("hf:own/cats")
    assert asked == [("own/cats", "validation"), ("own/cats", "train")]
    assert [(a.name, a.values) for a in source.attributes] == [("label", ("cat", "dog"))]
    assert [source.read(i).condition[0] for i in (0, 1, 3)] == [0, 1, 1]
    assert np.isnan(source.read(2).condition[0])  # -1 is how datasets write "none"
    np.testing.assert_array_equal(source.read(3).pixels, np.asarray(Image.open(io.BytesIO(noise(3)))))
    assert source.origin(2) == "hf:own/cats:validation[2]"
    assert source.key() == "f1"


def test_a_hub_that_is_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, split: str) -> FakeTable:
        raise ConnectionError("Couldn't reach the Hub\nwith a long\ntrace")

    fake_datasets(monkeypatch, load)
    with pytest.raises(UserError, match=r"hf:own/cats.*Couldn't reach the Hub") as caught:
        open_source("hf:own/cats")
    assert "\n" not in str(caught.value)


def test_several_splits_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_datasets(monkeypatch, lambda name, split: {"train": made()})
    with pytest.raises(UserError, match="single split"):
        open_source("hf:own/cats")
    with pytest.raises(UserError, match="single split"):
        from_huggingface({"train": made()})


# ---- memory ----


def test_tensors_and_arrays_are_laid_out_as_each_has_it() -> None:
    images = RNG.integers(0, 256, (5, 2, 4, 3), np.uint8)
    for source in (from_arrays(images), from_arrays(torch.from_numpy(images).permute(0, 3, 1, 2))):
        np.testing.assert_array_equal(source.read(3).pixels, images[3])
        assert source.attributes == ()
    assert from_arrays(images[..., 0]).read(0).pixels.shape == (2, 4, 1)
    assert from_arrays(images / np.float32(255)).read(0).pixels.dtype == np.float32


@pytest.mark.parametrize(
    ("images", "labels", "classes"),
    [
        (np.zeros((3, 4), np.uint8), None, None),
        (np.zeros((0, 4, 4), np.uint8), None, None),
        (np.zeros((3, 4, 4), np.uint8), [0, 1], None),
        (np.zeros((3, 4, 4), np.uint8), [0, 1, 2], ("a", "b")),
        (np.zeros((3, 4, 4), np.uint8), [0, -1, 1], ("a", "b")),
        (np.full((3, 4, 4), np.nan, np.float32), None, None),
        (np.zeros((3, 4, 4), object), None, None),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(images: Any, labels: Any, classes: Any) -> None:
    with pytest.raises(UserError) as caught:
        from_arrays(images, labels, classes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "item",
    [
        lambda image: image,
        lambda image: (image, 1),
        lambda image: {"image": image, "label": 1},
        lambda image: Image.fromarray(image),
        lambda image: (torch.from_numpy(image).permute(2, 0, 1), torch.tensor(1)),
    ],
)
def test_items_of_a_torch_dataset_may_be_of_many_kinds(item: Callable[[Any], Any]) -> None:
    images = RNG.integers(0, 256, (5, 6, 7, 3), np.uint8)

    class Items(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> Any:
            return item(images[i])

    source = from_dataset(Items())
    np.testing.assert_array_equal(source.read(4).pixels, images[4])
    assert [attribute.values for attribute in source.attributes] in ([], [("yes",)], [("1",)], [("no", "yes")])
    assert from_dataset(Items(), key="mine").key() == "mine"


def test_a_stream_and_an_empty_dataset_are_refused() -> None:
    with pytest.raises(UserError, match="no length"):
        from_dataset(iter([1, 2]))
    with pytest.raises(UserError, match="empty"):
        from_dataset([])


# ---- what is none of these ----


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file.xyz", "a file of an unsupported kind"),
        ("missing/{000..002}.tar", "there is no"),
        ("*.tar", "there is no"),
        ("nul\0byte", "there is no folder"),
        ("{0..99999999}.tar", "more than"),
        ("{0..9999}{0..999}.tar", "more than"),
        ("{0..9}" * 12 + ".tar", "more than"),
    ],
)
def test_what_is_no_source_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.xyz").write_text("words")
    with pytest.raises(UserError, match=words) as caught:
        open_source(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "near"), [("photo", "photos"), ("digit", "digits"), ("zzz", "choose from: digits")])
def test_the_nearest_folder_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, near: str) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=near):
        open_source(name)


def test_a_folder_with_an_archive_among_images_is_a_folder(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("set", 2)
    (folder / "a.tar").write_bytes(b"x")
    assert len(open_source(str(folder))) == 3
