"""`sfumato diagnose`: text, JSON, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from .conftest import Command


def test_a_run_of_ten_steps_was_too_short(sfumato: Command, plain: Path) -> None:
    result = sfumato("diagnose", plain, "--num", 8, "--device", "cpu")
    assert result.code == 0
    assert "The training was far too short" in " ".join(result.out.split())
    assert f"do: sfumato train {plain} --images 12000" in result.out
    assert "distance from the data" in result.out


def test_json_has_every_figure_and_how_it_was_measured(sfumato: Command, labelled: Path) -> None:
    said = json.loads(sfumato("diagnose", labelled, "--num", 8, "--device", "cpu", "--json").out)
    assert set(said) == {"path", "verdict", "symptoms", "findings", "evidence", "how"}
    assert set(said["evidence"]["readings"]) == {
        "ema",
        "raw",
        "best",
        "as eps",
        "as x0",
        "as mu",
        "as v",
        "as velocity",
    }
    assert set(said["evidence"]["draws"]) == {
        "ema", "raw", "best", "5 steps", "50 steps", "unclipped", "from data", "no label",
    }  # fmt: skip
    assert said["evidence"]["labels"]["dropout"] == 0.1
    assert said["evidence"]["data"]["changed"] is False
    for record in ("data", "process", "training", "labels"):
        assert {key.split(".")[1] for key in said["how"] if key.startswith(f"{record}.")} == set(
            said["evidence"][record]
        )


def test_images_can_be_named(sfumato: Command, plain: Path, refused: Callable[..., str]) -> None:
    words = ["diagnose", plain, "--num", 8, "--device", "cpu", "--json", "--data"]
    data = json.loads(sfumato(*words, "fashion").out)["evidence"]["data"]
    assert (data["source"], data["changed"]) == ("fashion", True)
    assert "no built-in data 'nowhere'" in refused(*words, "nowhere")


def test_a_weights_file_alone_is_diagnosed_without_an_event_log(sfumato: Command, plain: Path) -> None:
    file = plain / "weights" / "raw.safetensors"
    said = json.loads(sfumato("diagnose", file, "--num", 8, "--device", "cpu", "--json").out)
    assert said["evidence"]["main"] == "raw"
    assert said["evidence"]["training"] is None


def test_progress_ends_at_its_total_and_the_run_is_only_read(plain: Path, tmp_path: Path) -> None:
    from sfumato.diagnose import measure

    calls: list[tuple[int, int]] = []
    run = Path(shutil.copytree(plain, tmp_path / "run"))
    (run / "checkpoints" / ".000000000096.1.part").mkdir()  # a save that another process is at
    before = sorted(run.rglob("*"))
    measure(run, 8, 0, "cpu", lambda done, total: calls.append((done, total)))
    assert calls[-1] == (len(calls), len(calls))
    assert sorted(run.rglob("*")) == before


def test_what_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "at least 8 images" in refused("diagnose", tmp_path, "--num", 2)
    assert "has no weights yet" in refused("diagnose", tmp_path)
    assert "0 or more" in refused("diagnose", tmp_path, "--seed", -1)
