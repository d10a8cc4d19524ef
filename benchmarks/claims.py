"""The claims of the papers, put to the test on real images with networks small enough for two CPU cores.

    python benchmarks/claims.py train simple hybrid vlb --data fashion-full --images 60000 --seeds 0 --out claims
    python benchmarks/claims.py train ours ours-bits --images 60000 --out claims    # our recipe, and it for bits
    python benchmarks/claims.py measure claims/*        # bits a dimension and Frechet distance of every run
    python benchmarks/claims.py variances claims/hybrid-0 claims/simple-0   # the variances at several numbers of steps
    python benchmarks/claims.py skip --data digits [claims/simple-0]   # the first part of the way back left out
    python benchmarks/claims.py table claims            # everything as Markdown
    python benchmarks/claims.py figure claims/hybrid-0 bits.png   # where the bits are spent (needs the bench extra)

`train` resumes, and `measure` and `variances` leave out what is already measured (claims/NAME/claims.json). What is
claimed, and what came out, is docs/experiments.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from sfumato.codec.registry import CODECS
from sfumato.config.presets import resolve
from sfumato.data import Dataset, open_data
from sfumato.diffusion import (
    VARIANCES,
    Ancestral,
    Clipped,
    Cosine,
    Denoiser,
    FiniteOracle,
    Linear,
    Noise,
    Variance,
    bits_per_dim,
    leading,
    prior_term,
    sample,
    trailing,
)
from sfumato.evaluate import Bits, SampledBound, WholeBound, measure_bits, open_extractor, quality
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare
from sfumato.generate.variance import measured_variance
from sfumato.model import Model, load
from sfumato.nets import keep_memory
from sfumato.run.folder import Run
from sfumato.train import train

COMMON = {"data.flip": "false", "data.held_out": "0.05", "train.grids": "2", "train.held_outs": "6"}
BASE = {
    "diffusion.schedule.kind": "linear",
    "diffusion.parameterization": "eps",
    "diffusion.timesteps.kind": "uniform",
    "optim.name": "adamw",
    "optim.decay": "cosine",
    "optim.lr": "1e-3",
    **COMMON,
}
BOUND = {"diffusion.objective": "vlb", "diffusion.variance": "learned", "diffusion.timesteps.kind": "importance"}
RUNS: dict[str, dict[str, str]] = {
    "simple": BASE,
    "hybrid": BASE | {"diffusion.objective": "hybrid", "diffusion.variance": "learned"},
    "vlb": BASE | BOUND,
    "x0": BASE | {"diffusion.parameterization": "x0"},
    "mu": BASE | {"diffusion.parameterization": "mu"},
    "v": BASE | {"diffusion.parameterization": "v"},
    "cosine": BASE | {"diffusion.schedule.kind": "cosine"},
    "ours": COMMON,
    "ours-bits": COMMON | BOUND,
}
"""What each run changes of the preset: all but the last two, which are our recipe, take the papers' settings."""

STEPS = (10, 25, 50, 100)
SKIPPED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Fractions of the way back, from its noisy end, that are left out."""


def run_training(names: list[str], data: str, preset: str, images: int, seeds: list[int], out: Path) -> None:
    """Train the named runs, one after the other, resuming where there is one."""
    for seed in seeds:
        for name in names:
            given = {**RUNS[name], "data.source": data, "train.images": str(images), "train.seed": str(seed)}
            config = resolve(preset, overrides=given)
            start = time.perf_counter()
            for _ in train(config, Run(out / f"{name}-{seed}"), open_data(config.data)):
                pass
            print(f"{name}-{seed}: {images:,} images in {time.perf_counter() - start:.0f} s", flush=True)


def open_run(path: Path) -> tuple[Model, Dataset, dict[str, Any]]:
    """Return a finished run's model, its data, and what was measured of it before."""
    model, results = load(path), path / "claims.json"
    return model, model.data(), json.loads(results.read_text()) if results.exists() else {}


def keep(path: Path, found: dict[str, Any]) -> None:
    """Write what was measured."""
    (path / "claims.json").write_text(json.dumps(found, indent=1))


def variance_of(name: str, model: Model, data: Dataset) -> Variance:
    """A variance by name; analytic is measured."""
    return measured_variance(model, data, clip=False) if name == "analytic" else VARIANCES[name]


