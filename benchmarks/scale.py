"""How a training step, its memory, sampling and import grow: measured curves with fitted exponents, as Markdown.

    python benchmarks/scale.py                                       every axis, in full (an hour on one core)
    python benchmarks/scale.py --axes side width --largest 64        a small form
    python benchmarks/scale.py --axes import --counts 1000 4000 16000        PNGs
    python benchmarks/scale.py --axes set --counts 1024 16384 1048576        one array
    python benchmarks/scale.py --axes presets --presets medium32 --batch 4 --repeats 1
    python benchmarks/scale.py --device cuda --axes side patched width batch

Each case runs in a process of its own on random images: `Trainer.step`, the whole of it, on one thread; the median of
some steps after one that is not timed. Memory is what the peak rises by from steps of one image to steps of the whole
batch: the activations of all images but one. On a CPU time is processor time and the peak the process's (Linux); on a
GPU it is wall time with the queue emptied, and the allocator's peak. A fitted exponent p, cost ~ size^p, is the slope
of log(cost) over log(size) through all points, and "last" that through the last two.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import processor_time
from data import growth
from sfumato.config.data import DataConfig
from sfumato.config.presets import resolve
from sfumato.data import Dataset, from_arrays, open_data
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.train.trainer import Trainer

Case = dict[str, int]
BASE: Case = {"side": 32, "width": 32, "batch": 8, "chain": 1000, "patched": 0, "steps": 0}
AXES: dict[str, tuple[str, tuple[int, ...], Case]] = {
    "side": ("side of the image, one network without patches", (16, 32, 64, 128, 256), {"batch": 2}),
    "patched": ("side of the image, the presets small16 to small256", (16, 32, 64, 128, 256), {}),
    "width": ("channels of the first level, 32x32", (16, 32, 64, 128), {}),
    "batch": ("images in a batch, 32x32", (1, 2, 4, 8, 16, 32), {}),
    "chain": ("steps T of the chain, 32x32", (10, 100, 1000, 10000), {}),
    "steps": ("steps of the sampler, 8 images of 32x32", (5, 10, 20, 40), {}),
}
"""Each axis: what varies, its values, and what else differs from BASE."""
OTHERS = ("import", "set", "presets")
"""Axes of their own kind; `import` is measured by data.py's growth."""
PRESETS = ("medium32", "medium64", "large64")


def cases(axis: str, largest: int) -> Iterator[Case]:
    """Yield the cases of an axis; images no larger than `largest`."""
    _, values, other = AXES[axis]
    for value in values:
        if axis in ("side", "patched") and value > largest:
            continue
        yield BASE | other | ({"side": value, "patched": 1} if axis == "patched" else {axis: value})


def measure(case: Case, device: str, repeats: int) -> dict[str, float]:
    """Run one case here: seconds of a step (or of sampling), bytes measured and foretold, FLOPs of an image."""
    torch.set_num_threads(1)
    trainer = Trainer(_config(case), _images(case["side"], case["batch"]), device)
    clock = processor_time if device == "cpu" else time.perf_counter
    cost = trainer.net.cost(*trainer.config.net.inside(case["side"], case["side"]))
    facts = {"flops": cost.flops, "foretold": cost.activation_bytes * (case["batch"] - 1), "bytes": 0}
    seconds: list[float] = []
    if case["steps"]:
        sampling = prepare(trainer.model(), Recipe("dpmpp-2", steps=case["steps"]))
        run = lambda: list(sampling.stream(case["batch"], batch=case["batch"]))  # noqa: E731
    else:
        facts["bytes"], run = _rise(trainer, device), trainer.step
    for _ in range(repeats + 1):
        start = clock()
        run()
        trainer.wait()
        seconds.append(clock() - start)
    return facts | {"seconds": statistics.median(seconds[1:])}


