from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.evaluate import open_extractor
from sfumato.evaluate.extractors.inception import Inception

from .conftest import pytorch_fid, randomise


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights with the names and shapes that the published file has, its last layer included."""
    found = dict(randomise(Inception()).state_dict())
    return {**found, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_it_is_pytorch_fids(state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other network loads our names and shapes, strictly, and gives the same features; so ours read its file."""
    other = pytorch_fid("inception")
    monkeypatch.setattr(other, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = other.InceptionV3([3]).eval()
    torch.save(state, tmp_path / "weights.pth")
    ours = open_extractor(f"inception:{tmp_path / 'weights.pth'}", (3, 32, 32))
    x = images(2, 3, 32, 40)
    with torch.no_grad():
        expected = theirs(x.float() / 255)[0][:, :, 0, 0]
    found = ours(x)
    assert found.shape == (2, ours.dim) == (2, 2048)
    assert float(expected.std(0).mean()) > 0.01 * float(expected.abs().mean()), "features that see the image"
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_grey_images_and_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors.torch.save_file(state, tmp_path / "weights.safetensors")
    found = open_extractor(f"inception:{tmp_path / 'weights.safetensors'}", (1, 28, 28))
    grey = images(1, 1, 28, 28)
    torch.testing.assert_close(found(grey), found(grey.expand(-1, 3, -1, -1)))


def test_the_hash_is_of_the_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    hashes = set()
    for name, change in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        weights = {**state, "Mixed_7c.branch_pool.bn.bias": state["Mixed_7c.branch_pool.bn.bias"] + change}
        safetensors.torch.save_file(weights, tmp_path / f"{name}.safetensors")
        hashes.add(open_extractor(f"inception:{tmp_path / name}.safetensors", (3, 8, 8)).sha256)
    assert len(hashes) == 2


def test_weights_of_other_networks_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    name = "Mixed_6c.branch7x7_2.conv.weight"
    changes: list[tuple[dict[str, Tensor], str]] = [
        ({**state, name: torch.zeros(128, 128, 1, 7)}, rf"'{name}' is \(128, 128, 1, 7\), expected \(160, 160, 1, 7\)"),
        ({k: v for k, v in state.items() if k != name}, f"'{name}' is missing"),
        ({**state, "AuxLogits.fc.bias": torch.zeros(5)}, r"'AuxLogits.fc.bias' is \(5,\), expected no such tensor"),
        ({**state, "fc.weight": torch.zeros(1000, 2048)}, "an Inception-v3 of 1000 classes"),
    ]
    for weights, message in changes:
        safetensors.torch.save_file(weights, path)
        with pytest.raises(UserError, match=message):
            open_extractor(f"inception:{path}", (3, 32, 32))
