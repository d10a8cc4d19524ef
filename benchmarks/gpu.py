"""A training step of the published networks on a GPU: images per second, and how much of the card it makes use of.

    python benchmarks/gpu.py                                          all networks, bf16, tf32 and fp32
    python benchmarks/gpu.py --networks cifar10-ddpm --ways kernels graph compiled --json gpu.json
    python benchmarks/gpu.py --device cpu --networks small32 --steps 2    a trial without a card

Each row is `Trainer.step`, the whole of it, on random images, in channels_last: steps are queued, as in a training, and
the queue is emptied before the clock is read. "of conv" is its rate of arithmetic (three forward passes an image) over
that of a plain 3x3 convolution, forward and backward, at the same precision, in the better of both memory layouts; the
layouts' own rates are printed first. The ways: `kernels` are launched one by one by Python, `graph` as one CUDA graph a
step (`train.graph`), `compiled` are torch.compile's in a graph (`train.compile`). `--sync` lists the lines that make
Python wait for the device within a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sfumato.config.config import Config
from sfumato.config.data import DataConfig
from sfumato.config.presets import resolve
from sfumato.data import Dataset, from_arrays, open_data
from sfumato.errors import UserError
from sfumato.generate.sample import out_of_memory
from sfumato.model import cost_of
from sfumato.train.precision import resolve_precision
from sfumato.train.trainer import Trainer

NETWORKS = ("small32", "cifar10-ddpm", "celeba64-ddpm", "celebahq256-ddpm")
WAYS = {"kernels": (False, False), "graph": (True, False), "compiled": (True, True)}
"""`train.graph` and `train.compile` of each."""
SIDES = {"cifar10-ddpm": 32, "celeba64-ddpm": 64, "celebahq256-ddpm": 256}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], object], device: torch.device, steps: int) -> float:
    """Seconds of one call: the median of three times `steps` queued calls, after some that are not timed."""
    for _ in range(3):
        run()
    wait(device)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(steps):
            run()
        wait(device)
        times.append((time.perf_counter() - start) / steps)
    return statistics.median(times)


def convolution_rate(precision: str, layout: str, device: torch.device, steps: int) -> float:
    """FLOP/s of a 3x3 convolution of 256 channels at 32x32, forward and backward."""
    channels, batch = (256, 64) if device.type == "cuda" else (64, 4)
    casting = resolve_precision(precision, device).casting
    conv = nn.Conv2d(channels, channels, 3, padding=1).to(device, memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    x = torch.randn(batch, channels, 32, 32, device=device).to(memory_format=LAYOUTS[layout]).requires_grad_()

    def run() -> None:
        with casting(device):
            y = conv(x)
        y.float().sum().backward()

    return 3 * 2 * 9 * channels**2 * 32 * 32 * batch / seconds_of(run, device, steps)


def images_of(side: int, folder: Path) -> Dataset:
    """Random images of a side."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), np.uint8)
    return open_data(DataConfig("random"), folder, source=from_arrays(pixels, name=f"random{side}"))


def trainer_of(network: str, precision: str, way: str, arguments: argparse.Namespace, folder: Path) -> Trainer:
    """A trainer of a preset's network on random images."""
    graph, compiled = WAYS[way]
    more = {"train.images": "1000000", "train.precision": precision}
    more |= {"train.graph": str(graph).lower(), "train.compile": str(compiled).lower()}
    more |= {"train.batch": str(arguments.batch)} if arguments.batch else {}
    config: Config = resolve(network, overrides=more)
    side = SIDES.get(network) or int(network.lstrip("abcdefghijklmnopqrstuvwxyz"))
    data = images_of(side, folder)
    return Trainer(replace(config, data=data.config), data, arguments.device)


