"""Folders for diffusers, loaded and sampled by diffusers itself: the same images as ours."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config, from_dict
from sfumato.diffusion import FlowPath, Noise, sample
from sfumato.errors import UserError
from sfumato.exchange.diffusers import names
from sfumato.exchange.diffusers.schedulers import betas
from sfumato.exchange.export import export
from sfumato.exchange.imports import read_model, write_model
from sfumato.generate.recipe import Recipe
from sfumato.model import Model

from ..conditions.tokens import Words
from .models import NET, random_model, replace_noise

diffusers = pytest.importorskip("diffusers")

ONE = AttributeVocabulary((Attribute("class", ("cat", "dog", "eel")),))
SEVERAL = AttributeVocabulary((Attribute("age", mean=40.0, std=10.0), *ONE.attributes, Attribute("hat", ("no", "yes"))))
STEPS = 20


def config(net: dict[str, Any] | None = None, **diffusion: Any) -> Config:
    table = {"schedule": {"kind": "cosine", "num_steps": STEPS}, **diffusion}
    return from_dict({"net": NET | (net or {}), "diffusion": table})


def ours(model: Model, num: int, label: str | None = None, guidance: float = 1.0) -> torch.Tensor:
    """Our ancestral samples over the whole chain, as a pipeline returns them: in [0, 1]."""
    condition = None if label is None else model.vocabulary.parse(label)  # type: ignore[union-attr]
    recipe = Recipe("ddpm", guidance=guidance).resolve(model)
    noise = Noise(0, torch.arange(num), model.shape)
    denoiser = recipe.denoiser(model.denoiser, model.codec)
    rows = None if condition is None else condition.take(torch.arange(num) % len(condition))
    with torch.inference_mode():
        x = sample(denoiser, recipe.build(), recipe.times(denoiser, model.shape), noise, rows)
    return (x / 2 + 0.5).clamp(0, 1)


STOCK = {
    "v, cosine": (config(), (3, 8, 8)),
    "eps, linear, heads": (
        config({"heads": 2, "attention": []}, parameterization="eps", schedule={"kind": "linear", "num_steps": 100}),
        (1, 8, 4),
    ),
    "x0, sigmoid, large": (
        config(parameterization="x0", variance="large", schedule={"kind": "sigmoid", "num_steps": STEPS}),
        (3, 8, 8),
    ),
    "learned variance": (config(variance="learned", objective="hybrid"), (3, 8, 8)),
    "zero terminal, shifted": (config(zero_terminal_snr=True), (3, 8, 8)),
    "general": (
        config({"kind": "general", "halving": "conv", "cosine_first": True, "frequency_shift": 0, "eps": 1e-5}),
        (3, 8, 8),
    ),
    "residual blocks that resample": (
        config({"kind": "general", "halving": "block", "doubling": "block", "scale_shift": True, "head_width": 4}),
        (3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", STOCK)
def test_diffusers_own_pipeline_samples_our_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, shape = STOCK[name]
    model = random_model(tmp_path / "x.safetensors", chosen, shape)
    export(model, "diffusers", tmp_path / "out")
    assert not (tmp_path / "out" / "sfumato_pipeline.py").exists()
    pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    steps = model.schedule.num_steps
    noise = replace_noise(monkeypatch, Noise(0, torch.arange(2), model.shape))
    theirs = pipe(batch_size=2, num_inference_steps=steps, output_type="pt").images
    assert noise.calls == steps  # the prior, and every step but the last
    torch.testing.assert_close(theirs, ours(model, 2), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("doubles", [False, True])
def test_a_long_chain_differs_by_the_rounding_of_their_table(
    doubles: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first betas of 1000 linear steps are 1e-4, and a float32 abar near 1 has them to 6e-4 of themselves."""
    chosen = config({"heads": 2, "attention": []}, parameterization="eps", schedule={"kind": "linear"})
    model = random_model(tmp_path / "x.safetensors", chosen, (1, 8, 4))
    export(model, "diffusers", tmp_path / "out")
    pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    if doubles:
        steps = torch.arange(1, 1001, dtype=torch.float64) / 1000
        pipe.scheduler.alphas_cumprod = model.schedule(steps).abar
        pipe.scheduler.one = pipe.scheduler.one.double()
    replace_noise(monkeypatch, Noise(0, torch.arange(2), model.shape))
    theirs = pipe(batch_size=2, num_inference_steps=1000, output_type="pt").images
    torch.testing.assert_close(theirs, ours(model, 2), atol=1e-5 if doubles else 1e-4, rtol=0)


