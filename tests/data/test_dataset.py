from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.codec.format import PixelFormat
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.split import FEWEST_TO_SPLIT, split
from sfumato.diffusion.noise import Purpose, permutation, uniform
from sfumato.errors import UserError

KIND = Attribute("kind", ("a", "b"))
MakeFolder = Callable[..., Path]


@pytest.fixture
def data(make_folder: MakeFolder) -> Dataset:
    return open_data(DataConfig(source=str(make_folder("set", 60)), held_out=0.2, flip=True))


def by_content(data: Dataset, rows: np.ndarray) -> set[str]:
    return {data.digests[i] for i in rows}


# ---- the stream ----


def test_every_epoch_visits_every_training_image_once(data: Dataset) -> None:
    count = len(data.train)
    orders = []
    for epoch in range(3):
        index = data.batch(torch.arange(epoch * count, (epoch + 1) * count), seed=5).index
        assert sorted(index.tolist()) == data.train.tolist()
        orders.append(index.tolist())
    assert orders[0] != orders[1] != orders[2]


def test_the_order_is_the_addressed_permutation(data: Dataset) -> None:
    count = len(data.train)
    for epoch in (0, 1, 7):
        index = data.batch(torch.arange(count) + epoch * count, seed=11).index
        order = permutation(11, Purpose.ORDER, count, step=epoch)
        assert np.array_equal(index.numpy(), data.train[order.numpy()])


@pytest.mark.parametrize("size", [1, 7, 32, 101])
def test_the_batch_size_does_not_matter(data: Dataset, size: int) -> None:
    """Nor where a run was interrupted: any way of cutting the stream gives the same images, also over epochs."""
    positions = torch.arange(30, 30 + 2 * len(data.train) + 9)
    whole = data.batch(positions, seed=3)
    parts = [data.batch(part, seed=3) for part in positions.split(size)]
    assert torch.equal(torch.cat([part.x for part in parts]), whole.x)
    assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
    shuffled = torch.randperm(len(positions), generator=torch.Generator().manual_seed(0))
    assert torch.equal(data.batch(positions[shuffled], seed=3).x, whole.x[shuffled])


def test_another_process_with_the_same_images_has_the_same_stream(data: Dataset) -> None:
    again = open_data(data.config)
    positions = torch.arange(200)
    assert torch.equal(again.batch(positions, 4).x, data.batch(positions, 4).x)
    assert again.fingerprint == data.fingerprint


def test_whatever_training_sees_is_in_the_fingerprint(data: Dataset) -> None:
    other_side = {"train": np.sort(np.append(data.train, data.held_out[0])), "held_out": data.held_out[1:]}
    changes: list[dict[str, object]] = [
        {"digests": data.digests[::-1]},
        other_side,
        {"whole": np.zeros((60, 3, 9, 9), np.uint8)},
        {"format": PixelFormat("float", 0.0, 255.0)},
        {"vocabulary": AttributeVocabulary((KIND,)), "conditions": Attributes(torch.zeros(60, 1))},
        {"vocabulary": AttributeVocabulary((KIND,)), "conditions": Attributes(torch.ones(60, 1))},
    ]
    found = {replace(data, **change).fingerprint for change in changes}  # type: ignore[arg-type]
    assert len(found | {data.fingerprint}) == 7


def test_images_are_mirrored_where_the_address_says_so(data: Dataset) -> None:
    positions = torch.arange(1000)
    batch = data.batch(positions, seed=2)
    plain, _ = data.rows(batch.index)
    mirrored = uniform(2, Purpose.FLIP, positions, ()) < 0.5
    expected = torch.where(mirrored[:, None, None, None], plain.flip(-1), plain)
    assert torch.equal(batch.x, expected)
    assert abs(mirrored.float().mean() - 0.5) < 4 * 0.5 / math.sqrt(1000)
    apart = torch.tensor([0, 1, 1023, 1024, 1025, 5000, 3, 2**34, 2047, 2048])  # however positions are drawn together
    plain, alone = data.rows((far := data.batch(apart, seed=2)).index)[0], uniform(2, Purpose.FLIP, apart, ()) < 0.5
    assert torch.equal(far.x, torch.where(alone[:, None, None, None], plain.flip(-1), plain))
    for row in data.train.tolist():  # drawn anew at every visit: each image is seen both ways
        assert set(mirrored[batch.index == row].tolist()) == {False, True}


