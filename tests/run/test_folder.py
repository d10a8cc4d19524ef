"""The run folder: one trainer at a time, nothing half written, no place inside the data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfumato.config.config import to_toml
from sfumato.config.presets import resolve
from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.run.folder import Run, environment

HOLD = """
import sys, time
from sfumato.run.folder import Run
with Run(sys.argv[1]).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of tmp_path / run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_trainer_is_refused_and_names_the_first_is(tmp_path, holder):
    with pytest.raises(UserError, match=f"process {holder.pid} on .* since "), Run(tmp_path / "run").locked():
        pass


def test_a_dead_trainers_lock_is_void_at_once(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with Run(tmp_path / "run").locked():
        assert f"process {os.getpid()} " in (tmp_path / "run" / "lock").read_text()


def test_the_lock_is_let_go_and_can_be_taken_again(tmp_path):
    run = Run(tmp_path)
    for _ in range(2):
        with run.locked(), pytest.raises(UserError, match="being trained"), run.locked():
            pass


def test_a_folder_that_can_not_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"), Run(tmp_path / "file" / "run").locked():
        pass


def test_folders_that_are_refused(tmp_path):
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for name, message in {
        "data/deep/run": "inside the data",
        "data": "inside the data",
        "link/run": "inside the data",
        "file": "is a file",
        "full": "no run",
    }.items():
        with pytest.raises(UserError, match=message):
            Run(tmp_path / name).check_path(str(data))


def test_folders_that_are_taken(tmp_path, monkeypatch):
    Run(tmp_path / "new").check_path("faces")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()  # called like the built-in source, and no data of ours
    Run(tmp_path / "faces" / "run").check_path("faces")
    early = tmp_path / "early"  # cut off before config.toml was there
    early.mkdir()
    for name in ("lock", "environment.json", "plan.json", ".config.toml.12.part"):
        (early / name).write_text("")
    Run(early).check_path("faces")
    (early / "config.toml").write_text("")
    (early / "whatever").write_text("")
    Run(early).check_path("faces")


def test_names_of_files(tmp_path):
    run = Run(tmp_path)
    run.samples.mkdir()
    for images in (160, 8):
        for kind in ("ema", "raw"):
            run.grid(images, kind).write_text("")
        run.checkpoint(images).mkdir(parents=True)
    (run.samples / ".000000000008.png.1.part").write_text("")
    (run.checkpoints / "000000000008.damaged").mkdir()
    assert [path.name for path in run.list_grids()] == ["000000000008.png", "000000000160.png"]
    assert run.list_grids("raw") == [run.grid(8, "raw"), run.grid(160, "raw")]
    assert run.list_checkpoints() == [run.checkpoint(160), run.checkpoint(8)]
    assert Run(tmp_path / "none").list_checkpoints() == Run(tmp_path / "none").list_grids() == []
    assert run.weights_file("best") == tmp_path / "weights" / "best.safetensors"


def test_config_comes_back(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(UserError, match="not a run folder"):
        run.config()
    config = resolve("small8")
    write_atomic(run.config_path, to_toml(config))
    assert run.config() == config
    run.config_path.write_text("[net]\nbsae = 3\n")
    with pytest.raises(UserError, match=r"config\.toml.*bsae"):
        run.config()


def test_json_parts(tmp_path):
    run = Run(tmp_path)
    assert run.read(run.plan_path) is None
    run.write(run.plan_path, {"a": 1})
    assert run.read(run.plan_path) == {"a": 1}
    for damaged in ('{"a": 1', "[1]", "\x00"):
        run.plan_path.write_text(damaged)
        assert run.read(run.plan_path) is None


def test_environment_says_what_a_result_depends_on():
    facts = json.loads(json.dumps(environment()))
    import torch

    assert facts["packages"]["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cpu"]
    assert abs(time.time() - time.mktime(time.strptime(facts["written"][:19], "%Y-%m-%dT%H:%M:%S"))) < 2 * 86400


def test_sweeping_removes_half_written_files_and_nothing_else(tmp_path):
    run = Run(tmp_path)
    for folder in (run.path, run.weights, run.samples):
        folder.mkdir(exist_ok=True)
        (folder / ".thing.123.part").write_text("")
        (folder / "thing").write_text("")
    run.sweep()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["thing"] * 3
