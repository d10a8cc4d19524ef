"""Train the models that Sfumato ships, and write each as a weights file in half precision.

    python scripts/train_models.py faces fashion emoji32 --runs runs --out src/sfumato/assets

Each is the preset that `sfumato train` chooses, with labels, for the number of images below; an interrupted training
resumes. `src/sfumato/assets/MODELS.md` says what came out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from sfumato.config.presets import resolve
from sfumato.data import open_data
from sfumato.model import load, save
from sfumato.nets import keep_memory
from sfumato.run.folder import Run
from sfumato.train import train

MODELS = {"faces": ("small16", 100_000), "fashion": ("small32", 120_000), "emoji32": ("small32", 100_000)}
"""Preset and images seen."""


def main() -> None:
    """Train, convert, write."""
    parser = argparse.ArgumentParser(description="Train the models that Sfumato ships.")
    parser.add_argument("names", nargs="+", choices=MODELS)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    for name in args.names:
        preset, images = MODELS[name]
        given = {"data.source": name, "data.labels": "source", "train.images": str(images), "train.grids": "4"}
        config, run = resolve(preset, overrides=given), Run(args.runs / name)
        start = time.process_time()
        for _ in train(config, run, open_data(config.data)):
            pass
        model, path = load(run), args.out / f"{name}.safetensors"
        state = {key: tensor.half() for key, tensor in model.net.state_dict().items()}
        save(path, state, model.config, model.codec, vocabulary=model.vocabulary, images=model.images)
        seconds = time.process_time() - start
        print(f"{name}: {model.images:,} images, {seconds:.0f} s of processor time, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
