"""Where samples go: a grid, a film, an array, a stack of pages, or a folder with one file an image.

Which one is told by the name: .png, .gif, .npz, .tif, and anything without a suffix is a folder. Grids and films are
for looking and of 8 bits; the others keep the depth of the model's images, and a folder's files are such as can be read
as data again (`image_file`). Each carries the facts that it was drawn with: PNG text, a GIF comment, the array's
`metadata`, a page's description, and the folder's `samples.json`, which says that a folder is one of ours. A folder
that was interrupted goes on with the images that are missing, since image i of a seed is the same whenever it is drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sfumato.cli.labels import in_words
from sfumato.codec.pixels import EIGHT
from sfumato.data.formats.png import encode
from sfumato.diffusion import Denoiser, Sampler, State
from sfumato.errors import UserError
from sfumato.files import write_atomic
from sfumato.generate import writers as pictures
from sfumato.generate.sample import generate
from sfumato.report.figures import Frames
from sfumato.weights import Model

__all__ = ["Job", "image_file", "write"]

MANIFEST = "samples.json"


@dataclass(frozen=True)
class Job:
    """What is to be drawn.

    Args:
        model: the model.
        num: how many images.
        seed: which.
        denoiser: predicts.
        sampler: how to step.
        times: (N + 1,) where.
        batch: images at a time.
        conditions: (num, A), or None.
        columns: of a grid; None chooses.
        facts: what to write into the files.
        report: called with (images drawn, in all).
    """

    model: Model
    num: int
    seed: int
    denoiser: Denoiser
    sampler: Sampler
    times: Tensor
    batch: int
    conditions: Tensor | None
    columns: int | None
    facts: dict[str, Any]
    report: Callable[[int, int], None]

    def draw(
        self, first: int = 0, on_state: Callable[[int, State], None] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of the first, (b, C, H, W) values of the model's depth) from image `first` on."""
        conditions = None if self.conditions is None else self.conditions[first:]
        device = next(self.model.net.parameters()).device
        walks = (self.num - first) * (len(self.times) - 1)
        walked = 0

        def step(index: int, state: State) -> None:
            nonlocal walked
            walked += len(state.x) if state.step else 0
            self.report(min(self.num - first, walked * (self.num - first) // walks), self.num - first)
            if on_state is not None:
                on_state(index, state)

        for n, images in generate(
            self.denoiser, self.model.shape, self.num - first, self.seed, self.sampler, self.times, self.batch,
            conditions, first, step, device,
        ):  # fmt: skip
            yield n, self.model.depth.from_model(images)

    def all(self, on_state: Callable[[int, State], None] | None = None) -> Tensor:
        """Return every image, (num, C, H, W) values of the model's depth."""
        return torch.cat([images for _, images in self.draw(on_state=on_state)])

    def shown(self) -> Tensor:
        """Return every image as bytes to look at, (num, C, H, W)."""
        shown: Tensor = self.model.depth.shown(self.all())
        return shown


def write(job: Job, out: Path) -> Path:
    """Draw into a file or a folder, whichever the name says, and return its path.

    Raises:
        UserError: a suffix that is none of ours, a folder that holds something else, or a place that can't be
            written, which is found out before anything is drawn.
    """
    suffix = out.suffix.lower()
    if out.is_dir() or not suffix:
        return _folder(job, out)
    if suffix not in _WRITERS:
        raise UserError(
            f"--out {out}: the name must end in .png (grid), .gif (film), .npz (array), .tif (pages), or be a folder's"
        )
    try:
        write_atomic(probe := out.with_name(f".{out.name}.probe"), b"")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror}; give --out another place") from None
    _WRITERS[suffix](job, out)
    return out


def _grid(job: Job, out: Path) -> None:
    pictures.save_png(pictures.grid(job.shown(), job.columns), out, job.facts | {"num": job.num})


def _film(job: Job, out: Path) -> None:
    frames = Frames(job.num, len(job.times) - 1)
    job.all(frames)
    pictures.film(frames.pictures(), out, text=json.dumps(job.facts))


def _array(job: Job, out: Path) -> None:
    images = job.all().permute(0, 2, 3, 1).numpy()
    told: dict[str, Any] = {}
    if job.conditions is not None:
        told = {"conditions": job.conditions.numpy(), "labels": np.array(in_words(job.model, job.conditions))}
    content = BytesIO()
    np.savez_compressed(content, images=images, metadata=np.array(json.dumps(job.facts)), **told)
    write_atomic(out, content.getvalue())


def _pages(job: Job, out: Path) -> None:
    """Write a TIFF with one page an image, of grey in any depth or of bytes with colour."""
    channels, depth = job.model.shape[0], job.model.depth
    if channels > 1 and (depth != EIGHT or channels not in (3, 4)):
        raise UserError(
            f"--out {out}: a TIFF is of grey images, or of 3 or 4 channels of 8 bits, and these have {channels} "
            f"channels, {depth.words}: use .npz, or a folder"
        )
    images = job.all().permute(0, 2, 3, 1).numpy()
    first, *rest = [Image.fromarray(image[..., 0] if channels == 1 else image) for image in images]
    content = BytesIO()
    first.save(content, "TIFF", save_all=True, append_images=rest, description=json.dumps(job.facts))
    write_atomic(out, content.getvalue())


def image_file(model: Model, image: NDArray[Any], text: Mapping[str, object]) -> tuple[str, bytes]:
    """Return one image as a file that can be read as data again, with the file's suffix.

    Bytes and 16 bits with 1 or 3 channels are a PNG, also with 2 or 4 where opacity was asked for (`data.channels`);
    all else is an array (H, W, C), without the text.

    Args:
        model: which drew it.
        image: (C, H, W), values of its depth.
        text: facts for the file.
    """
    channels = len(image)
    opacity = channels in (2, 4) and model.config.data.channels == channels
    pixels, content = np.ascontiguousarray(image.transpose(1, 2, 0)), BytesIO()
    if model.depth.levels is None or not (channels in (1, 3) or opacity):
        np.save(content, pixels)
        return ".npy", content.getvalue()
    told = {"Software": "sfumato"} | {name: str(value) for name, value in text.items()}
    if model.depth.kind == "16":
        return ".png", encode(pixels, told)
    facts = PngInfo()
    for name, value in told.items():
        facts.add_itxt(name, value)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(content, "PNG", pnginfo=facts)
    return ".png", content.getvalue()


def _folder(job: Job, out: Path) -> Path:
    """Write one file an image, beginning with the first that is not there."""
    manifest = out / MANIFEST
    facts = json.loads(json.dumps(job.facts))
    if not manifest.exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is a folder with other files in it: give --out a new or an empty folder")
        write_atomic(manifest, json.dumps(facts, indent=2) + "\n")
    elif (old := _read(manifest)) != facts:
        changed = sorted(key for key in old.keys() | facts.keys() if old.get(key) != facts.get(key))
        raise UserError(f"{out} holds samples drawn with another {', '.join(changed)}: give --out another folder")
    blank = np.zeros(job.model.shape, job.model.depth.dtype)
    suffix = image_file(job.model, blank, {})[0]
    first = next((n for n in range(job.num) if not (out / f"{n:06}{suffix}").exists()), job.num)
    for start, images in job.draw(first) if first < job.num else ():
        for n, image in enumerate(images, start):
            text = job.facts | {"index": n}
            if job.conditions is not None:
                (text["label"],) = in_words(job.model, job.conditions[n : n + 1])
            write_atomic(out / f"{n:06}{suffix}", image_file(job.model, image.numpy(), text)[1])
    return out


def _read(manifest: Path) -> dict[str, Any]:
    """Return the facts of a folder of samples; damaged ones are facts of nothing."""
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


_WRITERS: dict[str, Callable[[Job, Path], None]] = {
    ".png": _grid,
    ".gif": _film,
    ".npz": _array,
    ".tif": _pages,
    ".tiff": _pages,
}
