"""Small runs on the 8x8 digits with one fault planted in each: by training wrongly, or by altering what was trained.

    OMP_NUM_THREADS=1 python -m tests.diagnose.faults FOLDER [FAULT ...]

plants them in FOLDER, diagnoses each and prints the tables of docs/diagnose.md: planted fault x found causes, and the
figures that the thresholds are between.
"""

from __future__ import annotations

import shutil
import struct
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from sfumato.cli.main import main
from sfumato.config.data import DataConfig
from sfumato.config.diffusion import DiffusionConfig
from sfumato.data import open_data
from sfumato.diagnose import Evidence, as_text, conclude, measure, observe
from sfumato.model import load, save

SMALL = {
    "net.base": "16",
    "net.groups": "8",
    "net.multipliers": "1,2",
    "net.blocks": "1",
    "net.attention": "1",
    "optim.lr": "4e-3",
    "train.batch": "32",
    "train.grids": "0",
    "train.held_outs": "4",
    "train.held_out_images": "64",
}


def train(run: Path, images: int = 9600, data: str | Path = "digits", **changes: str) -> Path:
    """Train a small network; changes are dotted keys with __ for the dots."""
    values = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    words = [word for key, value in values.items() for word in (f"--{key}", value)]
    assert main(["train", str(data), "--run", str(run), "--images", str(images), "--device", "cpu", *words]) == 0
    return run


def alter(run: Path, change: Callable[[dict[str, Tensor]], None], **header: str) -> Path:
    """Change every weights file of a run: the tensors in place, and what its header says of the diffusion."""
    for file in sorted((run / "weights").iterdir()):
        model = load(file)
        tensors = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
        change(tensors)
        diffusion: DiffusionConfig = replace(model.config.diffusion, **header)
        facts = {"vocabulary": model.vocabulary, "kind": model.kind, "images": model.images}
        save(file, tensors, replace(model.config, diffusion=diffusion), model.codec, **facts)
    return run


