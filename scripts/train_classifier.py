"""Train the small classifiers whose features measure 28x28 clothes and 8x8 digits.

    apt-get install dataset-fashion-mnist
    python scripts/train_classifier.py fashion src/sfumato/evaluate/assets
    python scripts/train_classifier.py digits src/sfumato/evaluate/assets

One thread, AdamW with a one-cycle learning rate, batches of 128, cross-entropy. `fashion` trains on Fashion-MNIST's
60,000 training images and is tested on its 10,000 test images; `digits` on those of the 1,797 that a split by content
leaves when a fifth is held out, and is tested on that fifth. Every random number is seeded, so the same machine and
version of torch write the same file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sfumato.codec.pixels import to_model
from sfumato.config.data import DataConfig
from sfumato.data import open_data, open_source
from sfumato.data.sources.builtin import FASHION_FOLDER
from sfumato.data.sources.published import read_idx
from sfumato.diffusion.noise import Purpose, permutation
from sfumato.evaluate.extractors.classifier import Classifier, asset
from sfumato.files import write_atomic

SEED, BATCH, RATE, DECAY = 0, 128, 1e-2, 1e-2
EPOCHS = {"fashion": 3, "digits": 40}

Examples = tuple[Tensor, Tensor]


def fashion() -> tuple[Examples, Examples]:
    """Return the training and the test images of Fashion-MNIST, uint8, with their labels."""
    arrays = open_source("fashion-full").arrays  # type: ignore[attr-defined]
    images = read_idx(FASHION_FOLDER / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(FASHION_FOLDER / "t10k-labels-idx1-ubyte.gz")
    train = torch.tensor(arrays.images[..., 0])[:, None], torch.tensor(arrays.labels.conditions[:, 0]).long()
    return train, (torch.tensor(images)[:, None], torch.tensor(labels).long())


def digits() -> tuple[Examples, Examples]:
    """Return the digits that train and those that test."""
    data = open_data(DataConfig(source="digits", held_out=0.2, labels="source"))

    def examples(rows: NDArray[np.int64]) -> Examples:
        return torch.tensor(data.images[rows]), torch.tensor(data.table[rows, 0]).long()

    return examples(data.train), examples(data.held_out)


def train(images: Tensor, labels: Tensor, epochs: int) -> Classifier:
    """Train a classifier; the last, short batch of an epoch is left out."""
    torch.manual_seed(SEED)
    net, steps = Classifier(*images.shape[2:]), len(images) // BATCH
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * steps, pct_start=0.2)
    for epoch in range(epochs):
        order = permutation(SEED, Purpose.ORDER, len(images), epoch)
        for rows in order[: steps * BATCH].split(BATCH):
            loss = F.cross_entropy(net(to_model(images[rows])), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose class is right."""
    right = [net(to_model(x)).argmax(1) == y for x, y in zip(images.split(500), labels.split(500), strict=True)]
    return float(torch.cat(right).double().mean())


def main() -> None:
    """Train one, test it, write it with its facts."""
    parser = argparse.ArgumentParser(description="Train a classifier whose features measure images.")
    parser.add_argument("name", choices=sorted(EPOCHS))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    (images, labels), test = {"fashion": fashion, "digits": digits}[args.name]()
    start = time.process_time()
    net = train(images, labels, EPOCHS[args.name])
    seconds, right = time.process_time() - start, accuracy(net, *test)
    facts = {
        "trained_on": f"{args.name}, {len(images):,} images",
        "test_accuracy": f"{right:.4f} of {len(test[0]):,}",
        "epochs": EPOCHS[args.name],
        "batch": BATCH,
        "rate": RATE,
        "decay": DECAY,
        "seed": SEED,
        "torch": torch.__version__,
    }
    state = {k: t.contiguous() for k, t in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    path = args.folder / asset(args.name).name
    # one entry: safetensors writes several in an order that changes from run to run
    write_atomic(path, safetensors.torch.save(state, {"facts": json.dumps(facts)}))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {facts['test_accuracy']} right, {seconds:.0f} s of CPU")


if __name__ == "__main__":
    main()