def row(
    network: str, precision: str, way: str, arguments: argparse.Namespace, folder: Path, rate: float
) -> dict[str, Any]:
    """Measure one network; the reason in place of the figures where it can't be."""
    about = {"network": network, "precision": precision, "way": way}
    if arguments.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(arguments.device)
    try:
        trainer = trainer_of(network, precision, way, arguments, folder)
        batch, flops = trainer.config.train.batch, cost_of(trainer.config, trainer.data).flops
        seconds = seconds_of(trainer.step, arguments.device, arguments.steps)
    except (UserError, MemoryError, RuntimeError) as error:
        if not isinstance(error, UserError) and not out_of_memory(error):
            raise
        return about | {"missing": " ".join(str(error).split())[:80]}
    images = batch / seconds
    memory = torch.cuda.max_memory_allocated(arguments.device) if arguments.device.type == "cuda" else None
    figures = {"batch": batch, "ms": 1e3 * seconds, "images_s": images, "of_convolution": 3 * flops * images / rate}
    graph = trainer.replayed
    why = {} if graph is None or graph.recorded else {"not recorded": graph.reason}
    return about | figures | {"gigabytes": memory and memory / 1e9} | why


def waits(trainer: Trainer) -> list[str]:
    """The lines of this library at which a step waits for the device, as torch reports them."""
    trainer.step()
    wait(trainer.device)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        trainer.step()
        torch.cuda.set_sync_debug_mode("default")
    return sorted({f"{each.filename}:{each.lineno}" for each in seen})


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    layout = "{:18} {:>9} {:>9} {:>6} {:>9} {:>10} {:>8} {:>6}"
    print("\n" + layout.format("network", "precision", "launched", "batch", "ms a step", "images/s", "of conv", "GB"))
    for each in rows:
        first = (each["network"], each["precision"], each["way"])
        if "missing" in each:
            print("{:18} {:>9} {:>9} not measured: {}".format(*first, each["missing"]))
            continue
        figures = [f"{each[name]:.4g}" for name in ("batch", "ms", "images_s", "of_convolution")]
        print(layout.format(*first, *figures, f"{each['gigabytes']:.1f}" if each["gigabytes"] else "?"))


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    options = argparse.ArgumentParser(description="Time training steps on a GPU.")
    options.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    options.add_argument("--networks", nargs="+", default=list(NETWORKS), help="presets")
    options.add_argument("--precisions", nargs="+", default=None, help="bf16 fp16 tf32 fp32")
    options.add_argument("--batch", type=int, help="images a step; the preset's by default")
    options.add_argument("--steps", type=int, default=20, help="queued between two readings of the clock (20)")
    options.add_argument("--ways", nargs="+", choices=WAYS, default=["kernels", "graph"], help="of launching a step")
    options.add_argument("--sync", action="store_true", help="only list where a step waits for the device")
    options.add_argument("--json", type=Path)
    arguments = options.parse_args(words)
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        print("this machine has no GPU that torch can use: all figures of this benchmark are missing")
        return []
    precisions = arguments.precisions or ["bf16", "tf32", "fp32"]
    if arguments.device.type != "cuda":
        arguments.ways = ["kernels"]
        precisions = [name for name in precisions if name != "tf32"]
        print("on this device: no tf32, no GPU memory; the figures of a GPU are missing")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        if arguments.sync:
            lines = waits(trainer_of(arguments.networks[0], precisions[0], "kernels", arguments, Path(folder)))
            print("\n".join(lines) or "a step does not wait for the device")
            return []
        for precision in precisions:
            rates = {name: convolution_rate(precision, name, arguments.device, arguments.steps) for name in LAYOUTS}
            print(
                f"3x3 convolution, {precision}: " + ", ".join(f"{n} {r / 1e12:.3g} TFLOP/s" for n, r in rates.items())
            )
            for network in arguments.networks:
                for way in arguments.ways:
                    rows.append(row(network, precision, way, arguments, Path(folder), max(rates.values())))
                    print(json.dumps(rows[-1]), flush=True)
    show(rows)
    if arguments.json is not None:
        on_gpu = arguments.device.type == "cuda"
        card = torch.cuda.get_device_name(arguments.device) if on_gpu else str(arguments.device)
        arguments.json.write_text(json.dumps({"device": card, "torch": torch.__version__, "rows": rows}, indent=1))
    return rows


if __name__ == "__main__":
    main()
