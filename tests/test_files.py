"""Atomic writes on a full disk, and locks between processes and inside one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sfumato.files import Lock, write_atomic


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_lock_is_held_once_and_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for _ in range(2):
        with Lock(path) as lock, Lock(path) as second:
            assert lock.held
            assert lock.enforced
            assert not second.held
            assert second.holder.startswith(f"process {os.getpid()} on ")
        assert not lock.held
    assert path.exists()


def test_a_lock_whose_file_is_gone_is_not_held(tmp_path: Path) -> None:
    """As where another process finished, removed the file, and a third made a new one."""
    with pytest.raises(FileNotFoundError), Lock(tmp_path / "lock", create=False):
        pass
    (tmp_path / "lock").write_text("")
    with Lock(tmp_path / "lock", create=False) as lock:
        assert lock.held
        (tmp_path / "lock").unlink()
        with Lock(tmp_path / "lock") as new:
            assert new.held


def test_where_there_are_no_locks_everyone_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("sfumato.files.fcntl.flock", unsupported)
    with Lock(tmp_path / "lock") as lock:
        assert lock.held
        assert not lock.enforced
