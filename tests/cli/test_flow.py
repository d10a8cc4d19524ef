"""A model of flow matching through every verb: the flow path and velocity are settings like any others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.diffusion import SAMPLERS

from .conftest import Command, trained

FLOW = ("--diffusion.schedule.kind", "flow", "--diffusion.parameterization", "velocity")


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory, _cache: None) -> Path:
    return trained(tmp_path_factory, "flow", "digits", "--images", "80", *FLOW)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_samples_it(sampler: str, sfumato: Command, flow: Path) -> None:
    words = ("--sampler", sampler, "--num", 2, "--steps", 5, "--out", "a.npz")
    assert sfumato("sample", flow, *words).code == 0
    images = np.load("a.npz")["images"]
    assert images.shape == (2, 8, 8, 1)
    assert images.std() > 0


@pytest.mark.parametrize("method", ["sampled", "vlb", "flow"])
def test_its_bits(method: str, sfumato: Command, flow: Path) -> None:
    words = ("--bits", "--method", method, "--num", 3, "--steps", 4, "--device", "cpu", "--json", "--out", "out")
    result = sfumato("evaluate", flow, *words)
    assert result.code == 0, result.err
    assert 1 < json.loads(result.out)["bits"]["result"]["total"]["mean"] < 30


def test_it_is_diagnosed_as_what_it_is(sfumato: Command, flow: Path) -> None:
    said = json.loads(sfumato("diagnose", flow, "--num", 8, "--device", "cpu", "--json").out)
    assert set(said["evidence"]["readings"]) == {"ema", "raw", "best", "as x0", "as v", "as mu", "as refined"}
    assert said["evidence"]["process"]["alpha_end"] == 0


@pytest.mark.parametrize("line", ["info RUN --json", "edit vary RUN a.png --num 2 --steps 3", "edit invert RUN a.png"])
def test_other_verbs(line: str, sfumato: Command, flow: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save("a.png")
    result = sfumato(*[flow if word == "RUN" else word for word in line.split()])
    assert result.code == 0, result.err


def test_eps_is_refused_on_it(refused: Callable[..., str]) -> None:
    words = ("--diffusion.schedule.kind", "flow", "--diffusion.parameterization", "eps", "--images", 80)
    assert "use --diffusion.parameterization v, x0 or velocity" in refused("train", "digits", "--run", "run", *words)
