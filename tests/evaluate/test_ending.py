"""What a training is told at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sfumato.codec.format import SIXTEEN
from sfumato.data import Dataset
from sfumato.evaluate.ending import grid_rows, judge_grid, outlook
from sfumato.evaluate.need import LONG, needed, typical
from sfumato.evaluate.verdict import Distance, Verdict
from sfumato.generate import pictures
from sfumato.generate.writers import save_png
from sfumato.run.folder import Run
from sfumato.run.summary import RunSummary


def summary(path: Path, images: np.ndarray | None) -> RunSummary:
    run = Run(path)
    if images is not None:
        run.samples.mkdir(parents=True)
        save_png(pictures.grid(np.zeros_like(images)), run.grid(10, "ema"))
        save_png(pictures.grid(images), run.grid(200, "ema"))
    return RunSummary(run, {}, {}, None, (), True, {}, (), ())


def verdict(distance: float) -> Verdict:
    return Verdict(Distance(0.0, 0.0, 0.0, 0.0), Distance(distance, distance, distance, 0.0), 64)


def test_the_last_grid_is_judged(fashion: Dataset, tmp_path: Path) -> None:
    own = replace(fashion, vocabulary=None, conditions=None)
    good = judge_grid(summary(tmp_path / "good", own.shown(own.held_out[:64])), own)
    assert good is not None
    assert (good.num, good.grade) == (64, 0)
    noise = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), dtype=np.uint8)
    bad = judge_grid(summary(tmp_path / "bad", noise), own)
    assert bad is not None
    assert bad.grade == 4


def test_what_cant_be_judged_is_not(fashion: Dataset, tmp_path: Path) -> None:
    assert judge_grid(summary(tmp_path / "none", None), fashion) is None
    few = summary(tmp_path / "few", fashion.shown(fashion.held_out[:6]))
    assert judge_grid(few, fashion) is None
    run = summary(tmp_path / "run", fashion.shown(fashion.held_out[:64]))
    assert judge_grid(run, replace(fashion, format=SIXTEEN)) is None
    run.run.grid(200, "ema").write_bytes(b"no picture")
    assert judge_grid(run, fashion) is None


def test_a_grid_is_compared_with_images_of_its_labels(fashion: Dataset) -> None:
    """A grid cycles through the labels; a set in which one is rare would look wrong beside all of it."""
    assert fashion.vocabulary is not None
    rows = grid_rows(fashion, 50)
    asked = fashion.vocabulary.every().table[:, 0]  # type: ignore[attr-defined]
    assert torch.equal(torch.from_numpy(fashion.table[rows, 0]), asked.repeat(5))
    assert len(set(rows.tolist())) == 50
    assert set(rows.tolist()) <= set(fashion.train.tolist())
    assert len(grid_rows(replace(fashion, vocabulary=None, conditions=None), 50)) == 50


def test_the_outlook_follows_the_verdict_and_the_length() -> None:
    shape = (1, 28, 28)
    said, images = outlook(3000, shape, verdict(0.046))
    assert images == 21_000
    assert "about 21,000 images would bring the samples close to the data" in said
    assert outlook(3000, shape, verdict(0.009)) == ("", 0)
    wide = Verdict(Distance(0.0, 0.0, 0.0, 0.0), Distance(0.012, 0.008, 0.016, 0.0), 64)
    said, images = outlook(3000, shape, wide)
    assert "may have been short: at worst, samples close to the data need about" in said, "the worst case decides"
    assert images == needed(3000, 0.02) == 7_200, "at least for half the distance"
    assert outlook(LONG * typical(shape), shape, wide) == ("", 0)
    assert outlook(LONG * typical(shape), shape, verdict(0.5)) == ("", 0), "the network is too small, or worse"
    assert outlook(3000, shape, None)[1] == typical(shape)
    assert outlook(typical(shape), shape, None) == ("", 0)
