"""What folders and lists say: parts of a collection, masks, classes, files of labels; in a folder and in a zip."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data, open_source
from sfumato.data.sources.layout import parts_of
from sfumato.errors import UserError

from .encode import noise

Write = Callable[[Path, Mapping[str, bytes]], str]


def as_folder(path: Path, files: Mapping[str, bytes]) -> str:
    for name, data in files.items():
        (path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "set" / name).write_bytes(data)
    return str(path / "set")


def as_zip(path: Path, files: Mapping[str, bytes]) -> str:
    with zipfile.ZipFile(path / "set.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return str(path / "set.zip")


@pytest.fixture(params=[as_folder, as_zip], ids=["folder", "zip"])
def write(request: pytest.FixtureRequest) -> Write:
    writer: Write = request.param
    return writer


def pictures(names: Iterable[str]) -> dict[str, bytes]:
    """A different picture for each name."""
    return {name: noise(k) for k, name in enumerate(names)}


def opened(source: str, **options: object) -> Dataset:
    return open_data(DataConfig(source, **options))  # type: ignore[arg-type]


def names(data: Dataset, rows: np.ndarray) -> list[str]:
    return [data.origins[i] for i in rows]


# ---- parts ----

PARTS = [f"{part}/{kind}/{k}.png" for part in ("train", "val", "test") for kind in ("cats", "dogs") for k in range(3)]


def test_val_and_test_are_held_out_and_classes_are_below(write: Write, tmp_path: Path) -> None:
    data = opened(write(tmp_path, pictures(PARTS)), labels="source")
    assert names(data, data.train) == [name for name in PARTS if name.startswith("train/")]
    assert sorted(names(data, data.held_out)) == sorted(name for name in PARTS if not name.startswith("train/"))
    assert data.counts == {"class": {"cats": 9, "dogs": 9}}
    assert "held out are the 12 images of 'test' and 'val' (data.held_out=0 trains on all)" in data.summary()


def test_held_out_0_trains_on_all_and_says_so(tmp_path: Path) -> None:
    data = opened(as_folder(tmp_path, pictures(PARTS)), held_out=0.0)
    assert len(data.train) == 18
    assert "'test' and 'val' are trained on too, since data.held_out is 0" in data.summary()


def test_a_copy_of_a_training_picture_is_not_held_out(tmp_path: Path) -> None:
    files = pictures(PARTS)
    files["test/dogs/0.png"] = files["train/cats/0.png"]
    data = opened(as_folder(tmp_path, files))
    held, trained = ({data.digests[i] for i in rows} for rows in (data.held_out, data.train))
    assert len(data.held_out) == 11
    assert not held & trained
    assert "; 1 more is an exact copy of training images, and trained on like these" in data.summary()


def test_a_part_of_copies_alone_holds_nothing_out(tmp_path: Path) -> None:
    files = pictures(["train/1.png", "train/2.png"]) | pictures(["test/1.png"])
    data = opened(as_folder(tmp_path, files))
    assert len(data.train) == 3
    assert "nothing is held out: the images of 'test' are exact copies of training images" in data.summary()


@pytest.mark.parametrize(
    ("files", "held_out", "classes"),
    [
        (["t/train/a/1.png", "t/train/b/1.png", "t/test/a/2.png", "t/README.md"], ["t/test/a/2.png"], ("a", "b")),
        (["training_set/training_set/a/1.png", "training_set/training_set/b/1.png", "test_set/test_set/a/2.png"],
         ["test_set/test_set/a/2.png"], ("a", "b")),
        (["train2017/1.png", "train2017/2.png", "val2017/3.png"], ["val2017/3.png"], ()),
        (["seg_train/a/1.png", "seg_train/b/1.png", "seg_test/a/2.png", "seg_pred/3.png"], ["seg_test/a/2.png"],
         ("a", "b")),
        (["Train/a/1.png", "Train/b/1.png", "Validation/b/2.png"], ["Validation/b/2.png"], ("a", "b")),
        (["train/a/1.png", "train/b/1.png", "test/3.png"], ["test/3.png"], ("a", "b")),
        (["trainA/1.png", "trainB/1.png", "testA/2.png", "testB/2.png"], ["testA/2.png", "testB/2.png"], ("a", "b")),
        (["train/images/1.png", "train/masks/1.png", "test/images/2.png", "train/images/4.png"], ["test/images/2.png"],
         ()),
        (["images/train/1.png", "images/train/2.png", "images/val/3.png", "labels/train/1.txt"], ["images/val/3.png"],
         ()),
    ],
    ids=lambda value: value[0] if value and isinstance(value, list) else "",
)  # fmt: skip
def test_parts_of_other_names(
    write: Write, files: list[str], held_out: list[str], classes: tuple[str, ...], tmp_path: Path
) -> None:
    data = opened(write(tmp_path, pictures(files)), labels="source" if classes else "none")
    assert sorted(names(data, data.held_out)) == held_out
    assert tuple(value for attribute in data.attributes for value in attribute.values) == classes
    assert not any("masks/" in origin for origin in data.origins)


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "bus", "car"),
        ("train_station", "test_tube"),
        ("test", "other"),
        ("trains", "tests"),
    ],
)
def test_classes_with_such_names_stay_classes(folders: tuple[str, ...], tmp_path: Path) -> None:
    assert parts_of(folders) == {}
    data = opened(as_folder(tmp_path, pictures(f"{f}/{k}.png" for f in folders for k in range(2))), labels="source")
    assert data.attributes[0].values == tuple(sorted(folders))


def test_shards_have_parts_too(tmp_path: Path) -> None:
    import io
    import tarfile

    (tmp_path / "shards").mkdir()
    for k, shard in enumerate(("train-000000", "train-000001", "val-000000")):
        with tarfile.open(tmp_path / "shards" / f"{shard}.tar", "w") as archive:
            for i in range(2):
                info = tarfile.TarInfo(f"{k}{i}.png")
                info.size = len(noise(2 * k + i))
                archive.addfile(info, io.BytesIO(noise(2 * k + i)))
    data = opened(str(tmp_path / "shards"))
    assert names(data, data.held_out) == ["val-000000.tar/20.png", "val-000000.tar/21.png"]


def test_parquet_files_have_parts_too(tmp_path: Path) -> None:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "set").mkdir()
    for k, name in enumerate(("test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002")):
        table = pyarrow.table({"image": [noise(3 * k + i) for i in range(3)]})
        files.write_table(table, tmp_path / "set" / f"{name}.parquet")
    data = opened(str(tmp_path / "set"))
    assert data.held_out.tolist() == [0, 1, 2]
    assert data.train.tolist() == [3, 4, 5, 6, 7, 8]


# ---- masks ----


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (["images/1.png", "images/2.png"], ["masks/1.png", "masks/2.png"]),
        (["a/images/1.png", "b/images/2.png"], ["a/masks/1.png", "b/masks/x.png"]),
        (["JPEGImages/1.png", "JPEGImages/2.png"], ["SegmentationClass/1.png", "SegmentationObject/1.png"]),
        (["images/1.png", "images/2.png"], ["annotations/trimaps/1.png"]),
        (["train_images/1.png", "train_images/2.png"], ["train_masks/1.png"]),
        (["benign/1.png", "benign/2.png"], ["benign/1_mask.png", "benign/2_mask_1.png"]),
    ],
    ids=lambda value: value[0],
)
def test_masks_beside_pictures_are_skipped_by_name(
    write: Write, good: list[str], bad: list[str], tmp_path: Path
) -> None:
    data = opened(write(tmp_path, pictures([*good, *bad])))
    assert sorted(data.origins) == sorted(good)
    assert sorted(origin for origin, _ in data.skipped) == sorted(bad)
    assert all(reason.startswith("a mask: ") for _, reason in data.skipped)
    assert data.attributes == ()


def test_masks_alone_and_classes_called_mask_are_pictures(tmp_path: Path) -> None:
    assert len(opened(as_folder(tmp_path / "a", pictures(["masks/1.png", "masks/2.png"])))) == 2
    both = opened(as_folder(tmp_path / "b", pictures(["mask/1.png", "no_mask/2.png"])), labels="source")
    assert both.attributes[0].values == ("mask", "no_mask")
    assert len(opened(as_folder(tmp_path / "c", pictures(["1_mask.png", "2_mask.png"])))) == 2


# ---- classes ----


def test_numbers_are_classes_in_their_order(write: Write, tmp_path: Path) -> None:
    data = opened(write(tmp_path, pictures(f"{k}/x.png" for k in range(1, 13))), labels="source")
    assert data.attributes[0].values == tuple(str(k) for k in range(1, 13))
    assert [data.origins[i] for i in np.argsort(data.table[:, 0])][9] == "10/x.png"
    assert data.vocabulary is not None
    assert float(data.vocabulary.parse("10").table[0, 0]) == 9.0
    with pytest.raises(UserError, match="class has no value '0'"):
        data.vocabulary.parse("0")


# ---- files of labels ----

TABLE = "file,hair,age\nx/1.png,long,35\nx/2.png,short,41.5\n"
METADATA = "\n".join(
    json.dumps(row)
    for row in (
        {"file_name": "1.png", "text": "a cat", "hair": "long", "objects": {"bbox": [1, 2]}},
        {"file_name": "2.png", "text": "a dog", "hair": "short", "objects": {"bbox": []}},
    )
)


def test_labels_in_the_folder_are_offered_and_used_when_asked_for(write: Write, tmp_path: Path) -> None:
    source = write(tmp_path, {**pictures(["x/1.png", "x/2.png"]), "labels.csv": TABLE.encode()})
    silent = opened(source)
    assert silent.attributes == ()
    assert "labels (hair, age, some in labels.csv) are not used; data.labels=source trains with them" in (
        silent.summary()
    )
    assert silent.skipped == []
    data = opened(source, labels="source")
    assert [attribute.name for attribute in data.attributes] == ["hair", "age"]
    assert data.table[:, 0].tolist() == [0.0, 1.0]


def test_a_named_file_is_looked_for_at_the_images_too(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    source = write(tmp_path, {**pictures(["x/1.png", "x/2.png"]), "labels.csv": TABLE.encode()})
    assert [a.name for a in opened(source, labels="labels.csv").attributes] == ["hair", "age"]
    (tmp_path / "more.csv").write_text(TABLE.replace("hair", "hat"))
    assert [a.name for a in opened(source, labels="more.csv", attributes=("hat",)).attributes] == ["hat"]
    with pytest.raises(UserError, match=r"there is no 'none\.csv' in the working folder, nor at the images"):
        opened(source, labels="none.csv")
    with pytest.raises(UserError, match=r"did you mean '\S*more\.csv'\?"):
        opened(source, labels=str(tmp_path / "mroe.csv"))
    (tmp_path / "elsewhere" / "ages.csv").write_text(TABLE)
    with pytest.raises(UserError, match=r"did you mean 'ages\.csv'\?"):
        opened(source, labels="agse.csv")


def test_a_misspelt_file_is_looked_for_among_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    source = as_folder(tmp_path, {**pictures(["x/1.png", "x/2.png"]), "hairs.csv": TABLE.encode()})
    with pytest.raises(UserError, match=r"did you mean '\S+hairs\.csv'\?"):
        opened(source, labels="hair.csv")


def test_the_working_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = as_folder(tmp_path, {**pictures(["x/1.png", "x/2.png"]), "labels.csv": TABLE.encode()})
    (tmp_path / "labels.csv").write_text(TABLE.replace("hair", "hat"))
    monkeypatch.chdir(tmp_path)
    assert [a.name for a in opened(source, labels="labels.csv").attributes] == ["hat", "age"]


def test_an_edited_file_of_labels_decodes_nothing_anew(tmp_path: Path) -> None:
    source = as_folder(tmp_path, {**pictures(["x/1.png", "x/2.png"]), "labels.csv": TABLE.encode()})
    key = open_source(source).key()
    opened(source)
    (tmp_path / "set" / "labels.csv").write_text(TABLE.replace("long", "grey"))
    assert open_source(source).key() == key
    assert opened(source, labels="source").attributes[0].values == ("grey", "short")


def test_metadata_of_each_part_with_captions(write: Write, tmp_path: Path) -> None:
    """The layout of the library `datasets`: names relative to the file's own folder, captions in `text`."""
    files = pictures(["train/1.png", "train/2.png", "test/1.png", "test/2.png"])
    for part in ("train", "test"):
        files[f"{part}/metadata.jsonl"] = METADATA.replace('"a ', f'"a {part} ').encode()
    data = opened(write(tmp_path, files), labels="source")
    assert [attribute.name for attribute in data.attributes] == ["hair"]
    assert dict(zip(data.origins, data.captions or (), strict=True)) == {
        f"{part}/{k}.png": f"a {part} {what}" for part in ("train", "test") for k, what in ((1, "cat"), (2, "dog"))
    }
    assert sorted(names(data, data.held_out)) == ["test/1.png", "test/2.png"]


def test_classes_and_a_file_of_labels_are_both_there(tmp_path: Path) -> None:
    files = {**pictures(["cat/1.png", "dog/2.png"]), "labels.csv": b"file,age\n1.png,3.5\n2.png,5\n"}
    data = opened(as_folder(tmp_path, files), labels="source")
    assert [attribute.name for attribute in data.attributes] == ["class", "age"]
    assert "labels.csv gives no paths as the images have them: its rows were matched by file name alone" in (
        data.summary()
    )


def test_a_damaged_file_of_labels_is_said_and_stops_only_who_asked_for_it(tmp_path: Path) -> None:
    source = as_folder(tmp_path, {**pictures(["1.png", "2.png"]), "labels.csv": b"file,a\n1.png,x,y\n"})
    assert "labels.csv' line 2 has 3 cells" in opened(source).summary()
    with pytest.raises(UserError, match=r"labels\.csv' line 2 has 3 cells"):
        opened(source, labels="source")
