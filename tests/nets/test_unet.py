"""The whole network: sizes, patches, conditions, first weights, gradients, precision."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.table import Attributes
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import UserError
from sfumato.nets import Interface
from sfumato.nets.unet.blocks import ResidualBlock, SelfAttention
from sfumato.nets.unet.unet import UNet, UNetConfig

SMALL = UNetConfig(base=8, multipliers=(1, 2, 2), blocks=1, attention=(1,), dropout=0.0, groups=4)


def interface(conditions: tuple[int, ...] = (), **changes: Any) -> Interface:
    """Two channels, and attributes with so many values each, 0 = a number."""
    known = tuple(Attribute(f"a{k}", tuple(map(str, range(count)))) for k, count in enumerate(conditions))
    return Interface(2, AttributeVocabulary(known) if known else None, **changes)


def network(
    conditions: tuple[int, ...] = (), learned_variance: bool = False, channels: int = 2, **changes: Any
) -> UNet:
    """Build a network all of whose weights are random, those that start at zero too."""
    torch.manual_seed(0)
    fits = replace(interface(conditions), learned_variance=learned_variance, channels=channels)
    net = UNet(replace(SMALL, **changes), fits).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=max(0.1, parameter[0].numel() ** -0.5) if parameter.ndim > 1 else 0.5)
    return net


def batch(num: int, channels: int = 2, size: tuple[int, int] = (8, 8)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, channels, *size, generator=generator), torch.rand(num, generator=generator) * 999


def test_a_fresh_network_returns_exactly_zero() -> None:
    x, time = batch(3)
    assert torch.equal(UNet(SMALL, interface())(x, time), torch.zeros_like(x))


@pytest.mark.parametrize("multipliers", [(2,), (2, 2), (2, 1, 3), (3, 2)])
def test_the_first_level_may_have_any_width(multipliers: tuple[int, ...]) -> None:
    """The last norm and the exit have the first level's width, the entrance has `base`."""
    net = network(multipliers=multipliers, attention=())
    x, time = batch(2)
    out = net(x, time)
    assert out.shape == x.shape
    assert bool(out.isfinite().all())
    assert net.norm.num_channels == net.exit.in_channels == 8 * multipliers[0]
    assert net.cost(8, 8).flops > 0
    assert torch.equal(UNet(replace(SMALL, multipliers=multipliers, attention=()), interface())(x, time), 0 * x)


def test_groups_divide_the_entrance_too() -> None:
    with pytest.raises(UserError, match=r"net\.groups is 8"):
        replace(SMALL, base=12, multipliers=(2, 2), groups=8)


def test_every_branch_of_a_fresh_network_is_zero() -> None:
    torch.manual_seed(0)
    branches = 0
    for module in UNet(SMALL, interface()).eval().modules():
        x = torch.randn(2, module.norm_1.num_channels if isinstance(module, ResidualBlock) else 16, 4, 4)
        if isinstance(module, ResidualBlock):
            assert torch.equal(module(x, torch.randn(2, 32)), module.shortcut(x))
            branches += 1
        elif isinstance(module, SelfAttention):
            assert torch.equal(module(x), x)
            branches += 1
    assert branches == 11 + 4


def test_first_weights_have_the_published_variance() -> None:
    torch.manual_seed(0)
    net = UNet(UNetConfig(base=64, multipliers=(1, 2), groups=8))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.any():
            parts = module.weight.chunk(3) if module.weight.shape[0] == 3 * module.weight.shape[1] else [module.weight]
            fans = parts[0].shape[0] + parts[0].shape[1]
            variance = 2 / (fans * parts[0][0, 0].numel())
            for part in parts:
                assert part.var().item() == pytest.approx(variance, rel=0.15)
                assert part.abs().max() <= (3 * variance) ** 0.5 * 1.0001
            assert not module.bias.any()


