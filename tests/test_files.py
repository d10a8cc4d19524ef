"""Atomic writes on a full disk, and locks between processes and inside one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sfumato.errors import one_line
from sfumato.files import Lock, hidden, read_regular, write_atomic


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


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes") as error:
        read_regular(path, 4)
    assert error.value.filename == str(path)
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(special, 5)


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_failing_disk_is_named_with_its_file(tmp_path, monkeypatch, call):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", broken)
    else:
        opener = Path.open
        monkeypatch.setattr(Path, "open", lambda *a, **k: Broken(opener(*a, **k), broken))
    with pytest.raises(OSError, match="Input/output error") as error:
        write_atomic(tmp_path / "file", "new")
    assert error.value.filename == str(tmp_path / "file"), "the file that was asked for, and not the hidden one"


def test_a_folder_that_fails_is_named_and_nothing_of_it_is_left(tmp_path):
    def write() -> None:
        with hidden(tmp_path / "out", ".x") as part:
            part.mkdir()
            assert (part.name[0], part.parent, part.suffix) == (".", tmp_path, ".x")
            raise OSError(errno.ENOSPC, "No space", str(part / "a" / "weights"), None, str(tmp_path / "other"))

    with pytest.raises(OSError, match="No space") as error:
        write()
    assert (error.value.filename, error.value.filename2) == (str(tmp_path / "out" / "a" / "weights"), None)
    assert one_line(error.value) == f"No space: {tmp_path / 'out' / 'a' / 'weights'}"
    assert not list(tmp_path.iterdir())


class Broken:
    """A file that can't be written."""

    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def test_a_lock_knows_whether_its_file_is_still_in_place(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "lock"
    with Lock(path) as lock:
        assert lock.is_in_place()
        path.rename(tmp_path / "aside")
        assert not lock.is_in_place()
        path.write_text("another")
        assert not lock.is_in_place()
        (tmp_path / "aside").replace(path)
        assert lock.is_in_place()
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        assert not lock.is_in_place()
