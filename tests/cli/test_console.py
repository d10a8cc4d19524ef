"""What is printed: one gate for all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sfumato
from sfumato.cli import console
from sfumato.cli.console import LONGEST, say, shown


def test_control_characters_are_escaped_and_lines_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\nc\x07\x9bd\r\u202e ä 猫")
    assert capsys.readouterr().out == "a\\x1b[2Jb\nc\\x07\\x9bd\\r\\u202e ä 猫\n"
    say("plain", error=True)
    assert capsys.readouterr().err == "plain\n"


def test_long_lines_are_cut() -> None:
    assert shown("x" * LONGEST) == "x" * LONGEST
    assert shown("y\n" + "x" * 10**6) == f"y\n{'x' * LONGEST}... (1,000,000 characters)"
    assert shown("x" * 10**6, longest=None) == "x" * 10**6


def test_progress_is_a_convenience(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            pass

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(console.sys, "stderr", Full())
    console.progress("reading", every=0.0)(1, 2)


def test_the_time_left_is_told_once_a_twentieth_is_done_and_not_from_what_came_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: clock)
    report = console.progress("computing", every=0.0)
    for clock, done in ((100.0, 1), (108.0, 5), (109.0, 11), (110.0, 201), (111.0, 1001)):  # noqa: B007
        report(done, 1001)
    assert capsys.readouterr().err.splitlines() == [
        "computing: 1 of 1,001",
        "computing: 5 of 1,001",
        "computing: 11 of 1,001",
        "computing: 201 of 1,001, 40 s left",
        "computing: 1,001 of 1,001",
    ]
    slow = console.progress("computing", every=0.0)
    for clock, done in ((200.0, 1), (261.0, 2)):  # noqa: B007
        slow(done, 1001)
    assert capsys.readouterr().err.splitlines()[-1] == "computing: 2 of 1,001, 16 h 55 min left"


def test_waiting_is_shown_on_a_terminal_and_taken_away_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.waiting("loading faces"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console.sys.stderr, "isatty", lambda: True)
    with console.waiting("loading faces"):
        assert capsys.readouterr().err == "loading faces ..."
    assert capsys.readouterr().err == f"\r{' ' * 17}\r"


def test_every_verb_prints_through_the_gate() -> None:
    """Help texts are ours; everything else may hold what files say."""
    for path in (Path(sfumato.__file__).parent / "cli").glob("*.py"):
        if path.name not in ("console.py", "options.py"):
            assert not re.findall(r"(?<![\w.])print\(|std(?:out|err)\.write\(", path.read_text()), path.name
