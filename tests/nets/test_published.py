"""The published networks beside diffusers' from the same settings, with the same random weights: the same output."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

from diffusers_weights import unet_2d_model
from torch import nn

from sfumato.exchange.diffusers.names import to_ours
from sfumato.nets import Interface
from sfumato.nets.cost import parameters
from sfumato.nets.unet.unet import UNet, UNetConfig

CIFAR = UNetConfig()
LARGE = UNetConfig(base=128, multipliers=(1, 1, 2, 2, 4, 4), attention=(4,), dropout=0.0)
ODD = UNetConfig(base=16, multipliers=(1, 3, 2), blocks=3, attention=(0, 2), groups=4)


def randomise(net: nn.Module) -> None:
    """Fill every weight so that activations keep their size and none stays at zero or one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim > 1:
                bound = (3 / parameter[0].numel()) ** 0.5
                parameter.uniform_(-bound, bound)
            else:
                parameter.uniform_(-0.5, 0.5)
        for module in net.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight += 1


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
