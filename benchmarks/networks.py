"""The U-Net beside the transformer: both by the same recipe, for the same processor time, judged by one extractor.

    python benchmarks/networks.py --data faces fashion ~/avatars64 --seconds 120 --seeds 0 1 2 --out networks
    python benchmarks/networks.py --data faces --seconds 600 --networks unet transformer-8 --rates 0.5 1 2

The recipe is the one that `sfumato train DATA` chooses for the images and the time; only `net` differs, and the rate
where `--rates` says so: what suits one network need not suit the other. `transformer-8` has 8x8 tokens whatever the
images' size, `transformer-16` four times as many. Training takes so many seconds of this process's PROCESSOR time on
one thread, building and every step; the learning rate follows the fraction of the time that is spent. Then the Frechet
distance of the samples to as many training images is taken, with its 95 % interval over images, and real against real
beside it (`judge`). Networks of a seed see the same images, times and noise. Rows are added to OUT/networks.jsonl and
what is there is not run again; OUT/NAME.png shows 64 images of each: look at them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import common
from common import shown
from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.errors import UserError
from sfumato.evaluate import quality
from sfumato.files import write_atomic
from sfumato.generate.pictures import grid
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare, wanted
from sfumato.train.choose import choose
from sfumato.train.trainer import Trainer

NETWORKS = {"unet": 0, "transformer-8": 8, "transformer-16": 16}
"""Each by name: tokens a side, 0 for the recipe's own U-Net."""
SHOWN, SAMPLES_SEED = 64, 1
KEY = ("data", "network", "rate", "seconds", "seed", "num")
Row = dict[str, Any]


def settings(name: str, side: int, arguments: argparse.Namespace) -> dict[str, str]:
    """Return the overrides of the recipe that make it the network's."""
    if not NETWORKS[name]:
        return {}
    shape = {"width": arguments.width, "depth": arguments.depth, "heads": arguments.heads}
    patch = max(1, round(side / NETWORKS[name]))
    return {"net.kind": "transformer", "net.patch": str(patch)} | {f"net.{k}": str(v) for k, v in shape.items()}


def trained(source: str, name: str, rate: float, seconds: float, seed: int, arguments: argparse.Namespace) -> Trainer:
    """Train for so many seconds of processor time and return the trainer."""
    data = open_data(DataConfig(source))
    given = {"data.source": source, "train.budget": f"{seconds:g}", "train.seed": str(seed)}
    config, data, _ = choose(None, None, given | settings(name, max(data.shape[1:]), arguments), torch.device("cpu"))
    config = replace(
        config,
        optim=replace(config.optim, lr=rate * config.optim.lr),
        train=replace(config.train, images=10**9, budget=None),
    )
    start = time.process_time()
    trainer, batch = Trainer(config, data), config.train.batch
    while (spent := time.process_time() - start) < seconds:
        if trainer.images:
            trainer.planned = max(trainer.images + batch, round(trainer.images * seconds / spent))
        trainer.step()
    return trainer


def measure(row: Row, arguments: argparse.Namespace) -> Row:
    """Train, sample and judge one network: the row with its figures."""
    from judge import open_judge

    trainer = trained(*(row[key] for key in KEY[:-1]), arguments)
    model, data = trainer.model(), trainer.data
    model.net.eval()
    usual = wanted(model, None)  # labels as the training images have them, or none
    batches = prepare(model, Recipe(), usual).stream(row["num"], SAMPLES_SEED, condition=usual, batch=50)
    made = torch.cat([model.codec.decode(x) for _, x in batches])
    (found,) = quality(data, made, open_judge(data, arguments.out), metrics=["frechet"])
    picture = "-".join(str(row[key]) for key in KEY[1:-1])
    grid(made[:SHOWN].numpy(), 8).save(arguments.out / f"{Path(row['data']).stem}-{picture}.png")
    figures = {"distance": found.value, "low": found.low, "high": found.high, "real": found.baseline}
    cost = trainer.net.cost(*data.shape[1:])
    return row | {
        "side": max(data.shape[1:]),
        "net": trainer.net.summary(),
        "parameters": cost.parameters,
        "mflop": round(cost.flops / 1e6),
        "images": trainer.images,
        "judge": found.extractor,
        "torch": torch.__version__,
        **{key: None if value is None else round(value, 3) for key, value in figures.items()},
    }


def asked(arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield every combination; the networks of a set and a seed follow one another, so that load hits all alike."""
    for source in arguments.data:
        for seconds in arguments.seconds:
            for seed in arguments.seeds:
                for rate in arguments.rates:
                    for name in arguments.networks:
                        yield dict(zip(KEY, (source, name, rate, seconds, seed, arguments.num), strict=True))


def table(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| set | side | network | rate | seconds | distance [95 %] | real | images seen | parameters | MFLOP | seed |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for row in sorted(rows, key=lambda row: (row["side"], row["data"], row["seconds"], row["network"], row["rate"])):
        yield (
            f"| {Path(row['data']).stem} | {row['side']} | {row['network']} | x{row['rate']:g} | {row['seconds']:g} | "
            f"**{row['distance']:.3g}** [{shown(row['low'])}, {shown(row['high'])}] | {shown(row['real'])} | "
            f"{row['images']:,} | {row['parameters'] / 1e6:.2f}M | {row['mflop']} | {row['seed']} |"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", nargs="+", default=["faces", "fashion"], help="sets or paths (faces fashion)")
    options.add_argument("--seconds", type=float, nargs="+", default=[120.0], help="of processor time (120)")
    options.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="which (all)")
    options.add_argument("--rates", type=float, nargs="+", default=[1.0], help="multiples of the recipe's rate (1)")
    options.add_argument("--seeds", type=int, nargs="+", default=[0], help="each network once with each (0)")
    options.add_argument("--num", type=int, default=500, help="images that are judged (500)")
    options.add_argument("--out", type=Path, default=Path("networks"), help="the folder of results (networks)")
    for name, default in (("width", 128), ("depth", 6), ("heads", 4)):
        options.add_argument(f"--{name}", type=int, default=default, help=f"of the transformers ({default})")
    arguments = options.parse_args()
    common.set_up(argparse.Namespace(threads=1, keep_memory=True))
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "networks.jsonl"
    rows = [json.loads(line) for line in results.read_text("utf-8").splitlines()] if results.exists() else []
    known = {tuple(row[key] for key in KEY) for row in rows}
    for row in asked(arguments):
        if tuple(row.values()) not in known:
            rows.append(measure(row, arguments))
            write_atomic(results, "".join(json.dumps(each) + "\n" for each in rows).encode())
            print(json.dumps(rows[-1]), flush=True)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"networks.py: {error}")
