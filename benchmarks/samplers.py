"""Quality against network evaluations, for a trained model of one's own: which sampler, how many steps, which grid.

    python benchmarks/samplers.py draw RUN --out samplers --num 1000                # everything in PLAN, resumable
    python benchmarks/samplers.py draw RUN --out samplers --only dpmpp-2 unipc      # some of it
    python benchmarks/samplers.py table samplers                                    # as Markdown
    python benchmarks/samplers.py peers fashion --out peers --num 300               # images per second at equal quality

Each row draws the same seeds with the same labels, so that rows differ by the sampler alone. Quality is the Frechet
distance of the features that suit the data (the classifier's for 28x28 clothes, else pixels) to as many training
images, with its bootstrap interval, and KID with its standard error. Seconds are of processor time, on one thread.

`peers` draws with the settings that other libraries sample by where the user gives none, and with ours, from one
network and by one implementation, so that only the settings differ. The number is how many times the images per second
of the quickest of theirs ours has, among those settings to which its distance is not worse: not above their interval.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sfumato.diffusion import VARIANCES
from sfumato.evaluate import open_extractor, quality
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.model import Model, load
from sfumato.nets import keep_memory

REFERENCE = "ddpm-1000-trailing"
BUDGETS = (5, 10, 20, 50)
GRIDS = ("trailing", "logsnr", "karras", "quadratic", "fitted")


PEERS = {
    "diffusers, DDIMPipeline": "ddim-50-leading",
    "denoising-diffusion-pytorch, its README (sampling_timesteps = 250)": "ddim-250-trailing",
    "diffusers, DDPMPipeline; denoising-diffusion-pytorch": REFERENCE,
}


def plan() -> dict[str, Recipe]:
    """Every row by its name: sampler, evaluations, grid."""
    rows = {REFERENCE: Recipe("ddpm", steps=1000, grid="trailing")}
    for budget in BUDGETS:
        for sampler in ("ddim", "ddpm", "dpmpp-1", "dpmpp-2", "dpmpp-3", "dpmpp-sde", "unipc", "pndm"):
            rows[f"{sampler}-{budget}-trailing"] = Recipe(sampler, steps=budget, grid="trailing")
        for sampler in ("heun", "edm"):
            for grid in ("trailing", "logsnr", "karras"):
                rows[f"{sampler}-{budget}-{grid}"] = Recipe(sampler, steps=max(2, (budget + 1) // 2), grid=grid)
        for grid in GRIDS[1:]:
            for sampler in ("ddim", "dpmpp-2", "unipc"):
                rows[f"{sampler}-{budget}-{grid}"] = Recipe(sampler, steps=budget, grid=grid)
    return rows


def draw(model: Model, name: str, recipe: Recipe, num: int, batch: int, out: Path) -> None:
    """Sample one row's images, cycling through the values of a single attribute, and keep them with what they took."""
    single = len(model.attributes) == 1 and model.vocabulary is not None
    condition = model.vocabulary.every() if single else None
    sampling, calls = prepare(model, recipe, condition, variance=VARIANCES["small"]), 0
    plain = sampling.denoiser

    class Counted:
        schedule = plain.schedule

        def __call__(self, x, t, condition=None):
            nonlocal calls
            calls += len(x)
            return plain(x, t, condition)

    start = time.process_time()
    parts = replace(sampling, denoiser=Counted()).stream(num, condition=condition, batch=batch)
    images = torch.cat([model.codec.decode(x) for _, x in parts])
    np.save(out / f"{name}.npy", images.numpy())
    took = {"evaluations": calls / num, "seconds": time.process_time() - start, "times": sampling.times.tolist()}
    (out / f"{name}.json").write_text(json.dumps(took))


def measure(run: Path, out: Path) -> None:
    """Measure what was drawn and not yet measured."""
    model = load(run)
    data = model.data()
    extractor = open_extractor("classifier" if data.shape == (1, 28, 28) else "pixels", data.shape)
    table = out / "measured.json"
    found = json.loads(table.read_text()) if table.exists() else {}
    for path in sorted(out.glob("*-*-*.npy")):
        if path.stem in found:
            continue
        images = torch.from_numpy(np.load(path))
        frechet, kid = quality(data, images, extractor, metrics=("frechet", "kid"))
        facts = path.with_suffix(".json")
        found[path.stem] = {
            "frechet": [frechet.value, frechet.low, frechet.high, frechet.baseline],
            "kid": [kid.value, kid.error],
            "num": len(images),
            **({k: v for k, v in json.loads(facts.read_text()).items() if k != "times"} if facts.exists() else {}),
        }
        table.write_text(json.dumps(found, indent=1))
        print(path.stem, json.dumps(found[path.stem]), flush=True)


