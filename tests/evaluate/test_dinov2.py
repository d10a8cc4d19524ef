from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UserError
from sfumato.evaluate import open_extractor
from sfumato.evaluate.extractors.dinov2 import DINOv2

from .conftest import randomise

DIM, DEPTH = 128, 2


@pytest.fixture(scope="module")
def net() -> DINOv2:
    found = randomise(DINOv2(DIM, DEPTH, 1 + 37 * 37))
    assert isinstance(found, DINOv2)
    return found


def by_torch(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The same transformer out of torch's own layers, LayerScale folded into the linear layer before it."""
    tokens = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    tokens = tokens.flatten(2).transpose(1, 2)
    x = torch.cat((state["cls_token"].expand(len(x), -1, -1), tokens), 1) + state["pos_embed"]
    for k in range(DEPTH):
        layer = nn.TransformerEncoderLayer(
            DIM, DIM // 64, 4 * DIM, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        ).eval()
        s = {name.removeprefix(f"blocks.{k}."): t for name, t in state.items() if name.startswith(f"blocks.{k}.")}
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": s["attn.qkv.weight"],
                "self_attn.in_proj_bias": s["attn.qkv.bias"],
                "self_attn.out_proj.weight": s["ls1.gamma"][:, None] * s["attn.proj.weight"],
                "self_attn.out_proj.bias": s["ls1.gamma"] * s["attn.proj.bias"],
                "linear1.weight": s["mlp.fc1.weight"],
                "linear1.bias": s["mlp.fc1.bias"],
                "linear2.weight": s["ls2.gamma"][:, None] * s["mlp.fc2.weight"],
                "linear2.bias": s["ls2.gamma"] * s["mlp.fc2.bias"],
                **{f"norm{n}.{p}": s[f"norm{n}.{p}"] for n in (1, 2) for p in ("weight", "bias")},
            }
        )
        x = layer(x)
    return F.layer_norm(x[:, 0], (DIM,), state["norm.weight"], state["norm.bias"], 1e-6)


@torch.no_grad()
def test_it_is_torchs_own_transformer() -> None:
    net = randomise(DINOv2(DIM, DEPTH, 1 + 4 * 4), seed=1)
    x = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), by_torch(dict(net.state_dict()), x), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_it_is_timms() -> None:
    timm = pytest.importorskip("timm.models.vision_transformer", exc_type=(ImportError, RuntimeError))
    net = randomise(DINOv2(DIM, DEPTH, 1 + 4 * 4), seed=1)
    other = timm.VisionTransformer(56, 14, embed_dim=DIM, depth=DEPTH, num_heads=2, init_values=1.0, num_classes=0)
    state = dict(net.state_dict())
    state.pop("mask_token")
    other.load_state_dict(state)
    x = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x), other.eval()(x), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_positions_are_interpolated_smoothly_and_the_class_token_keeps_its_own() -> None:
    """A plane comes back nearly as it is (torch's cubic has a = -0.75, not -0.5) at the new patches' centres, away from
    the border; with a step of 37 / 16, which is not the published one, it would be off by up to 0.5."""
    plane = torch.arange(37.0)[:, None] * 2 + torch.arange(37.0)
    positions = torch.cat((torch.full((1, 1, DIM), 7.0), plane.flatten()[None, :, None].expand(1, -1, DIM)), 1)
    net = DINOv2(DIM, DEPTH, 1 + 37 * 37)
    net.pos_embed.copy_(positions)
    found = net.positions(16, 16)
    assert found.shape == (1, 257, DIM)
    assert torch.equal(found[:, 0], positions[:, 0])
    centre = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5  # the published code's step
    expected = centre[:, None] * 2 + centre
    torch.testing.assert_close(found[0, 1:, 0].reshape(16, 16)[2:13, 2:13], expected[2:13, 2:13], atol=0.2, rtol=0)
    assert net.positions(37, 37) is net.pos_embed


def test_the_published_layout_opens_by_path(net: DINOv2, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(dict(net.state_dict()), path)
    found = open_extractor(f"dinov2:{path}", (3, 16, 16))
    x = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    large = F.interpolate(x.float() / 255, (224, 224), mode="bicubic", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = net((large - mean[:, None, None]) / std[:, None, None])
    assert found.dim == DIM
    torch.testing.assert_close(found(x), expected, atol=1e-5, rtol=1e-5)


def test_variants_are_refused(net: DINOv2, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({**net.state_dict(), "register_tokens": torch.zeros(1, 4, DIM)}, path)
    with pytest.raises(UserError, match=r"'register_tokens' is .* expected no such tensor"):
        open_extractor(f"dinov2:{path}", (3, 16, 16))
