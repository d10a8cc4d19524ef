"""The transformer: equal to its definition token by token, and what is particular to it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato.errors import UserError
from sfumato.nets import Interface
from sfumato.nets.transformer.blocks import positions
from sfumato.nets.transformer.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(width=16, depth=2, heads=2, patch=2, ratio=3)


def awake(config: TransformerConfig = CONFIG, channels: int = 3) -> Transformer:
    torch.manual_seed(0)
    net = config.build(Interface(channels)).eval().double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def normalised(row: Tensor) -> Tensor:
    return (row - row.mean()) / ((row - row.mean()).square().mean() + 1e-6).sqrt()


def by_hand(net: Transformer, image: Tensor, time: float) -> Tensor:
    """The definition for one image (C, H, W), in loops over patches, heads and tokens, with the net's own weights."""
    config, weights = net.config, dict(net.named_parameters())
    p, width, heads = config.patch, config.width, config.heads
    channels, height, breadth = image.shape

    def dense(name: str, x: Tensor) -> Tensor:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    w = [10000 ** (-i / (width // 2 - 1)) for i in range(width // 2)]
    row = torch.tensor([math.sin(time * f) for f in w] + [math.cos(time * f) for f in w], dtype=torch.float64)
    hidden = dense("time.first", row)
    emb = dense("time.second", hidden * hidden.sigmoid())
    emb = emb * emb.sigmoid()

    places = [(i, j) for i in range(height // p) for j in range(breadth // p)]
    slow = [10000 ** (-i / (width // 4 - 1)) for i in range(width // 4)]
    tokens = []
    for i, j in places:
        patch = image[:, i * p : (i + 1) * p, j * p : (j + 1) * p].reshape(-1)
        where = [f(n * v) for n in (i, j) for f in (math.sin, math.cos) for v in slow]
        tokens.append(dense("entrance", patch) + torch.tensor(where, dtype=torch.float64))
    for n in range(config.depth):
        name = f"blocks.{n}"
        a_1, b_1, g_1, a_2, b_2, g_2 = dense(f"{name}.modulation", emb).chunk(6)
        qkv = [dense(f"{name}.attention.qkv", normalised(x) * (1 + b_1) + a_1).reshape(3, heads, -1) for x in tokens]
        mixed = []
        for query in qkv:
            parts = []
            for head in range(heads):
                unit = [x[:2, head] / (x[:2, head].square().mean(1, keepdim=True) + 1e-6).sqrt() for x in (query, *qkv)]
                scores = torch.stack([unit[0][0] @ key[1] for key in unit[1:]]) / (width / heads) ** 0.5
                values = torch.stack([x[2, head] for x in qkv])
                parts.append(scores.softmax(0) @ values)
            mixed.append(dense(f"{name}.attention.out", torch.cat(parts)))
        tokens = [x + g_1 * m for x, m in zip(tokens, mixed, strict=True)]
        inner = [dense(f"{name}.widen", normalised(x) * (1 + b_2) + a_2) for x in tokens]
        inner = [u * (1 + torch.erf(u / 2**0.5)) / 2 for u in inner]
        tokens = [x + g_2 * dense(f"{name}.narrow", u) for x, u in zip(tokens, inner, strict=True)]
    out = torch.zeros(channels, height, breadth, dtype=torch.float64)
    shift, scale = dense("exit.modulation", emb).chunk(2)
    for (i, j), x in zip(places, tokens, strict=True):
        patch = dense("exit.dense", normalised(x) * (1 + scale) + shift).reshape(channels, p, p)
        out[:, i * p : (i + 1) * p, j * p : (j + 1) * p] = patch
    return out


def test_it_is_its_definition() -> None:
    net, x = awake(), torch.randn(2, 3, 6, 4, dtype=torch.float64)
    times = torch.tensor([0.0, 37.5], dtype=torch.float64)
    with torch.no_grad():
        out = net(x, times)
        for i in range(2):
            torch.testing.assert_close(out[i], by_hand(net, x[i], float(times[i])), rtol=1e-6, atol=1e-6)


def test_a_fresh_network_returns_exactly_zero() -> None:
    net = CONFIG.build(Interface(3))
    assert not net(torch.randn(2, 3, 6, 4), torch.tensor([0.0, 9.0])).any()


def test_a_size_that_is_no_multiple_is_extended_by_its_last_row_and_column() -> None:
    net, x, time = awake(), torch.randn(1, 3, 5, 7, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    whole = torch.cat([x, x[..., -1:]], 3)
    whole = torch.cat([whole, whole[:, :, -1:]], 2)
    torch.testing.assert_close(net(x, time), net(whole, time)[..., :5, :7])
    assert CONFIG.inside(5, 7) == (6, 8)
    assert TransformerConfig(patch=8).inside(64, 60) == (64, 64)


def test_positions_are_of_rows_and_columns_and_of_any_size() -> None:
    small, large = (positions(n, n + 1, 16, torch.zeros((), dtype=torch.float64)) for n in (3, 5))
    assert small.shape == (12, 16)
    assert small.dtype == torch.float64
    assert len({tuple(row) for row in large.tolist()}) == 30
    torch.testing.assert_close(small.view(3, 4, 16), large.view(5, 6, 16)[:3, :4])
    assert torch.equal(small.view(3, 4, 16)[1, 2, :8], small.view(3, 4, 16)[1, 0, :8])
    assert torch.equal(small.view(3, 4, 16)[1, 2, 8:], small.view(3, 4, 16)[0, 2, 8:])


def test_muon_trains_the_matrices_of_the_blocks() -> None:
    names = {f"blocks.{n}.{part}.weight" for n in range(2) for part in (
        "modulation", "attention.qkv", "attention.out", "widen", "narrow",
    )}  # fmt: skip
    assert set(awake().matrices()) == names


def test_dropout_acts_in_training_only() -> None:
    net, x, time = awake(TransformerConfig(width=16, depth=1, heads=1, dropout=0.5)), torch.randn(2, 3, 8, 8), None
    x, time = x.double(), torch.zeros(2, dtype=torch.float64)
    assert torch.equal(net(x, time), net(x, time))
    net.train()
    assert not torch.equal(net(x, time), net(x, time))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"width": 18}, "net.width is 18: give a multiple of 4 from 8"),
        ({"width": 10**9}, "net.width is 1000000000"),
        ({"width": 64, "heads": 5}, "net.heads is 5, which doesn't divide net.width = 64"),
        ({"depth": 0}, "net.depth is 0: give 1 or more"),
        ({"patch": 0}, "net.patch is 0"),
        ({"ratio": 0}, "net.ratio is 0"),
        ({"dropout": 1.0}, "net.dropout is 1.0: give a probability"),
    ],
)
def test_values_out_of_range_are_refused(setting: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        TransformerConfig(**setting)


def test_the_bound_on_tensors_is_its_blocks() -> None:
    net = awake()
    assert CONFIG.least_tensors == sum(name.startswith("blocks.") for name in net.state_dict())
