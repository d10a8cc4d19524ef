"""What the benchmarks share: the contestants, interleaved rounds, the table.

A time on a busy machine means little by itself, so nothing here is timed by itself: every round runs each contestant
once, and a plain 3x3 convolution with them, in turning order. Ratios are taken within a round, then their median over
the rounds. With one thread, processor time is measured, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import resource
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sfumato.nets import Interface, keep_memory
from sfumato.nets.unet.unet import UNet, UNetConfig

OURS = "sfumato"
CALIBRATION = "3x3 convolution"
CONFIG = UNetConfig(base=32, multipliers=(1, 2, 2), attention=(1,), dropout=0.0, groups=8)


@dataclass(frozen=True)
class Contestant:
    """One library's network, called in one way by all benchmarks.

    Attributes:
        name: the library.
        net: its network.
        call: (net, x (B, 1, S, S), steps of the chain (B,) float) -> (B, 1, S, S).
    """

    name: str
    net: nn.Module
    call: Callable[[nn.Module, Tensor, Tensor], Tensor]

    def predict(self, x: Tensor, t: Tensor) -> Tensor:
        return self.call(self.net, x, t)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.net.parameters())

    def flops(self, size: int) -> int:
        """FLOPs of one image's forward pass as executed: 2 a multiply-add of convolutions, products and attention."""
        # On the meta device attention is two plain products, which the counter knows; the fused CPU kernel it does not.
        twin = copy.deepcopy(self.net).to("meta")
        with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self.call(twin, torch.zeros(1, 1, size, size), torch.zeros(1))
        return int(counter.get_total_flops())


def contestants(size: int) -> list[Contestant]:
    """Build every network that is installed, as equal as its library allows; say in one line which is missing."""
    found = []
    for name in BUILDERS:
        try:
            found.append(build(name, size))
        except ImportError as error:
            print(f"{name}: not measured, it can't be imported ({error}); pip install 'sfumato[bench]'")
    return found


def build(name: str, size: int, channels: int = 1, seed: int = 0) -> Contestant:
    """Build one library's network for images of a side and so many channels; ImportError where it is not installed."""
    torch.manual_seed(seed)
    return BUILDERS[name](size, channels)


def _sfumato(size: int, channels: int) -> Contestant:
    net = UNet(CONFIG, Interface(channels))
    return Contestant(OURS, net, lambda net, x, t: net(x, t))


def _diffusers(size: int, channels: int) -> Contestant:
    if broken_torchvision():
        importlib.import_module("diffusers.utils.import_utils")._torchvision_available = False  # type: ignore[attr-defined]
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=CONFIG.widths,
        layers_per_block=CONFIG.blocks,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=CONFIG.groups,
        attention_head_dim=None,
    )
    return Contestant("diffusers", net, lambda net, x, t: net(x, t).sample)


def _denoising(size: int, channels: int) -> Contestant:
    """The nearest it comes: attention at the same level; its linear attention elsewhere can't be turned off."""
    if broken_torchvision():
        stand_in_for_torchvision()
    from denoising_diffusion_pytorch import Unet

    net = Unet(
        dim=CONFIG.base,
        dim_mults=CONFIG.multipliers,
        channels=channels,
        full_attn=(False, True, False),
        attn_heads=1,
        attn_dim_head=CONFIG.widths[1],
        flash_attn=True,
    )
    return Contestant("denoising-diffusion-pytorch", net, lambda net, x, t: net(x, t))


BUILDERS: dict[str, Callable[[int, int], Contestant]] = {
    OURS: _sfumato,
    "diffusers": _diffusers,
    "denoising-diffusion-pytorch": _denoising,
}


def broken_torchvision() -> bool:
    """Whether a torchvision is there that was built for another torch, so that whoever imports it fails.

    Both peers import it for their data loading; no network measured here uses it.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return False
    except (ImportError, OSError, RuntimeError):
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return True
    return False


def stand_in_for_torchvision() -> None:
    """Put empty modules where denoising-diffusion-pytorch imports torchvision's."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.utils", "torchvision.models"):
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = []  # type: ignore[attr-defined]
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)


def shown(value: float | None) -> str:
    """A figure in a table, of three digits; "?" where there is none."""
    return "?" if value is None else f"{value:.3g}"


