"""Import into the store, and feeding from it, beside denoising-diffusion-pytorch's loader on the same PNGs.

    python benchmarks/data.py                                   5,000 files of 64x64, made from the built-in sets
    python benchmarks/data.py --images 2000 --rounds 5 --json data.json
    python benchmarks/data.py --growth 25000 50000 100000 200000      import of so many small files: time, memory, bytes
    python benchmarks/data.py --processes --rounds 5            import with and without worker processes: seconds
    python benchmarks/data.py --containers --images 50000       one set of 32x32 in each container: seconds and memory

The first runs in one process on one core and counts that process's own seconds of processor time, which a busy machine
disturbs least; a round runs every contestant once, in turning order, and ratios are taken within a round. The
peer is its own `Dataset` (Pillow, torchvision's transforms) behind a `DataLoader` as its trainer uses it. Where
torchvision was built for another torch, its transforms still work: the two operators whose registration fails are
declared first. Where it isn't installed, the steps are the same ones done with Pillow, and that is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from sfumato.codec.pixels import to_model
from sfumato.config.data import DataConfig
from sfumato.data import open_data, open_source
from sfumato.data.store.open import open_store

SIDE, BATCH = 64, 16


def make_files(folder: Path, count: int, side: int = SIDE) -> Path:
    """Write so many PNGs from the built-in sets in turn, enlarged smoothly, no two alike."""
    sources = [open_source(name) for name in ("faces", "fashion", "digits")]
    folder.mkdir(parents=True)
    for i in range(count):
        source = sources[i % 3]
        pixels = source.read(i // 3 % len(source)).pixels
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        image.putpixel((0, 0), (i & 255, i >> 8 & 255, i >> 16))
        image.save(folder / f"{i:07d}.png")
    return folder


def peer_dataset(folder: Path) -> tuple[Any, str]:
    """The peer's data set, and what it is."""
    try:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:
        pass  # torchvision is whole, and has declared them
    try:
        from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Dataset

        return Dataset(str(folder), SIDE, augment_horizontal_flip=True, convert_image_to="RGB"), "its own Dataset"
    except (ImportError, RuntimeError, OSError) as error:
        print(f"its own Dataset can't be imported ({str(error)[:80]}): its steps are done with Pillow")
        return Steps(folder), "its steps, with Pillow"


