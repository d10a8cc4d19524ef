"""Files of images: a grid, a film, an array, a stack of pages, a folder.

`write` chooses by the name: .png, .gif, .npz, .tif; a name without a suffix is a folder with one file an image. Grids
and films are previews of 8 bits; the others hold the stored values of the model's data, and a folder's files can be
read as data again (`image_file`). Each holds the facts of its sampling: PNG text, a GIF comment, the array's
`metadata`, a page's description, the folder's `samples.json`. A folder that was interrupted continues with the missing
images, since image i of a seed is always the same.

Files are written atomically, so nobody reads half a picture. A folder and an array are written batch by batch, so the
memory that is needed does not depend on the number of images. (Pillow wants all pages of a TIFF at once.)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sfumato.codec.format import EIGHT
from sfumato.conditions.protocol import cycled
from sfumato.conditions.table import Attributes
from sfumato.data.formats.png import encode
from sfumato.diffusion import State
from sfumato.diffusion.condition import Condition
from sfumato.errors import UserError
from sfumato.files import replacing, write_atomic
from sfumato.generate.pictures import LAYOUT_KEY, evenly, grid, scale_for, single, strip
from sfumato.generate.sample import OnState, Report, Sampling, not_finite
from sfumato.generate.shared import stream
from sfumato.model import Model
from sfumato.ranks import World, together

MANIFEST = "samples.json"
MOST_COLUMNS = 32
"""The most conditions that the columns of a grid follow."""
WIDEST, TALLEST = 5.0, 0.25
"""Width over height of a grid between which its columns follow the conditions: two rows of ten are the widest."""
SOFTWARE = {"Software": "sfumato"}


@dataclass(frozen=True, eq=False)
class Samples:
    """Images that are sampled while they are written, as `Sampling.stream` has them; `facts` are stored in the
    files. Of several processes (`world`) rank 0 writes, and the others `follow`."""

    model: Model
    sampling: Sampling
    num: int
    seed: int = 0
    condition: Condition | None = None
    batch: int = 64
    facts: Mapping[str, Any] = field(default_factory=dict)
    report: Report | None = None
    world: World = World()
    broken: list[int] = field(default_factory=list)
    """Indices of images that are not finite numbers, filled while they are sampled."""

    def stream(self, first: int = 0, on_state: OnState | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield batches from image `first` on, as `Sampling.stream`."""
        options: dict[str, Any] = {"condition": self.condition, "batch": self.batch, "report": self.report}
        with self.world.ordered("stream", first=first):
            for start, x in stream(
                self.sampling, self.num - first, self.seed,
                world=self.world, first=first, on_state=on_state, **options,
            ):  # fmt: skip
                self.broken.extend((start + not_finite(x)).tolist())
                yield start, x

    def follow(self) -> int:
        """Sample what rank 0 samples, to the end of the job, and return its exit code; raises `UserError` where the
        model or the times here are not those of rank 0."""
        code = 0
        for name, values in self.world.orders():
            if name == "stream":
                for _ in self.stream(**values):
                    pass
            elif name != "end":
                getattr(self, name)(**values)
            code = int(values.get("code", 0))
        return code

    def agree(self) -> None:
        """Have the other processes check that they sample the same."""
        with self.world.ordered("compare", key=self._key):
            pass

    def compare(self, key: str) -> None:
        """Check that rank 0 samples the same; raises `UserError`."""
        if key != self._key:
            raise UserError(
                f"{self.model.path} is not the same here as at rank 0: give every machine the same file, and options"
            )

    @property
    def _key(self) -> str:
        times, labels = self.sampling.times.tolist(), self.labels.tolist()
        return hashlib.sha256(json.dumps([self.facts, self.num, self.batch, times, labels]).encode()).hexdigest()

    @together
    def frames(self) -> Frames:
        """Sample, and return the frames of a film."""
        frames = Frames(self.model.codec.shown, self.num, len(self.sampling.times) - 1)
        for _ in self.stream(on_state=frames):
            pass
        frames.add_up(self.world, self.sampling.shape)
        return frames

    def all(self) -> Tensor:
        """Return every x_0, (num, C, H, W)."""
        return torch.cat([x for _, x in self.stream()])

    def values(self) -> Iterator[NDArray[Any]]:
        """Yield the images as stored values, (n, H, W, C), batch by batch."""
        for _, x in self.stream():
            yield self.model.codec.decode(x).permute(0, 2, 3, 1).numpy()

    @cached_property
    def labels(self) -> NDArray[np.str_]:
        """The conditions as texts, of which image i has text i modulo their number; none of unconditional samples."""
        if self.condition is None or self.model.vocabulary is None:
            return np.array([], np.str_)
        used = cycled(self.condition, min(self.num, len(self.condition)))
        return np.array(self.model.vocabulary.describe(used), np.str_)


