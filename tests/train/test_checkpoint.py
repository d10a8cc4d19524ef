"""Checkpoints under attack: cut off anywhere, damaged anywhere, on a full disk."""

from __future__ import annotations

import errno
import hashlib
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
from sfumato.run.folder import Run
from sfumato.train import checkpoint
from sfumato.train.checkpoint import Position, find_damage, load, newest, publish, save


def position(images: int) -> Position:
    return Position(images, images // 8, 1.5, "c" * 64, "f" * 64, "2.13", "0.1")


def content(images: int) -> dict[str, bytes]:
    return {f"{name}.safetensors": safetensors.torch.save({"x": torch.full((50,), images + i)})
            for i, name in enumerate(("raw", "ema", "optim"))}  # fmt: skip


def found(run: Run) -> tuple[int | None, list[str]]:
    messages: list[str] = []
    result = newest(run, messages.append)
    if result is None:
        return None, messages
    folder, where = result
    tensors = load(folder, {})
    assert {name: int(t["x"][0]) - where.images for name, t in tensors.items()} == {"raw": 0, "ema": 1, "optim": 2}
    return where.images, messages


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.path.mkdir()
    for images in (8, 16):
        save(run, position(images), content(images))
    return run


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def test_without_any_there_is_none(tmp_path):
    assert found(Run(tmp_path / "run")) == (None, [])


def test_the_newest_comes_back_with_its_position(run):
    folder, where = newest(run, pytest.fail)
    assert folder == run.checkpoint(16)
    assert where == position(16)
    assert found(run) == (16, [])


def test_two_are_kept(run):
    save(run, position(24), content(24))
    assert names(run) == ["000000000016", "000000000024"]


FILES = ("raw.safetensors", "ema.safetensors", "optim.safetensors", "manifest.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip first", "flip middle", "flip last", "cut", "empty", "missing"])
def test_a_damaged_newest_falls_back_and_both_are_named(run, name, damage):
    file = run.checkpoint(16) / name
    whole = bytearray(file.read_bytes())
    if damage.startswith("flip"):
        whole[{"first": 0, "middle": len(whole) // 2, "last": -1}[damage.split()[1]]] ^= 0x10
        file.write_bytes(whole)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    images, messages = found(run)
    assert images == 8
    assert len(messages) == 1
    assert "000000000016" in messages[0]
    assert "000000000008" in messages[0]
    assert found(run) == (8, [])  # once set aside it is not reported again
    assert (run.checkpoint(16).with_suffix(".damaged")).is_dir()
    save(run, position(16), content(16))
    assert found(run) == (16, [])


def test_every_flipped_bit_of_a_manifest_is_noticed_or_means_nothing(run):
    file = run.checkpoint(16) / "manifest.json"
    whole = file.read_bytes()
    for index in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << index % 8
        file.write_bytes(damaged)
        if find_damage(run.checkpoint(16)) is None:  # white space became other white space
            assert json.loads(bytes(damaged)) == json.loads(whole)


def test_files_of_two_checkpoints_mixed_are_noticed(run):
    shutil.copy(run.checkpoint(8) / "ema.safetensors", run.checkpoint(16) / "ema.safetensors")
    assert found(run)[0] == 8


def test_when_none_is_good_nothing_is_started_silently(run):
    for folder in run.checkpoints.iterdir():
        (folder / "raw.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"000000000016.*000000000008"):
        found(run)


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
def test_killed_at_any_point_of_a_save(run, call):
    """However far the save got, the newest good one is the old or the new, whole; and the next save works."""
    for at in range(20):
        reached = killed(lambda: save(run, position(24), content(24)), call, at)
        images, messages = found(run)
        assert images in (16, 24)
        assert messages == []
        assert len(run.list_checkpoints()) >= 2
        assert all(find_damage(folder) is None for folder in run.list_checkpoints())
        if not reached:
            assert images == 24
            break
        shutil.rmtree(run.checkpoint(24), ignore_errors=True)
        shutil.rmtree(run.checkpoints)
        for images in (8, 16):
            save(run, position(images), content(images))
    else:
        pytest.fail("the save never came to its end")
    assert at > 0 or call in ("rmdir", "unlink")


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_save_that_fails_leaves_the_old_ones_and_no_litter(run, monkeypatch, call, error):
    before = sorted(run.checkpoints.rglob("*"))
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
                save(run, position(24), content(24))
        assert sorted(run.checkpoints.rglob("*")) == before
    save(run, position(24), content(24))
    assert found(run) == (24, [])


def test_what_does_not_read_back_is_not_called_saved_and_prunes_nothing(run, monkeypatch):
    write = checkpoint.write_synced
    monkeypatch.setattr(
        checkpoint, "write_synced", lambda path, data: write(path, data[:-1] if "ema" in path.name else data)
    )
    with pytest.raises(OSError, match="does not read back"):
        save(run, position(24), content(24))
    assert found(run)[0] == 16
    assert set(names(run)) >= {"000000000008", "000000000016"}


# --- other things in the folder


@pytest.mark.parametrize("stray", ["20261126", "000020261126", "999999999999"])
@pytest.mark.parametrize("copied", [True, False])
def test_a_stray_folder_deletes_nothing_and_is_not_resumed_from(run, stray, copied):
    """As where somebody keeps a copy of a checkpoint beside it; the names sort above those of our checkpoints."""
    if copied:
        shutil.copytree(run.checkpoint(8), run.checkpoints / stray)
    else:
        (run.checkpoints / stray).mkdir()
    save(run, position(24), content(24))
    save(run, position(32), content(32))
    images, messages = found(run)
    assert images == 32
    assert {"000000000024", "000000000032"} <= set(names(run))
    if copied:
        assert (messages, find_damage(run.checkpoints / stray) is None) == ([], False)
        assert (run.checkpoints / stray / "raw.safetensors").exists()


def test_pruning_leaves_what_is_newer_and_what_is_not_ours(run):
    shutil.copytree(run.checkpoint(8), run.checkpoints / "000000000001")
    save(run, position(32), content(32))
    save(run, position(24), content(24))  # as after a fallback
    assert names(run) == ["000000000001", "000000000016", "000000000024", "000000000032"]


def test_files_that_the_manifest_does_not_name_are_not_read(run):
    (run.checkpoint(16) / "._raw.safetensors").write_bytes(b"Mac OS X")
    assert found(run) == (16, [])


# --- saving twice


def test_saving_again_is_no_error(run):
    before = (run.checkpoint(16) / "manifest.json").read_bytes()
    save(run, Position(**{**vars(position(16)), "seconds": 9.0}), content(16))
    assert (run.checkpoint(16) / "manifest.json").read_bytes() == before
    assert found(run) == (16, [])


def test_saving_over_a_damaged_or_another_one_replaces_it(run):
    (run.checkpoint(16) / "ema.safetensors").write_bytes(b"")
    save(run, position(16), content(16))
    assert found(run) == (16, [])
    save(run, Position(**{**vars(position(16)), "fingerprint": "e" * 64}), content(16))
    assert newest(run, pytest.fail)[1].fingerprint == "e" * 64
    assert names(run) == ["000000000008", "000000000016"]


# --- manifests that somebody edited


def edit(folder: Path, **values: object) -> None:
    """Change a manifest and mend its checksum."""
    body = json.loads((folder / "manifest.json").read_bytes())["body"]
    body = {name: value for name, value in {**body, **values}.items() if value is not None}
    sha = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"body": body, "sha256": sha}))


