"""`sfumato report`, `explain`, `illustrate`: their files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sfumato.cli.illustrate import NAMES
from sfumato.cli.output import check_file
from sfumato.explain.effort import Effort
from sfumato.explain.illustrate import FIGURES

from ..explain.conftest import SMALL
from .conftest import Command


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Effort, "of", classmethod(lambda cls, shape, flops: SMALL))


def test_a_report_is_a_file_and_its_numbers(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    said = json.loads(sfumato("report", plain, "--out", out, "--device", "cpu", "--json").out)
    assert (said["file"], said["bytes"]) == (str(out), out.stat().st_size)
    sections = {section["name"]: section for section in said["sections"]}
    bound = sections["bound"]["figures"][0]
    assert bound["data"]["sides"]["train"]["figures"]["total"] > 0
    assert "bits per dimension" in bound["findings"][0]
    assert sections["training"]["missing"] is None
    page = out.read_text(encoding="utf-8")
    assert "<title>" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    check_file(out, force=False)  # a page of ours may be written anew


def test_what_a_report_refuses(refused: Callable[..., str], plain: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    assert "was not written by sfumato" in refused("report", plain, "--out", tmp_path / "mine.html")
    assert "must end in .html" in refused("report", plain, "--out", tmp_path / "page.pdf")
    assert "does not exist" in refused("report", tmp_path / "nowhere")
    assert "did you mean" in refused("illustrate", plain, "--figure", "bounds")
    assert "must end in .gif" in refused("illustrate", plain, "--figure", "film", "--out", tmp_path / "film.png")


@pytest.mark.slow
def test_every_figure_is_drawn(sfumato: Command, plain: Path, tmp_path: Path) -> None:
    assert set(NAMES) == set(FIGURES)
    for name in NAMES:
        out = tmp_path / f"{name}.{'gif' if name == 'film' else 'png'}"
        assert sfumato("illustrate", plain, "--figure", name, "--out", out, "--device", "cpu").code == 0
        with Image.open(out) as picture:
            assert min(picture.size) > 100
            assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 3


def test_a_model_without_a_history_has_no_loss_to_draw(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "history of its training" in refused(
        "illustrate", "fashion", "--figure", "loss", "--out", tmp_path / "a.png"
    )


@pytest.mark.slow
def test_the_article_is_of_the_model_that_comes_along(sfumato: Command, tmp_path: Path) -> None:
    out = tmp_path / "article.html"
    assert sfumato("explain", "--out", out, "--device", "cpu").code == 0
    page = out.read_text(encoding="utf-8")
    assert "<title>What a diffusion model is</title>" in page
    assert "id='bound'" in page
    assert "id='training'" not in page
    assert "<details class='more' open>" in page
