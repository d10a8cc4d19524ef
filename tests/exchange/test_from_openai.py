"""Checkpoints in the layout of improved- and guided-diffusion: the same outputs as a network of that layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.diffusion import Cosine, Linear
from sfumato.errors import UserError
from sfumato.exchange.imports import read_model, write_model
from sfumato.exchange.openai import CARDS

from .layouts import Adm, options
from .models import randomise

SAID: dict[str, Any] = {"size": 8, "schedule": "linear", "steps": 1000, "heads": 2}
NETS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "guided, legacy order": ({"resampling": "block"}, {}),
    "guided, new order": ({"resampling": "block", "new": True, "blocks": 2}, {"order": "new"}),
    "improved, 4000 steps": (
        {"scale": 0.25, "attention": (0, 1), "out": 6}, {"steps": 4000, "rescale": "true", "schedule": "cosine"},
    ),
    "without scale and shift": ({"scale_shift": False, "blocks": 2, "attention": ()}, {}),
    "resampled without weights": ({"resampling": "none", "multipliers": (1, 2, 3), "attention": (2,)}, {}),
    "classes": ({"classes": 4, "resampling": "block"}, {}),
    "one level": ({"multipliers": (1,), "attention": (0,), "blocks": 2}, {}),
    "width of a head": ({"heads": 4}, {"head_width": 16}),
}  # fmt: skip


def written(path: Path, **settings: Any) -> Adm:
    net = Adm(**settings)
    randomise(net)
    torch.save(net.state_dict(), path)
    return net.eval()


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_those_of_its_layout(name: str, tmp_path: Path) -> None:
    settings, said = NETS[name]
    theirs = written(tmp_path / "ema_0.9999_1.pt", **settings)
    said = {key: value for key, value in (SAID | said).items() if not (key == "heads" and "head_width" in said)}
    imported = read_model(tmp_path / "ema_0.9999_1.pt", options=options(**said))
    model = write_model(imported, tmp_path / "x.safetensors")
    assert model.kind == "ema"
    x, steps = torch.randn(3, *model.shape), torch.tensor([0, 300, 999])
    classes = torch.tensor([0, 3, 1]) if settings.get("classes") else None
    rows = None if classes is None else model.vocabulary.rows(classes[:, None].float())  # type: ignore[union-attr]
    with torch.no_grad():
        torch.testing.assert_close(model.net(x, steps.float(), rows), theirs(x, steps, classes), atol=1e-5, rtol=1e-5)
    assert model.config.diffusion.variance == ("learned" if settings.get("out") == 6 else "fixedlarge")


def test_another_order_of_the_rows_gives_another_output(tmp_path: Path) -> None:
    """So that the test above tests the order."""
    theirs = written(tmp_path / "x.pt", new=True)
    model = write_model(read_model(tmp_path / "x.pt", options=options(**SAID)), tmp_path / "x.safetensors")
    x, steps = torch.randn(1, 3, 8, 8), torch.tensor([300])
    with torch.no_grad():
        assert not torch.allclose(model.net(x, steps.float()), theirs(x, steps), atol=1e-3)


def test_a_published_name_is_a_card(tmp_path: Path) -> None:
    written(tmp_path / "cifar10_uncond_50M_500K.pt", out=6, heads=4)
    imported = read_model(tmp_path / "cifar10_uncond_50M_500K.pt")
    assert imported.shape == (3, 32, 32)
    assert imported.config.diffusion.schedule == Cosine(4000)
    assert (imported.config.net.heads, imported.config.net.time_scale) == (4, 0.25)  # type: ignore[attr-defined]
    written(tmp_path / "mine.pt")
    other = read_model(tmp_path / "mine.pt", options=options(card="128x128_diffusion", size=16))
    assert other.shape == (3, 16, 16)
    assert other.config.diffusion.schedule == Linear(1000)
    assert other.config.net.heads == 4  # type: ignore[attr-defined]
    assert all({"size", "schedule", "steps"} <= set(card) for card in CARDS.values())


def test_what_the_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    written(tmp_path / "x.pt")
    with pytest.raises(UserError, match="--set heads=4 or head_width=64"):
        read_model(tmp_path / "x.pt")
    with pytest.raises(UserError, match="--set size=PIXELS schedule=linear"):
        read_model(tmp_path / "x.pt", options=options(heads=2))
    with pytest.raises(UserError, match="the same: give one"):
        read_model(tmp_path / "x.pt", options=options(heads=2, head_width=4))
    with pytest.raises(UserError, match="did you mean 'lsun_cat'"):
        read_model(tmp_path / "x.pt", options=options(card="lsun_cats"))
    written(tmp_path / "up.pt", channels=6, out=6)
    with pytest.raises(UserError, match="upsampler"):
        read_model(tmp_path / "up.pt", options=options(**SAID))
