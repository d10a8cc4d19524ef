"""Parameters and FLOPs counted by hand."""

from __future__ import annotations

import torch

from sfumato.nets import Interface
from sfumato.nets.cost import parameters
from sfumato.nets.unet.unet import UNet, UNetConfig


def flops(config: UNetConfig, channels: int, height: int, width: int) -> int:
    with torch.device("meta"):
        return UNet(config, Interface(channels)).cost(height, width).flops


def pairs_of_a_block(inputs: int, outputs: int, pixels: int, embedding: int) -> int:
    convolutions = 9 * inputs * outputs + 9 * outputs * outputs + (inputs * outputs if inputs != outputs else 0)
    return convolutions * pixels + embedding * outputs


def pairs_of_attention(width: int, pixels: int) -> int:
    """With one head: two 1x1 convolutions, whose weights are products of two, scores and sums."""
    return 2 * width * width * (pixels + width) + 2 * pixels * pixels * width


def test_one_level_by_hand() -> None:
    config = UNetConfig(base=4, multipliers=(1,), blocks=1, attention=(), groups=2)
    n, e = 6 * 5, 16
    pairs = 9 * 1 * 4 * n + 9 * 4 * 1 * n  # entrance and exit
    pairs += 4 * e + e * e  # the time's two layers
    pairs += pairs_of_a_block(4, 4, n, e)  # down
    pairs += 2 * pairs_of_a_block(4, 4, n, e) + pairs_of_attention(4, n)  # middle
    pairs += 2 * pairs_of_a_block(8, 4, n, e)  # up
    assert flops(config, 1, 6, 5) == 2 * pairs


def test_two_levels_by_hand_with_attention() -> None:
    config = UNetConfig(base=4, multipliers=(1, 2), blocks=1, attention=(1,), groups=2)
    n, e = 8 * 4, 16
    m = n // 4
    pairs = 9 * 3 * 4 * n + 9 * 4 * 3 * n + 4 * e + e * e
    pairs += pairs_of_a_block(4, 4, n, e) + 9 * 4 * 4 * m  # level 0, halve
    pairs += pairs_of_a_block(4, 8, m, e) + pairs_of_attention(8, m)  # level 1
    pairs += 2 * pairs_of_a_block(8, 8, m, e) + pairs_of_attention(8, m)  # middle
    pairs += pairs_of_a_block(16, 8, m, e) + pairs_of_a_block(12, 8, m, e) + 2 * pairs_of_attention(8, m)
    pairs += 4 * 8 * 8 * n  # double: four products an output pixel
    pairs += pairs_of_a_block(12, 4, n, e) + pairs_of_a_block(8, 4, n, e)
    assert flops(config, 3, 8, 4) == 2 * pairs
    assert flops(config, 3, 7, 3) == 2 * pairs  # padded inside to 8 x 4


def test_patches_divides_the_cost() -> None:
    plain = UNetConfig(base=32, multipliers=(1, 2), groups=8)
    patched = UNetConfig(base=32, multipliers=(1, 2), groups=8, patch=2)
    assert 3.5 < flops(plain, 1, 32, 32) / flops(patched, 1, 32, 32) < 6


def test_parameters_of_the_published_network() -> None:
    with torch.device("meta"):
        net = UNet(UNetConfig())
    assert net.cost(32, 32).parameters == 35_746_307
    # 12.44 GFLOP with the doubling done pixel by pixel, as published: nine products for our four; and with four 1x1
    # convolutions in every attention, which are as many as ours at 16x16, with 256 channels.
    doubling, middle = 5 * 256 * 256 * (8**2 + 16**2 + 32**2), 2 * 256 * 256 * (4**2 - 256)
    published = flops(UNetConfig(), 3, 32, 32) + 2 * (doubling + middle)
    assert round(3 * published / 1e9, 1) == 37.3


def activation_bytes(config: UNetConfig, height: int, width: int) -> int:
    with torch.device("meta"):
        return config.build(Interface(1)).cost(height, width).activation_bytes


def test_saved_activations_of_one_convolution_counted_by_hand() -> None:
    """Doubling the pixels doubles what is kept, but for the attention's square; each convolution keeps its input."""
    config = UNetConfig(base=4, multipliers=(1,), blocks=1, attention=(), groups=2)
    small, large = activation_bytes(config, 8, 8), activation_bytes(config, 8, 16)
    time = activation_bytes(config, 1, 1)
    n = 64
    assert large / small > 1.8
    assert large < 2 * small + 2 * 2 * 4 * (2 * n) ** 2
    # 5 blocks of 2 convolutions, entrance and exit: 12 inputs of at least 4 channels, but the image's one
    assert small - time > (11 * 4 + 1) * 8 * 8 * 4 * 0.9


def test_weights_are_not_counted_as_activations() -> None:
    config = UNetConfig(base=64, multipliers=(1,), blocks=1, attention=(), groups=2)
    with torch.device("meta"):
        weights = 4 * parameters(UNet(config))
    assert activation_bytes(config, 1, 1) < weights / 4
