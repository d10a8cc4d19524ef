"""SIGINT, SIGTERM and SIGHUP at random moments, one or two in a row: the documented exit code, one line, and the state
that the line speaks of."""

from __future__ import annotations

import random
import re
import signal
import time

import pytest

from sfumato.run.folder import Run

from .faults import Fault
from .harness import FIGURES, LONG, Training, attempt, finish, good, in_order, trace_of

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
@pytest.mark.parametrize("second", [False, True])
def test_signals_at_random_moments(whole: Run, run: Run, second: bool, seed: int) -> None:
    """Several in one run, until it is finished."""
    chance = random.Random(seed)
    for _ in range(2 + 3 * bool(seed)):
        training, number = Training(run), chance.choice(list(CODES))
        other = number
        training.until(lambda training=training: training.ready)
        time.sleep(chance.uniform(0, 0.4))
        start = time.monotonic()
        training.send(number)
        if second:
            time.sleep(chance.uniform(0, 0.05))
            training.send(other := chance.choice(list(CODES)))
        ended = training.wait()
        assert time.monotonic() - start < 10
        in_order(run)
        if ended.code == 0:  # it came too late
            break
        FIGURES[f"trainings stopped by {'two signals' if second else 'a signal'}"] += 1
        # two that wait together are handled in the order of their numbers
        check(run, ended.code, CODES[other if ended.code == CODES[other] else number], ended.err)
        assert second or "stopped" in ended.err
    finish(run, whole)


@pytest.mark.parametrize(
    ("part", "parts"),
    [(0, 100), (30, 100), (80, 100), *(pytest.param(n, 30, marks=pytest.mark.slow) for n in range(30))],
)
def test_a_signal_at_a_call(whole: Run, run: Run, part: int, parts: int) -> None:
    """At the first line of the log, when nothing is there to be saved, and at calls from there to the end."""
    calls = trace_of(whole)
    first = min(number for number, _, name, path in calls if (name, path) == ("write", "events.jsonl"))
    number = list(CODES)[part % 3]
    ended = attempt(run, Fault(first + (len(calls) - 1 - first) * part // parts, number=number))
    check(run, ended.code, CODES[number], ended.err)
    if ended.code:
        assert "stopped" in ended.err
        assert ("saved in" in ended.err) == bool(good(run))
        FIGURES["trainings stopped by a signal at a chosen call"] += 1
    finish(run, whole)


def check(run: Run, code: int, expected: int, err: str) -> None:
    """Check the exit code, and that what the one line speaks of is there."""
    assert code in (0, expected)
    assert len(err.splitlines()) <= 1, err
    if said := re.search(r"stopped at ([\d,]+) images, saved", err):
        assert good(run)[:1] == [int(said[1].replace(",", ""))], err


@pytest.mark.parametrize("number", CODES)
def test_a_signal_within_a_save(run: Run, number: signal.Signals, whole: Run) -> None:
    """The save under way ends, and what the line says is there."""
    training = Training(run, words=LONG)
    training.until(lambda: training.saves > 3 and training.saving)
    training.send(number)
    ended = training.wait()
    assert ended.code == CODES[number]
    check(run, ended.code, CODES[number], ended.err)
    assert "saved in" in ended.err
    assert good(run)[0] >= 32
    in_order(run)
