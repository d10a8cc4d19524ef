"""A disk that is full, fails or refuses: training goes on, what was saved stays, what is lost is reported."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.run.folder import Run

from .faults import FOREVER, GROWING, Fault
from .harness import FIGURES, Ended, Training, attempt, copied, difference, in_order, trace_of

SLOW = pytest.mark.slow
MAY_BE_LOST = ("samples/", "weights/best.", "checkpoints/.")
"""What a training goes on without, where it can't be written."""


@pytest.fixture(scope="module")
def half(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was killed after its second save."""
    run = Run(tmp_path_factory.mktemp("half") / "run")
    saved = [number for number, saving, _, path in trace_of(whole) if saving and "/000000000016/" in path]
    assert attempt(run, Fault(saved[-1] + 40)).killed
    return run


def check(run: Run, whole: Run, ended: Ended) -> None:
    """Check an end that errors led to, and that the same command, without errors, comes to the right end."""
    FIGURES["trainings with failing calls"] += 1
    FIGURES["trainings with failing calls, finished all the same"] += ended.code == 0
    in_order(run)
    assert ended.code in (0, 2), ended
    last = ended.err.splitlines()[-1:]
    assert ended.code == 0 or (last[0].startswith("sfumato: ") and len(last[0]) > len("sfumato: ")), ended.err
    reported = ended.warnings + ended.err
    again = attempt(run)
    assert again.code == 0, again.err
    lost = difference(run, whole)
    assert [name for name in lost if not _is_reported(name, reported + again.warnings)] == [], ended


def _is_reported(name: str, reported: str) -> bool:
    """Whether a file that is missing or another may be, and was named."""
    if name.startswith("checkpoints/") and ".damaged/" in name:
        return name.split("/")[1] in reported
    missed = [int(images) for images in re.findall(r"NOT SAVED at (\d+) images", reported)]
    if missed and (number := re.match(r"checkpoints/(\d+)/", name)):
        return int(number[1]) in missed or int(number[1]) < min(missed)  # in its place an older one stays
    return name.startswith(MAY_BE_LOST) and name in reported


KINDS = {
    "EIO once": (errno.EIO, 1, frozenset[str]()),
    "EACCES once": (errno.EACCES, 1, frozenset[str]()),
    "ENOSPC for a while": (errno.ENOSPC, 120, GROWING),
    "ENOSPC from then on": (errno.ENOSPC, FOREVER, GROWING),
    "EROFS from then on": (errno.EROFS, FOREVER, GROWING | {"rename", "replace", "unlink", "rmdir", "truncate"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("part", "parts"), [(0, 1), *(pytest.param(n, 12, marks=SLOW) for n in range(12))])
def test_errors_at_calls(whole: Run, half: Run, tmp_path: Path, kind: str, part: int, parts: int) -> None:
    """In a run that begins, and in one that resumes; the slow tests cut the calls into parts, and take one of each."""
    error, calls, names = KINDS[kind]
    chance = random.Random(f"{kind} {part} {parts}")
    for last, name in ((550, "new"), (400, "resumed")):
        if parts > 1 or (name == "new") == (calls == 1):
            run = Run(tmp_path / name) if name == "new" else copied(half, tmp_path / name)
            at = int(last * (part + chance.random()) / parts)
            check(run, whole, Training(run, Fault(at, error, calls=calls, names=names)).wait())


def test_files_may_not_grow(whole: Run, run: Run) -> None:
    """A limit of the kernel, under which nothing larger than the log can be written."""
    resource = pytest.importorskip("resource")
    ended = Training(run, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))).wait()
    assert ended.code == 2
    assert "could not save at 32 images" in ended.err
    assert "NOT SAVED at 8 images" in ended.warnings
    check(run, whole, ended)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("free", [pytest.param(1.5, marks=SLOW), 2.5, pytest.param(3.3, marks=SLOW)])
def test_a_disk_that_is_really_full(whole: Run, small: Path, free: float) -> None:
    """Room for so many checkpoints, weights files included; the rest is taken."""
    size = sum(path.stat().st_size for path in whole.list_checkpoints()[0].iterdir())
    room = os.statvfs(small)
    other = small / "other"
    other.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - int(free * size * 1.3))))
    run = Run(small / "run")
    ended = Training(run).wait()
    in_order(run)
    assert ended.code == 2, ended
    assert "No space left on device" in ended.err
    other.unlink()
    check(run, whole, ended)