def frechet(model: Model, data: Dataset, name: str, steps: int, num: int) -> dict[str, float | None]:
    """Frechet distance of images by ancestral sampling with a variance to as many training images, with its interval
    and its baseline."""
    recipe = Recipe("ddpm", steps=steps, grid="trailing", variance=name)
    stream = prepare(model, recipe, variance=variance_of(name, model, data)).stream(num, batch=100)
    images = torch.cat([model.codec.decode(x) for _, x in stream])
    extractor = open_extractor(None, data.shape, format=data.format)
    (found,) = quality(data, images, extractor, metrics=["frechet"])
    return {"value": found.value, "low": found.low, "high": found.high, "floor": found.baseline, "n": num}


def bits_facts(bits: Bits) -> dict[str, float]:
    """The figures of a bound that a table shows."""
    parts = {name: bits.parts[name].mean for name in ("rate", "distortion")}
    return {"total": bits.total.mean, "half_width": bits.total.half_width, **parts, "images": bits.images}


def measure(path: Path, num: int, terms: int) -> None:
    """Bits a dimension of held-out images, and the Frechet distance of samples, of one run."""
    model, data, found = open_run(path)
    learned = model.config.diffusion.variance == "learned"
    if "bits" not in found:
        images, bits = data.rows(torch.from_numpy(data.held_out[:num]))[0], {}
        for name in ["learned"] if learned else ["small", "large", "analytic"]:
            estimator = SampledBound(variance_of(name, model, data), terms)
            bits[name] = bits_facts(measure_bits(model.denoiser, model.codec, images, estimator))
        found["bits"] = bits
        keep(path, found)
    if "frechet" not in found:
        found["frechet"] = frechet(model, data, "learned" if learned else "small", 100, 1000) | {"steps": 100}
        keep(path, found)
    print(path, json.dumps(found["bits"]), json.dumps(found["frechet"]), flush=True)


