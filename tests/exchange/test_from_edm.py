"""Snapshots in EDM's layout: the same denoised images as a network of that layout, and nothing is run."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.errors import UserError
from sfumato.exchange.imports import difference, read_model, write_model
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample

from . import layouts_edm as layouts
from .layouts_edm import EDMPrecond, Norm, Precond, snapshot
from .models import randomise

SMALL = {"model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
NCSN = {
    "model_type": "SongUNet", "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
NETS: dict[str, dict[str, Any]] = {
    "DDPM++": SMALL | {"model_type": "SongUNet", "num_blocks": 2},
    "DDPM++, classes": SMALL | {"model_type": "SongUNet", "label_dim": 3},
    "ADM": SMALL | {"model_type": "DhariwalUNet", "num_blocks": 2},
    "NCSN++": SMALL | NCSN,
    "NCSN++, three levels, classes": SMALL | NCSN | {"channel_mult": [1, 2, 1], "label_dim": 3, "num_blocks": 2},
    "skips, three levels": SMALL | NCSN | {"encoder_type": "skip", "decoder_type": "skip", "channel_mult": [1, 2, 1]},
    "residual encoder without a filter": SMALL | {"model_type": "SongUNet", "encoder_type": "residual"},
    "DDPM++, VP": SMALL | {"model_type": "SongUNet", "form": "VPPrecond"},
    "NCSN++, VE": SMALL | NCSN | {"form": "VEPrecond"},
    "ADM, VE": SMALL | {"model_type": "DhariwalUNet", "form": "VEPrecond"},
    "ADM, iDDPM, classes": SMALL | {"model_type": "DhariwalUNet", "label_dim": 3, "form": "iDDPMPrecond"},
    "ADM, classes": SMALL | {"model_type": "DhariwalUNet", "label_dim": 3, "channel_mult": [2, 2]},
}


def written(path: Path, form: str = "EDMPrecond", **settings: Any) -> Precond:
    net: Precond = getattr(layouts, form)(img_resolution=8, img_channels=3, **settings)
    randomise(net)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Norm):
                module.weight += 1
    snapshot(path, net)
    return net.eval()


@pytest.mark.parametrize("name", NETS)
def test_denoised_images_are_those_of_its_layout(name: str, tmp_path: Path) -> None:
    theirs = written(tmp_path / "snapshot.pkl", **NETS[name])
    model = write_model(read_model(tmp_path / "snapshot.pkl"), tmp_path / "x.safetensors")
    steps = torch.tensor([30, 600, 960]) / 1000  # a noise of about 0.01, 0.7 and 60
    sigma, y = (-model.schedule(steps).logsnr / 2).exp().float(), torch.randn(3, 3, 8, 8)
    y = y * (1 + sigma[:, None, None, None] ** 2).sqrt()
    t = model.schedule.time(-2 * sigma.double().log())
    x_t = y / (1 + sigma[:, None, None, None] ** 2).sqrt()
    given = [None]
    if model.vocabulary is not None:
        given += [model.vocabulary.rows([[0.0], [2.0], [1.0]])]  # type: ignore[attr-defined]
    for condition in given:
        classes = None if condition is None else torch.eye(3)[torch.tensor([0, 2, 1])]
        with torch.no_grad():
            scale = sigma[:, None, None, None].clamp(min=1) if "Precond" in str(NETS[name].get("form")) else 1
            expected, x0 = theirs(y, sigma, classes), model.denoiser(x_t, t, condition).x0
        torch.testing.assert_close(x0 / scale, expected / scale, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["NCSN++, VE", "ADM, iDDPM, classes", "DDPM++, classes"])
def test_its_own_network_is_asked_where_it_is_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "snapshot.pkl", **NETS[name])
    imported = read_model(tmp_path / "snapshot.pkl")
    model = write_model(imported, tmp_path / "x.safetensors")
    with pytest.raises(ModuleNotFoundError):
        difference(model, imported)
    source = types.ModuleType("training")
    source.networks = layouts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "training", source)
    monkeypatch.setitem(sys.modules, "training.networks", layouts)
    error = difference(model, imported)
    assert error is not None
    assert error < 1e-5


def test_it_samples(tmp_path: Path) -> None:
    written(tmp_path / "snapshot.pkl", **NETS["ADM"])
    model = write_model(read_model(tmp_path / "snapshot.pkl", options={"most": "20"}), tmp_path / "run")
    assert float(model.schedule(1.0).sigma / model.schedule(1.0).alpha) == pytest.approx(20)
    images = sample(model, 2, recipe=Recipe(steps=3))
    assert images.shape == (2, 3, 8, 8)
    assert bool(images.float().isfinite().all())


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.trace}",)


def test_other_snapshots_are_refused_and_nothing_is_run(tmp_path: Path) -> None:
    net = EDMPrecond(img_resolution=8, img_channels=3, **NETS["DDPM++"])
    randomise(net)
    snapshot(tmp_path / "x.pkl", net, loss=Hostile(tmp_path / "trace"))
    with pytest.raises(UserError, match=r"it names (posix|nt)\.system"):
        read_model(tmp_path / "x.pkl")
    assert not (tmp_path / "trace").exists()
    net.model._init_kwargs["encoder_type"] = "other"
    snapshot(tmp_path / "x.pkl", net)
    with pytest.raises(UserError, match="encoder_type = other is not read"):
        read_model(tmp_path / "x.pkl")
    net._init_kwargs["beta_d"] = 5
    net.model._init_kwargs |= {"encoder_type": "standard", "num_blocks": 1}
    snapshot(tmp_path / "x.pkl", net)
    with pytest.raises(UserError, match="beta_d = 5 is not read"):
        read_model(tmp_path / "x.pkl")
    del net._init_kwargs["beta_d"]
    snapshot(tmp_path / "x.pkl", net)
    with pytest.raises(UserError, match=r"weights are not those|is not a file of edm"):
        read_model(tmp_path / "x.pkl")