OWN: dict[str, Any] = {
    "labels": (config(), (3, 8, 8), ONE, {"label": "dog"}),
    "several attributes": (config(), (3, 8, 8), SEVERAL, {"label": "class=dog,age=53"}),
    "guided attributes": (config(), (3, 8, 8), SEVERAL, {"label": "hat=yes,class=cat", "guidance": 2.0}),
    "guided labels": (config(), (3, 8, 8), ONE, {"label": "eel", "guidance": 2.0}),
    "velocity on the straight path": (
        config(parameterization="velocity", schedule={"kind": "flow", "num_steps": STEPS}),
        (3, 8, 8),
        None,
        {},
    ),
    "refined": (config(parameterization="refined"), (3, 8, 8), None, {}),
    "mu, learned": (config(parameterization="mu", variance="learned", objective="hybrid"), (3, 8, 8), None, {}),
    "patches and odd sides": (config({"patch": 2}), (1, 7, 9), None, {}),
    "another unit of time": (config({"kind": "general", "time_scale": 0.25}), (3, 8, 8), None, {}),
}


@pytest.mark.parametrize("name", OWN)
def test_the_pipeline_file_samples_our_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, shape, vocabulary, asked = OWN[name]
    model = random_model(tmp_path / "x.safetensors", chosen, shape, vocabulary)
    export(model, "diffusers", tmp_path / "out")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    replace_noise(monkeypatch, Noise(0, torch.arange(2), model.shape), sys.modules[type(pipe).__module__])
    theirs = pipe(batch_size=2, output_type="pt", **asked).images
    torch.testing.assert_close(theirs, ours(model, 2, **asked), atol=1e-4 if "mu" in name else 1e-5, rtol=0)
    pipe.save_pretrained(tmp_path / "again")
    again = write_model(read_model(tmp_path / "again"), tmp_path / "again.safetensors")  # without sfumato.json
    torch.testing.assert_close(ours(again, 2, **asked), ours(model, 2, **asked), atol=1e-4, rtol=0)


def test_the_pipeline_file_says_what_it_needs(tmp_path: Path) -> None:
    strict = config()
    strict = replace(strict, train=replace(strict.train, label_dropout=0.0))
    export(random_model(tmp_path / "x.safetensors", strict, vocabulary=ONE), "diffusers", tmp_path / "out")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    with pytest.raises(ValueError, match="give a label, one of: cat, dog, eel"):
        pipe()
    with pytest.raises(ValueError, match="no unconditional"):
        pipe(label="cat", guidance=2.0)
    with pytest.raises(ValueError, match="no label 'cow'"):
        pipe(label="cow")


def test_labels_of_several_attributes_are_words(tmp_path: Path) -> None:
    export(random_model(tmp_path / "x.safetensors", config(), vocabulary=SEVERAL), "diffusers", tmp_path / "out")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    nan = float("nan")
    for label, expected in {
        "dog": [nan, 1.0, nan], "class=eel": [nan, 2.0, nan], "age=50,hat=yes": [1.0, nan, 1.0], None: [nan] * 3,
    }.items():  # fmt: skip
        np.testing.assert_equal(pipe._numbers(label), expected)
    for label, message in {
        "50": "no label '50'",
        "age=old": "no label 'age=old'",
        "cow": "class=cat, class=dog",
    }.items():
        with pytest.raises(ValueError, match=message):
            pipe(label=label)
    with pytest.raises(ValueError, match="label to guide towards"):
        pipe(guidance=2.0)


@pytest.mark.parametrize(
    ("net", "vocabulary", "message"),
    [
        ({"kind": "transformer", "width": 16, "depth": 1, "heads": 2, "patch": 2}, None, "can't hold this network"),
        ({}, Words(("cat", "dog"), 2), "other conditions"),
        ({"heads": 2, "attention": [0, 1]}, None, "heads of one width"),
        ({"kind": "general", "output_scale": 0.5}, None, "output_scale"),
        ({"kind": "general", "least_group": 4, "groups": 4}, None, "one number of groups"),
    ],
)
def test_what_diffusers_cannot_hold_is_refused(net: Any, vocabulary: Any, message: str, tmp_path: Path) -> None:
    table = net if net.get("kind") == "transformer" else NET | net
    model = random_model(tmp_path / "x.safetensors", from_dict({"net": table}), (3, 8, 8), vocabulary)
    with pytest.raises(UserError, match=message) as caught:
        export(model, "diffusers", tmp_path / "out")
    assert "--to safetensors" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"], "nothing is left behind"


def test_the_names_go_there_and_back(tmp_path: Path) -> None:
    for name in ("general", "residual blocks that resample"):
        state = random_model(tmp_path / "x.safetensors", STOCK[name][0]).net.state_dict()
        again = names.to_ours(names.to_theirs(state))
        assert set(again) == set(state)
        for key, value in state.items():
            torch.testing.assert_close(again[key], value, atol=0, rtol=0)


@pytest.mark.parametrize("schedule", [config().diffusion.build_schedule(), FlowPath(1000)], ids=["cosine", "flow"])
def test_the_roundings_of_betas_do_not_add_up(schedule: Any) -> None:
    theirs = diffusers.DDPMScheduler(trained_betas=betas(schedule), num_train_timesteps=schedule.num_steps)
    steps = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64) / schedule.num_steps
    abar = schedule(steps).abar
    torch.testing.assert_close(theirs.alphas_cumprod.double(), abar, rtol=2e-7, atol=1e-9)