def compare(run: Path, out: Path, num: int, num_ancestral: int, batch: int) -> None:
    """Draw with the peers' settings and ours, measure, and print the table and the number."""
    model, default = load(run), Recipe()
    own = default.resolve(model)
    ours = f"default-{own.steps}-{own.grid}"
    for name in (ours, *PEERS.values()):
        sampler, steps, grid = name.split("-")
        recipe = default if name == ours else Recipe(sampler, steps=int(steps), grid=grid)
        if not (out / f"{name}.npy").exists():
            draw(model, name, recipe, num_ancestral if name == REFERENCE else num, batch, out)
    measure(run, out)
    found = json.loads((out / "measured.json").read_text())
    ratios = times_faster(found, ours)
    print("| sampler | Frechet distance | images per second | ours / theirs |")
    print("|---|---|---|---|")
    for title, name in {f"ours, {own.sampler}": ours, **PEERS}.items():
        value, low, high, _ = found[name]["frechet"]
        ratio = ratios.get(name)
        said = "" if name == ours else "(ours is worse)" if ratio is None else f"{ratio:.1f}"
        speed = found[name]["num"] / found[name]["seconds"]
        print(f"| {title}: {name} | {value:.1f} [{low:.1f}, {high:.1f}] | {speed:.2f} | {said} |")
    equal = [ratio for ratio in ratios.values() if ratio is not None]
    print(f"\n{min(equal):.1f} times" if equal else "\nours is worse than each of them")


def times_faster(found: dict[str, dict], ours: str) -> dict[str, float | None]:
    """Return how many times the images per second of each of the peers' settings ours has; None where its distance is
    above the interval of theirs."""
    own = found[ours]
    ratios: dict[str, float | None] = {}
    for name in PEERS.values():
        theirs = found[name]
        ratio = theirs["seconds"] / theirs["num"] * own["num"] / own["seconds"]
        ratios[name] = ratio if own["frechet"][0] <= theirs["frechet"][2] else None
    return ratios


def print_table(out: Path) -> None:
    """Print everything measured, by evaluations and then by distance."""
    found = json.loads((out / "measured.json").read_text())
    print("| sampler | grid | evaluations | Frechet distance | KID x 1000 | seconds an image |")
    print("|---|---|---|---|---|---|")
    rows = sorted(found.items(), key=lambda row: (round(row[1].get("evaluations", 1000), -1), row[1]["frechet"][0]))
    for name, row in rows:
        sampler, _, grid = name.rpartition("-")[0].rpartition("-")[0], None, name.rpartition("-")[2]
        value, low, high, _ = row["frechet"]
        evaluations = f"{row['evaluations']:.0f}" if "evaluations" in row else name.split("-")[-2]
        seconds = f"{row['seconds'] / row['num']:.3f}" if "seconds" in row else ""
        print(
            f"| {sampler} | {grid} | {evaluations} | {value:.2f} [{low:.2f}, {high:.2f}] "
            f"| {1000 * row['kid'][0]:.2f} +- {1000 * row['kid'][1]:.2f} | {seconds} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("draw")
    verb.add_argument("run", type=Path)
    verb.add_argument("--out", type=Path, default=Path("samplers"))
    verb.add_argument("--num", type=int, default=1000)
    verb.add_argument("--batch", type=int, default=100)
    verb.add_argument("--only", nargs="*", default=[], help="samplers, or whole rows")
    verb.add_argument("--budgets", nargs="*", type=int, default=[*BUDGETS, 1000])
    verb = verbs.add_parser("measure")
    verb.add_argument("run", type=Path)
    verb.add_argument("--out", type=Path, default=Path("samplers"))
    verb = verbs.add_parser("peers")
    verb.add_argument("run", type=Path, help="a run folder, or the name of a model that comes along")
    verb.add_argument("--out", type=Path, default=Path("peers"))
    verb.add_argument("--num", type=int, default=300)
    verb.add_argument("--num-ancestral", type=int, help="images of the 1,000 steps; --num by default")
    verb.add_argument("--batch", type=int, default=100)
    verb = verbs.add_parser("table")
    verb.add_argument("out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    if given.verb == "table":
        print_table(given.out)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    if given.verb == "peers":
        compare(given.run, given.out, given.num, given.num_ancestral or given.num, given.batch)
        return
    if given.verb == "draw":
        model = load(given.run)
        for name, recipe in plan().items():
            chosen = not given.only or recipe.sampler in given.only or name in given.only
            wanted = chosen and int(name.split("-")[-2]) in given.budgets
            if wanted and not (given.out / f"{name}.npy").exists():
                draw(model, name, recipe, given.num, given.batch, given.out)
                print(name, flush=True)
    measure(given.run, given.out)


if __name__ == "__main__":
    main()
