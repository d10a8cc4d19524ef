"""Has speed changed? A few figures beside the last committed ones, for people, in under two minutes.

    make bench-quick                          or: python benchmarks/quick.py
    python benchmarks/quick.py --write        makes this run's figures the committed ones (benchmarks/quick.json)

A figure is processor time on one thread divided by that of a plain 3x3 convolution in the same round, so that machines
and days can be compared roughly. Ratios above 1 mean faster than committed. Within 10 % they say nothing, on another
kind of processor perhaps not within 30 %; this is no test.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common import CALIBRATION, calibration, interleave, processor_time
from data import make_files
from sfumato.config.data import DataConfig
from sfumato.config.presets import resolve
from sfumato.data import open_data, open_source
from sfumato.data.store.open import open_store
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.nets import keep_memory
from sfumato.train.trainer import Trainer

COMMITTED = Path(__file__).with_name("quick.json")
BATCH, SIDE, FILES = 16, 32, 200
NET = {"net.base": "32", "net.multipliers": "1,2,2", "net.attention": "2", "net.patch": "2", "train.batch": str(BATCH)}
"""Fixed, so that a change of the presets is not read as a change of speed."""


def runs(folder: Path) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name."""
    config = resolve("small32", overrides={"data.source": "fashion", "train.images": "1000000", **NET})
    trainer = Trainer(config, open_data(config.data))
    sampling = prepare(trainer.model(), Recipe("dpmpp-2", steps=2))
    files = make_files(folder / "files", FILES)
    options = DataConfig(str(files), size=(64, 64))

    def imported() -> None:
        cache = Path(tempfile.mkdtemp(dir=folder))
        open_store(open_source(str(files)), options, cache)
        shutil.rmtree(cache)

    def started(*command: str) -> Callable[[], None]:
        return lambda: void(subprocess.run([sys.executable, *command], check=True, capture_output=True))

    return {
        f"training step, {BATCH} images of 28x28": trainer.step,
        f"two sampling steps of {BATCH} images": lambda: void(*sampling.stream(BATCH, batch=BATCH)),
        f"import of {FILES} PNGs of 64x64": imported,
        "start of sfumato --help": started("-m", "sfumato", "--help"),
        "start until training can begin": started("-c", "import sfumato.train.loop"),
    }


def void(*_: object) -> None:
    """Take anything."""


def measure(rounds: int) -> dict[str, Any]:
    """Run the rounds and return the figures with what they were measured on."""
    folder = Path(tempfile.mkdtemp(prefix="sfumato-quick-"))
    try:
        convolve, gflop = calibration(BATCH)
        seconds = interleave({CALIBRATION: convolve, **runs(folder)}, rounds, processor_time)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    unit = seconds.pop(CALIBRATION)
    figures = {}
    for name, spent in seconds.items():
        ratios = [a / b for a, b in zip(spent, unit, strict=True)]
        figures[name] = {
            "ms": round(1e3 * statistics.median(spent), 2),
            "convolutions": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load": [round(each, 1) for each in os.getloadavg()],
        "rounds": rounds,
        "convolution_gflop_s": round(gflop / statistics.median(unit), 1),
        "figures": figures,
    }


def show(now: dict[str, Any], committed: dict[str, Any] | None) -> None:
    """Print a figure a line; the ratio is (committed / now), above 1 = faster."""
    layout = "{:36} {:>10} {:>13} {:>16} {:>10} {:>8}"
    print(layout.format("", "ms", "convolutions", "range", "committed", "ratio"))
    for name, figure in now["figures"].items():
        before = (committed or {}).get("figures", {}).get(name)
        low, high = figure["range"]
        print(
            layout.format(
                name,
                figure["ms"],
                figure["convolutions"],
                f"{low:g} - {high:g}",
                before["convolutions"] if before else "-",
                f"{before['convolutions'] / figure['convolutions']:.2f}" if before else "-",
            )
        )
    print(f"{CALIBRATION}: {now['convolution_gflop_s']} GFLOP/s; load {now['load'][0]}", end="")
    print(f"; committed: {committed['convolution_gflop_s']}, load {committed['load'][0]}" if committed else "")
    if committed and committed["capability"] != now["capability"]:
        print(f"the committed figures are of another kind of processor ({committed['capability']})")


def main() -> None:
    """Measure and show; numpy's threads are left as users have them."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7, help="timed rounds (7), after one that is not timed")
    options.add_argument("--write", action="store_true", help=f"write {COMMITTED.name}")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    os.environ["SFUMATO_WORKERS"] = "0"
    now = measure(arguments.rounds)
    show(now, json.loads(COMMITTED.read_text("utf-8")) if COMMITTED.exists() else None)
    if arguments.write:
        COMMITTED.write_text(json.dumps(now, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
