"""Slim checkpoints in k-diffusion's layout: the same denoised images as a network of that layout."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sfumato.errors import UserError
from sfumato.exchange.imports import difference, read_model, write_model

from .layouts_kd import Transformer
from .models import randomise

MODEL: dict[str, Any] = {
    "type": "image_transformer_v2", "input_channels": 3, "input_size": [8, 16], "patch_size": [2, 2], "depths": [2, 2],
    "widths": [16, 32], "mapping_width": 16, "sigma_data": 0.6, "sigma_min": 0.01, "sigma_max": 160.0,
}  # fmt: skip
GLOBAL = {"type": "global", "d_head": 16}
NETS: dict[str, Any] = {
    "global": ([{"type": "global", "d_head": 8}, GLOBAL], 0),
    "windows": ([{"type": "shifted-window", "d_head": 8, "window_size": 2}, GLOBAL], 0),
    "neighbourhoods": ([{"type": "neighborhood", "d_head": 16, "kernel_size": 3}, GLOBAL], 0),
    "no attention, classes": ([{"type": "none", "d_head": 8}, GLOBAL], 3),
}


def written(path: Path, name: str) -> Transformer:
    specs, classes = NETS[name]
    net = Transformer(MODEL | {"self_attns": specs}, classes)
    randomise(net)
    with torch.no_grad():
        for module, parameter in net.named_parameters():
            if module.endswith("scale"):
                parameter += 1
    net.slim(path)
    return net.eval()


class Wrapper(torch.nn.Module):
    """As k-diffusion's Denoiser is called."""

    def __init__(self, net: Transformer) -> None:
        super().__init__()
        self.inner_model = net

    def forward(self, y: torch.Tensor, sigma: torch.Tensor, class_cond: Any = None) -> Any:
        return self.inner_model(y, sigma, class_cond)


@pytest.mark.parametrize("name", ["global", "no attention, classes"])
def test_its_own_network_is_asked_where_it_is_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "x.safetensors", name)
    imported = read_model(tmp_path / "x.safetensors")
    model = write_model(imported, tmp_path / "ours.safetensors")
    library = types.ModuleType("k_diffusion")
    library.config = types.SimpleNamespace(  # type: ignore[attr-defined]
        load_config=lambda table: table,
        make_model=lambda table: Transformer(table["model"], table["dataset"]["num_classes"]),
        make_denoiser_wrapper=lambda table: Wrapper,
    )
    monkeypatch.setitem(sys.modules, "k_diffusion", library)
    error = difference(model, imported)
    assert error is not None
    assert error < 3e-5, "outputs of 3, through cosines of similarity times ten"


@pytest.mark.parametrize("name", NETS)
def test_denoised_images_are_those_of_its_layout(name: str, tmp_path: Path) -> None:
    theirs = written(tmp_path / "x.safetensors", name)
    model = write_model(read_model(tmp_path / "x.safetensors"), tmp_path / "ours.safetensors")
    assert (model.schedule.least, model.schedule.most) == (0.01, 160.0)  # type: ignore[attr-defined]
    sigma = torch.tensor([0.02, 0.7, 60.0])
    wide = sigma[:, None, None, None]
    y = torch.randn(3, *model.shape, generator=torch.Generator().manual_seed(0)) * (1 + wide**2).sqrt()
    t, x_t = model.schedule.time(-2 * sigma.double().log()), y / (1 + wide**2).sqrt()
    given = [None] if model.vocabulary is None else [None, model.vocabulary.rows([[0.0], [2.0], [1.0]])]  # type: ignore[attr-defined]
    for condition in given:
        classes = None if condition is None else torch.tensor([0, 2, 1])
        with torch.no_grad():
            expected, x0 = theirs(y, sigma, classes), model.denoiser(x_t, t, condition).x0
        torch.testing.assert_close(x0, expected, atol=1e-5, rtol=1e-5)


def test_half_precision_is_read(tmp_path: Path) -> None:
    written(tmp_path / "x.safetensors", "global").slim(tmp_path / "half.safetensors", torch.bfloat16)
    state = read_model(tmp_path / "half.safetensors").state
    assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "image_v1"}, "only image_transformer_v2"),
        ({"mapping_cond_dim": 3}, "mapping_cond_dim"),
        ({"patch_size": [2, 4]}, "only squares"),
        ({"depths": [2, 3]}, "weights are not those of the network"),
        ({"widths": ["x", 3]}, "is not a file of k-diffusion"),
    ],
)
def test_others_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    written(tmp_path / "x.safetensors", "global")
    state = safetensors.torch.load_file(tmp_path / "x.safetensors")
    table = {"model": MODEL | {"self_attns": NETS["global"][0]} | change}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors", metadata={"config": json.dumps(table)})
    with pytest.raises(UserError, match=message):
        read_model(tmp_path / "x.safetensors")
