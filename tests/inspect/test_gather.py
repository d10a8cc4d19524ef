"""Every picture is looked at once, and no picture takes the survey down."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from sfumato.inspect import gather as room
from sfumato.inspect.gather import gather

from .made import Made, drawn_many

GOOD = drawn_many(12)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_any_number_of_processes_sees_the_same(workers: int) -> None:
    pictures = [*GOOD[:6], "is torn", *GOOD[6:], "is empty"]
    told: list[tuple[int, int]] = []
    sights, faults = gather(Made(pictures), np.arange(14), lambda done, total: told.append((done, total)), workers)
    assert faults == [(6, "is torn"), (13, "is empty")]
    assert sights["index"].tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert told == [(n, 14) for n in range(1, 15)]
    alone, _ = gather(Made(pictures), np.arange(14), None, 0)
    assert sights.tobytes() == alone.tobytes()


def test_only_the_asked_are_read() -> None:
    pictures = [GOOD[0], lambda: pytest.fail("read"), GOOD[2]]
    sights, faults = gather(Made(pictures), np.array([0, 2]), None, 0)
    assert sights["index"].tolist() == [0, 2]
    assert not faults


def test_a_picture_that_crashes_the_decoder_is_named() -> None:
    def crash() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pictures = [*GOOD[:3], crash, *GOOD[3:6], crash, GOOD[6]]
    sights, faults = gather(Made(pictures), np.arange(9), None, 2)
    assert faults == [(3, "reading it crashed the decoder"), (7, "reading it crashed the decoder")]
    assert sights["index"].tolist() == [0, 1, 2, 4, 5, 6, 8]


def test_a_picture_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.5)
    pictures = [GOOD[0], lambda: time.sleep(60), GOOD[1], GOOD[2]]
    start = time.monotonic()
    sights, faults = gather(Made(pictures), np.arange(4), None, 1)
    assert time.monotonic() - start < 20
    assert faults == [(1, "reading it took more than 0.5 s")]
    assert sights["index"].tolist() == [0, 2, 3]


def test_a_picture_too_large_for_memory_is_named() -> None:
    def greedy() -> None:
        raise MemoryError

    _, faults = gather(Made([GOOD[0], greedy]), np.arange(2), None, 1)
    assert faults == [(1, "it needs more memory than there is")]


def test_nothing_is_left_behind_when_it_is_stopped() -> None:
    import multiprocessing

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather(Made([*GOOD, lambda: time.sleep(60)]), np.arange(13), stop, 2)
    assert not multiprocessing.active_children()
