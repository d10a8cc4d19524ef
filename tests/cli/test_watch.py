"""`sfumato watch`: finished and stopped runs, a live one from another process, the panel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sfumato.cli.watch import sentence
from sfumato.run.folder import Run
from sfumato.run.follow import State

from ..forked import forked
from .conftest import TINY, Command


def test_a_finished_run_is_described_and_the_command_ends(plain: Path, sfumato: Command) -> None:
    shown = sfumato("watch", plain)
    assert shown.code == 0
    assert "finished; 80 of 80 images, loss " in shown.out
    once = sfumato("watch", plain, "--once")
    assert once.out.splitlines()[0] == "finished"
    found = json.loads(sfumato("watch", plain, "--json").out)
    assert (found["state"], found["images"], found["planned_images"]) == ("finished", 80, 80)
    assert found["last_grid"].endswith(f"{80:012d}.png")
    assert len(found["loss_by_level"]) == 10
    assert found["held_out_at"] == 80


def test_a_live_run_is_followed_to_its_stop(tmp_path: Path, sfumato: Command) -> None:
    words = ["train", "digits", "--run", "r", "--images", "100M", "--json", *TINY]
    process = forked(*words, cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "stepped":
                break
        found = json.loads(sfumato("watch", "r", "--json").out)
        assert (found["state"], found["process"]) == ("training", process.pid)
        assert found["memory"] > 2**20
        watching = forked("watch", "r", "--every", "0.1", cwd=tmp_path, stdout=subprocess.PIPE)
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith(f"training in process {process.pid}, ")
    finally:
        process.kill()
        process.communicate()
    out, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert out.splitlines()[-1].startswith("stopped before the planned end: no process trains here")
    assert not Run(tmp_path / "r").finished_path.exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State("stalled", 600.0, 7, 0), "stalled? process 7 holds the run and has logged nothing for 10 min"),
        (State("new", 0.0, None, 0), "nothing is logged yet, and no process trains here"),
    ],
)
def test_states_in_words(state: State, said: str) -> None:
    assert said in sentence(state)


def test_what_is_no_run_is_refused(refused: Command, tmp_path: Path) -> None:
    assert "nowhere is not a run folder" in refused("watch", "nowhere")
    assert "--every is 0: give seconds above 0" in refused("watch", "nowhere", "--every", "0")
