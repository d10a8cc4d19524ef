"""Pack the `fashion` data: 5,000 of Fashion-MNIST's 60,000 training images, 500 of each class.

    apt-get install dataset-fashion-mnist
    python scripts/pack_fashion.py /usr/share/datasets/fashion-mnist src/sfumato/data/assets/fashion.npz

Xiao, Rasul and Vollgraf (2017), "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
MIT licence, copyright 2017 Zalando SE. The subset is the first 500 images of each class, in the order of the original
file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sfumato.data.sources.builtin import FASHION_CLASSES
from sfumato.data.sources.published import find_idx, idx_source


def main() -> None:
    """Read, choose, write the asset."""
    parser = argparse.ArgumentParser(description="Pack the part of Fashion-MNIST that Sfumato ships.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=500)
    args = parser.parse_args()
    found = find_idx(args.folder)
    assert found is not None
    arrays = idx_source(found).arrays
    images, labels = arrays.images, arrays.labels.conditions[:, 0].astype(np.uint8)
    keep = np.sort(np.concatenate([np.flatnonzero(labels == k)[: args.each] for k in range(len(FASHION_CLASSES))]))
    np.savez_compressed(args.out, images=images[keep], labels=labels[keep], classes=np.array(FASHION_CLASSES))
    print(f"{len(keep)} images, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
