"""The preset `cifar10-edm` against EDM's formulas, written out here, and against a network of EDM's layout."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.config.config import Config, from_stored
from sfumato.config.presets import PRESETS, resolve
from sfumato.diffusion import NetworkDenoiser, training_loss
from sfumato.diffusion.noise import Purpose, normal, uniform
from sfumato.exchange.export import export
from sfumato.exchange.imports import read_model, write_model
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import load
from sfumato.run.folder import Run
from sfumato.train.trainer import Trainer

from ..exchange import layouts_edm
from ..exchange.models import randomise
from .conftest import final, go

SMALL = {
    "data.size": "8x8",
    "net.inner.base": "16",
    "net.inner.multipliers": "1,2",
    "net.inner.blocks": "1",
    "net.inner.groups": "4",
    "optim.warmup": "80",
    "train.batch": "8",
    "train.images": "160",
    "train.grids": "1",
    "train.grid_images": "4",
    "train.grid_steps": "2",
    "train.held_outs": "1",
    "train.held_out_images": "8",
    "train.save_every": "1e9",
}


def small(**more: str) -> Config:
    """The preset with a network for the 8x8 digits."""
    return resolve("cifar10-edm", overrides={"data.labels": "source", **SMALL, **more})


def weight(sigma: torch.Tensor, s: float = 0.5) -> torch.Tensor:
    """lambda(sigma) of 2206.00364, Table 1."""
    return (sigma**2 + s**2) / (sigma * s) ** 2


def test_loss_and_gradient_are_those_of_edm(tmp_path: Path) -> None:
    """lambda(sigma) |D(x + sigma n; sigma) - x|^2 (Eq. 2, Table 1) of a network of their layout, and ours of the same
    weights, read from a snapshot."""
    settings = {"model_channels": 32, "channel_mult": [2, 2], "num_blocks": 1, "attn_resolutions": [4], "dropout": 0}
    theirs = layouts_edm.EDMPrecond("SongUNet", 8, 3, **settings)
    randomise(theirs)
    layouts_edm.snapshot(tmp_path / "x.pkl", theirs)
    model = write_model(read_model(tmp_path / "x.pkl"), tmp_path / "x.safetensors")
    diffusion = PRESETS["cifar10-edm"].config.diffusion
    chain = diffusion.build_schedule()
    net = model.net.train().requires_grad_(True)
    denoiser = NetworkDenoiser(net, chain, diffusion.build_parameterization())
    assert model.schedule == chain

    u = (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    x, n = torch.rand(40, 3, 8, 8) * 2 - 1, torch.randn(40, 3, 8, 8)
    t = diffusion.timesteps.draw(u, chain)
    ours = training_loss(diffusion.build_objective(), denoiser, x, t, n).loss
    ours.mean().backward()

    sigma = (-1.2 + 1.2 * math.sqrt(2) * torch.erfinv(2 * u - 1)).exp()  # ln sigma ~ N(-1.2, 1.2^2)
    on_chain = (-chain(t).logsnr / 2).exp()
    assert float((on_chain / sigma - 1).abs().max()) < 0.006  # half of a step
    sigma = on_chain.float()[:, None, None, None]
    denoised = theirs(x + sigma * n, sigma.flatten())
    expected = (weight(sigma) * (denoised - x) ** 2).flatten(1).mean(1)
    expected.mean().backward()
    torch.testing.assert_close(ours, expected, rtol=2e-5, atol=0)
    torch.testing.assert_close(
        net.inner.entrance.weight.grad, theirs.model.enc["8x8_conv"].weight.grad, rtol=1e-3, atol=1e-5
    )


def test_the_preset_goes_on_from_a_published_network(digits, tmp_path: Path) -> None:
    """All of its weights fit but those of the alterations, which a snapshot's network is read without."""
    settings = {"model_channels": 32, "channel_mult": [2, 2], "num_blocks": 1, "attn_resolutions": [4]}
    theirs = layouts_edm.EDMPrecond("SongUNet", 8, 1, **settings)
    randomise(theirs)
    layouts_edm.snapshot(tmp_path / "x.pkl", theirs)
    donor = write_model(read_model(tmp_path / "x.pkl"), tmp_path / "x.safetensors")
    same = {
        "base": "32",
        "multipliers": "2,2",
        "groups": "32",
        "entrance": "32",
        "time_width": "32",
        "embedding": "128",
    }
    config = small(**{f"net.inner.{name}": value for name, value in same.items()}, **{"data.labels": "none"})
    taken = Trainer(config, replace(digits, vocabulary=None, conditions=None)).begin_with(donor)
    assert (taken.new, taken.left) == (("inner.augment.weight",), ())


