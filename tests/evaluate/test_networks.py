"""The published networks: the features of other implementations from the same tensors, read without running code."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UserError
from sfumato.evaluate import open_extractor
from sfumato.evaluate.extractors.dinov2 import DINOv2
from sfumato.evaluate.extractors.inception import Inception

from .conftest import pytorch_fid, random_bytes, randomise

DIM, DEPTH, SHAPE = 128, 2, (3, 16, 16)


@pytest.fixture(scope="module")
def inception() -> dict[str, Tensor]:
    """Random weights with the names and shapes that the published file has, its last layer included."""
    found = dict(randomise(Inception()).state_dict())
    return {**found, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}


def dinov2(side: int, seed: int = 0) -> DINOv2:
    found = randomise(DINOv2(DIM, DEPTH, 1 + side * side), seed)
    assert isinstance(found, DINOv2)
    return found


def photos() -> Tensor:
    return torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_inception_is_pytorch_fids(
    inception: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other network loads our names and shapes, strictly, and gives the same features; so ours read its file."""
    other = pytorch_fid("inception")
    monkeypatch.setattr(other, "load_state_dict_from_url", lambda *_, **__: inception)
    theirs = other.InceptionV3([3]).eval()
    torch.save(inception, tmp_path / "weights.pth")
    ours = open_extractor(f"inception:{tmp_path / 'weights.pth'}", SHAPE)
    x = random_bytes(2, 3, 32, 40)
    with torch.no_grad():
        expected = theirs(x.float() / 255)[0][:, :, 0, 0]
    found = ours(x)
    assert found.shape == (2, ours.dim) == (2, 2048)
    assert float(expected.std(0).mean()) > 0.01 * float(expected.abs().mean()), "features that see the image"
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_grey_images_and_safetensors(inception: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors.torch.save_file(inception, tmp_path / "weights.safetensors")
    found = open_extractor(f"inception:{tmp_path / 'weights.safetensors'}", (1, 28, 28))
    grey = random_bytes(1, 1, 28, 28)
    torch.testing.assert_close(found(grey), found(grey.expand(-1, 3, -1, -1)))


def test_the_hash_is_of_the_file(inception: dict[str, Tensor], tmp_path: Path) -> None:
    hashes, name = set(), "Mixed_7c.branch_pool.bn.bias"
    for file, change in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        safetensors.torch.save_file({**inception, name: inception[name] + change}, tmp_path / f"{file}.safetensors")
        hashes.add(open_extractor(f"inception:{tmp_path / file}.safetensors", (3, 8, 8)).sha256)
    assert len(hashes) == 2


def by_torch(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same transformer out of torch's own layers, LayerScale folded into the linear layer before it."""
    tokens = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    x = torch.cat((state["cls_token"].expand(len(x), -1, -1), tokens.flatten(2).transpose(1, 2)), 1)
    x = x + state["pos_embed"]
    for k in range(DEPTH):
        layer = nn.TransformerEncoderLayer(
            DIM, DIM // 64, 4 * DIM, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        ).eval()
        s = {name.removeprefix(f"blocks.{k}."): t for name, t in state.items() if name.startswith(f"blocks.{k}.")}
        first, second = s["ls1.gamma"], s["ls2.gamma"]
        layer.load_state_dict(
            {f"norm{n}.{p}": s[f"norm{n}.{p}"] for n in (1, 2) for p in ("weight", "bias")}
            | {f"self_attn.in_proj_{p}": s[f"attn.qkv.{p}"] for p in ("weight", "bias")}
            | {f"linear1.{p}": s[f"mlp.fc1.{p}"] for p in ("weight", "bias")}
            | {"self_attn.out_proj.weight": first[:, None] * s["attn.proj.weight"]}
            | {"self_attn.out_proj.bias": first * s["attn.proj.bias"]}
            | {"linear2.weight": second[:, None] * s["mlp.fc2.weight"], "linear2.bias": second * s["mlp.fc2.bias"]}
        )
        x = layer(x)
    return F.layer_norm(x[:, 0], (DIM,), state["norm.weight"], state["norm.bias"], 1e-6)


@torch.no_grad()
def test_dinov2_is_torchs_own_transformer() -> None:
    net = dinov2(4, seed=1)
    torch.testing.assert_close(net(photos()), by_torch(dict(net.state_dict()), photos()), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_dinov2_is_timms() -> None:
    timm = pytest.importorskip("timm.models.vision_transformer", exc_type=(ImportError, RuntimeError))
    net = dinov2(4, seed=1)
    other = timm.VisionTransformer(56, 14, embed_dim=DIM, depth=DEPTH, num_heads=2, init_values=1.0, num_classes=0)
    other.load_state_dict({name: tensor for name, tensor in net.state_dict().items() if name != "mask_token"})
    torch.testing.assert_close(net(photos()), other.eval()(photos()), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_positions_are_interpolated_smoothly_and_the_class_token_keeps_its_own() -> None:
    """A plane comes back nearly as it is (torch's cubic has a = -0.75, not -0.5) at the new patches' centres, away from
    the border; with a step of 37 / 16, which is not the published one, it would be off by up to 0.5."""
    plane = torch.arange(37.0)[:, None] * 2 + torch.arange(37.0)
    positions = torch.cat((torch.full((1, 1, DIM), 7.0), plane.flatten()[None, :, None].expand(1, -1, DIM)), 1)
    net = dinov2(37)
    net.pos_embed.copy_(positions)
    found = net.positions(16, 16)
    assert found.shape == (1, 257, DIM)
    assert torch.equal(found[:, 0], positions[:, 0])
    centre = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5  # the published code's step
    expected = centre[:, None] * 2 + centre
    torch.testing.assert_close(found[0, 1:, 0].reshape(16, 16)[2:13, 2:13], expected[2:13, 2:13], atol=0.2, rtol=0)
    assert net.positions(37, 37) is net.pos_embed


def test_dinov2s_published_layout_opens_by_path(tmp_path: Path) -> None:
    net, x = dinov2(37), random_bytes(2, 3, 16, 16)
    torch.save(dict(net.state_dict()), tmp_path / "weights.pth")
    found = open_extractor(f"dinov2:{tmp_path / 'weights.pth'}", SHAPE)
    large = F.interpolate(x.float() / 255, (224, 224), mode="bicubic", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = net((large - mean[:, None, None]) / std[:, None, None])
    assert found.dim == DIM
    torch.testing.assert_close(found(x), expected, atol=1e-5, rtol=1e-5)


NAME = "Mixed_6c.branch7x7_2.conv.weight"


@pytest.mark.parametrize(
    ("extractor", "changes", "message"),
    [
        ("inception", {NAME: torch.zeros(128, 128, 1, 7)}, rf"'{NAME}' is \(128, 128, 1, 7\), expected \(160, 160, 1"),
        ("inception", {NAME: None}, f"'{NAME}' is missing"),
        ("inception", {"AuxLogits.fc.bias": torch.zeros(5)}, r"'AuxLogits.fc.bias' is \(5,\), expected no such tensor"),
        ("inception", {"fc.weight": torch.zeros(1000, 2048)}, "an Inception-v3 of 1000 classes"),
        ("dinov2", {"register_tokens": torch.zeros(1, 4, DIM)}, r"'register_tokens' is .* expected no such tensor"),
        ("dinov2", {"pos_embed": torch.zeros(3)}, "does not hold the weights of"),
    ],
)
def test_weights_of_other_networks_are_refused(
    extractor: str, changes: dict[str, Tensor | None], message: str, inception: dict[str, Tensor], tmp_path: Path
) -> None:
    state = (inception if extractor == "inception" else dict(dinov2(4).state_dict())) | changes
    safetensors.torch.save_file({k: v for k, v in state.items() if v is not None}, tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match=message):
        open_extractor(f"{extractor}:{tmp_path / 'weights.safetensors'}", SHAPE)


class Hostile:
    """What a pickle can do to whoever loads it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["inception", "dinov2"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    path, trace = tmp_path / f"weights{suffix}", tmp_path / "trace"
    for content in (b"", b"not weights at all", b"\x80\x02}q\x00."):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            open_extractor(f"{name}:{path}", SHAPE)
        assert "\n" not in str(caught.value)
    for state, message in (({"epoch": 3}, "more than named tensors"), ({"conv": Hostile(trace)}, "can be read safely")):
        torch.save(state, tmp_path / "state.pth")
        with pytest.raises(UserError, match=message):
            open_extractor(f"{name}:{tmp_path / 'state.pth'}", SHAPE)
    assert not trace.exists(), "nothing in a file is run"
