"""Examinations of a network on this device: exact up to rounding, in any batch and memory layout, compiled or not.

All in float32, in which networks are trained and sampled.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from sfumato.diffusion.noise import Purpose, normal
from sfumato.nets.protocol import Interface, Network
from sfumato.nets.registry import NETWORKS
from sfumato.verify.check import Errors, Examinations, Setting, Skipped

EXAMINATIONS = Examinations()


def small_network(multipliers: tuple[int, ...] = (1, 2)) -> Network:
    """Return a small U-Net with no weight zero, the same on every machine; two levels have every kind of layer."""
    config: Any = NETWORKS["unet"]
    config = config(base=32, multipliers=multipliers, blocks=1, attention=(), groups=8, dropout=0.0)
    net: Network = config.build(Interface(channels=3)).eval()
    with torch.no_grad():
        for k, weight in enumerate(net.parameters()):
            if weight.ndim > 1:
                z = normal(0, Purpose.INITIAL_WEIGHTS, torch.tensor([k]), tuple(weight.shape))[0]
                weight.copy_(z / math.sqrt(weight[0].numel()))
    return net


def _batch(device: torch.device, count: int = 4) -> tuple[Tensor, Tensor]:
    """Images and times."""
    x = normal(0, Purpose.ORACLE, torch.arange(count), (3, 16, 16))
    return x.to(device), torch.linspace(0, 999, count).to(device)


def _error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, as a fraction of the largest value."""
    expected = expected.double().cpu()
    return float((actual.double().cpu() - expected).abs().max() / expected.abs().max())


def _rounding(setting: Setting) -> float:
    """The error that float32 may have: a GPU's convolutions round to 10 bits by default (TF32)."""
    return 1e-2 if setting.device.type == "cuda" and torch.backends.cudnn.allow_tf32 else 1e-4


@EXAMINATIONS.add(
    "network: equals float64 on the CPU",
    _rounding,
    "a U-Net here equals exact arithmetic up to rounding",
    "networks compute wrong outputs on this device: don't trust samples or trainings from it; a newer torch or "
    "driver, or --device cpu, may help",
)
@torch.no_grad()
def exact(setting: Setting) -> Errors:
    """The network's output on the device in float32 against the CPU's in float64."""
    net = small_network()
    x, time = _batch(torch.device("cpu"))
    expected = copy.deepcopy(net).double()(x.double(), time.double())
    return [_error(net.to(setting.device)(x.to(setting.device), time.to(setting.device)), expected)]


@EXAMINATIONS.add(
    "network: any batch",
    _rounding,
    "an image's prediction does not depend on its batch",
    "samples change with the batch size",
)
@torch.no_grad()
def batches(setting: Setting) -> Errors:
    """Each image alone against all together."""
    net, (x, time) = small_network().to(setting.device), _batch(setting.device)
    alone = torch.cat([net(x[i : i + 1], time[i : i + 1]) for i in range(len(x))])
    return [_error(alone, net(x, time))]


@EXAMINATIONS.add(
    "network: any memory layout",
    _rounding,
    "the layout of memory changes nothing",
    "this device's convolutions are wrong in one of the two layouts",
)
@torch.no_grad()
def layouts(setting: Setting) -> Errors:
    """channels_last weights and images, as usual, against contiguous ones."""
    net, (x, time) = small_network().to(setting.device), _batch(setting.device)
    plain = copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return [_error(plain(x, time), net(x.contiguous(memory_format=torch.channels_last), time))]


@EXAMINATIONS.add(
    "network: gradients",
    _rounding,
    "gradients here equal exact arithmetic up to rounding",
    "training on this device follows wrong gradients",
)
def gradients(setting: Setting) -> Errors:
    """The gradient by every weight on the device in float32 against the CPU's in float64."""
    both = []
    for device, dtype in ((torch.device("cpu"), torch.float64), (setting.device, torch.float32)):
        net = small_network().to(device, dtype)
        x, time = _batch(device)
        net(x.to(dtype), time.to(dtype)).square().mean().backward()
        both.append(torch.cat([p.grad.flatten().double().cpu() for p in net.parameters() if p.grad is not None]))
    return [_error(both[1], both[0])]


@EXAMINATIONS.add(
    "network: compiled",
    1e-4,
    "a compiled network equals the network",
    "compiled sampling gives other images: do not compile on this machine",
)
@torch.no_grad()
def compiled(setting: Setting) -> Errors:
    """torch.compile against the network as it is."""
    if not setting.compile:
        raise Skipped("not requested: --compile takes most of a minute")
    net, (x, time) = small_network((1,)).to(setting.device), _batch(setting.device)  # each layer takes seconds
    return [_error(torch.compile(net)(x, time), net(x, time))]
