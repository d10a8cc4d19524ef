"""Several trainings of one run at once: one trains, the others are refused."""

from __future__ import annotations

import signal

from sfumato.run.folder import Run

from .harness import Training, attempt, difference, finish


def test_three_begin_one_run_together(whole: Run, run: Run) -> None:
    trainings = [Training(run) for _ in range(3)]
    ended = [training.wait() for training in trainings]
    assert {end.code for end in ended} <= {0, 2}
    assert any(end.code == 0 for end in ended)
    assert all("is being trained by process" in end.err for end in ended if end.code == 2)
    assert difference(run, whole) == []


def test_a_second_is_refused_while_the_first_trains_and_not_after_it_was_killed(whole: Run, run: Run) -> None:
    first = Training(run)
    assert first.until(lambda: first.saving)
    first.send(signal.SIGSTOP)
    second = attempt(run)
    assert second.code == 2
    assert f"is being trained by process {first.pid} on" in second.err
    first.send(signal.SIGKILL)
    assert first.wait().killed
    finish(run, whole)
