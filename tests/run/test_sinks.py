"""Other tools' logs: what they get, that they fail alone, and each tool's own files read back where it is installed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from sfumato.errors import UserError
from sfumato.run.events import Buckets, Changed, HeldOut, Sampled, Saved, Skipped, Started, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.run.plan import Plan
from sfumato.run.sinks import SINKS, Sinks, protocol
from sfumato.run.sinks.points import Points

LEVELS = Buckets((1.0, 4.0) + (0.0,) * 8, (2, 4) + (0,) * 8)
STARTED = Started(Plan(320, 40, 8, 1, 1), 0)


def stepped(images: int, seconds: float) -> Stepped:
    return Stepped(images, images // 8, 1.5, 0.25, 1e-3, seconds, LEVELS)


EVENTS = [
    STARTED,
    stepped(80, 2.0),
    stepped(160, 4.0),
    HeldOut(160, 0.5, LEVELS, 5.0, 0.4, LEVELS, True),
    Sampled(160, "ema", 0, 6.0),
    Skipped(168, 2, 2, "not finite"),
    Saved(168, Path("x"), 0.5),
    Warned(168, "a <warning>"),
    Changed(168, "optim.lr 0.001 -> 0.0001"),
    stepped(240, 9.0),
]


def test_points_are_the_numbers_of_the_events() -> None:
    points = Points(lambda: 1000)
    values = [points.of(event) for event in EVENTS]
    assert values[0] == {"system/planned_images": 320}
    assert values[2] == {
        "train/loss": 1.5, "train/grad_norm": 0.25, "train/lr": 1e-3, "train/images_per_second": 40.0,
        "train/loss_by_level/0.0-0.1": 0.5, "train/loss_by_level/0.1-0.2": 1.0, "system/memory": 1000,
    }  # fmt: skip
    assert "train/images_per_second" not in values[1], "nothing to compare with"
    assert "train/images_per_second" not in values[-1], "a save lies between"
    assert values[3] == {
        "held_out/loss": 0.5, "held_out/train": 0.4, "held_out/bits": 5 / 6,
        "held_out/loss_by_level/0.0-0.1": 0.5, "held_out/loss_by_level/0.1-0.2": 1.0,
    }  # fmt: skip
    assert values[5:9] == [{"system/skipped_steps": 2}, {"system/save_seconds": 0.5}, {}, {}]


class Recorder:
    """A sink that keeps what it gets, or fails at the nth number."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self, run: Run, config: dict[str, Any], resumed_at: int, fails_at: int | None = None) -> None:
        self.got: list[tuple[Any, ...]] = [("config", config, resumed_at)]
        self.fails_at = fails_at
        Recorder.made.append(self)

    def numbers(self, values, images):
        if images == self.fails_at:
            raise ConnectionError("no route\nto host")
        self.got.append(("numbers", dict(values), images))

    def picture(self, name, file, images):
        self.got.append(("picture", name, Path(file).name, images))

    def text(self, name, text, images):
        self.got.append(("text", name, text, images))

    def close(self):
        self.got.append(("close",))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.samples.mkdir(parents=True)
    Image.fromarray(np.full((6, 9, 3), 200, np.uint8)).save(run.grid(160))
    return run


def test_a_sink_gets_numbers_pictures_and_sentences(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_class", lambda name: Recorder)
    Recorder.made.clear()
    sinks = Sinks(["one"], run, {"a": 1}, 0, pytest.fail)
    for event in EVENTS:
        sinks.take(event)
    sinks.close()
    (sink,) = Recorder.made
    assert sink.got[0] == ("config", {"a": 1}, 0)
    assert ("picture", "samples/ema", f"{160:012d}.png", 160) in sink.got
    assert ("text", "warnings", "a <warning>", 168) in sink.got
    assert ("text", "changes", "optim.lr 0.001 -> 0.0001", 168) in sink.got
    assert [entry[2] for entry in sink.got if entry[0] == "numbers"] == [0, 80, 160, 160, 168, 168, 240]
    assert sink.got[-1] == ("close",)


def test_a_sink_that_fails_is_reported_once_and_the_others_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: Run, config: Any, resumed_at: int) -> Recorder:
        raise RuntimeError("no login")

    def breaks(run: Run, config: Any, resumed_at: int) -> Recorder:
        return Recorder(run, config, resumed_at, fails_at=160)

    classes = {"bad": fails, "breaks": breaks, "good": Recorder}
    monkeypatch.setattr(protocol, "_class", classes.__getitem__)
    Recorder.made.clear()
    said: list[str] = []
    sinks = Sinks(list(classes), run, {}, 0, said.append)
    for event in EVENTS:
        sinks.take(event)
    sinks.close()
    assert said == [
        "bad gets no more of this run (RuntimeError: no login); training continues",
        "breaks gets no more of this run (ConnectionError: no route to host); training continues",
    ]
    broken, good = Recorder.made
    assert len(broken.got) == 3
    assert good.got[-1] == ("close",)
    assert len(good.got) == 12


