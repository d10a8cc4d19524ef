"""Checkpoints under attack: cut off anywhere, damaged anywhere, on a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sfumato.errors import UserError
from sfumato.train import checkpoint
from sfumato.train.checkpoint import Position, load, newest, save


def position(images: int) -> Position:
    return Position(images, images // 8, 1.5, "c" * 64, "f" * 64, "2.13", "0.1")


def content(images: int) -> dict[str, bytes]:
    return {f"{name}.safetensors": safetensors.torch.save({"x": torch.full((50,), images + i)})
            for i, name in enumerate(("raw", "ema", "optim"))}  # fmt: skip


def found(folder: Path) -> tuple[int | None, list[str]]:
    told: list[str] = []
    result = newest(folder, told.append)
    if result is None:
        return None, told
    place, where = result
    tensors = load(place)
    assert {name: int(t["x"][0]) - where.images for name, t in tensors.items()} == {"raw": 0, "ema": 1, "optim": 2}
    return where.images, told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    for images in (8, 16):
        save(folder, position(images), content(images))
    return folder


def test_nothing_is_nothing(tmp_path):
    assert found(tmp_path / "checkpoints") == (None, [])


def test_the_newest_comes_back_with_its_position(folder):
    place, where = newest(folder, pytest.fail)
    assert place.name == "000000000016"
    assert where == position(16)
    assert found(folder) == (16, [])


def test_two_are_kept(folder):
    save(folder, position(24), content(24))
    assert sorted(p.name for p in folder.iterdir()) == ["000000000016", "000000000024"]


FILES = ("raw.safetensors", "ema.safetensors", "optim.safetensors", "manifest.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip first", "flip middle", "flip last", "cut", "empty", "missing"])
def test_a_damaged_newest_falls_back_and_both_are_named(folder, name, damage):
    file = folder / "000000000016" / name
    whole = bytearray(file.read_bytes())
    if damage.startswith("flip"):
        whole[{"first": 0, "middle": len(whole) // 2, "last": -1}[damage.split()[1]]] ^= 0x10
        file.write_bytes(whole)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    images, told = found(folder)
    assert images == 8
    assert len(told) == 1
    assert "000000000016" in told[0]
    assert "000000000008" in told[0]
    assert found(folder) == (8, [])  # once set aside it is not told again
    assert (folder / "000000000016.damaged").is_dir()
    save(folder, position(16), content(16))
    assert found(folder) == (16, [])


def test_every_flipped_bit_of_a_manifest_is_noticed_or_means_nothing(folder):
    file = folder / "000000000016" / "manifest.json"
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        if checkpoint._damage(folder / "000000000016") is None:  # white space became other white space
            assert json.loads(bytes(damaged)) == json.loads(whole)


def test_files_of_two_checkpoints_mixed_are_noticed(folder):
    shutil.copy(folder / "000000000008" / "ema.safetensors", folder / "000000000016" / "ema.safetensors")
    assert found(folder)[0] == 8


def test_when_none_is_good_nothing_is_started_silently(folder):
    for place in folder.iterdir():
        (place / "raw.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"000000000016.*000000000008"):
        found(folder)


def killed(action: Callable[[], object], call: str, at: int) -> bool:
    """Run an action in a child that is killed at the `at`-th use of os.`call`; whether it got that far."""
    pid = os.fork()
    if pid == 0:
        original, left = getattr(os, call), [at]

        def deadly(*arguments, **more):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return original(*arguments, **more)

        try:
            setattr(os, call, deadly)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("call", ["fsync", "rename", "rmdir", "unlink", "mkdir"])
def test_killed_at_any_point_of_a_save(folder, call):
    """However far the save got, the newest good one is the old or the new, whole; and the next save works."""
    for at in range(20):
        reached = killed(lambda: save(folder, position(24), content(24)), call, at)
        images, told = found(folder)
        assert images in (16, 24)
        assert told == []
        assert sum(p.name.isdigit() for p in folder.iterdir()) >= 2
        if not reached:
            assert images == 24
            break
        shutil.rmtree(folder / "000000000024", ignore_errors=True)
        shutil.rmtree(folder)
        for images in (8, 16):
            save(folder, position(images), content(images))
    else:
        pytest.fail("the save never came to its end")
    assert at > 0 or call in ("rmdir", "unlink")


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_save_that_fails_leaves_the_old_ones_and_no_litter(folder, monkeypatch, call, error):
    before = sorted(folder.rglob("*"))
    for at in range(3 if call == "fsync" else 1):
        original, left = getattr(os, call), [at]

        def failing(*arguments, original=original, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(error, os.strerror(error))
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            with pytest.raises(OSError, match=os.strerror(error)):
                save(folder, position(24), content(24))
        assert sorted(folder.rglob("*")) == before
    save(folder, position(24), content(24))
    assert found(folder) == (24, [])


def test_what_does_not_read_back_is_not_called_saved_and_prunes_nothing(folder, monkeypatch):
    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda path, data: write(path, data[:-1] if "ema" in path.name else data))
    with pytest.raises(OSError, match="does not read back"):
        save(folder, position(24), content(24))
    assert found(folder)[0] == 16
    assert {p.name for p in folder.iterdir()} >= {"000000000008", "000000000016"}
