"""Checkpoints that denoising-diffusion-pytorch writes, in the installed version: the same outputs as its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.errors import UserError
from sfumato.exchange.imports import difference, read_model, write_model

from .lucid_package import package
from .models import randomise

inner = package()
VERSION = tuple(map(int, re.findall(r"\d+", inner.__version__)[:3]))

NETS: dict[str, dict[str, Any]] = {
    "plain": {"dim": 16, "dim_mults": (1, 2)},
    "three levels, one channel": {"dim": 8, "dim_mults": (1, 2, 3), "channels": 1},
}
if VERSION >= (2, 1):
    NETS["another first width"] = {"dim": 8, "init_dim": 16, "dim_mults": (1, 2)}
if VERSION >= (1, 8):
    NETS["all attention full"] = {"dim": 16, "dim_mults": (1, 2), "full_attn": (True, True)}
if VERSION >= (1, 9):
    heads = {"attn_heads": (2, 3), "attn_dim_head": (8, 4)}
    NETS["other heads"] = {"dim": 16, "dim_mults": (1, 2), "full_attn": (False, True), **heads}


def checkpoint(path: Path, net: dict[str, Any], size: int = 8, **diffusion: Any) -> Any:
    """Write a checkpoint as its `Trainer.save` does, and return its network of averaged weights."""
    if (1, 8) <= VERSION < (2,) and "full_attn" not in net:  # its default is for four levels
        net = net | {"full_attn": tuple(k == len(net["dim_mults"]) - 1 for k in range(len(net["dim_mults"])))}
    theirs = inner.Unet(**net)
    randomise(theirs)
    model = inner.GaussianDiffusion(theirs, image_size=size, **({"timesteps": 20} | diffusion))
    ema = inner.EMA(model, beta=0.9, update_every=1)
    ema.update()
    randomise(ema.ema_model.model, seed=1)
    step, moments = 7, torch.optim.Adam(model.parameters()).state_dict()
    torch.save(
        {"step": step, "model": model.state_dict(), "opt": moments, "ema": ema.state_dict(), "scaler": None,
         "version": inner.__version__}, path,
    )  # fmt: skip
    return model.model, ema.ema_model.model.eval()


def told(name: str) -> dict[str, str]:
    return {"size": "8"} | ({} if VERSION >= (1, 5, 4) else {"predicts": "eps"})


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_those_of_its_own_network(name: str, tmp_path: Path) -> None:
    _, theirs = checkpoint(tmp_path / "model-1.pt", NETS[name])
    imported = read_model(tmp_path / "model-1.pt", options=told(name) | {"batch": "4"})
    model = write_model(imported, tmp_path / "x.safetensors")
    assert model.kind == "ema"
    assert model.images == 28, "7 steps"
    x, time = torch.randn(3, *model.shape), torch.tensor([0.0, 7.0, 19.0])
    with torch.no_grad():
        torch.testing.assert_close(model.net(x, time), theirs(x, time), atol=1e-5, rtol=1e-5)
    if VERSION >= (2,):
        error = difference(model, imported)
        assert error is not None
        assert error < 1e-5


def test_the_raw_weights_are_read_where_asked(tmp_path: Path) -> None:
    theirs, _ = checkpoint(tmp_path / "model-1.pt", NETS["plain"])
    imported = read_model(tmp_path / "model-1.pt", options=told("plain") | {"weights": "raw"})
    model = write_model(imported, tmp_path / "run")
    assert model.path.name == "raw.safetensors"
    x, time = torch.randn(2, *model.shape), torch.tensor([3.0, 7.0])
    with torch.no_grad():
        torch.testing.assert_close(model.net(x, time), theirs.eval()(x, time), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(VERSION < (1, 5, 4), reason="the loss has no weights yet")
@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
@pytest.mark.parametrize(("objective", "predicts"), [("pred_noise", "eps"), ("pred_x0", "x0"), ("pred_v", "v")])
@pytest.mark.parametrize("clipped", [False, True])
def test_the_chain_and_the_prediction_are_told(
    schedule: str, objective: str, predicts: str, clipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model-1.pt"
    options = {"beta_schedule": schedule, "objective": objective, "min_snr_loss_weight": clipped, "timesteps": 100}
    checkpoint(path, {"dim": 8, "dim_mults": (1, 2)}, **options)
    diffusion = read_model(path, options=told("plain")).config.diffusion
    assert diffusion.parameterization == predicts
    expected = {"linear": "Linear", "cosine": "Cosine", "sigmoid": "Table"}[schedule]
    whole = VERSION == (1, 6, 0) and schedule == "cosine"  # this version does not clip its last beta
    assert type(diffusion.schedule).__name__ == ("Table" if whole else expected)
    theirs = torch.load(path, weights_only=True)["model"]["alphas_cumprod"].double()
    steps = torch.arange(1, 101, dtype=torch.float64) / 100
    torch.testing.assert_close(diffusion.build_schedule()(steps).abar, theirs, rtol=1e-4, atol=1e-7)


def test_self_conditioning_is_left_out_and_said(tmp_path: Path) -> None:
    _, theirs = checkpoint(tmp_path / "model-1.pt", NETS["plain"] | {"self_condition": True})
    imported = read_model(tmp_path / "model-1.pt", options=told("plain"))
    assert any("its own prediction" in note for note in imported.notes)
    model = write_model(imported, tmp_path / "x.safetensors")
    x, time = torch.randn(2, *model.shape), torch.tensor([3.0, 7.0])
    with torch.no_grad():
        torch.testing.assert_close(model.net(x, time), theirs(x, time, torch.zeros_like(x)), atol=1e-5, rtol=1e-5)


def test_what_the_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model-1.pt", NETS["plain"])
    with pytest.raises(UserError, match="--set size="):
        read_model(tmp_path / "model-1.pt", options={key: v for key, v in told("plain").items() if key != "size"})
    with pytest.raises(UserError, match="multiples of 2"):
        read_model(tmp_path / "model-1.pt", options=told("plain") | {"size": "7"})
    with pytest.raises(UserError, match="unknown key resolution"):
        read_model(tmp_path / "model-1.pt", options={"resolution": "7"})
