"""Captions are offered by every source that has them, kept by the store, and change nothing else."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, Picture, from_huggingface, open_data

from .encode import noise
from .test_opening import made

COUNT = 24
TEXTS = tuple(f'a "cat", number {k}\u2028\n🙂' if k % 5 else None for k in range(COUNT))
EXPECTED = tuple(text or "" for text in TEXTS)


def shards(folder: Path, sides: Callable[[int], dict[str, bytes]]) -> Path:
    with tarfile.open(folder / "s.tar", "w") as archive:
        for k in range(COUNT):
            for suffix, data in {"png": noise(k), **sides(k)}.items():
                info = tarfile.TarInfo(f"{k:04d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder / "s.tar"


def with_txt(folder: Path) -> Path:
    return shards(folder, lambda k: {"txt": f" {TEXTS[k]} ".encode()} if TEXTS[k] else {})


def with_json(folder: Path) -> Path:
    return shards(folder, lambda k: {"json": json.dumps({"TEXT": TEXTS[k], "url": "https://x"}).encode()})


def parquet(folder: Path) -> Path:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {"image": [noise(k) for k in range(COUNT)], "caption": TEXTS, "text": ["other"] * COUNT}
    files.write_table(pyarrow.table(table), folder / "s.parquet")
    return folder / "s.parquet"


@pytest.mark.parametrize("make", [with_txt, with_json, parquet])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_captions_come_with_the_images(
    make: Callable[[Path], Path], workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_WORKERS", workers)
    source = make(tmp_path)
    for _ in range(2):  # made, and opened again
        data = open_data(DataConfig(str(source)))
        assert data.captions == EXPECTED
        assert data.conditions is None
    assert f"{sum(map(bool, EXPECTED))} images have captions" in data.summary()


def test_a_file_beside_the_images_may_hold_them(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for k in range(COUNT):
        (tmp_path / "set" / f"{k}.png").write_bytes(noise(k))
    rows = [{"file_name": f"{k}.png", "text": TEXTS[k], "age": k % 3} for k in range(COUNT)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = open_data(DataConfig(str(tmp_path / "set"), labels=str(tmp_path / "metadata.jsonl"), attributes=("age",)))
    by_origin = dict(zip(data.origins, data.captions or (), strict=True))
    assert by_origin == {f"{k}.png": EXPECTED[k] for k in range(COUNT)}
    assert data.counts == {"age": {"0": 8, "1": 8, "2": 8}}


def test_thousands_of_captions_are_no_attribute_and_no_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (1200, 2, 2), np.uint8))
    rows = [f"{k},picture {k},{'ab'[k % 2]}" for k in range(1200)]
    (tmp_path / "a.csv").write_text("\n".join(["row,Caption,kind", *rows]))
    data = open_data(DataConfig(str(tmp_path / "a.npy"), labels=str(tmp_path / "a.csv")))
    assert data.captions == tuple(f"picture {k}" for k in range(1200))
    assert [attribute.name for attribute in data.attributes] == ["kind"]


def test_a_datasets_column_of_text() -> None:
    data = open_data(DataConfig(), source=from_huggingface(made()))
    assert data.captions == ("w", "x", "y", "z")


def test_without_captions_a_store_is_as_it_was_and_with_them_the_data_are_the_same(
    tmp_path: Path, own_cache: Path
) -> None:
    """The images, the split and what a run resumes by don't depend on captions."""

    class Spoken:
        name, attributes = "spoken", ()

        def __init__(self, texts: tuple[str | None, ...]) -> None:
            self.texts, self.captioned = texts, any(texts)

        def __len__(self) -> int:
            return COUNT

        def origin(self, i: int) -> str:
            return f"{i}"

        def size(self, i: int) -> tuple[int, int]:
            return 4, 4

        def read(self, i: int) -> Picture:
            pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 1), np.uint8)
            return Picture(pixels, caption=self.texts[i])

        def key(self) -> str:
            return "1"

    def opened(texts: tuple[str | None, ...]) -> Dataset:
        return open_data(DataConfig(), source=Spoken(texts))

    silent = opened((None,) * COUNT)
    (entry,) = {path.parent for path in own_cache.glob("store/*/[!.]*/index.json")}
    assert not (entry / "captions.jsonl").exists()
    assert "captions" not in (entry / "index.json").read_text()
    spoken = opened(TEXTS)  # a store from before there were captions is not taken for one that has them
    assert (silent.captions, spoken.captions) == (None, EXPECTED)
    assert silent.fingerprint == spoken.fingerprint
