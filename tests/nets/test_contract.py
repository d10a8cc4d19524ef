"""What every network of the registry must do. A new one adds a line to `SMALL`."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import UserError
from sfumato.nets import NETWORKS, Interface, Network, NetworkConfig
from sfumato.nets.hourglass import HourglassConfig
from sfumato.nets.lucid import LucidConfig
from sfumato.nets.preconditioned import PreconditionedConfig
from sfumato.nets.transformer.transformer import TransformerConfig
from sfumato.nets.unet.general import GeneralUNetConfig
from sfumato.nets.unet.unet import UNetConfig
from sfumato.train.parallel import recompute

# fmt: off
SMALL: dict[str, NetworkConfig] = {
    "unet": UNetConfig(base=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=0.0, groups=4),
    "general": GeneralUNetConfig(
        base=8, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, entrance=12, time_width=10, embedding=20,
        time_scale=0.5, cosine_first=True, frequency_shift=0, early_condition=True, early_augment=True, eps=1e-5,
        least_group=4,
        scale_shift=True, output_scale=0.7, halving="block", doubling="block", resample_shortcut=True, head_width=4,
        up_attention="last", first_weights="song",
    ),
    "general, NCSN++": GeneralUNetConfig(
        base=8, multipliers=(1, 2, 1), blocks=1, attention=(1,), groups=4, time_width=16, output_scale=0.7,
        halving="block", doubling="block", resample_shortcut=True, waves="random", taps=(1, 3, 3, 1),
        encoder="residual",
    ),
    "hourglass": HourglassConfig(
        widths=(16, 32), depths=(2, 1), feed=(24, 40), attention=("window", "global"), reach=(2, 0), head_width=(8, 16),
        patch=2, mapping=16, mapping_depth=1, mapping_feed=24,
    ),
    "lucid": LucidConfig(
        base=8, multipliers=(1, 2), full_attention=(1,), heads=(2, 2), head_width=(4, 4), memory=2, averaged=True
    ),
    "preconditioned": PreconditionedConfig(
        GeneralUNetConfig(base=8, multipliers=(1, 2), blocks=1, attention=(1,), groups=4, scale_shift=True)
    ),
    "transformer": TransformerConfig(width=32, depth=2, heads=2, patch=2),
}
# fmt: on
VOCABULARY = AttributeVocabulary((Attribute("kind", ("a", "b")), Attribute("age")))
WHOLE = Interface(2, VOCABULARY, augment=9, learned_variance=True)


def test_every_network_is_held_to_this() -> None:
    assert {name.split(",")[0] for name in SMALL} == set(NETWORKS)


@pytest.fixture(params=list(SMALL))
def config(request: pytest.FixtureRequest) -> NetworkConfig:
    return SMALL[request.param]


def awake(config: NetworkConfig, interface: Interface) -> Network:
    """A network whose weights are all random."""
    torch.manual_seed(0)
    net = config.build(interface).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


@pytest.mark.parametrize("size", [(8, 8), (6, 10), (5, 7)])
def test_shapes(config: NetworkConfig, size: tuple[int, int]) -> None:
    x, time = torch.randn(3, 2, *size), torch.tensor([0.0, 12.5, 999.0])
    assert awake(config, Interface(2))(x, time).shape == x.shape
    assert awake(config, WHOLE)(x, time).shape == (3, 4, *size)
    inside = config.inside(*size)
    assert all(a >= b for a, b in zip(inside, size, strict=True))


def test_what_it_is_told_has_an_effect(config: NetworkConfig) -> None:
    net, x, time = awake(config, WHOLE), torch.randn(2, 2, 8, 8), torch.tensor([3.0, 3.0])
    plain = net(x, time)
    assert not torch.allclose(plain, net(x, time + 400))
    assert not torch.allclose(plain, net(x, time, VOCABULARY.rows([[0.0, 0.5], [1.0, -1.0]])))
    torch.testing.assert_close(plain, net(x, time, VOCABULARY.rows([[0.0, 0.5]] * 2).absent()))
    assert not torch.allclose(plain, net(x, time, augment=torch.ones(2, 9)))
    torch.testing.assert_close(plain, net(x, time, augment=torch.zeros(2, 9)))
    with pytest.raises(UserError):
        awake(config, Interface(2))(x, time, VOCABULARY.rows([[0.0, 0.5]] * 2).absent())


def test_rows_of_a_batch_are_independent_and_every_weight_learns(config: NetworkConfig) -> None:
    net, x, time = awake(config, WHOLE), torch.randn(3, 2, 8, 8), torch.tensor([0.0, 100.0, 999.0])
    rows = VOCABULARY.rows([[0.0, 0.5], [1.0, float("nan")], [float("nan"), -1.0]])
    together = net(x, time, rows, torch.ones(3, 9))
    alone = net(x[1:2], time[1:2], rows.take(torch.tensor([1])), torch.ones(1, 9))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
    together.square().mean().backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_costs_and_words(config: NetworkConfig) -> None:
    net = awake(config, WHOLE)
    cost = net.cost(8, 8)
    assert cost.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert 3 < net.cost(16, 16).flops / cost.flops < 5
    assert cost.activation_bytes > 0
    assert config.least_tensors <= len(net.state_dict())
    assert "\n" not in net.summary()
    with torch.device("meta"):  # nothing that is allocated decides what is built
        assert config.build(WHOLE).cost(8, 8) == cost


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_output_is_near_and_normalisations_are_in_float32(
    config: NetworkConfig, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, time = awake(config, Interface(2)), torch.randn(3, 2, 8, 8), torch.tensor([0.0, 12.5, 999.0])
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    kinds = set()
    for name in ("group_norm", "layer_norm", "rms_norm"):
        function = getattr(torch.nn.functional, name)

        def watched(h, *more, function=function, **named):
            kinds.add(h.dtype)
            return function(h, *more, **named)

        monkeypatch.setattr(torch.nn.functional, name, watched)
    with torch.no_grad():
        exact = net(x, time)
        with torch.autocast("cpu", dtype=dtype):
            near = net(x, time)
    assert kinds <= {torch.float32}
    assert near.dtype in (dtype, torch.float32)
    assert float((near.float() - exact).norm() / exact.norm()) < (0.03 if dtype == torch.bfloat16 else 0.005)


def test_recomputed_blocks_give_the_same_gradients(config: NetworkConfig) -> None:
    x, time = torch.randn(3, 2, 8, 8), torch.tensor([0.0, 12.5, 999.0])
    gradients = []
    for on in (False, True):
        known = {field.name for field in dataclasses.fields(config)} & {"dropout"}  # type: ignore[arg-type]
        changed = dataclasses.replace(config, **dict.fromkeys(known, 0.2))  # type: ignore[type-var]
        net = awake(changed, Interface(2)).train()
        recompute(net, on)
        torch.manual_seed(5)
        net(x, time).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