def test_without_flip_rows_are_plain(make_folder: MakeFolder) -> None:
    data = open_data(DataConfig(source=str(make_folder("set", 30))))
    batch = data.batch(torch.arange(100), seed=2)
    assert torch.equal(batch.x, torch.from_numpy(np.array(data.images))[batch.index])
    assert batch.x.dtype == torch.uint8


def test_a_batch_is_a_copy(data: Dataset) -> None:
    before = np.array(data.images)
    data.batch(torch.arange(20), 0).x.zero_()
    data.rows(torch.arange(20))[0].zero_()
    assert np.array_equal(data.images, before)


def test_held_out_images_never_train(data: Dataset) -> None:
    seen = set(data.batch(torch.arange(5 * len(data.train)), seed=0).index.tolist())
    assert seen == set(data.train.tolist())
    assert seen.isdisjoint(data.held_out.tolist())
    assert len(data.train) + len(data.held_out) == len(data) == 60
    assert len(data.held_out) > 0


# ---- the split ----


def test_the_split_is_by_the_content_hash(data: Dataset) -> None:
    for i in data.held_out:
        assert int(data.digests[i][:13], 16) / 16**13 < 0.2
    for i in data.train:
        assert int(data.digests[i][:13], 16) / 16**13 >= 0.2


def test_the_split_does_not_move_when_files_come_go_or_are_renamed(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 60)
    config = DataConfig(source=str(folder), held_out=0.2)
    before = open_data(config)
    trained, kept = by_content(before, before.train), by_content(before, before.held_out)
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"z{999 - int(path.stem)}.png")
    (folder / "z990.png").unlink()
    make_folder("set", 40, first=100)
    after = open_data(config)
    assert len(after) == 99
    assert by_content(after, after.train) & kept == set()
    assert by_content(after, after.held_out) & trained == set()
    assert after.fingerprint != before.fingerprint


def test_copies_are_on_one_side(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 60)
    for path in sorted(folder.iterdir()):
        shutil.copy(path, folder / f"copy-{path.name}")
    data = open_data(DataConfig(source=str(folder), held_out=0.3))
    assert by_content(data, data.train).isdisjoint(by_content(data, data.held_out))
    assert any("60 exact copies of other images" in note for note in data.notes)


def test_the_share_is_kept_on_average() -> None:
    """5,000 images, 5 per cent: binomial, so within four standard deviations of 250."""
    for name in ("faces", "fashion"):
        assert abs(len(open_data(DataConfig(source=name)).held_out) - 250) < 4 * math.sqrt(5000 * 0.05 * 0.95)


def hashes(*numbers: float) -> list[str]:
    return [f"{int(u * 16**16):016x}" + "0" * 48 for u in numbers]


def test_tiny_sets_have_a_rule() -> None:
    many = hashes(*(0.5 + k / 100 for k in range(FEWEST_TO_SPLIT)))
    train, held, note = split(many, 0.05)
    assert held.tolist() == [0]
    assert len(train) == FEWEST_TO_SPLIT - 1
    assert note is not None
    train, held, note = split(many[:-1], 0.05)
    assert held.tolist() == []
    assert note is not None
    assert "nothing is held out" in note
    assert split(many, 0.0)[1:] == (pytest.approx([]), None)
    assert split(hashes(0.01, 0.02, 0.5), 0.1)[1].tolist() == [0, 1]


def test_there_is_always_something_to_train_on() -> None:
    for digests in (hashes(0.1, 0.2), hashes(*[0.3] * 40)):
        train, held, note = split(digests, 0.5)
        assert len(train) == len(digests)
        assert len(held) == 0
        assert note is not None
        assert "nothing to train on" in note
    train, held, _ = split(hashes(*[0.9] * 40), 0.05)  # identical, above the share: the smallest hash is everybody's
    assert len(train) == 40
    assert len(held) == 0


