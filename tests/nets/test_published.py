"""The published networks beside diffusers' from the same settings, with the same random weights: the same output."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from diffusers_weights import unet_2d_model
from tests.exchange.models import randomise

from sfumato.exchange.diffusers.names import to_ours
from sfumato.nets import Interface
from sfumato.nets.cost import parameters
from sfumato.nets.unet.unet import UNet, UNetConfig

CIFAR = UNetConfig()
LARGE = UNetConfig(base=128, multipliers=(1, 1, 2, 2, 4, 4), attention=(4,), dropout=0.0)
ODD = UNetConfig(base=16, multipliers=(1, 3, 2), blocks=3, attention=(0, 2), groups=4)


@pytest.mark.parametrize(
    ("config", "channels", "num_parameters", "size"),
    [(CIFAR, 3, 35_746_307, 32), (LARGE, 3, 113_673_219, 64), (ODD, 1, None, 12)],
    ids=["cifar10", "256x256", "other settings"],
)
def test_same_weights_same_output(config: UNetConfig, channels: int, num_parameters: int | None, size: int) -> None:
    with torch.device("meta"):  # the first weights of either are of no interest, and take seconds to draw
        theirs, ours = unet_2d_model(config, channels), UNet(config, Interface(channels))
    theirs = theirs.to_empty(device="cpu").eval()
    ours = ours.to_empty(device="cpu").eval()
    randomise(theirs)
    ours.load_state_dict(to_ours(theirs.state_dict()))
    assert parameters(ours) == parameters(theirs) == (num_parameters or parameters(theirs))
    x, time = torch.randn(2, channels, size, size), torch.tensor([3.0, 977.0])
    with torch.inference_mode():
        expected, actual = theirs(x, time).sample, ours(x, time)
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