def test_a_step_trains_on_that_loss_with_labels_and_alterations(digits) -> None:
    """Of the whole step: the images as altered, the levels drawn, and what the network inside is told."""
    trainer = Trainer(small(**{"net.inner.dropout": "0"}), digits)
    torch.manual_seed(0)
    for parameter in trainer.net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    positions = torch.arange(8)
    seed, chain = trainer.config.train.seed, trainer.schedule
    t = trainer.config.diffusion.timesteps.draw(uniform(seed, Purpose.TRAIN_TIME, positions), chain)
    sigma = (-chain(t).logsnr / 2).exp().float()[:, None, None, None]
    n = normal(seed, Purpose.TRAIN_NOISE, positions, (1, 8, 8))
    examples = trainer._examples(positions, t)
    seen = {}

    def watch(module, given):
        seen["x"], seen["noise"], seen["condition"], seen["augment"] = given

    trainer.net.inner.register_forward_pre_hook(watch)
    outputs = []
    trainer.net.inner.register_forward_hook(lambda module, given, out: outputs.append(out.detach()))
    loss = trainer.step().terms.loss
    total = sigma**2 + 0.25
    y = seen["x"] * total.sqrt()  # c_in = 1 / sqrt(sigma^2 + s^2)
    x = y - sigma * n
    denoised = 0.25 / total * y + sigma * 0.5 / total.sqrt() * outputs[0]
    torch.testing.assert_close(loss, (weight(sigma) * (denoised - x) ** 2).flatten(1).mean(1), rtol=2e-3, atol=0)
    torch.testing.assert_close(seen["noise"].float(), sigma.log().flatten() / 4)
    assert torch.equal(seen["augment"], examples.altered)
    assert bool(seen["augment"].any())
    assert float(seen["condition"].table.isnan().sum()) == 0  # no label is left out
    plain = ~examples.altered.any(dim=1)
    clean = trainer.encode(digits.batch(positions, seed).x)
    torch.testing.assert_close(x[plain], clean[plain], rtol=0, atol=1e-4)
    assert 0 < int(plain.sum()) < 8


def test_it_resumes_samples_and_is_kept_by_a_file(digits, tmp_path: Path) -> None:
    for name, stops in (("whole", ()), ("parts", (7,))):
        for stop in stops:
            go(small(), Run(tmp_path / name), digits, stop)
        go(small(), Run(tmp_path / name), digits)
    run = Run(tmp_path / "whole")
    assert final(run) == final(Run(tmp_path / "parts"))

    model = load(run)
    again = load(shutil.copy(run.weights_file("ema"), tmp_path / "alone.safetensors"))
    export(model, "safetensors", tmp_path / "out", {})
    (facts,) = (tmp_path / "out").glob("*.json")
    assert again.config == from_stored(json.loads(facts.read_text())["config"])
    assert again.config.diffusion == small().diffusion
    published = Recipe("heun", steps=18, grid="karras", range="free")
    images = [sample(one, 4, recipe=published, condition=one.vocabulary.parse("7")) for one in (model, again)]
    assert torch.equal(*images)


def test_it_learns(digits) -> None:
    """At the start the network returns nothing, so that each level's loss is near 1, of the data's own deviation."""
    trainer = Trainer(small(**{"train.batch": "32", "optim.warmup": "320", "train.images": "6400"}), digits)
    deviation = float(trainer.encode(digits.rows(torch.arange(500))[0]).std())
    first = torch.stack([trainer.step().terms.loss.mean() for _ in range(5)])
    assert float(first.mean()) == pytest.approx(deviation**2 / 0.25, rel=0.3)
    for _ in range(40):
        last = trainer.step().terms.loss.mean()
    assert float(last) < 0.75 * float(first.mean())
