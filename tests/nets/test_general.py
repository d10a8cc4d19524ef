"""Options of the general U-Net that no imported network shows: where the alteration enters, and its first weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import UserError
from sfumato.nets import Interface
from sfumato.nets.embedding import sinusoid
from sfumato.nets.unet.blocks import ResidualBlock, SelfAttention
from sfumato.nets.unet.general import GeneralUNet, GeneralUNetConfig

VOCABULARY = AttributeVocabulary((Attribute("class", tuple("0123456789")),))


def network(**options: object) -> GeneralUNet:
    torch.manual_seed(0)
    options = {"base": 32, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "groups": 8} | options
    return GeneralUNet(GeneralUNetConfig(**options), Interface(3, VOCABULARY, augment=9))  # type: ignore[arg-type]


@pytest.mark.parametrize("early_condition", [False, True])
@pytest.mark.parametrize("early_augment", [False, True])
def test_what_is_early_goes_through_the_dense_layers(early_condition: bool, early_augment: bool) -> None:
    """As in EDM's: second(silu(first(row + label + alteration))), and what is not early is added after."""
    net = network(early_condition=early_condition, early_augment=early_augment)
    torch.nn.init.normal_(net.augment.weight)  # type: ignore[union-attr, arg-type]
    time, numbers, label = torch.tensor([0.3, 700.0]), torch.randn(2, 9), VOCABULARY.rows([[3.0], [7.0]])
    row, late = sinusoid(time, 32), torch.zeros(2, 128)
    vectors = {
        early_augment: [numbers @ net.augment.weight.T],  # type: ignore[union-attr, operator]
    }
    vectors.setdefault(early_condition, []).append(net.condition.parts[0].table.weight[[4, 8]])  # type: ignore
    for early, those in vectors.items():
        row, late = (row + sum(those), late) if early else (row, late + sum(those))
    hidden = F.silu(net.time.first(row))
    torch.testing.assert_close(net.combine(time, label, numbers), net.time.second(hidden) + late)
    torch.testing.assert_close(net.combine(time, label, torch.zeros(2, 9)), net.combine(time, label, None))


def test_first_weights_as_songs() -> None:
    """Uniform with variance g^2 2 / (fan in + fan out): queries, keys and values as one layer of fans C and 3 C with
    g^2 = 0.2, g = 1e-5 in the last layer of every branch; a label's vector is a layer of 10 inputs, times sqrt(10)."""
    net = network(first_weights="song", early_condition=True, early_augment=True)

    def bound(weight: torch.Tensor, expected: float) -> None:
        assert expected * 0.97 < float(weight.detach().abs().max()) <= expected * (1 + 1e-6)

    blocks, attention = 0, 0
    for module in net.modules():
        if isinstance(module, SelfAttention):
            width, attention = module.norm.num_channels, attention + 1
            bound(module.qkv.weight, math.sqrt(0.2) * math.sqrt(6 / (width + 3 * width)))
            bound(module.out.weight, 1e-5 * math.sqrt(6 / (2 * width)))
        elif isinstance(module, ResidualBlock):
            width, blocks = module.conv_2.out_channels, blocks + 1
            bound(module.conv_2.weight, 1e-5 * math.sqrt(6 / (2 * 9 * width)))
            bound(module.conv_1.weight, math.sqrt(6 / (9 * (module.conv_1.in_channels + width))))
    assert (blocks, attention) == (8, 4)
    bound(net.exit.weight, 1e-5 * math.sqrt(6 / (9 * (32 + 3))))
    bound(net.augment.weight, math.sqrt(6 / (9 + 32)))  # type: ignore[union-attr, arg-type]
    bound(net.condition.parts[0].table.weight, math.sqrt(10) * math.sqrt(6 / (10 + 32)) * 1.035)  # type: ignore
    assert not network().exit.weight.any()


def test_unknown_first_weights_are_refused() -> None:
    with pytest.raises(UserError, match="first_weights is 'sing'"):
        GeneralUNetConfig(first_weights="sing")
