"""Runs of all kinds of images, and runs that lack something: a smaller report, never a broken one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato.explain import Context, as_html, make
from sfumato.explain.effort import Effort
from sfumato.explain.registry import SECTIONS
from sfumato.explain.report import Report, collect

from .conftest import Opened, opened_run, pictures, trained

LEARNED = {"diffusion__variance": "learned", "diffusion__objective": "hybrid"}
KINDS = [
    pytest.param(8, 4, np.uint8, {"data__channels": "4"}, id="four channels"),
    pytest.param(8, 1, np.uint16, {"data__depth": "16"}, id="grey, 16 bits"),
    pytest.param(8, 3, np.uint8, LEARNED, id="learned", marks=pytest.mark.slow),
    pytest.param(64, 3, np.uint8, {"data__size": "64,64", "net__patch": "4"}, id="64x64", marks=pytest.mark.slow),
    pytest.param(128, 3, np.uint8, {"data__size": "128,128", "net__patch": "8"}, id="128x128", marks=pytest.mark.slow),
]


def checked(context: Context, opened: Opened, folder: Path) -> Report:
    """Make the page, open it, and return the report."""
    report = make(context)
    path = folder / "page.html"
    path.write_text(as_html(report), encoding="utf-8")
    assert path.stat().st_size < 12_000_000
    opened.open(path)
    assert opened.problems == []
    return report


def missing(report: Report) -> dict[str, str]:
    return {each.section.name: each.missing for each in report.sections if each.missing}


@pytest.mark.parametrize(("side", "channels", "dtype", "options"), KINDS)
def test_every_kind_of_image_has_its_whole_report(
    tmp_path: Path, opened: Opened, side: int, channels: int, dtype: Any, options: dict[str, str]
) -> None:
    run = trained(tmp_path, pictures(30, side, channels, dtype), **options)
    report = checked(opened_run(run) if side == 8 else Context.open(run), opened, tmp_path)
    assert missing(report) == {}
    live = opened.page.evaluate("Array.from(Sfumato.noised(0, 25))")
    context = opened_run(run)
    x_0, eps = context.images.x_0[:1], context.noise(1).prior()
    level = context.schedule(0.5)
    expected = float(level.alpha) * x_0 + float(level.sigma) * eps
    assert np.abs(np.array(live) - expected.flatten().numpy()).max() < 1e-5


def test_a_weights_file_alone_has_a_smaller_report(tmp_path: Path, opened: Opened, hostile: Path) -> None:
    shutil.copy(hostile / "weights" / "ema.safetensors", tmp_path / "alone.safetensors")
    report = checked(opened_run(tmp_path / "alone.safetensors"), opened, tmp_path)
    assert set(missing(report)) == {"bound", "training", "machine", "quality", "diagnosis", "ranking", "check"}
    assert "--data" in missing(report)["bound"]
    assert "without the run folder" in missing(report)["training"]


def test_a_run_without_grids_checkpoints_or_log_has_a_smaller_report(
    tmp_path: Path, opened: Opened, hostile: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(hostile, run)
    for folder in ("samples", "checkpoints"):
        shutil.rmtree(run / folder)
    for name in ("events.jsonl", "environment.json", "plan.json", "finished.json"):
        (run / name).unlink(missing_ok=True)
    (run / "evaluation").mkdir()
    (run / "evaluation" / "quality-0.json").write_text("not JSON")
    (run / "evaluation" / "bits-0.json").write_text('{"settings": [], "kind": 3}')
    report = checked(opened_run(run), opened, tmp_path)
    assert set(missing(report)) == {"training"}
    assert report.to_dict()["sections"], "and as numbers"
    figures = {figure.name for each in report.sections for figure in each.figures}
    assert "machine" not in figures
    assert "checkpoints" in figures, "the weights files themselves"


def test_nothing_held_out(tmp_path: Path) -> None:
    run = trained(tmp_path, pictures(20, 8, 1), data__held_out="0", train__held_outs="0", train__grids="0")
    sections = [section for section in SECTIONS if section.name in ("bound", "wall", "machine")]
    bound, machine, wall = collect(opened_run(run), sections)
    assert list(bound.figures[0].data["sides"]) == ["train"]
    assert wall.figures[0].data["nearest"] is None
    assert [figure.name for figure in machine.figures] == ["checkpoints"]


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64, 128, 256])
def test_arrays_stay_small_for_any_size(side: int) -> None:
    size, effort = 3 * side * side, Effort.of((3, side, side), 10**8)
    moments = 2 * effort.examined * effort.times * size
    film = 3 * effort.filmed * (effort.frames + 1) * effort.size
    counts = 2 * effort.wall + 16 * effort.shown + 10 * effort.moments + 22  # and the chain
    counts += 7 * effort.fitting(6, 7) + 2 * effort.fitting(12, 2, 3) + effort.fitting(48) + 12 * effort.fitting(8, 12)
    others = counts * effort.size + 9 * 65_536 + 14 * 36 * 1024  # and attention, activations
    images = 4 * effort.images * size
    assert 4 / 3 * (moments + film + others + images) < 11_500_000


def test_a_costly_network_is_evaluated_less() -> None:
    cheap, costly = Effort.of((3, 32, 32), 10**8), Effort.of((3, 32, 32), 10**11)
    assert costly.total(10, 1000) < cheap.total(10, 1000) / 3
    assert cheap.total(20, 1000) - cheap.total(10, 1000) == 10 * cheap.wall
    assert cheap.total(10, 1000) - cheap.total(10, 40) == 60 * cheap.filmed
    assert cheap == Effort.of((3, 32, 32), 10**7), "a faster machine or network changes nothing else"