def _config(case: Case) -> Any:
    side = case["side"]
    given = {"train.images": "1000000", "train.batch": str(case["batch"])}
    given["diffusion.schedule.num_steps"] = str(case["chain"])
    if not case["patched"]:
        groups = str(min(8, case["width"] // 4))
        given |= {"net.base": str(case["width"]), "net.multipliers": "1,2,2", "net.blocks": "1", "net.groups": groups}
        given |= {"net.attention": "2", "net.patch": "1"}
    return resolve(f"small{side}", overrides=given)


def _images(side: int, batch: int) -> Dataset:
    pixels = np.random.Generator(np.random.SFC64(side)).integers(0, 256, (max(4, batch), side, side, 3), np.uint8)
    return open_data(DataConfig("arrays", size=(side, side), held_out=0.0), source=from_arrays(pixels))


def _rise(trainer: Trainer, device: str) -> int:
    """Bytes by which the peak of steps of the whole batch exceeds that of steps of a single image."""
    whole = trainer.config
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is in use
    peaks = []
    for config in (replace(whole, train=replace(whole.train, batch=1)), whole):
        trainer.config = config
        trainer.step()
        trainer.step()
        peaks.append(_peak(device))
    trainer.images = 0
    return peaks[1] - peaks[0]


def _peak(device: str) -> int:
    """Bytes of the highest memory so far."""
    if device != "cpu":
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated())
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def slopes(sizes: list[float], costs: list[float]) -> tuple[float, float]:
    """Return the exponents p of cost ~ size^p: least squares through all points, and through the last two."""
    x, y = np.log(np.array(sizes)), np.log(np.maximum(np.array(costs), 1e-12))
    return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def apart(case: Case, device: str, repeats: int) -> dict[str, float]:
    """Measure a case in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:  # this process computes nothing, so it can be forked
        return pool.apply(measure, (case, device, repeats))


def table(axis: str, found: list[tuple[int, dict[str, float]]], batch: int) -> Iterator[str]:
    """Yield the Markdown of an axis."""
    title = AXES[axis][0]
    yield f"\n**{title[0].upper()}{title[1:]}** (batch {'as given' if axis == 'batch' else batch})\n"
    yield "| " + axis + " | ms | GFLOP an image, forward | memory, MB (said beforehand) |"
    yield "|---|---|---|---|"
    for value, each in found:
        memory = f"{each['bytes'] / 1e6:.0f} ({each['foretold'] / 1e6:.0f})" if each["bytes"] > 0 else "-"
        yield f"| {value} | {1e3 * each['seconds']:.0f} | {each['flops'] / 1e9:.3g} | {memory} |"
    if len(found) > 1:
        sizes = [float(value) for value, _ in found]
        for name, label in (("seconds", "time"), ("bytes", "memory"), ("flops", "FLOPs")):
            grown = [(s, each[name]) for s, (_, each) in zip(sizes, found, strict=True) if each[name] > 0]
            if len(grown) > 1 and not math.isclose(grown[0][1], grown[-1][1]):
                every, last = slopes(*map(list, zip(*grown, strict=True)))  # type: ignore[arg-type]
                yield f"\n{label}: exponent {every:.2f}, last {last:.2f}"


def imports(counts: list[int]) -> Iterator[str]:
    """Import more and more small files; yield the Markdown."""
    folder = Path(tempfile.mkdtemp(prefix="sfumato-scale-"))
    try:
        *rows, last = growth(folder, counts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    yield "\n**Images in the set**: PNGs of 16x16 imported into the store\n"
    yield "| images | processor s | s | peak MB of the process | store MB | opened again, s |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        names = ("cpu_s", "wall_s", "peak_mb", "store_mb", "opening_again_s")
        yield f"| {row['images']:,} | " + " | ".join(str(row[name]) for name in names) + " |"
    if len(rows) > 1:
        every, end = slopes([row["images"] for row in rows], [row["cpu_s"] for row in rows])
        million = last["a_million_cpu_s"]
        yield f"\ntime: exponent {every:.2f}, last {end:.2f}; a line through them: {million} s for a million"


def trained_on(count: int) -> dict[str, float]:
    """Import an array of so many images of 16x16, open it again, and train on it: seconds and bytes."""
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="sfumato-scale-"))
    path, random = place / "images.npy", np.random.Generator(np.random.SFC64(count))
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 16, 16, 3))
    for start in range(0, count, 4096):
        images[start : start + 4096] = random.integers(0, 256, images[start : start + 4096].shape, np.uint8)
    del images
    config = resolve("small16", overrides={"data.source": str(path), "data.size": "16,16", "train.images": "1000000"})
    before, row = _anonymous(), {}
    data = _timed(row, "import", lambda: open_data(config.data, place))
    data = _timed(row, "open", lambda: open_data(config.data, place))
    row["bytes"] = _anonymous() - before
    trainer = _timed(row, "trainer", lambda: Trainer(config, data, "cpu"))
    _timed(row, "first", trainer.step)
    _timed(row, "step", lambda: [trainer.step() for _ in range(10)], 10)
    order = torch.arange(config.train.batch)
    _timed(row, "batch", lambda: [data.batch(order + len(order) * k, 0) for k in range(100)], 100)
    _timed(row, "epoch", lambda: data.batch(order + 3 * len(data.train), 0))
    shutil.rmtree(place)
    return row


def _timed(row: dict[str, float], name: str, run: Callable[[], Any], times: int = 1) -> Any:
    start = processor_time()
    result = run()
    row[name] = (processor_time() - start) / times
    return result


def _anonymous() -> int:
    """Bytes of memory of this process's own, without files that are mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def sets(counts: list[int]) -> Iterator[str]:
    """Train on arrays of more and more images; yield the Markdown."""
    yield "\n**Images in the set**: an array of images of 16x16, seconds of processor time\n"
    yield "| images | import | open | memory, MB | first step | step, ms | batch, ms | batch of a new epoch, ms |"
    yield "|---|---|---|---|---|---|---|---|"
    found = []
    for count in counts:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            row = pool.apply(trained_on, (count,))
        found.append(row)
        small = " | ".join(f"{1e3 * row[name]:.2f}" for name in ("step", "batch", "epoch"))
        yield (
            f"| {count:,} | {row['import']:.2f} | {row['open']:.3f} | {row['bytes'] / 1e6:.0f} | "
            f"{row['trainer'] + row['first']:.2f} | {small} |"
        )
    if len(counts) > 1:
        fitted = {n: slopes(list(map(float, counts)), [row[n] for row in found]) for n in ("import", "open", "batch")}
        yield "\n" + "; ".join(f"{n}: exponent {every:.2f}, last {last:.2f}" for n, (every, last) in fitted.items())


def preset(name: str, batch: int, repeats: int) -> dict[str, float]:
    """Run steps of a preset on random images here: seconds of a step, parameters, bytes at the peak."""
    torch.set_num_threads(1)
    config = resolve(name, overrides={"train.images": "1000000", "train.batch": str(batch)})
    side = config.data.size[0] if config.data.size else int("".join(filter(str.isdigit, name)))
    trainer = Trainer(config, _images(side, batch), "cpu")
    seconds = []
    for _ in range(repeats + 1):
        start = processor_time()
        trainer.step()
        seconds.append(processor_time() - start)
    parameters = sum(parameter.numel() for parameter in trainer.net.parameters())
    cost = trainer.net.cost(*config.net.inside(side, side)).flops
    return {"seconds": statistics.median(seconds[1:]), "parameters": parameters, "flops": cost, "bytes": _peak("cpu")}


def presets(names: list[str], batch: int, repeats: int) -> Iterator[str]:
    """Run a few steps of each preset; yield the Markdown."""
    yield f"\n**Larger presets**, {batch} images in a batch, one thread\n"
    yield "| preset | parameters | GFLOP an image, forward | s per step | s an image | memory of the process, MB |"
    yield "|---|---|---|---|---|---|"
    for name in names:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            row = pool.apply(preset, (name, batch, repeats))
        yield (
            f"| `{name}` | {row['parameters'] / 1e6:.1f}M | {row['flops'] / 1e9:.1f} | {row['seconds']:.1f} | "
            f"{row['seconds'] / batch:.2f} | {row['bytes'] / 1e6:,.0f} |"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--axes", nargs="+", choices=[*AXES, *OTHERS], default=[*AXES, *OTHERS], help="(all)")
    options.add_argument("--largest", type=int, default=256, help="largest side of an image (256)")
    options.add_argument("--counts", type=int, nargs="+", help="set sizes (25,000 to 200,000 PNGs; 2^10 to 2^20)")
    options.add_argument("--presets", nargs="+", default=PRESETS, help=f"presets to run ({' '.join(PRESETS)})")
    options.add_argument("--batch", type=int, default=4, help="images in a batch of a preset (4)")
    options.add_argument("--repeats", type=int, default=5, help="timed steps (5)")
    options.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="sfumato-scale-") as cache:
        os.environ["SFUMATO_CACHE"] = cache
        for axis in arguments.axes:
            if axis in OTHERS:
                lines = {
                    "import": lambda: imports(arguments.counts or [25_000, 50_000, 100_000, 200_000]),
                    "set": lambda: sets(arguments.counts or [2**10, 2**14, 2**18, 2**20]),
                    "presets": lambda: presets(arguments.presets, arguments.batch, arguments.repeats),
                }[axis]()
                for line in lines:
                    print(line, flush=True)
                continue
            found = []
            for case in cases(axis, arguments.largest):
                value = case["side" if axis == "patched" else axis]
                found.append((value, apart(case, arguments.device, arguments.repeats)))
            print("\n".join(table(axis, found, case["batch"])), flush=True)


if __name__ == "__main__":
    main()