class Steps(torch.utils.data.Dataset[Tensor]):
    """What the peer's `Dataset` does: open, convert, resize, mirror half, crop, to a tensor in [0, 1]."""

    def __init__(self, folder: Path) -> None:
        self.paths = list(folder.glob("**/*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        image = Image.open(self.paths[i])
        image = image.convert("RGB") if image.mode != "RGB" else image
        scale = SIDE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else image
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        values = np.array(image.crop((left, top, left + SIDE, top + SIDE)))
        return torch.from_numpy(values).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


def clocked(run: Callable[[], int]) -> float:
    """Microseconds of processor time a picture."""
    start = time.process_time()
    count = run()
    return 1e6 * (time.process_time() - start) / count


def compare(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Time importing and feeding against the peer's loader."""
    dataset, what = peer_dataset(folder)
    config = DataConfig(str(folder), size=(SIDE, SIDE), flip=True)
    data = open_data(config)

    def load() -> int:
        return sum(len(batch) for batch in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0))

    def store() -> int:
        stored = open_store(open_source(str(folder)), config, Path(tempfile.mkdtemp(dir=folder.parent)))
        return len(stored.digests)

    def feed() -> int:
        for start in range(0, count, BATCH):
            to_model(data.batch(torch.arange(start, start + BATCH), seed=0).x)
        return count

    runs = {"loader": load, "import": store, "feed": feed}
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for index in range(-1, rounds):
        for name in names:
            spent = clocked(runs[name])
            if index >= 0:
                times[name].append(spent)
        names.append(names.pop(0))
    result: dict[str, Any] = {"peer": what, "images": count, "rounds": rounds}
    for name, spent_in in times.items():
        result[f"{name}_us"] = round(statistics.median(spent_in), 1)
    for name in ("import", "feed"):
        ratios = [a / b for a, b in zip(times["loader"], times[name], strict=True)]
        result[f"{name}_times_faster"] = {f.__name__: round(f(ratios), 2) for f in (statistics.median, min, max)}
        result[f"{name}_times_faster"]["best against best"] = round(min(times["loader"]) / min(times[name]), 2)
    return result


def growth(place: Path, counts: list[int]) -> Iterator[dict[str, Any]]:
    """Import more and more small files and tell what each needs; the last figures are for a million of them."""
    folder, made = place / "many", 0
    seconds: list[float] = []
    for count in sorted(counts):
        for i in range(made, count):
            part = folder / f"{i // 1000:04d}"
            part.mkdir(parents=True, exist_ok=True)
            tiny(i).save(part / f"{i:07d}.png", compress_level=1)
        made = count
        cache = place / "cache"
        before = children()
        start, own = time.perf_counter(), time.process_time()
        source = open_source(str(folder))
        listed = time.perf_counter() - start
        stored = open_store(source, DataConfig(size=(16, 16)), cache)
        wall, cpu = time.perf_counter() - start, time.process_time() - own + children() - before
        start = time.process_time()
        open_store(source, DataConfig(size=(16, 16)), cache)
        opened = time.process_time() - start
        kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        shutil.rmtree(cache)
        seconds.append(cpu)
        yield {
            "images": len(stored.digests),
            "wall_s": round(wall, 1),
            "cpu_s": round(cpu, 1),
            "cpu_us_an_image": round(1e6 * cpu / count, 1),
            "listing_s": round(listed, 1),
            "opening_again_s": round(opened, 2),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "store_mb": round(kept / 1e6, 1),
        }
    slope = np.polyfit(sorted(counts), seconds, 1)[0] if len(counts) > 1 else seconds[0] / counts[0]
    yield {"a_million_cpu_s": round(1e6 * float(slope)), "from": "a line through the figures above"}


ONE = """
import json, os, resource, sys, tempfile, time
from pathlib import Path
from sfumato.config.data import DataConfig
from sfumato.data import open_source
from sfumato.data.store.open import open_store
def used():
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in found)
def peak():  # ru_maxrss has the peak of the process that started this one
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
with tempfile.TemporaryDirectory(dir=sys.argv[3]) as cache:
    base = peak()
    wall, cpu = time.perf_counter(), used()
    stored = open_store(open_source(sys.argv[1]), DataConfig(size=(int(sys.argv[2]),) * 2), Path(cache))
    wall, cpu = time.perf_counter() - wall, used() - cpu
    added = peak() - base
print(json.dumps({"images": len(stored.digests), "wall_s": wall, "cpu_s": cpu, "added_mb": added / 1024}))
"""
"""Imports a collection in a process of its own and prints seconds and memory."""


def imported(collection: Path, side: int, workers: str, tree: Path | None = None) -> dict[str, float]:
    """Import a collection once with so many processes, "" for as many as it chooses, by the package of a tree."""
    environment = {**os.environ, "SFUMATO_WORKERS": workers}
    if tree is not None:
        environment["PYTHONPATH"] = str(tree / "src")
    command = [sys.executable, "-c", ONE, str(collection), str(side), str(collection.parent)]
    result: dict[str, float] = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    )
    return result


def processes(place: Path, rounds: int, before: Path | None) -> Iterator[dict[str, Any]]:
    """Import PNGs and photographs with no worker processes and with as many as are chosen, in turning order."""
    sets = [(f"{count} PNGs of 64x64", count, make_files) for count in (200, 1000, 5000, 20_000)]
    for name, count, make in [
        *sets,
        ("100 JPEGs of 1500x1000", 100, photographs),
        ("500 JPEGs of 1500x1000", 500, photographs),
    ]:
        folder = make(place / name.replace(" ", "-"), count)
        ways: dict[str, tuple[str, Path | None]] = {"none": ("0", None), "chosen": ("", None)}
        if before is not None:
            ways["before"] = ("", before)
        times: dict[str, list[float]] = {way: [] for way in ways}
        order = list(ways)
        for _ in range(rounds):
            for way in order:
                times[way].append(imported(folder, SIDE, *ways[way])["wall_s"])
            order.append(order.pop(0))
        row: dict[str, Any] = {"set": name} | {f"{way}_s": round(statistics.median(times[way]), 3) for way in ways}
        for way in list(ways)[1:]:
            ratios = [none / other for none, other in zip(times["none"], times[way], strict=True)]
            row[f"{way}_times_faster"] = [round(f(ratios), 2) for f in (statistics.median, min, max)]
        shutil.rmtree(folder)
        yield row


def containers(place: Path, count: int) -> Iterator[dict[str, Any]]:
    """Import the same pictures of 32x32 from each kind of container, in one process, and read the PNGs by the peer's
    loader; memory is what it adds to that of the started program."""
    folder = make_files(place / "folder", count, 32)
    files = sorted(folder.iterdir())
    images = np.stack([np.array(Image.open(path)) for path in files])
    np.save(place / "array.npy", images)
    np.savez(place / "array.npz", images=images)
    np.savez_compressed(place / "packed.npz", images=images)
    (place / "cifar").mkdir()
    rows = np.concatenate([np.zeros((count, 1), np.uint8), images.transpose(0, 3, 1, 2).reshape(count, -1)], axis=1)
    for k, part in enumerate(np.array_split(rows, 5), 1):
        (place / "cifar" / f"data_batch_{k}.bin").write_bytes(part.tobytes())
    with zipfile.ZipFile(place / "files.zip", "w") as archive, tarfile.open(place / "files.tar", "w") as tar:
        for path in files:
            archive.write(path, path.name)
            tar.add(path, path.name)
    names = ["folder", "files.zip", "files.tar", "array.npy", "array.npz", "packed.npz", "cifar"]
    if importlib.util.find_spec("pyarrow"):
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"image": [path.read_bytes() for path in files]})
        pyarrow.parquet.write_table(table, place / "files.parquet")
        names.append("files.parquet")
    dataset, what = peer_dataset(folder)
    begun = time.perf_counter()
    sum(len(batch) for batch in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0))
    yield {"container": f"peer's loader of the folder, once ({what})", "wall_s": round(time.perf_counter() - begun, 2)}
    for name in names:
        found = imported(place / name, 32, "0")
        yield {"container": name} | {key: round(value, 2) for key, value in found.items()}


