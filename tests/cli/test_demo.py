"""`sfumato demo`: one command, five pictures and the words to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli.demo import LEAST_IMAGES, Demo, draw_ready
from sfumato.cli.main import check_command
from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.generate import pictures
from sfumato.generate.recipe import Recipe
from sfumato.model import load
from sfumato.report.figures import album
from sfumato.run.folder import Run
from sfumato.run.locate import SHIPPED
from sfumato.train.budget import Speed, plan_for

from .conftest import Command


def test_the_album_of_a_run(labelled: Path, tmp_path: Path) -> None:
    data = open_data(DataConfig("digits", labels="source"))
    told: list[tuple[int, int]] = []
    recipe = Recipe("ddim", steps=3)
    drawn = album(Run(labelled), load(labelled), data, tmp_path, recipe=recipe, report=lambda *done: told.append(done))
    samples = pictures.tiles(Image.open(drawn.samples))
    assert samples.shape == (100, 1, 8, 8)
    film = Image.open(drawn.film)
    film.seek(film.n_frames - 1)  # type: ignore[attr-defined]
    pairs = np.concatenate([samples[:20], samples[:20]], axis=3)  # at the end the guess is the sample
    np.testing.assert_array_equal(
        np.asarray(film.convert("L")), np.asarray(pictures.grid(pairs, 4, scale=film.width // 69))
    )
    assert drawn.training is not None
    assert all(Image.open(path).width > 600 for path in (drawn.training, drawn.forward, drawn.reverse))
    assert told[-1] == (300, 300)


def test_the_demo_leaves_other_folders_alone(refused: Command, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").touch()
    assert "demo holds other files" in refused("demo")
    assert [p.name for p in (tmp_path / "demo").iterdir()] == ["mine.txt"]
    assert "is not a length of time" in refused("demo", "--budget", "long", "--out", "other")


def test_the_demo_plans_for_a_number_of_images_on_a_slow_machine() -> None:
    config, data = Demo(data="digits", budget="2m")._prepare("cpu")
    assert (config.train.budget, config.train.least_images) == (120, LEAST_IMAGES)
    assert len(data.train) > 1000
    slow = plan_for(config.train, Speed(config.train.batch / 100, 2.0, 1.0), 10.0)  # 100 images a second
    assert slow.images == pytest.approx(LEAST_IMAGES, abs=config.train.batch)
    assert slow.seconds is not None
    assert 200 < slow.seconds < 3 * 120


def test_models_that_come_along_are_drawn_first(tmp_path: Path) -> None:
    for path, count in zip(draw_ready(tmp_path, torch.device("cpu")), (20, 20, 20), strict=True):
        drawn = pictures.tiles(Image.open(path))
        assert len(drawn) == count
        assert drawn.std() > 30


@pytest.mark.slow
def test_the_demo_trains_draws_and_explains(sfumato: Command, tmp_path: Path) -> None:
    result = sfumato("demo", "--data", "digits", "--budget", "20s")
    assert result.code == 0
    names = ["samples.png", "through-training.png", "reverse.png", "forward.png", "film.gif", "report.html"]
    names += [f"{name}.png" for name in SHIPPED]
    assert sorted(p.name for p in (tmp_path / "demo").iterdir()) == sorted([*names, "README.md", "run"])
    page = (tmp_path / "demo" / "README.md").read_text()
    for name in names:
        assert f"demo/{name}" in result.out
        assert f"]({name})" in page
    commands = [line for line in page.splitlines() if line.startswith("sfumato ")]
    assert commands
    for line in commands:
        check_command(line.partition("#")[0].split()[1:])
    again = sfumato("demo", "--data", "digits", "--budget", "20s")
    assert again.code == 0
    assert "nothing to do" in again.out