def digits(change: Callable[[np.ndarray], np.ndarray], folder: Path) -> Path:
    """Write the digits, changed, as an idx file."""
    path = folder / "train-images-idx3-ubyte"
    images = change(np.array(open_data(DataConfig("digits")).images)[:, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB3I", 0, 8, 3, *images.shape)
    path.write_bytes(header + images.astype(np.uint8).tobytes())
    return path


def _last(tensors: dict[str, Tensor], kind: str) -> Tensor:
    """The output layer's weight or bias."""
    name = [name for name in tensors if name.endswith(kind)][-1]
    return tensors[name]


@contextmanager
def broken_losses(every: int):
    """Make one in `every` training losses infinite."""
    build, calls = DiffusionConfig.build_objective, count()

    @dataclass(frozen=True)
    class Broken:
        objective: object

        def losses(self, prediction, noised):
            losses = self.objective.losses(prediction, noised)
            return losses * float("inf") if torch.is_grad_enabled() and next(calls) % every == 0 else losses

    with mock.patch.object(DiffusionConfig, "build_objective", lambda self, *levels: Broken(build(self, *levels))):
        yield


def healthy(run: Path) -> Path:
    return train(run)


def healthy_eps(run: Path) -> Path:
    return train(run, 32_000, diffusion__parameterization="eps", diffusion__schedule__kind="linear", train__seed="1")


def healthy_learned(run: Path) -> Path:
    return train(run, diffusion__variance="learned", diffusion__objective="hybrid", train__seed="2")


def healthy_labels(run: Path) -> Path:
    return train(run, data__labels="source", train__seed="3")


def ema_too_long(run: Path) -> Path:
    return train(run, ema__half_life="1e6", ema__ramp="none")


def too_few_images(run: Path) -> Path:
    return train(run, images=320)


def rate_too_high(run: Path) -> Path:
    return train(run, images=3200, optim__lr="1.0", optim__clip="none", optim__decay="constant")


def schedule_too_short(run: Path) -> Path:
    return train(
        run,
        diffusion__schedule__kind="constant",
        diffusion__schedule__beta="0.001",
        diffusion__schedule__num_steps="20",
        train__grid_steps="20",
    )


def losses_not_finite(run: Path) -> Path:
    with broken_losses(3):
        return train(run, images=4800)


def nearly_black(run: Path) -> Path:
    return train(run, images=4800, data=digits(lambda x: x // 16, run.parent / "nearly-black"))


def inverted_since(run: Path) -> Path:
    data = digits(lambda x: x, run.parent / "inverted")
    train(run, data=data)
    digits(lambda x: 255 - x, data.parent)
    return run


def one_image(run: Path) -> Path:
    return train(run, images=3200, data=digits(lambda x: np.repeat(x[:1], 100, 0), run.parent / "one"))


def few_memorised(run: Path) -> Path:
    few = digits(lambda x: x[:32], run.parent / "few")
    return train(run, images=64000, data=few, data__held_out="0.2")


def shifted(run: Path) -> Path:
    return alter(train(run), lambda tensors: _last(tensors, "bias").add_(0.5))


def last_steps_unlearned(run: Path) -> Path:
    return train(
        run,
        diffusion__parameterization="x0",
        diffusion__weighting__kind="p2",
        diffusion__weighting__gamma="3.0",
        diffusion__weighting__k="0.1",
    )


def read_as_eps(run: Path) -> Path:
    return alter(train(run), lambda tensors: None, parameterization="eps")


def variance_unlearned(run: Path) -> Path:
    def forget(tensors: dict[str, Tensor]) -> None:
        for kind in ("weight", "bias"):
            _last(tensors, kind)[1:] = 0

    return alter(train(run, diffusion__variance="learned", diffusion__objective="hybrid"), forget)


def labels_dropped(run: Path) -> Path:
    return train(run, data__labels="source", train__label_dropout="1.0")


HEALTHY = (healthy, healthy_eps, healthy_learned, healthy_labels)
FAULTS: dict[Callable[[Path], Path], str] = {
    ema_too_long: "average_too_long",
    too_few_images: "too_short",
    rate_too_high: "diverged",
    schedule_too_short: "schedule_end",
    losses_not_finite: "skipped_steps",
    nearly_black: "narrow_data",
    inverted_since: "other_data",
    one_image: "one_image",
    few_memorised: "repeats",
    shifted: "shifted_output",
    last_steps_unlearned: "last_steps",
    read_as_eps: "wrong_reading",
    variance_unlearned: "untaught_variance",
    labels_dropped: "unheeded_labels",
}
"""Each planted fault and the cause that must be found first."""


def figures(e: Evidence) -> str:
    """The figures that the thresholds are between, in a row."""
    t, v, labels = e.training, e.variance, e.labels
    constant = [level.constant for level in e.reading.levels if level.t > 0.2]
    shown = (
        f"{e.default.distance:.3f}",
        f"{e.samples['from data'].distance:.3f}",
        f"{e.process.alpha_end:.2g}",
        f"{e.reading.middle:.2f}",
        f"{e.trained.middle:.2f}",
        f"{min(r.middle for r in e.others.values()):.2f}",
        f"{e.reading.clean:.2f}",
        f"{sum(constant) / len(constant):.2f}",
        f"{e.default.nearest / e.data.nearest:.2f}" if e.data.nearest else "-",
        f"{e.unsettled:.2f}",
        f"{t.losses[-1] / t.losses[-4]:.2f}" if t else "-",
        f"{v.deviation:.3f}" if v else "-",
        f"{labels.other / labels.own:.2f}" if labels else "-",
    )
    return " | ".join(shown)


def table(folder: Path, names: list[str]) -> None:
    """Plant, diagnose, print."""
    rows = []
    torch.set_num_threads(1)
    for plant in (*HEALTHY, *FAULTS):
        if names and plant.__name__ not in names:
            continue
        start, run = time.perf_counter(), folder / plant.__name__
        if not (run / "finished.json").exists():
            shutil.rmtree(run, ignore_errors=True)
            plant(run)
        trained = time.perf_counter()
        evidence = measure(run, 64, 0, "cpu", lambda done, total: None)
        symptoms, findings = observe(evidence), conclude(evidence)
        (folder / f"{run.name}.txt").write_text(as_text(evidence, symptoms, findings) + "\n")
        causes = ", ".join(f"{finding.cause} ({finding.severity})" for finding in findings) or "nothing"
        looks = ", ".join(symptom.name for symptom in symptoms) or "well"
        times = f"{trained - start:.0f} + {time.perf_counter() - trained:.0f} s"
        print(f"| {plant.__name__} | {FAULTS.get(plant, '-')} | {looks} | {causes} | {times} |", flush=True)
        rows.append(f"| {plant.__name__} | {figures(evidence)} |")
    print("\n".join(rows))


if __name__ == "__main__":
    table(Path(sys.argv[1]), sys.argv[2:])