def write(samples: Samples, out: Path) -> Path:
    """Generate images into a file or a folder and return its path; raises `UserError` for an unknown suffix, a folder
    that holds other files, or a path that can't be written, before anything is generated."""
    suffix = out.suffix.lower()
    if out.is_dir() or not suffix:
        return _folder(samples, out)
    if suffix not in _WRITERS:
        raise UserError(
            f"{out}: the name must end in .png (grid), .gif (film), .npz (array), .tif (pages), or be a folder's"
        )
    check_writable(out)
    samples.agree()
    _WRITERS[suffix](samples, out)
    return out


def check_writable(out: Path) -> None:
    """Raise `UserError` where a file can't be written."""
    try:
        write_atomic(probe := out.with_name(f".{out.name}.probe"), b"")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror}; choose another path") from None


def _grid(samples: Samples, out: Path) -> None:
    rows = 0 if samples.condition is None else len(samples.condition)
    columns = columns_for(samples.num, rows, *samples.model.codec.image_shape[1:])
    save_png(grid(samples.model.codec.shown(samples.all()), columns), out, {**samples.facts, "num": samples.num})


def columns_for(num: int, conditions: int, height: int, width: int) -> int | None:
    """Return the columns of a grid of images that cycle through conditions, as near to a square as possible.

    A multiple of the conditions is preferred, so that a column shows one condition, else one of their divisors, so that
    a row begins with the same few. None, any number, where there are no two conditions or more than `MOST_COLUMNS`, or
    all such grids are wider than `WIDEST` or higher than `TALLEST`.
    """

    def ratio(columns: int) -> float:
        return columns * width / (-(-num // columns) * height)

    if not 1 < conditions <= MOST_COLUMNS:
        return None
    multiples = range(conditions, num + 1, conditions)
    divisors = [each for each in range(2, min(conditions, num + 1)) if conditions % each == 0]
    for candidates in (multiples, divisors):
        fitting = [each for each in candidates if TALLEST <= ratio(each) <= WIDEST]
        if fitting:
            return min(fitting, key=lambda each: (round(abs(math.log(ratio(each))), 6), -each))
    return None


def _film(samples: Samples, out: Path) -> None:
    film(samples.frames().pictures(), out, text=json.dumps(samples.facts))


def _array(samples: Samples, out: Path) -> None:
    """Write the file that `np.savez_compressed` writes of the whole arrays."""
    height, width = samples.model.codec.image_shape[1:]
    num, shape = samples.num, (samples.num, height, width, samples.model.codec.image_shape[0])
    with replacing(out) as file, ZipFile(file, "w", ZIP_DEFLATED) as archive:
        _member(archive, "images", samples.model.codec.format.dtype, shape, samples.values())
        metadata = np.array(json.dumps(samples.facts))
        _member(archive, "metadata", metadata.dtype, (), [metadata])
        if samples.condition is not None:
            _member(archive, "labels", samples.labels.dtype, (num,), _cycle(samples.labels, num))
        if isinstance(samples.condition, Attributes):
            table = samples.condition.table.cpu().numpy()
            _member(archive, "conditions", table.dtype, (num, table.shape[1]), _cycle(table, num))


def _member(
    archive: ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], parts: Iterable[NDArray[Any]]
) -> None:
    """Write an array of which the parts come one after another into an .npz."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        descr = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, descr)
        for part in parts:
            member.write(np.ascontiguousarray(part, dtype).tobytes())


def _cycle(rows: NDArray[Any], num: int) -> Iterator[NDArray[Any]]:
    """Yield `num` rows, of which row i is i modulo their number, some at a time."""
    for start in range(0, num, 1024) if len(rows) else ():
        yield rows[np.arange(start, min(num, start + 1024)) % len(rows)]


def _pages(samples: Samples, out: Path) -> None:
    """Write a TIFF with one page an image, of grey in any format or of bytes with colour."""
    channels, form = samples.model.codec.image_shape[0], samples.model.codec.format
    if channels > 1 and (form != EIGHT or channels not in (3, 4)):
        raise UserError(
            f"{out}: a TIFF holds grey images, or 8-bit images of 3 or 4 channels; these have {channels} channels, "
            f"{form.words}: use .npz or a folder"
        )
    pages = (Image.fromarray(image[..., 0] if channels == 1 else image) for part in samples.values() for image in part)
    with replacing(out) as file:
        next(pages).save(file, "TIFF", save_all=True, append_images=pages, description=json.dumps(samples.facts))


_WRITERS = {".png": _grid, ".gif": _film, ".npz": _array, ".tif": _pages, ".tiff": _pages}


def _folder(samples: Samples, out: Path) -> Path:
    """Write one file an image, beginning with the first that is missing."""
    manifest, facts = out / MANIFEST, json.loads(json.dumps(samples.facts))
    if not manifest.exists():
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is a folder with other files in it: choose a new or an empty folder")
        write_atomic(manifest, json.dumps(facts, indent=2) + "\n")
    elif (old := _read(manifest)) != facts:
        changed = sorted(key for key in old.keys() | facts.keys() if old.get(key) != facts.get(key))
        raise UserError(f"{out} was sampled with another {', '.join(changed)}: choose another folder")
    samples.agree()
    model, codec, labels = samples.model, samples.model.codec, samples.labels
    suffix = image_file(model, np.zeros(codec.image_shape, codec.format.dtype), {})[0]
    first = next((n for n in range(samples.num) if not (out / f"{n:06}{suffix}").exists()), samples.num)
    for start, x in samples.stream(first) if first < samples.num else ():
        for n, image in enumerate(codec.decode(x).numpy(), start):
            text = {**samples.facts, "index": n} | ({"label": str(labels[n % len(labels)])} if len(labels) else {})
            write_atomic(out / f"{n:06}{suffix}", image_file(model, image, text)[1])
    return out


def _read(manifest: Path) -> dict[str, Any]:
    """Return the facts of a folder of samples; none where the file is damaged."""
    try:
        facts = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def image_file(model: Model, image: NDArray[Any], text: Mapping[str, object]) -> tuple[str, bytes]:
    """Return stored values (C, H, W) as a file that can be read as data again: its suffix and its content.

    Integers with 1 or 3 channels are a PNG, also with 2 or 4 where opacity was asked for (`data.channels`); all else is
    an array (H, W, C), without the text.
    """
    channels, form = len(image), model.codec.format
    opacity = channels in (2, 4) and model.config.data.channels == channels
    pixels, content = np.ascontiguousarray(image.transpose(1, 2, 0)), BytesIO()
    if form.levels is None or not (channels in (1, 3) or opacity):
        np.save(content, pixels)
        return ".npy", content.getvalue()
    if form.kind == "16":
        return ".png", encode(pixels, {name: str(value) for name, value in {**SOFTWARE, **text}.items()})
    return ".png", _png(Image.fromarray(pixels[..., 0] if channels == 1 else pixels), text)


def _png(picture: Image.Image, text: Mapping[str, object]) -> bytes:
    """Return a picture as a PNG with facts in its text chunks."""
    info, content = PngInfo(), BytesIO()
    for name, value in {**SOFTWARE, **text}.items():
        info.add_itxt(name, str(value))
    picture.save(content, "PNG", pnginfo=info)
    return content.getvalue()


def save_png(picture: Image.Image, path: Path | str, text: Mapping[str, object] | None = None) -> Path:
    """Write a PNG with facts in its text chunks, such as {"seed": 0}, and a grid's layout, and return the path; Pillow
    reads them as `Image.open(path).text`."""
    layout = {LAYOUT_KEY: picture.info[LAYOUT_KEY]} if LAYOUT_KEY in picture.info else {}
    write_atomic(Path(path), _png(picture, {**layout, **(text or {})}))
    return Path(path)


class Frames:
    """Collects a film's frames, as an `on_state` of the sampling loop: of the first `num` images, at `limit` of the
    sampler's steps at most, evenly spaced, both ends included. `shown` is the codec's."""

    def __init__(self, shown: Callable[[Tensor], Tensor], num: int, steps: int, limit: int = 36) -> None:
        self.shown, self.num = shown, num
        self._frames: dict[int, Tensor | None] = dict.fromkeys(evenly(steps + 1, limit))

    def __call__(self, first: int, state: State) -> None:
        """Store a batch's state if its step is one of the film's."""
        images = self.seen(state, max(0, self.num - first))
        if state.step not in self._frames or not len(images):
            return
        frame = self._frames[state.step]
        if frame is None:
            frame = self._frames[state.step] = images.new_zeros(self.num, *images.shape[1:])
        frame[first : first + len(images)] = images

    def add_up(self, world: World, shape: tuple[int, ...]) -> None:
        """Collect the images of all processes, each of which has some of every frame; `shape` is x_0's."""
        if not world.alone:
            none = torch.zeros_like(self.shown(torch.zeros(1, *shape))).repeat(self.num, 1, 1, 1)
            self._frames = {
                step: world.sum(none.clone() if frame is None else frame) for step, frame in self._frames.items()
            }

    def seen(self, state: State, count: int) -> Tensor:
        """Return the first `count` images of a state as a frame shows them, bytes."""
        return self.shown(state.x[:count]).cpu()

    def pictures(self, columns: int | None = None, width: int = 480) -> list[Image.Image]:
        """Return one grid a frame, each about `width` pixels wide."""
        frames = [frame for frame in self._frames.values() if frame is not None]
        scale = scale_for(grid(frames[0], columns, scale=1).width, width)
        return [grid(frame, columns, scale=scale) for frame in frames]


def film(
    frames: Sequence[Image.Image], path: Path | str, seconds: float = 4.0, hold: float = 2.5, text: str = ""
) -> Path:
    """Write a looping GIF of pictures of one size, and return the path. The last one stays for `hold` seconds, all
    others take `seconds` together; the text, in ASCII, becomes a comment.

    Every frame has its own palette: the 256 greys, or 256 colours cut from that frame. (One palette for the whole film
    would spend most colours on the noise.)
    """
    assert frames, "a film needs a frame"
    each = max(20, round(1000 * seconds / max(1, len(frames) - 1)))
    durations = [each] * (len(frames) - 1) + [round(1000 * hold)]
    first, *rest = [_palette(frame) for frame in frames]
    content = BytesIO()
    options: dict[str, Any] = {"comment": text.encode("ascii", "replace")[:255]} if text else {}
    first.save(content, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False, **options)
    write_atomic(Path(path), content.getvalue())
    return Path(path)


def _palette(frame: Image.Image) -> Image.Image:
    """Return the frame with at most 256 colours, chosen for it alone."""
    if frame.mode in ("L", "P"):
        return frame
    return frame.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


Row = tuple[str, Sequence[tuple[str, Any]]]
"""Images that belong together, such as an original and its edits: a name, and (caption, uint8 (C, H, W)) of each."""


def write_rows(rows: Sequence[Row], out: Path, facts: Mapping[str, Any]) -> None:
    """Write rows, all tiles of one shape, into one .png, or into a folder with one PNG a tile."""
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    if out.suffix.lower() == ".png" and not out.is_dir():
        names = [name for name, _ in rows] if len(rows) > 1 else []
        images = [np.stack([np.asarray(tile) for _, tile in tiles]) for _, tiles in rows]
        save_png(strip(images, names, [caption for caption, _ in rows[0][1]]), out, text)
        return
    for n, (name, tiles) in enumerate(rows):
        prefix = "" if len(rows) == 1 else f"{n:03d}-"
        for caption, tile in tiles:
            save_png(single(tile), out / f"{prefix}{caption.replace(' ', '-')}.png", text | {"row": name})
