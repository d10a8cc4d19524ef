"""A model of every library goes on here: it is measured, edits, is diagnosed, and is trained on by its own network."""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sfumato.model import load

from ..exchange import layouts_edm
from ..exchange.layouts import Adm
from ..exchange.layouts_kd import Transformer
from ..exchange.models import randomise
from .conftest import Command, Result


def of_diffusers(folder: Path) -> tuple[Path, tuple[str, ...]]:
    from ..exchange.test_from_diffusers import ATTEND, saved

    return saved(folder / "theirs", ATTEND | {"in_channels": 1, "out_channels": 1}), ()


def of_ldp(folder: Path) -> tuple[Path, tuple[str, ...]]:
    if importlib.util.find_spec("denoising_diffusion_pytorch") is None:
        pytest.skip("denoising-diffusion-pytorch is not installed")
    from ..exchange.test_from_lucid import checkpoint

    checkpoint(folder / "model-10.pt", {"dim": 8, "dim_mults": (1, 2), "channels": 1})
    return folder / "model-10.pt", ("size=8",)


def of_openai(folder: Path) -> tuple[Path, tuple[str, ...]]:
    net = Adm(channels=1, out=2)
    randomise(net)
    torch.save(net.state_dict(), folder / "ema_0.9999_7.pt")
    return folder / "ema_0.9999_7.pt", ("size=8", "schedule=cosine", "steps=20", "heads=2")


def of_edm(folder: Path) -> tuple[Path, tuple[str, ...]]:
    from ..exchange.test_from_edm import NCSN, SMALL

    net = layouts_edm.VEPrecond(img_resolution=8, img_channels=1, **(SMALL | NCSN))
    randomise(net)
    layouts_edm.snapshot(folder / "network-snapshot-000010.pkl", net)
    return folder / "network-snapshot-000010.pkl", ("steps=20",)


def of_k_diffusion(folder: Path) -> tuple[Path, tuple[str, ...]]:
    from ..exchange.test_from_kdiffusion import MODEL

    attention = [{"type": "global", "d_head": 8}, {"type": "global", "d_head": 16}]
    net = Transformer(MODEL | {"input_channels": 1, "input_size": [8, 8], "self_attns": attention})
    randomise(net)
    net.slim(folder / "slim.safetensors")
    return folder / "slim.safetensors", ("steps=20",)


KINDS: dict[str, Callable[[Path], tuple[Path, tuple[str, ...]]]] = {
    "diffusers": of_diffusers, "ldp": of_ldp, "openai": of_openai, "edm": of_edm, "k-diffusion": of_k_diffusion,
}  # fmt: skip
SHORT = shlex.split(
    "--images 16 --batch 8 --lr 1e-4 --train.grids 0 --train.held_outs 1 --train.held_out_images 16 --device cpu"
)


def done(result: Result) -> str:
    """What a command said that must succeed."""
    assert result.code == 0, result
    return result.out


def imported(kind: str, sfumato: Command, tmp_path: Path) -> None:
    """Read a file of another library into runs/theirs."""
    source, options = KINDS[kind](tmp_path)
    given = ("--set", *options) if options else ()
    done(sfumato("import", source, *given, "--out", "runs/theirs", "--data", "digits"))


@pytest.mark.parametrize(
    "kind", [kind if kind == "diffusers" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_an_import_is_measured_is_diagnosed_and_edits(kind: str, sfumato: Command, tmp_path: Path) -> None:
    imported(kind, sfumato, tmp_path)
    few = ["--num", 8, "--steps", 2, "--device", "cpu"]
    said = json.loads(done(sfumato("evaluate", "runs/theirs", "--bits", "--quality", "--json", *few)))
    assert {"bits", "quality"} <= said.keys()
    words = ["evaluate", "runs/theirs", "--bits", "--method", "flow", "--num", 2, "--device", "cpu", "--json"]
    assert json.loads(done(sfumato(*words)))["bits"]["result"]["kind"] == "flow"
    done(sfumato("diagnose", "runs/theirs", "--num", 8, "--device", "cpu", "--json"))
    done(sfumato("sample", "runs/theirs", "--num", 1, "--steps", 2, "--out", "one.png"))
    done(sfumato("edit", "vary", "runs/theirs", "one.png", "--num", 1, "--steps", 2, "--out", "v.png"))


@pytest.mark.parametrize(
    "kind", [kind if kind in ("diffusers", "ldp") else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_an_import_is_trained_on_by_its_own_network(kind: str, sfumato: Command, tmp_path: Path) -> None:
    imported(kind, sfumato, tmp_path)
    out = done(sfumato("train", "digits", "--init", "runs/theirs", "--run", "runs/on", *SHORT))
    assert "network and process are those of runs/theirs" in out
    theirs, on = load(tmp_path / "runs" / "theirs"), load(tmp_path / "runs" / "on")
    assert (on.config.net, on.config.diffusion, on.images) == (theirs.config.net, theirs.config.diffusion, 16)
    taken = next(line for line in out.splitlines() if "tensors taken over" in line)
    assert "new:" not in taken
    before, after = theirs.net.state_dict(), on.net.state_dict()
    far = max(float((value - before[name]).abs().max()) for name, value in after.items())
    assert 0 < far < 0.1
    info = done(sfumato("info", "runs/theirs"))
    assert theirs.origin in info
    assert "none yet" not in info
    assert f"imported: {theirs.origin}" in done(sfumato("info", "runs/on"))
    other = sfumato("train", "digits", "--init", "runs/theirs", "--run", "runs/other", "--preset", "large128", *SHORT)
    assert (other.code, "has no tensor that fits" in other.err) == (2, True)


def test_a_card_tells_what_was_trained_where(sfumato: Command, tmp_path: Path) -> None:
    source, _ = of_edm(tmp_path)
    done(sfumato("import", source, "--set", "steps=20", "--out", "theirs.safetensors"))
    done(sfumato("push", "theirs.safetensors", "--to", "first"))
    card = (tmp_path / "first" / "README.md").read_text()
    assert "trained with another library (imported: EDM, network-snapshot-000010.pkl)" in card
    assert "Source: not known." in card
    assert "by muon" not in card
    done(sfumato("train", "digits", "--init", "first", "--run", "on", *SHORT))
    done(sfumato("push", "on", "--to", "second"))
    card = (tmp_path / "second" / "README.md").read_text()
    assert "It began with the weights `first`, imported: EDM, network-snapshot-000010.pkl" in card
    assert "by muon with the rate 0.0001" in card