def test_every_size_is_padded_by_repeating_the_edge_and_cropped() -> None:
    net = network()
    assert net.config.multiple == 4
    for height in range(5, 34):
        for width in range(7, 21):
            x, time = batch(1, size=(height, width))
            below, right = -height % 4, -width % 4
            padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, below), (0, right)), mode="edge")
            with torch.inference_mode():
                out = net(x, time)
                assert out.shape == x.shape
                if height % 4 in (1, 2) and width % 5 == 2:
                    torch.testing.assert_close(out, net(torch.from_numpy(padded), time)[..., :height, :width])


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_patches_is_running_on_the_unshuffled_image(size: tuple[int, int]) -> None:
    patched, plain = network(channels=1, patch=2), network(channels=4)
    assert patched.config.multiple == 8
    plain.load_state_dict(patched.state_dict())
    x, time = batch(2, channels=1, size=size)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -size[0] % 8), (0, -size[1] % 8)), mode="edge")
    rows, columns = padded.shape[2] // 2, padded.shape[3] // 2
    small = padded.reshape(2, rows, 2, columns, 2).transpose(0, 2, 4, 1, 3).reshape(2, 4, rows, columns)
    out = plain(torch.from_numpy(small.copy()), time).detach().numpy()
    large = out.reshape(2, 2, 2, rows, columns).transpose(0, 3, 1, 4, 2).reshape(2, 1, 2 * rows, 2 * columns)
    np.testing.assert_allclose(
        patched(x, time).detach().numpy(), large[..., : size[0], : size[1]], atol=1e-5, err_msg="patch"
    )


def test_nothing_given_is_a_condition_of_its_own() -> None:
    net = network(conditions=(3, 0))
    x, time = batch(2)
    out = net(x, time, Attributes(torch.full((2, 2), math.nan)))
    torch.testing.assert_close(net(x, time), out)
    torch.testing.assert_close(net(x, time, None), out)
    for given in ([math.nan, 0.5], [2.0, math.nan]):
        assert not torch.allclose(net(x, time, Attributes(torch.tensor([[math.nan] * 2, given])))[1], out[1], atol=1e-3)


def test_a_condition_is_a_shift_of_the_time_vector() -> None:
    """With value k the network is the unconditional one whose last time bias is larger by the table's row."""
    conditional, plain = network(conditions=(3,)), network()
    plain.load_state_dict(conditional.state_dict(), strict=False)
    assert plain.time.second.bias is not None
    assert conditional.condition is not None
    with torch.no_grad():
        plain.time.second.bias += conditional.condition.parts[0].table.weight[1 + 2]
    x, time = batch(2)
    torch.testing.assert_close(conditional(x, time, Attributes(torch.full((2, 1), 2.0))), plain(x, time))


def test_conditions_of_a_network_without_any() -> None:
    net = network()
    x, time = batch(2)
    with pytest.raises(UserError, match=r"trained without labels.*data\.labels"):
        net(x, time, Attributes(torch.tensor([[math.nan], [0.0]])))


def test_a_fresh_network_wakes_in_three_steps() -> None:
    """Zero layers learn first, what lies below a block's last layer second, and the rest third."""
    torch.manual_seed(0)
    net = UNet(SMALL, interface())
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    x, time = batch(3)
    for _ in range(3):
        optimiser.zero_grad()
        (net(x, time) - x).square().mean().backward()
        optimiser.step()
    assert [name for name, parameter in net.named_parameters() if not parameter.grad.any()] == []


def test_gradients_lie_in_memory_as_their_weights_do() -> None:
    """Fused optimisers run through memory in order, whatever the strides: another layout would mix weights up."""
    nets = [network(), network()]
    x, time = batch(3)
    for net, fused in zip(nets, (False, True), strict=True):
        optimiser = torch.optim.AdamW(net.parameters(), lr=0.1, fused=fused, foreach=False)
        for _ in range(2):
            optimiser.zero_grad()
            (net(x, time) - x).square().mean().backward()
            optimiser.step()
    # Where a gradient is all but zero Adam's quotient is mere rounding (the key's bias): compare what the networks do.
    torch.testing.assert_close(nets[0](x, time), nets[1](x, time), atol=1e-3, rtol=0)


def test_float64_agrees_with_float32() -> None:
    net = network()
    x, time = batch(2)
    single = net(x, time)
    double = net.double()(x.double(), time.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_memory_layout_of_the_input_is_immaterial() -> None:
    net = network()
    x, time = batch(2)
    torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last), time), net(x, time))
    torch.testing.assert_close(net(x.transpose(2, 3).contiguous().transpose(2, 3), time), net(x, time))


def test_inference_mode_changes_nothing() -> None:
    net = network()
    x, time = batch(2)
    kept = x.clone()
    with torch.inference_mode():
        out = net(x, time)
    torch.testing.assert_close(out, net(x, time).detach())
    assert torch.equal(x, kept)


def test_state_round_trip() -> None:
    net, other = network(conditions=(2, 0)), UNet(SMALL, interface((2, 0))).eval()
    other.load_state_dict({name: value.contiguous() for name, value in net.state_dict().items()})
    x, time = batch(2)
    assert torch.equal(net(x, time), other(x, time))
    assert other.down[0].blocks[0].conv_1.weight.is_contiguous(memory_format=torch.channels_last)