def variances(path: Path, num: int, bound_num: int) -> None:
    """Quality and bound at several numbers of steps, for every variance that the run can use."""
    model, data, found = open_run(path)
    names = ["small", "large", "analytic"] + (["learned"] if model.config.diffusion.variance == "learned" else [])
    held_out = data.rows(torch.from_numpy(data.held_out[:bound_num]))[0]
    table = found.setdefault("variances", {})
    for name in names:
        variance = variance_of(name, model, data)
        for steps in (*STEPS, 1000):
            key = f"{name}-{steps}"
            if key in table:
                continue
            images = held_out if steps < 1000 else held_out[: max(8, bound_num // 4)]
            estimator = WholeBound(leading(steps, model.schedule), variance)
            bits = measure_bits(model.denoiser, model.codec, images, estimator)
            table[key] = {"bits": bits_facts(bits)}
            if steps < 1000:
                table[key]["frechet"] = frechet(model, data, name, steps, num)
            else:
                table[key]["curve"] = bits.curve
            keep(path, found)
            shown = {k: v for k, v in table[key].items() if k != "curve"}
            print(path, key, json.dumps(shown), flush=True)


def skip(name: str, denoiser: Denoiser, data: Dataset, num: int) -> None:
    """Print the Frechet distance of samples where the first part of the way back is left out and pure noise stands for
    x_t at the time where the rest begins (IDDPM Fig. 4), and what is left of training images there, in bits per
    dimension: L_T if the chain ended there."""
    codec = CODECS["pixels"]().build(data.format, data.shape)
    x_0 = codec.encode(data.rows(torch.from_numpy(data.train[:500]))[0])
    extractor = open_extractor(None, data.shape, format=data.format)
    grid = trailing(100, denoiser.schedule)
    for fraction in SKIPPED:
        times = grid[grid <= 1 - fraction + 1e-9]
        parts = torch.split(torch.arange(num), 250)
        x = torch.cat([sample(Clipped(denoiser), Ancestral(), times, Noise(0, part, data.shape)) for part in parts])
        (found,) = quality(data, codec.decode(x), extractor, metrics=["frechet"])
        left = float(bits_per_dim(prior_term(x_0, denoiser.schedule(1 - fraction))).mean())
        print(
            f"{name:24} {100 * fraction:3.0f} %  {found.value:6.2f} [{found.low:.2f}, {found.high:.2f}]  "
            f"(real against real {found.baseline:.2f})  left {left:.2g}",
            flush=True,
        )


def skips(name: str, runs: list[Path], num: int) -> None:
    """`skip` for the exact denoiser of the training images under two schedules, and for runs."""
    data = open_data(resolve("small8", overrides={"data.source": name}).data)
    points = CODECS["pixels"]().build(data.format, data.shape).encode(data.rows(torch.from_numpy(data.train))[0])
    for schedule in (Linear(), Cosine()):
        skip(f"exact, {type(schedule).__name__.lower()}", FiniteOracle(schedule, points), data, num)
    for path in runs:
        model = load(path)
        skip(path.name, model.denoiser, model.data(), num)


LINES = {"small": "#b07d2b", "large": "#a8434f", "analytic": "#3f7f5f", "learned": "#2f5d8a"}


def figure(path: Path, out: Path) -> None:
    """Draw the bound by t, its running sum, and the progressive coding curve of a run whose variances were measured."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    table = json.loads((path / "claims.json").read_text())["variances"]
    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    drawing, (by_t, running, coding) = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for rule, colour in LINES.items():
        if f"{rule}-1000" not in table:
            continue
        curve = torch.tensor(table[f"{rule}-1000"]["curve"], dtype=torch.float64).flip(0)
        t, bits, rmse = curve[:, 0] * 1000, curve[:, 1], curve[:, 2]
        by_t.loglog(t, bits, color=colour, lw=1.2, label=rule)
        running.semilogx(t, bits.cumsum(0), color=colour, lw=1.2, label=rule)
        received = bits.flip(0).cumsum(0).flip(0) - bits
        coding.plot(received, rmse, color=colour, lw=1.2, label=rule)
    by_t.set(xlabel="t", ylabel="bits a dimension of step t", title="what each step costs")
    running.set(xlabel="t", ylabel="bits of steps 1 .. t", title="where the bits are spent", ylim=(0, None))
    coding.set(xlabel="bits received", ylabel="rmse of the image, 0-255", title="progressive coding", yscale="log")
    by_t.legend(frameon=False, title="variance")
    drawing.savefig(out, dpi=110)


def print_table(out: Path) -> None:
    """Print everything that was measured as Markdown."""
    print("| run | bits a dimension, by variance | Frechet distance (real against real) |\n|---|---|---|")
    for path in sorted(out.glob("*/claims.json")):
        found = json.loads(path.read_text())
        rules = found.get("bits", {})
        bits = "; ".join(f"{rule} {b['total']:.3f} +- {b['half_width']:.3f}" for rule, b in rules.items())
        f = found.get("frechet")
        distance = f"{f['value']:.1f} [{f['low']:.1f}, {f['high']:.1f}] ({f['floor']:.1f})" if f else ""
        print(f"| {path.parent.name} | {bits} | {distance} |")
    print("\n| run, variance, steps | bits a dimension | Frechet distance |\n|---|---|---|")
    for path in sorted(out.glob("*/claims.json")):
        for key, row in json.loads(path.read_text()).get("variances", {}).items():
            f = row.get("frechet")
            distance = f"{f['value']:.1f} [{f['low']:.1f}, {f['high']:.1f}]" if f else ""
            b = row["bits"]
            print(f"| {path.parent.name} {key} | {b['total']:.3f} +- {b['half_width']:.3f} | {distance} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train")
    verb.add_argument("names", nargs="+", choices=RUNS)
    verb.add_argument("--data", default="fashion-full")
    verb.add_argument("--preset", default="small32")
    verb.add_argument("--images", type=int, default=60_000)
    verb.add_argument("--seeds", type=int, nargs="+", default=[0])
    verb.add_argument("--out", type=Path, default=Path("claims"))
    verb = verbs.add_parser("measure")
    verb.add_argument("runs", nargs="+", type=Path)
    verb.add_argument("--num", type=int, default=256, help="held-out images")
    verb.add_argument("--terms", type=int, default=32, help="sampled terms of the bound, an image")
    verb = verbs.add_parser("variances")
    verb.add_argument("runs", nargs="+", type=Path)
    verb.add_argument("--num", type=int, default=500, help="samples for the Frechet distance")
    verb.add_argument("--bound-num", type=int, default=64, help="held-out images for the bound")
    verb = verbs.add_parser("skip")
    verb.add_argument("runs", nargs="*", type=Path)
    verb.add_argument("--data", default="digits")
    verb.add_argument("--num", type=int, default=1000, help="samples for the Frechet distance")
    verb = verbs.add_parser("table")
    verb.add_argument("out", type=Path)
    verb = verbs.add_parser("figure")
    verb.add_argument("run", type=Path)
    verb.add_argument("png", type=Path)
    for verb in verbs.choices.values():
        verb.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    if given.verb == "train":
        run_training(given.names, given.data, given.preset, given.images, given.seeds, given.out)
    elif given.verb == "measure":
        for path in given.runs:
            measure(path, given.num, given.terms)
    elif given.verb == "variances":
        for path in given.runs:
            variances(path, given.num, given.bound_num)
    elif given.verb == "skip":
        skips(given.data, given.runs, given.num)
    elif given.verb == "figure":
        figure(given.run, given.png)
    else:
        print_table(given.out)


if __name__ == "__main__":
    main()
