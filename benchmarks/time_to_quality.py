"""Quality for the time: Sfumato and two other libraries, each given so many seconds, judged by one extractor.

    python benchmarks/time_to_quality.py --data fashion --seconds 120 600 --out quality
    python benchmarks/time_to_quality.py --data emoji.npz --contestants sfumato diffusers-1e-3 --seconds 600
    python benchmarks/time_to_quality.py --out quality              only the tables of what is measured already

Each contestant trains in a process of its own on one thread, for so many seconds of that process's PROCESSOR time: on
a machine that others use, wall time says little. The time begins when its libraries are imported and the set is
decoded; building the network and every step count. Then it samples by its own default, and the Frechet distance of
its images to as many training images is taken, with a 95 % interval over images and real against real beside it
(`judge`). Contestants and their settings are in `trainings`. Results are JSON lines in OUT/results.jsonl; what is there
is not run again. OUT/NAME.png shows 64 images of each: look at them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import shown
from judge import open_judge
from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.errors import UserError
from sfumato.evaluate import quality
from sfumato.files import write_atomic
from sfumato.generate.pictures import grid
from sfumato.nets import keep_memory
from trainings import CONTESTANTS, USUAL

SHOWN, SAMPLES_SEED = 64, 1
KEY = ("data", "contestant", "seconds", "seed", "num")
Row = dict[str, Any]


def run(name: str, source: str, seconds: float, seed: int, num: int, out: Path, options: dict[str, int]) -> Row:
    """Train one contestant here, sample, write its images and their grid, and return the facts."""
    torch.set_num_threads(1)
    keep_memory()  # acts on the process, so on every contestant alike
    CONTESTANTS[name](source, seconds, seed, **options)  # imports and decodes, outside of its time
    torch.manual_seed(seed)
    start = time.process_time()
    training = CONTESTANTS[name](source, seconds, seed, **options)
    images = steps = 0
    while (spent := time.process_time() - start) < seconds:
        images += training.step(spent / seconds)
        steps += 1
    trained = time.process_time()
    made = torch.cat(list(training.sample(num, SAMPLES_SEED)))
    sampled = time.process_time() - trained
    path = out / f"{identity(name, source, seconds, seed)}.npy"
    np.save(path, made.numpy())
    grid(made[:SHOWN].numpy(), 8).save(path.with_suffix(".png"))
    return {
        "about": training.about,
        "sampling": training.sampling,
        "parameters": training.parameters,
        "trained_s": round(spent, 2),
        "images": images,
        "steps": steps,
        "sampled_s": round(sampled, 2),
    }


def identity(name: str, source: str, seconds: float, seed: int) -> str:
    return f"{Path(source).stem}-{seconds:g}s-{name}-{seed}"


def judged(source: str, path: Path, out: Path) -> Row:
    """Return the distance of the images in a file, uint8 or the set's own values (N, C, H, W)."""
    data = open_data(DataConfig(source))
    extractor = open_judge(data, out)
    (found,) = quality(data, torch.from_numpy(np.load(path)), extractor, metrics=["frechet"])
    names = ("value", "low", "high", "baseline", "baseline_num", "num_generated", "extractor", "extractor_sha256")
    return {name: round(v, 3) if isinstance(v := getattr(found, name), float) else v for name in names}


def measure(arguments: argparse.Namespace, name: str, seconds: float, seed: int) -> Row:
    """Run one contestant in a process of its own and judge what it made; RuntimeError where it fails."""
    given = [str(v) for v in (arguments.data, seconds, seed, arguments.num, arguments.out, arguments.peer_steps or 0)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--one", name, *given]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    facts = json.loads(done.stdout.splitlines()[-1])
    path = arguments.out / f"{identity(name, arguments.data, seconds, seed)}.npy"
    asked = dict(zip(KEY, (arguments.data, name, seconds, seed, arguments.num), strict=True))
    load = round(os.getloadavg()[0], 1)
    return asked | facts | judged(arguments.data, path, arguments.out) | {"torch": torch.__version__, "load": load}


def one(name: str, source: str, seconds: str, seed: str, num: str, out: str, peer_steps: str) -> None:
    """Be the process of one contestant; the last line printed is its facts."""
    options = {"steps": int(peer_steps)} if int(peer_steps) and not name.startswith("sfumato") else {}
    print(json.dumps(run(name, source, float(seconds), int(seed), int(num), Path(out), options)))


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def missing(arguments: argparse.Namespace, rows: list[Row]) -> Iterator[tuple[str, float, int]]:
    """Yield what was asked for and is not among the results."""
    known = {tuple(row[name] for name in KEY) for row in rows}
    for seconds in arguments.seconds:
        for seed in arguments.seeds:
            for name in arguments.contestants:
                if (arguments.data, name, seconds, seed, arguments.num) not in known:
                    yield name, seconds, seed


def table(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of a Markdown table for every set: a row a contestant and time, seeds one after the other."""
    for data, num in sorted({(row["data"], row["num"]) for row in rows}):
        mine = [row for row in rows if (row["data"], row["num"]) == (data, num)]
        floor = mine[0]["baseline"]
        judge = mine[0]["extractor"]
        yield f"\n{data}: Frechet distance of {num:,} images ({judge}); real against real {shown(floor)}\n"
        yield "| contestant | seconds | distance [95 %] | images seen | parameters | training | sampling | seconds |"
        yield "|---|---|---|---|---|---|---|---|"
        order = list(CONTESTANTS)
        for row in sorted(mine, key=lambda r: (r["seconds"], order.index(r["contestant"]), r["seed"])):
            yield (
                f"| {row['contestant']} | {row['seconds']:g} | **{shown(row['value'])}** [{shown(row['low'])}, "
                f"{shown(row['high'])}] | {row['images']:,} | {row['parameters'] / 1e6:.2f}M | {row['about']} | "
                f"{row['sampling']} | {row['sampled_s']:.0f} |"
            )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", help="a built-in set (fashion, faces) or a path; without it only tables are printed")
    options.add_argument("--seconds", type=float, nargs="+", default=[120.0, 600.0], help="of training (120 600)")
    options.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=USUAL, metavar="NAME",
                         help=f"of {', '.join(CONTESTANTS)} (all but EDM's)")  # fmt: skip
    options.add_argument("--seeds", type=int, nargs="+", default=[0], help="each contestant once with each (0)")
    options.add_argument("--num", type=int, default=1000, help="images that are judged (1000)")
    options.add_argument("--peer-steps", type=int, help="sampling steps of both peers, in place of their own (50, 250)")
    options.add_argument("--out", type=Path, default=Path("quality"), help="the folder of results (quality)")
    options.add_argument("--one", nargs=7, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.one:
        one(*arguments.one)
        return 0
    torch.set_num_threads(1)  # of the judge's training too, so that it is the same everywhere
    arguments.out.mkdir(parents=True, exist_ok=True)
    results, failed = arguments.out / "results.jsonl", 0
    rows = read(results)
    for name, seconds, seed in list(missing(arguments, rows)) if arguments.data else []:
        try:
            rows.append(measure(arguments, name, seconds, seed))
        except RuntimeError as error:
            print(f"{name}: not measured ({error})", file=sys.stderr)
            failed += 1
            continue
        write_atomic(results, "".join(json.dumps(row) + "\n" for row in rows).encode())
        print(json.dumps(rows[-1]), flush=True)
    print("\n".join(table(rows)))
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"time_to_quality.py: {error}")