def test_names_are_checked_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="there is no sink 'tensorbord'; did you mean 'tensorboard'"):
        protocol.check(["tensorbord"])

    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'wandb'", name="wandb")

    monkeypatch.setattr(protocol, "_class", missing)
    with pytest.raises(UserError, match=r"names wandb, which is not installed \(wandb\): pip install 'sfumato"):
        protocol.check(["wandb"])


# --- the tools themselves


def write(name: str, run: Run) -> None:
    """Pass the events on, with an interruption: the run resumes at 160 images."""
    for resumed_at, events in ((0, EVENTS), (160, [Started(STARTED.plan, 160), stepped(168, 4.5), stepped(320, 9.0)])):
        sinks = Sinks([name], run, {"optim": {"lr": 0.001}}, resumed_at, pytest.fail)
        for event in events:
            sinks.take(event)
        sinks.close()


def test_tensorboards_file_is_read_back(run: Run) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write("tensorboard", run)
    found = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    loss = [(point.step, point.value) for point in found.Scalars("train/loss")]
    assert loss == [(80, 1.5), (160, 1.5), (168, 1.5), (320, 1.5)], "what came after 160 was taken back"
    assert [p.value for p in found.Scalars("held_out/bits")] == pytest.approx([5 / 6])
    (picture,) = found.Images("samples/ema")
    assert (picture.step, picture.width, picture.height) == (160, 9, 6)
    assert picture.encoded_image_string == run.grid(160).read_bytes()
    assert "config/text_summary" in found.Tags()["tensors"]
    assert b'"lr": 0.001' in found.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_weights_and_biases_keeps_the_run_offline(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write("wandb", run)
    kept = json.loads((run.path / "sinks.json").read_text())["wandb"]
    folders = sorted((run.path / "wandb").glob("offline-run-*"))
    assert folders
    assert all(folder.name.endswith(kept) for folder in folders)
    content = b"".join(file.read_bytes() for folder in folders for file in folder.glob("*.wandb"))
    assert b"train/loss_by_level/0.1-0.2" in content
    assert list((run.path / "wandb").rglob("*.png"))


def test_mlflow_has_the_numbers_of_one_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write("mlflow", run)
    client = mlflow.MlflowClient(tracking_uri=(run.path / "mlflow").resolve().as_uri())
    known = json.loads((run.path / "sinks.json").read_text())["mlflow"]
    assert client.get_run(known).data.params["optim.lr"] == "0.001"
    assert client.get_run(known).info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(known, "train/loss")]
    assert sorted(steps) == [80, 160, 168, 240, 320]
    assert [file.path for file in client.list_artifacts(known, "samples/ema")] == [f"samples/ema/{160:012d}.png"]


def test_trackio_has_the_numbers(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # it is read when the package is imported
    pytest.importorskip("trackio")
    write("trackio", run)
    (base,) = (tmp_path / "trackio").glob("*.db")
    rows = sqlite3.connect(base).execute("select step, metrics from metrics order by step").fetchall()
    assert {step for step, metrics in rows if "train/loss" in json.loads(metrics)} == {80, 160, 168, 240, 320}


def test_every_sink_has_a_test_here() -> None:
    assert set(SINKS) == {"tensorboard", "wandb", "mlflow", "trackio"}
