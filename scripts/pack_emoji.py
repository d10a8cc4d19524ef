"""Pack the `emoji32` data: Noto emoji, 64x64 with opacity, on white and resized to 32x32, with their category.

    npm pack emoji-datasource-google@16.0.0 && tar xf emoji-datasource-google-16.0.0.tgz
    python scripts/pack_emoji.py package src/sfumato/data/assets/emoji32.npz

Noto Emoji, copyright Google, Apache License 2.0, as packed by emoji-data (Cal Henderson, MIT licence). Variants of skin
have the category of their emoji. The mean of each 2x2 pixels is taken with its opacity, then laid on white.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {
    "Smileys & Emotion": "smiley", "People & Body": "person", "Animals & Nature": "animal", "Food & Drink": "food",
    "Travel & Places": "travel", "Activities": "activity", "Objects": "object", "Symbols": "symbol", "Flags": "flag",
    "Component": "component",
}  # fmt: skip
"""The names that the labels get."""


def read(path: Path) -> np.ndarray:
    """Return an emoji as (32, 32, 3) uint8 on white."""
    image = np.asarray(Image.open(path).convert("RGBA"), dtype=np.float64) / 255
    colour, alpha = image[..., :3] * image[..., 3:], image[..., 3:]
    both = np.concatenate([colour, alpha], axis=2).reshape(32, 2, 32, 2, 4).mean((1, 3))
    return np.uint8(np.round(255 * (both[..., :3] + 1 - both[..., 3:])))


def main() -> None:
    """Read, resize, write the asset."""
    parser = argparse.ArgumentParser(description="Pack the emoji that Sfumato ships.")
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    images, labels, names = [], [], list(CLASSES)
    for emoji in json.loads((args.package / "emoji.json").read_text()):
        for variant in (emoji, *emoji.get("skin_variations", {}).values()):
            path = args.package / "img/google/64" / variant["image"]
            if path.exists():
                images.append(read(path))
                labels.append(names.index(emoji["category"]))
    data = {"images": np.stack(images), "labels": np.uint8(labels), "classes": np.array(list(CLASSES.values()))}
    np.savez_compressed(args.out, **data)
    print(f"{len(images)} images, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