@pytest.mark.parametrize(
    "values",
    [
        *({name: None} for name in ("format", "step", "seconds", "images", "config", "torch", "files")),
        {"images": "16"},
        {"images": 16.0},
        {"images": True},
        {"step": -1},
        {"seconds": float("nan")},
        {"seconds": 10**400},
        {"torch": 2},
        {"format": 99},
        {"files": []},
        {"files": {}},
        {"files": {"raw.safetensors": {"bytes": 3}}},
        {"files": {"../000000000008/raw.safetensors": {"bytes": 264, "sha256": "0"}}},
        {"files": {"raw.safetensors": {"bytes": "264", "sha256": "0"}}},
    ],
)
def test_a_manifest_that_can_not_be_is_damage(run, values):
    edit(run.checkpoint(16), **values)
    images, messages = found(run)
    assert images == 8
    assert len(messages) == 1


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", '{"body": 3, "sha256": 4}', " " * 2**21])
def test_a_manifest_of_another_kind_is_damage(run, text):
    (run.checkpoint(16) / "manifest.json").write_text(text)
    assert found(run)[0] == 8


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling"])
def test_special_files_are_damage(run, name, kind):
    file = run.checkpoint(16) / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    assert found(run)[0] == 8


LIKE = {name: {"x": torch.zeros(50, dtype=torch.int64)} for name in ("raw", "ema", "optim")}


@pytest.mark.parametrize(
    ("like", "words"),
    [(torch.zeros(49, dtype=torch.int64), "another network: raw/x"), (torch.zeros(50), "another network: raw/x")],
)
def test_tensors_of_another_shape_or_type_are_refused(run, like, words):
    assert load(run.checkpoint(16), LIKE).keys() == LIKE.keys()
    with pytest.raises(UserError, match=words):
        load(run.checkpoint(16), {**LIKE, "raw": {"x": like}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(run, value):
    files = content(24)
    files["optim.safetensors"] = safetensors.torch.save({"x": torch.tensor([1.0, value])})
    save(run, position(24), files)
    with pytest.raises(UserError, match="not finite, in optim/x"):
        load(run.checkpoint(24), {})
    files["optim.safetensors"] = safetensors.torch.save({"watch/facts": torch.tensor([1.0, value])})
    save(run, position(32), files)
    load(run.checkpoint(32), {})


# --- the weights files


def test_publishing_makes_copies_and_writes_nothing_twice(run, monkeypatch):
    for _ in range(2):
        publish(run, run.checkpoint(16))
        for name in ("raw.safetensors", "ema.safetensors"):
            assert (run.weights / name).read_bytes() == content(16)[name]
        monkeypatch.setattr(checkpoint, "write_atomic", lambda *_, **__: pytest.fail("written again"))
    monkeypatch.undo()
    (run.weights / "ema.safetensors").write_bytes(content(8)["ema.safetensors"])
    publish(run, run.checkpoint(16))
    assert (run.weights / "ema.safetensors").read_bytes() == content(16)["ema.safetensors"]
    assert sorted(path.name for path in run.weights.iterdir()) == ["ema.safetensors", "raw.safetensors"]
