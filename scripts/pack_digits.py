"""Pack the `digits` data: 1,797 handwritten digits of 8 x 8 pixels, from scikit-learn's copy of the UCI test set.

    python3 -m venv digits-venv && digits-venv/bin/pip install scikit-learn
    digits-venv/bin/python scripts/pack_digits.py src/sfumato/data/assets/digits.npz

Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, CC BY 4.0.
Each pixel counts the inked dots of a 4 x 4 block, 0 .. 16; the change made here is the scale: k becomes (255 k + 8) div
16, the nearest byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def main() -> None:
    """Read, scale, write the asset."""
    parser = argparse.ArgumentParser(description="Pack the digits that Sfumato ships.")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    data = load_digits()
    counts = data.images.astype(np.int64)
    assert np.array_equal(counts, data.images)
    assert counts.min() == 0
    assert counts.max() == 16
    images = ((255 * counts + 8) // 16).astype(np.uint8)[..., None]
    classes = np.array([str(label) for label in data.target_names])
    np.savez_compressed(args.out, images=images, labels=data.target.astype(np.uint8), classes=classes)
    print(f"{len(images)} digits, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