# ---- labels ----


def test_a_class_without_a_training_picture_cannot_be_asked_for(make_folder: MakeFolder, tmp_path: Path) -> None:
    for k, name in enumerate(("set/cat", "set/dog")):
        make_folder(name, 15, first=100 * k)
    source = str(tmp_path / "set")
    rare = open_data(DataConfig(source, held_out=0.2))
    (tmp_path / "set" / "ant").mkdir()
    out = Path(rare.origins[rare.held_out[0]])
    (tmp_path / "set" / out).rename(tmp_path / "set" / "ant" / out.name)
    data = open_data(DataConfig(source, held_out=0.2, labels="source"))
    assert [attribute.values for attribute in data.attributes] == [("cat", "dog")]
    ants = [row for row, origin in enumerate(data.origins) if origin.startswith("ant")]
    assert set(ants) <= set(data.held_out.tolist())
    assert np.isnan(data.table[ants]).all()
    others = np.delete(np.arange(len(data.origins)), ants)
    assert {(data.origins[row][:3], data.table[row, 0].item()) for row in others} == {("cat", 0), ("dog", 1)}
    assert "class: no training image has ant, which the model can't be asked for" in data.notes
    assert "ant" not in data.counts["class"]
    assert data.vocabulary is not None
    with pytest.raises(UserError, match="'ant'"):
        data.vocabulary.parse("ant")


def test_labels_are_known_only_when_asked_for(make_folder: MakeFolder, tmp_path: Path) -> None:
    for k, name in enumerate(("set/cat", "set/dog")):
        make_folder(name, 15, first=100 * k)
    silent = open_data(DataConfig(source=str(tmp_path / "set")))
    assert silent.attributes == ()
    assert silent.batch(torch.arange(9), 0).condition is None
    assert "data.labels=source" in silent.summary()
    telling = open_data(DataConfig(source=str(tmp_path / "set"), labels="source"))
    assert telling.counts == {"class": {"cat": 15, "dog": 15}}
    assert "class: cat 15, dog 15" in telling.summary()
    batch = telling.batch(torch.arange(40), 0)
    assert torch.equal(batch.condition.table, torch.from_numpy(telling.table)[batch.index])
    origins = [telling.origins[i] for i in batch.index]
    (attribute,) = telling.attributes
    assert [attribute.text(k) for (k,) in batch.condition.table.tolist()] == [
        origin.split("/")[0] for origin in origins
    ]


def test_labels_that_are_not_there_are_an_error(make_folder: MakeFolder) -> None:
    with pytest.raises(UserError, match="has no labels"):
        open_data(DataConfig(source=str(make_folder("set", 3)), labels="source"))


def test_a_file_of_labels_is_read_beside_the_store(make_folder: MakeFolder, tmp_path: Path) -> None:
    """A changed label decodes nothing anew, and yet it is another data set."""
    folder, table = make_folder("set", 30), tmp_path / "labels.csv"

    def opened(first: str) -> tuple[Dataset, list[int]]:
        rows = [f"{n:04d}.png,{first if n == 0 else 'ab'[n % 2]},{n / 2}" for n in range(29)]
        table.write_text("\n".join(["file,letter,half", *rows]))
        decoded: list[int] = []
        config = DataConfig(source=str(folder), labels=str(table))
        return open_data(config, on_progress=lambda done, total: decoded.append(done)), decoded

    (one, decoded), (two, again) = opened("a"), opened("b")
    assert (len(decoded), len(again)) == (30, 0)
    assert one.fingerprint != two.fingerprint
    assert one.counts == {"letter": {"a": 15, "b": 14}, "half": {"given": 29}}
    assert "1 image has no row in labels.csv: it trains without labels" in one.notes
    last = [n for n, origin in enumerate(one.origins) if origin == "0029.png"]
    _, told = one.rows(torch.tensor(last))
    assert told.table.isnan().all()
    half = one.attributes[1]
    found = half.mean + half.std * one.table[:29, 1]
    np.testing.assert_allclose(found, np.arange(29) / 2, atol=1e-6)
    chosen = open_data(DataConfig(source=str(folder), labels=str(table), attributes=("half",)))
    np.testing.assert_array_equal(chosen.table, two.table[:, 1:])


