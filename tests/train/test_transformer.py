"""A transformer trains, resumes bit for bit, is saved, loaded and sampled as the U-Net is."""

from __future__ import annotations

import torch

import sfumato
from sfumato.config.presets import resolve
from sfumato.model import load
from sfumato.run.events import Stepped
from sfumato.run.folder import Run
from sfumato.train import train
from sfumato.train.trainer import Trainer

from .conftest import TINY

SMALL = {
    **{key: value for key, value in TINY.items() if not key.startswith("net.")},
    "net.kind": "transformer",
    "net.width": "16",
    "net.depth": "2",
    "net.heads": "2",
    "net.dropout": "0.1",
    "data.labels": "source",
    "augment.p": "0.1",
    "optim.name": "muon",
    "optim.lr": "0.01",
    "diffusion.schedule.kind": "flow",
    "diffusion.parameterization": "velocity",
    "diffusion.variance": "learned",
    "diffusion.objective": "hybrid",
}


def test_it_learns(digits) -> None:
    trainer = Trainer(resolve("small8", overrides=SMALL), digits)
    before = trainer.held_out().held_out.loss.mean()
    for _ in range(20):
        assert bool(trainer.step().applied)
    assert float(trainer.held_out().held_out.loss.mean()) < float(before)


def test_it_resumes_bit_for_bit_and_is_sampled_with_labels(digits, tmp_path) -> None:
    config, whole, broken = resolve("small8", overrides=SMALL), Run(tmp_path / "whole"), Run(tmp_path / "broken")
    list(train(config, whole, digits))
    events = train(config, broken, digits)
    for event in events:
        if isinstance(event, Stepped) and event.step == 10:
            break
    events.close()
    list(train(config, broken, digits))
    for name in ("raw", "ema"):
        one, other = ((run.path / "weights" / f"{name}.safetensors").read_bytes() for run in (whole, broken))
        assert one == other
    model = load(whole)
    images = sfumato.sample(model, 2, condition="3")
    assert images.shape == (2, 1, 8, 8)
    assert bool(torch.as_tensor(images).isfinite().all())
    assert model.net.cost(8, 8).flops > 0
