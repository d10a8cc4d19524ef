"""Draw the `faces` data: 5,000 portraits of 16 x 16 pixels, with the options each was drawn from.

    python3 -m venv faces-venv && faces-venv/bin/pip install dicebear-core==10.7.0 dicebear-styles==10.6.0 \
        resvg-py==0.5.0 numpy pillow
    faces-venv/bin/python scripts/render_faces.py src/sfumato/data/assets/faces.npz --sheet faces.png

The style is DiceBear's "Pixel Art" (CC0 1.0), whose canvas is 16 x 16 units, so a rendering at 16 x 16 is its native
one: every unit is a pixel and nothing is antialiased. These are drawings of nobody. Face i is a pure function of the
text "sfumato/i": DiceBear draws each option from its own hash of that text, so two options are independent of one
another. We only set how often the optional parts appear (its own rates leave too few hats and beards to learn), offer
six soft backgrounds, and leave out a few variants that don't read at this size. A face whose pixels were drawn before
is skipped, and the count goes on.

The array `attributes` (N, K) holds, for each face, the place of each option in that attribute's list of values, so that
later work can condition on more than one label. The label itself is one of four classes: plain, glasses, hat, hat and
glasses.
"""

from __future__ import annotations

import argparse
import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import resvg_py
from dicebear import Avatar, Style
from numpy.typing import NDArray
from PIL import Image

SIZE = 16
CLASSES = ("plain", "glasses", "hat", "hat and glasses")
BACKGROUNDS = {
    "sky": "#b6e3f4",
    "lavender": "#c3b5e8",
    "rose": "#f6c4cf",
    "mint": "#bce6cc",
    "slate": "#8ea4bf",
    "lemon": "#f7e681",
}
# Left out: hair of scattered single pixels, and mouths that at this size read as a smear on the chin.
HAIR_LEFT_OUT = {"long15", "short11", "short12"}
MOUTHS_LEFT_OUT = {"happy03", "happy04", "happy05", "sad02", "sad03", "sad08", "sad09", "sad10"}
OPTIONS = {
    "size": SIZE,
    "backgroundColor": list(BACKGROUNDS.values()),
    "glassesProbability": 35,
    "hatProbability": 30,
    "beardProbability": 15,
    "accessoriesProbability": 15,
}
COLOURS = ("skin", "hair", "clothing", "eyes", "hat", "glasses")


def attribute_values(style: dict) -> dict[str, list[str]]:
    """Return every attribute's name and the values it can take, in the order that the numbers count."""
    values = {
        "hair": ["short", "long"],
        "glasses": ["none", "clear", "dark"],
        "hat": ["none", *style["components"]["hat"]["variants"]],
        "beard": ["none", *style["components"]["beard"]["variants"]],
        "earrings": ["none", *style["components"]["accessories"]["variants"]],
        "mouth": ["happy", "sad"],
        "clothes": list(style["components"]["clothes"]["variants"]),
        "background": list(BACKGROUNDS),
    }
    values |= {f"{name} colour": list(style["colors"][name]["values"]) for name in COLOURS}
    return values


def attribute_row(options: dict) -> dict[str, str]:
    """Return the value of every attribute, read from the options that DiceBear says it drew with."""
    frame = options.get("glassesVariant", "none")
    names = {code: name for name, code in BACKGROUNDS.items()}
    row = {
        "hair": "long" if options["hairVariant"].startswith("long") else "short",
        "glasses": {"none": "none", "ligh": "clear", "dark": "dark"}[frame[:4]],
        "hat": options.get("hatVariant", "none"),
        "beard": options.get("beardVariant", "none"),
        "earrings": options.get("accessoriesVariant", "none"),
        "mouth": "happy" if options["mouthVariant"].startswith("happy") else "sad",
        "clothes": options["clothesVariant"],
        "background": names[options["backgroundColor"][0]],
    }
    return row | {f"{name} colour": options.get(f"{name}Color", [""])[0] for name in COLOURS}


def allowed(style: dict, part: str, left_out: set[str]) -> list[str]:
    """Return the variants of a part that are drawn."""
    return [name for name in style["components"][part]["variants"] if name not in left_out]


def draw(style: Style, seed: str, options: dict) -> tuple[NDArray[np.uint8], dict]:
    """Return one face (16, 16, 3) and the options that it was drawn with."""
    avatar = Avatar(style, {"seed": seed, **OPTIONS, **options})
    png = resvg_py.svg_to_bytes(svg_string=avatar.to_string(), width=SIZE, height=SIZE, skip_system_fonts=True)
    rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    assert rgba.shape == (SIZE, SIZE, 4)
    assert rgba[..., 3].min() == 255
    return rgba[..., :3].copy(), avatar.to_json()["options"]


def render(num: int) -> dict[str, np.ndarray]:
    """Return the arrays of the asset: images, labels, classes, attributes and what their numbers mean."""
    definition = json.loads(files("dicebear_styles").joinpath("pixel-art.json").read_text("utf-8"))
    style, values = Style(definition), attribute_values(definition)
    variants = {
        "hairVariant": allowed(definition, "hair", HAIR_LEFT_OUT),
        "mouthVariant": allowed(definition, "mouth", MOUTHS_LEFT_OUT),
    }
    images, attributes, seen, i = [], [], set(), 0
    while len(images) < num:
        pixels, options = draw(style, f"sfumato/{i}", variants)
        i += 1
        if pixels.tobytes() in seen:
            continue
        seen.add(pixels.tobytes())
        row = attribute_row(options)
        images.append(pixels)
        # A colour of a part that is not worn was never drawn: 255 says that there is none.
        attributes.append([values[k].index(row[k]) if row[k] in values[k] else 255 for k in values])
    table = np.array(attributes, np.uint8)
    names = list(values)
    worn = (table[:, [names.index("hat"), names.index("glasses")]] > 0).astype(np.uint8)
    return {
        "images": np.stack(images),
        "labels": (2 * worn[:, 0] + worn[:, 1]).astype(np.uint8),
        "classes": np.array(CLASSES),
        "attributes": table,
        "attribute_values": np.array(json.dumps(values)),
    }


def contact_sheet(images: NDArray[np.uint8], path: Path, columns: int = 24, rows: int = 14, scale: int = 4) -> None:
    """Write the first faces side by side, enlarged without smoothing, to look at."""
    sheet = np.full((rows * (SIZE + 2), columns * (SIZE + 2), 3), 255, np.uint8)
    for i, image in enumerate(images[: rows * columns]):
        y, x = (SIZE + 2) * (i // columns) + 1, (SIZE + 2) * (i % columns) + 1
        sheet[y : y + SIZE, x : x + SIZE] = image
    Image.fromarray(sheet).resize((sheet.shape[1] * scale, sheet.shape[0] * scale), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Render, write the asset, and say what is in it."""
    parser = argparse.ArgumentParser(description="Draw the faces that Sfumato ships.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    arrays = render(args.num)
    np.savez_compressed(args.out, **arrays)
    if args.sheet:
        contact_sheet(arrays["images"], args.sheet)
    counts = np.bincount(arrays["labels"], minlength=len(CLASSES))
    print(
        f"{args.num} faces, {args.out.stat().st_size / 1e6:.2f} MB:", dict(zip(CLASSES, counts.tolist(), strict=True))
    )


if __name__ == "__main__":
    main()