def test_attributes_are_chosen_in_the_order_in_which_they_are_named() -> None:
    whole = open_data(DataConfig("faces", labels="source"))
    some = open_data(DataConfig("faces", labels="source", attributes=("mouth", "hair")))
    names = [attribute.name for attribute in whole.attributes]
    assert some.attributes == tuple(whole.attributes[names.index(name)] for name in ("mouth", "hair"))
    np.testing.assert_array_equal(some.table, whole.table[:, [names.index("mouth"), names.index("hair")]])
    with pytest.raises(UserError, match="faces' has no attribute 'glases'; did you mean 'glasses'"):
        open_data(DataConfig("faces", labels="source", attributes=("glases",)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"labels": " "}, "data.labels is empty"),
        ({"attributes": ("hair",)}, "data.labels is none"),
        ({"labels": "source", "attributes": ("hair", "hair")}, "names one twice"),
    ],
)
def test_choices_that_can_not_be(values: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        DataConfig(**values)  # type: ignore[arg-type]


# ---- what is said ----


def test_the_summary_says_what_matters(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 30)
    for k in range(12):
        (folder / f"bad{k:02}.png").write_bytes(b"")
    text = open_data(DataConfig(source=str(folder))).summary()
    assert "30 images of 3x8x8" in text
    assert "12 files skipped" in text
    assert "bad00.png: an empty file" in text
    assert "bad11.png" not in text
    assert "expect the model to memorise" in text
    assert open_data(DataConfig()).summary().count("\n") == 3


def test_identical_images_are_said(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for k in range(25):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "set" / f"{k}.png")
    data = open_data(DataConfig(source=str(tmp_path / "set")))
    assert "all images are identical" in data.notes
    assert len(data.train) == 25


# ---- mistakes ----


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("facs", "did you mean 'faces'"),
        ("digit", "did you mean 'digits'"),
        ("zzz", "choose from: digits, emoji32, faces, fashion, fashion-full"),
        ("./nowhere", "there is no './nowhere'"),
        ("/nowhere/at/all", "there is no '/nowhere/at/all'"),
        ("~/nowhere at all", "there is no"),
        ("", "no data is given"),
        ("x" * 5000, "cannot be read|there is no"),
    ],
)
def test_a_source_that_is_not_there(source: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        open_data(DataConfig(source=source))
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_folder(make_folder: MakeFolder) -> None:
    with pytest.raises(UserError, match="is a file"):
        open_data(DataConfig(source=str(make_folder("set", 1) / "0000.png")))


def test_one_image_is_too_few_and_two_will_do(make_folder: MakeFolder) -> None:
    with pytest.raises(UserError, match="at least 2"):
        open_data(DataConfig(source=str(make_folder("one", 1))))
    assert len(open_data(DataConfig(source=str(make_folder("two", 2)))).train) == 2


NAN = float("nan")


@pytest.mark.parametrize(
    "options",
    [{"size": size} for size in ((0, 8), (8,), (8, 5000), (-1, 8))]
    + [{"channels": 0}, {"channels": 2000}, {"depth": "12"}, {"crop": "left"}, {"range": (1.0, 1.0)}]
    + [{"held_out": 1.0}, {"held_out": -0.1}, {"held_out": NAN}, {"background": "whitish"}],
)
def test_values_that_cannot_be_used(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"data.{next(iter(options))}"):
        DataConfig(**options)  # type: ignore[arg-type]


def test_the_cache_must_not_lie_among_the_images(make_folder: MakeFolder) -> None:
    folder = make_folder("set", 3)
    with pytest.raises(UserError, match="lies inside"):
        open_data(DataConfig(source=str(folder)), folder / "cache")
    assert not (folder / "cache").exists()
    open_data(DataConfig(source=str(folder)), folder / ".cache")  # hidden: the listing does not meet it
