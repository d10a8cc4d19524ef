"""Archives made to mislead: nothing is written, nothing outside is read, what is left out is named with a reason."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import open_source
from sfumato.data.sources import archives
from sfumato.data.store.open import open_store
from sfumato.errors import UserError

from .encode import faults, noise

RNG = np.random.default_rng(8)


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A folder for archives in which, and around which, nothing may appear."""
    place = tmp_path / "in" / "here"
    place.mkdir(parents=True)
    return place


def everything(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*")}


# ---- zip ----


NAMES = ("../up.png", "/etc/abs.png", "a/../../up.png", "..\\up.png", "C:\\up.png", "\\\\host\\up.png")


def test_zip_names_are_only_names(watched: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(watched / "a.zip", "w") as archive:
        for name in ("good.png", "a/\n\x1b[31mred.png", "🙂.png", *NAMES):
            archive.writestr(name, noise(0))
    before = everything(tmp_path)
    source = open_source(str(watched / "a.zip"))
    found = faults(source)
    assert len(source) == 3 + len(NAMES)
    assert len(found) == len(NAMES)
    assert set(found.values()) == {"its name leads out of the archive"}
    assert all(source.origin(i).isprintable() for i in range(len(source)))
    stored = open_store(source, DataConfig(size=(8, 8)), tmp_path / "cache")
    assert len(stored.images) == 3
    assert {name for name in everything(tmp_path) - before if not name.startswith("cache")} == set()


def special(name: str, mode: int, data: bytes = b"/etc/passwd") -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info, data


def test_zip_links_devices_and_double_names_are_skipped(watched: Path) -> None:
    with zipfile.ZipFile(watched / "a.zip", "w") as archive:
        archive.writestr(*special("link.png", 0o120777))
        archive.writestr(*special("device.png", 0o020666))
        archive.writestr(*special("plain.png", 0o100644, noise(1)))
        archive.writestr("twice.png", noise(2))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice.png", noise(3))
        archive.writestr("inner.zip", b"PK\3\4" + bytes(40))
        archive.writestr(".hidden.png", noise(0))
        archive.writestr("__MACOSX/._plain.png", b"not ours")
    source = open_source(str(watched / "a.zip"))
    names = ["device.png", "inner.zip", "link.png", "plain.png", "twice.png", "twice.png"]
    assert [source.origin(i) for i in range(len(source))] == names
    assert faults(source) == {
        "device.png": "not a regular file",
        "inner.zip": "not an image that is read here: a zip archive",
        "link.png": "a symbolic link, which is not followed",
        "twice.png": "the archive has this name twice: the first is used",
    }
    np.testing.assert_array_equal(source.read(4).pixels, np.asarray(Image.open(io.BytesIO(noise(2)))))


def patched(path: Path, mark: bytes, offset: int, value: bytes) -> None:
    """Change bytes behind a mark in a file, everywhere it stands."""
    data, place = bytearray(path.read_bytes()), -1
    while (place := data.find(mark, place + 1)) >= 0:
        data[place + offset : place + offset + len(value)] = value
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, struct.pack("<H", 1), "encrypted"),
        (10, struct.pack("<H", 12), "packed by a method"),
        (24, struct.pack("<I", 2**31), "too large"),
        (24, struct.pack("<I", 5), "differs from the archive's directory"),
        (16, struct.pack("<I", 5), "differs from the archive's directory"),
        (20, struct.pack("<I", 3), "differs from the archive's directory"),
        (42, struct.pack("<I", 3), "damaged"),
    ],
)
def test_a_zip_directory_that_lies(watched: Path, offset: int, value: bytes, reason: str) -> None:
    with zipfile.ZipFile(watched / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", noise(0))
    patched(watched / "a.zip", b"PK\1\2", offset, value)
    (found,) = faults(open_source(str(watched / "a.zip"))).values()
    assert reason in found


def test_a_zip_bomb_is_not_unpacked(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is not believed: unpacking ends one byte behind what it says."""
    asked = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self, bits: int) -> None:
            self.inner = real(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            out = self.inner.decompress(data, most)
            asked.append(len(out))
            return out

    with zipfile.ZipFile(watched / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(50_000_000))
    assert (watched / "a.zip").stat().st_size < 100_000
    patched(watched / "a.zip", b"PK\1\2", 24, struct.pack("<I", 1000))
    source = open_source(str(watched / "a.zip"))
    monkeypatch.setattr(archives.zlib, "decompressobj", Watched)
    assert "differs from the archive's directory" in faults(source)["bomb.png"]
    assert asked == [1001]


def test_members_that_share_bytes_are_left_out(watched: Path) -> None:
    """The better zip bomb: many names for one heap of bytes."""
    with zipfile.ZipFile(watched / "a.zip", "w") as archive:
        for k in range(4):
            archive.writestr(f"{k}.png", noise(k))
    patched(watched / "a.zip", b"PK\1\2", 42, struct.pack("<I", 0))
    found = faults(open_source(str(watched / "a.zip")))
    assert sorted(found) == ["1.png", "2.png", "3.png"]
    assert set(found.values()) == {"it shares bytes with another member"}


def test_a_zip_cut_short_or_empty_is_one_line(watched: Path) -> None:
    with zipfile.ZipFile(watched / "a.zip", "w") as archive:
        archive.writestr("a.png", noise(0))
    data = (watched / "a.zip").read_bytes()
    (watched / "cut.zip").write_bytes(data[:-30])
    with zipfile.ZipFile(watched / "empty.zip", "w"):
        pass
    for name in ("cut.zip", "empty.zip"):
        with pytest.raises(UserError) as caught:
            open_source(str(watched / name))
        assert "\n" not in str(caught.value)


# ---- tar ----


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    archive.addfile(info, io.BytesIO(data))


def test_tar_members_are_only_bytes(watched: Path, tmp_path: Path) -> None:
    (watched / "secret.png").write_bytes(noise(9))
    with tarfile.open(watched / "a.tar", "w") as archive:
        add(archive, "good.png", noise(0))
        add(archive, "../up.png", noise(0))
        add(archive, "/etc/abs.png", noise(0))
        add(archive, "soft.png", kind=tarfile.SYMTYPE, link=str(watched / "secret.png"))
        add(archive, "hard.png", kind=tarfile.LNKTYPE, link="good.png")
        add(archive, "device.png", kind=tarfile.CHRTYPE)
        add(archive, "pipe.png", kind=tarfile.FIFOTYPE)
        add(archive, "good.png", noise(1))
        add(archive, ".hidden.png", noise(0))
        add(archive, "folder", kind=tarfile.DIRTYPE)
        add(archive, "notes.txt", b"words")
    before = everything(tmp_path)
    source = open_source(str(watched / "a.tar"))
    assert faults(source) == {
        "../up.png": "its name leads out of the archive",
        "/etc/abs.png".lstrip("/"): "its name leads out of the archive",
        "soft.png": "a link, which is not followed",
        "hard.png": "a link, which is not followed",
        "device.png": "not a regular file",
        "pipe.png": "not a regular file",
        "good.png": "the archive has this name twice: the first is used",
        "notes.txt": "not an image: text",
    }
    assert everything(tmp_path) == before


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_that_ends_too_early_gives_what_came_before(watched: Path, mode: str) -> None:
    large = RNG.integers(0, 256, 200_000, np.uint8).tobytes()
    path = watched / f"a.tar{mode[1:].replace(':', '.')}"
    with tarfile.open(path, mode) as archive:
        for k in range(3):
            add(archive, f"{k}.png", noise(k))
        add(archive, "3.png", large)
        add(archive, "4.png", noise(4))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 if mode != "w:bz2" else len(data) - 2000])
    if mode == "w:bz2":  # one block holds it all: nothing comes out of a part
        with pytest.raises(UserError, match="can't be read as a tar archive"):
            open_source(str(path))
        return
    source = open_source(str(path))
    found = faults(source)
    assert {"0.png", "1.png", "2.png"} <= {source.origin(i) for i in range(len(source))} - set(found)
    assert any("damaged" in reason for reason in found.values())


def test_a_tar_that_unpacks_to_too_much_is_refused(watched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_ROOM", 2**20)
    with tarfile.open(watched / "a.tar.gz", "w:gz") as archive:
        add(archive, "a.png", noise(0))
        add(archive, "bomb.png", bytes(30_000_000))
    with pytest.raises(UserError, match="200 times its length"):
        open_source(str(watched / "a.tar.gz"))


def test_a_tar_head_that_promises_more_than_there_is(watched: Path) -> None:
    with tarfile.open(watched / "a.tar", "w") as archive:
        add(archive, "a.png", noise(0))
    info = tarfile.TarInfo("huge.png")
    info.size = 2**40
    (watched / "a.tar").write_bytes((watched / "a.tar").read_bytes()[:1024] + info.tobuf() + bytes(1024))
    with pytest.raises(UserError, match="200 times its length"):
        open_source(str(watched / "a.tar"))


@pytest.mark.parametrize(
    ("name", "trials", "places"), [("a.zip", 300, 10**6), ("a.tar", 150, 2500), ("a.tar.gz", 150, 2500)]
)
def test_bytes_changed_at_random_never_crash(watched: Path, name: str, trials: int, places: int) -> None:
    if name == "a.zip":
        with zipfile.ZipFile(watched / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for k in range(3):
                archive.writestr(f"{k}.png", noise(k))
    else:
        with tarfile.open(watched / name, "w:gz" if name.endswith("gz") else "w") as tar:
            for k in range(3):
                add(tar, f"{k}.png", noise(k))
    data = (watched / name).read_bytes()
    for _ in range(trials):
        changed = bytearray(data)
        for place in RNG.integers(0, min(len(data), places), 4):
            changed[place] = RNG.integers(0, 256)
        (watched / f"b.{name[2:]}").write_bytes(changed)
        with suppress(UserError):
            faults(open_source(str(watched / f"b.{name[2:]}")))


# ---- shards ----


def shard(path: Path, first: int, count: int, **sides: object) -> None:
    with tarfile.open(path, "w") as archive:
        for k in range(first, first + count):
            add(archive, f"{k:04d}.png", noise(k))
            add(archive, f"{k:04d}.cls", str(k % 3).encode())
            add(archive, f"{k:04d}.json", json.dumps({"width": 8 + k / 7, "dark": k % 2 == 0, "id": f"x{k}"}).encode())


def test_a_folder_of_shards_a_pattern_and_braces_are_the_same(watched: Path) -> None:
    for number in range(3):
        shard(watched / f"s-{number:02d}.tar", 4 * number, 4)
    (watched / "index.json").write_text("{}")
    sources = [open_source(str(watched / name)) for name in ("", "s-*.tar", "s-{00..02}.tar")]
    for source in sources:
        assert [attribute.name for attribute in source.attributes] == ["class", "width", "dark"]  # an id is none
        assert source.origin(5) == "s-01.tar/0005.png"
        picture = source.read(5)
        texts = [a.text(number) for a, number in zip(source.attributes, picture.condition, strict=True)]
        assert texts[0] == "2"
        assert float(texts[1]) == pytest.approx(8 + 5 / 7, rel=1e-4)
        assert texts[2] == "no"
    with pytest.raises(UserError, match=r"s-03\.tar"):
        open_source(str(watched / "s-{00..03}.tar"))


def test_sides_that_make_no_sense_say_nothing(watched: Path) -> None:
    deep = b"[" * 100_000
    with tarfile.open(watched / "s.tar", "w") as archive:
        for k, side in enumerate((b"0", b"1", b"one", b"\xff\xfe", b"1", b"0")):
            add(archive, f"{k}.png", noise(k))
            add(archive, f"{k}.cls", side)
            add(archive, f"{k}.json", deep if k == 3 else b'{"a": {"b": 1}, "class": 7}'[: 10 + 30 * (k % 2)])
    source = open_source(str(watched / "s.tar"))
    assert len(source) == 6
    assert source.attributes[0].name == "class"
    assert np.isnan(source.read(2).condition[0])
    assert not np.isnan(source.read(1).condition[0])


def test_no_open_file_is_left_behind(watched: Path) -> None:
    for number in range(40):
        shard(watched / f"s-{number:02d}.tar", number, 1)
    source = open_source(str(watched))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for i in range(len(source)):
        source.read(i)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after <= before + 1


def test_a_zip_that_is_cut_short_is_said_to_be(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("a.png", bytes(3000))
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"cut\.zip' is a zip archive that is damaged or cut short: its end is missing"):
        open_source(str(tmp_path / "cut.zip"))