def calibration(batch: int) -> tuple[Callable[[], None], float]:
    """Return a forward 3x3 convolution of 64 channels on 32x32 images, channels_last, and its GFLOP."""
    x = torch.randn(batch, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run() -> None:
        with torch.inference_mode():
            for _ in range(4):
                conv(x)

    return run, 4 * batch * 2 * 9 * 64 * 64 * 32 * 32 / 1e9


def processor_time() -> float:
    """Seconds of processor time of this process and of its children that ended: what others do disturbs it least."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def interleave(
    runs: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time every run once a round, the order turning by one each round, after one untimed round.

    Returns:
        seconds by name, one figure a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for index in range(-1, rounds):
        for name in names:
            start = clock()
            runs[name]()
            if index >= 0:
                seconds[name].append(clock() - start)
        names.append(names.pop(0))
    return seconds


def measure(
    title: str,
    runs: dict[str, Callable[[], Any]],
    teams: list[Contestant],
    arguments: argparse.Namespace,
    size: int,
    passes: int,
) -> dict[str, Any]:
    """Run the rounds, print their table and return it.

    Args:
        title: what a run does.
        runs: one for each team, by its name.
        teams: the contestants.
        arguments: the parsed options.
        size: side of an image.
        passes: forward passes that a run's arithmetic amounts to: 3 for a training step.
    """
    convolve, gflop = calibration(arguments.batch)
    alone = arguments.threads == 1
    clock = processor_time if alone else time.perf_counter
    seconds = interleave({CALIBRATION: convolve, **runs}, arguments.rounds, clock)
    rates = [gflop / s for s in seconds[CALIBRATION]]
    table = [row(team, seconds, arguments.batch, size, passes, rates) for team in teams]
    unit = "processor time" if alone else "wall time"
    print(
        f"\n{title}, {arguments.threads} thread(s), {arguments.rounds} rounds, {unit}, "
        f"memory kept: {arguments.keep_memory}"
    )
    show(table)
    print(f"{CALIBRATION}: {statistics.median(rates):.0f} GFLOP/s ({min(rates):.0f} - {max(rates):.0f})")
    return {"title": title, "convolution_gflop_s": spread(rates), "rows": table}


def row(
    team: Contestant, seconds: dict[str, list[float]], images: int, size: int, passes: int, rates: list[float]
) -> dict[str, Any]:
    """Summarise one contestant.

    Args:
        team: the contestant.
        seconds: what `interleave` returned.
        images: how many images a run handled.
        size: side of an image.
        passes: forward passes of a run.
        rates: GFLOP/s of the plain convolution, one a round.
    """
    own, gflop = seconds[team.name], team.flops(size) / 1e9
    reached = [images * passes * gflop / s for s in own]
    speed = statistics.median(a / b for a, b in zip(seconds.get(OURS, own), own, strict=True))
    return {
        "name": team.name,
        "parameters": team.parameters,
        "gflop": round(gflop, 3),
        "ms": spread([1e3 * s for s in own]),
        "images_s": round(images / statistics.median(own), 1),
        "speed": round(speed, 3),
        "gflop_s": round(statistics.median(reached), 1),
        "of_convolution": round(statistics.median(a / b for a, b in zip(reached, rates, strict=True)), 3),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {name: round(f(values), 2) for name, f in (("median", statistics.median), ("min", min), ("max", max))}


def show(table: list[dict[str, Any]]) -> None:
    """Print the rows; `speed` is relative to sfumato, above 1 = faster than it; `of conv` the share of its rate."""
    head = ("", "parameters", "GFLOP", "median ms", "min", "max", "images/s", "speed", "GFLOP/s", "of conv")
    layout = "{:28} {:>10} {:>6} {:>10} {:>8} {:>8} {:>9} {:>6} {:>8} {:>8}"
    print(layout.format(*head))
    for each in table:
        print(
            layout.format(
                *(x for value in each.values() for x in (value.values() if isinstance(value, dict) else [value]))
            )
        )


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    options.add_argument("--rounds", type=int, default=9, help="timed rounds (9)")
    options.add_argument("--batch", type=int, default=16, help="images in a batch (16)")
    options.add_argument("--sizes", type=int, nargs="+", default=[32], help="sides of the images, multiples of 4 (32)")
    options.add_argument("--keep-memory", action="store_true", help="with sfumato.nets.keep_memory(), for all alike")
    options.add_argument("--json", type=Path, help="also write the result there")
    return options


def set_up(arguments: argparse.Namespace) -> None:
    """Apply the options that hold for the whole process."""
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory and not keep_memory():
        print("--keep-memory: not available with this C library")


def write_json(path: Path | None, results: list[dict[str, Any]]) -> None:
    """Write the results with what they were measured on."""
    if path is None:
        return
    about = {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    path.write_text(json.dumps({"machine": about, "threads": torch.get_num_threads(), "results": results}, indent=1))