def photographs(folder: Path, count: int) -> Path:
    """Write so many JPEGs of 1500x1000, 25 different ones."""
    folder.mkdir(parents=True)
    for i in range(count):
        if i < 25:
            coarse = np.random.Generator(np.random.SFC64(i)).integers(0, 256, (100, 150, 3), np.uint8)
            image = Image.fromarray(coarse).resize((1500, 1000), Image.Resampling.BICUBIC)
            image.save(folder / f"{i:07d}.jpg", quality=90)
        else:
            shutil.copy(folder / f"{i % 25:07d}.jpg", folder / f"{i:07d}.jpg")
    return folder


def tiny(i: int) -> Image.Image:
    """A picture of 16x16 that no other number has."""
    return Image.fromarray(np.random.Generator(np.random.SFC64(i)).integers(0, 256, (16, 16, 3), np.uint8))


def children() -> float:
    """Seconds of processor time of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=5000, help="files (5000)")
    options.add_argument("--rounds", type=int, default=5, help="timed rounds (5), after one that is not timed")
    options.add_argument("--growth", type=int, nargs="+", help="measure the import of so many files instead")
    options.add_argument(
        "--processes", action="store_true", help="measure the import with and without processes instead"
    )
    options.add_argument("--before", type=Path, help="with --processes: another checkout, measured beside this one")
    options.add_argument("--containers", action="store_true", help="measure the import from each container instead")
    options.add_argument("--json", type=Path, help="also write the result there")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="sfumato-bench-"))
    try:
        rows = None
        if arguments.growth:
            rows = growth(place, arguments.growth)
        elif arguments.processes:
            rows = processes(place, arguments.rounds, arguments.before)
        elif arguments.containers:
            rows = containers(place, arguments.images)
        if rows is not None:
            results = []
            for row in rows:
                print(json.dumps(row), flush=True)
                results.append(row)
        else:
            os.environ["SFUMATO_WORKERS"] = "0"  # one process, one core, on both sides
            os.environ["SFUMATO_CACHE"] = str(place / "cache")
            results = [compare(make_files(place / "files", arguments.images), arguments.images, arguments.rounds)]
            print(json.dumps(results[0], indent=1))
        if arguments.json:
            arguments.json.write_text(json.dumps({"python": sys.version.split()[0], "results": results}, indent=1))
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
