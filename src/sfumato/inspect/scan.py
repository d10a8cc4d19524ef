"""Scan a collection: each image is decoded once and summarised in a record of a kilobyte.

All later analyses (sizes, brightness, duplicates, outliers) need only the records, which hold

    the file        format, mode, bits a channel, transparency, further frames, a suffix of another format
    the values      depth, channels, whether it is constant; the numbers of `Values`
    the content     size, mean of each channel, contrast (standard deviation of the luma), roughness (half the mean
                    squared difference of neighbouring pixels over the variance, of the luma)
    an identity     128 bits of the SHA-256 of the pixels, equal for exact duplicates
    an appearance   a thumbnail of 16 x 16, and two hashes of 64 bits, of the image and of its mirror image

The values and the identity are of the pixels as training reads them (`Look`): in its depth, without missing data. The
content is that of bytes in the range that training takes. So is the appearance, unless hardly anything would be seen in
that range: then it is that of the values' own range, so that different images do not look alike.

The difference hash has a bit for each of 8 x 8 pairs of neighbours in a thumbnail of 9 x 8: is the right one lighter
(by more than `LIGHTER` grey levels, so that flat paper stays zero in spite of JPEG's noise)? The frequency hash takes
the 8 x 8 lowest frequencies of a cosine transform of a thumbnail of 32 x 32: is the coefficient above their median?
Neither changes much with brightness, size or compression; `duplicates` says how much.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.data.formats.decode import is_array, opened, read_picture
from sfumato.data.formats.fitting import is_grey, kind_of, read_values, rendered, with_channels
from sfumato.data.formats.tiff import is_bands
from sfumato.data.formats.values import FEW, Values
from sfumato.data.mirror import BILINEAR, THUMB, thumbnail
from sfumato.data.sources.protocol import File, Picture, Pixels, Source, Unreadable, encoded, files_of
from sfumato.data.workers import most_workers, run

RECORDER = "sfumato.inspect.scan:recorder"
"""The workers' function."""
LIGHTER = 2
"""Grey levels by which a neighbour must be lighter to count."""

Records = NDArray[np.void]
"""(N,) of `RECORD`."""
Conditions = NDArray[np.float32]
"""(N, A): what is known of each image, a column an attribute, NaN where it is not given."""
WAVES: NDArray[np.float64] = np.cos(np.pi * np.arange(8)[:, None] * (np.arange(32) + 0.5) / 32)
"""(8, 32): the lowest rows of the cosine transform (DCT-II), cos(pi k (n + 1/2) / 32)."""
MIRROR = (-1.0) ** np.arange(8)
"""(8,): the horizontal frequency k of a mirror image has the sign (-1)^k."""
_FAMILY = {"MPO": "JPEG"}  # formats that go by the name of another


@dataclass(frozen=True)
class Look:
    """How pixels are read and seen.

    Attributes:
        background, depth, nodata, channels: as `Form`.
        range: of floats; None stretches each image from its own least to its greatest value.
        clamps: whether values beyond the range are clamped to it.
        inner: the range of the appearance; None takes `range`.
    """

    background: str = "white"
    depth: str = "auto"
    nodata: float | None = None
    channels: int | None = None
    range: tuple[float, float] | None = None
    clamps: bool = False
    inner: tuple[float, float] | None = None


RECORD = np.dtype(
    [
        *((name, "<i8") for name in ("index", "height", "width")),
        *(("format", "S12"), ("mode", "S8"), ("bits", "u1"), ("kind", "S5"), ("channels", "<i4")),
        *((name, "?") for name in ("alpha", "animated", "misnamed", "cut_short", "grey", "constant")),
        *(("mean", "<f4", (3,)), ("contrast", "<f4"), ("roughness", "<f4")),
        *((name, "<u8", (2,)) for name in ("digest", "hashes", "mirrored")),
        ("thumb", "u1", (THUMB, THUMB, 3)),
        *(("values", "<f8", (10,)), ("few", "<f4", (FEW,)), ("num_few", "i1")),
    ]
)
"""`values`, `few` and `num_few` are the attributes of `Values`; `num_few` is -1 for None."""


def scan(
    source: Source,
    indices: NDArray[np.int64],
    on_progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    look: Look = Look(),
) -> tuple[Records, Conditions, list[tuple[int, str]]]:
    """Return records and conditions of the readable images among `indices` (ascending), and (index, reason) of the
    others.

    Files are decoded by worker processes, so that a crash does not end the scan: one a core when `workers` is None,
    none when 0. Images that are not files are read in this process. `on_progress` is called with (images done, in all).
    """
    records, faults = np.zeros(len(indices), RECORD), list[tuple[int, str]]()
    conditions = np.zeros((len(indices), len(source.attributes)), np.float32)
    for done, (i, answer) in enumerate(_answers(source, indices.tolist(), workers, look), 1):
        row = done - 1 - len(faults)
        if isinstance(answer, str):
            faults.append((i, answer))
        else:
            records[row], conditions[row] = answer
            records["index"][row] = i
            records["misnamed"][row] = _misnamed(source.origin(i), records["format"][row].decode())
        if on_progress is not None:
            on_progress(done, len(indices))
    count = len(indices) - len(faults)
    return records[:count], conditions[:count], faults


def _answers(
    source: Source, indices: list[int], workers: int | None, look: Look
) -> Iterator[tuple[int, tuple[Any, tuple[float, ...]] | str]]:
    """Yield each index with the image's record and condition, or why there is none."""
    if (files := encoded(source)) is None:
        yield from ((i, _read(source, i, look)) for i in indices)
        return
    count = min(most_workers(), -(-len(indices) // 16)) if workers is None else workers
    answers = run(RECORDER, json.dumps(asdict(look)).encode(), files_of(files, indices), count)
    for i, answer in zip(indices, answers, strict=True):
        yield i, answer if isinstance(answer, str) else (np.frombuffer(answer, RECORD)[0], files.labels[i][0])


def _read(source: Source, i: int, look: Look) -> tuple[Any, tuple[float, ...]] | str:
    """The record and condition of an image that is not a file, or why there is none."""
    try:
        image = source.read(i)
        return record(image, look), image.condition
    except Unreadable as fault:
        return fault.reason
    except MemoryError:
        return "it needs more memory than is available"


def recorder(setup: bytes) -> Callable[[File], bytes]:
    """Return the workers' function, which makes records; `setup` is a `Look` as JSON."""
    look = Look(**json.loads(setup))
    return lambda file: record(read_picture(file), look, file).tobytes()


def record(image: Picture, look: Look = Look(), file: File | None = None) -> Records:
    """Return the record of an image, of shape (), but for its index, condition and name; raises `Unreadable`. `file` is
    what it was decoded from."""
    out = np.zeros((), RECORD)
    out["animated"] = image.animated
    alpha = image.alpha and look.channels in (2, 4)
    reading = read_values(image, look.background, look.depth, look.nodata, look.range if look.clamps else None, alpha)
    pixels, shown = reading.pixels, rendered(reading.pixels, look.range)
    if look.channels is not None:
        with_channels(pixels[:1, :1], look.channels, alpha)  # as training refuses what it can't convert
    out["height"], out["width"], out["channels"] = pixels.shape
    out["kind"] = kind_of(pixels)
    *numbers, few = reading.values.plain()
    out["values"], out["num_few"] = numbers, -1 if few is None else len(few)
    out["few"][: len(few or ())] = few or ()
    if file is not None and not (is_array(file) or is_bands(file)):
        with opened(file) as header:  # through the same guards as the image itself
            out["format"] = _FAMILY.get(header.format or "", header.format or "")
            out["mode"], out["bits"], out["alpha"] = header.mode, _bits(header), header.has_transparency_data
    _identify(out, pixels)
    _describe(out, shown)
    _picture(out, shown if look.inner is None else rendered(pixels, look.inner))
    out["cut_short"] = out["format"] == b"JPEG" and not out["constant"] and _filled(pixels)
    return out


def values_of(records: Records) -> Values:
    """Return the values of all images together."""
    columns = (records[name].tolist() for name in ("values", "few", "num_few"))
    each = (
        Values.from_plain([*numbers, None if count < 0 else few[:count]])
        for numbers, few, count in zip(*columns, strict=True)
    )
    return Values.joined([Values(), *each])


def difference_hash(rows: NDArray[np.integer]) -> int:
    """Return the 64 bits of the difference hash of a thumbnail's luma, (8, 9) signed; of its mirror `rows[:, ::-1]`."""
    return _packed(rows[:, 1:] - rows[:, :-1] > LIGHTER)


def frequency_hash(low: NDArray[np.floating]) -> int:
    """Return the 64 bits of the frequency hash of the (8, 8) lowest coefficients, that of the constant always 0; the
    mirror image's are low * MIRROR."""
    bits = low > np.sort(low.ravel()[1:])[31]  # the median of 63
    bits[0, 0] = False
    return _packed(bits)


def promised_format(origin: str) -> str:
    """Return the format that the suffix of a name promises; "" where it promises none."""
    return _suffixes().get(Path(origin).suffix.lower(), "")


def _misnamed(origin: str, format: str) -> bool:
    """Whether a name has the suffix of another format."""
    promised = promised_format(origin) or format
    return bool(format) and _FAMILY.get(promised, promised) != format


def _bits(image: Image.Image) -> int:
    """Bits a channel: by the mode, and where Pillow has only bytes for more, by what the file itself says."""
    if image.mode in ("1", "F", "I"):
        return 1 if image.mode == "1" else 32
    if image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        return 16
    return 8


@cache
def _suffixes() -> dict[str, str]:
    """The format of a suffix; suffixes that several formats share are left out."""
    Image.init()
    shared = {".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG", ".apng": "PNG"}
    return Image.registered_extensions() | shared


def _identify(out: Any, pixels: Pixels) -> None:
    """Fill in what depends on the exact values of pixels (H, W, C)."""
    out["grey"] = grey = pixels.shape[2] in (1, 3) and is_grey(pixels)
    plain = np.ascontiguousarray(pixels[..., :1] if grey else pixels)
    head = f"{plain.shape}".encode()
    out["digest"] = np.frombuffer(hashlib.sha256(head + plain.tobytes()).digest()[:16], "<u8")
    out["constant"] = all(bool((part == plain[:1, :1]).all()) for part in (plain[:1], plain))


def _describe(out: Any, pixels: NDArray[np.uint8]) -> None:
    """Fill in the statistics of bytes (H, W, 1 or 3); counts of bytes give exact means for any size."""
    image, luma = _images(pixels)
    counts = np.array(image.histogram()).reshape(-1, 256)
    values, number = np.arange(256.0), pixels.shape[0] * pixels.shape[1]
    out["mean"] = counts @ values / number
    shades = np.array(luma.histogram())
    mean = shades @ values / number
    variance = shades @ (values - mean) ** 2 / number
    out["contrast"] = np.sqrt(variance)
    out["roughness"] = _roughness(luma) / variance if variance else 0.0


def _roughness(luma: Image.Image) -> float:
    """Half the mean squared difference of neighbouring pixels."""
    rows = np.asarray(luma).astype(np.float32)
    steps = [np.diff(rows, axis=axis).ravel() for axis in (0, 1)]
    return float(sum(float(step @ step) for step in steps) / max(1, sum(step.size for step in steps)) / 2)


def _picture(out: Any, pixels: NDArray[np.uint8]) -> None:
    """Fill in the appearance of bytes (H, W, 1 or 3)."""
    image, luma = _images(pixels)
    out["thumb"] = thumbnail(image)
    rows = np.asarray(luma.resize((9, 8), BILINEAR)).astype(np.int16)
    low = WAVES @ np.asarray(luma.resize((32, 32), BILINEAR)).astype(np.float64) @ WAVES.T
    out["hashes"] = difference_hash(rows), frequency_hash(low)
    out["mirrored"] = difference_hash(rows[:, ::-1]), frequency_hash(low * MIRROR)


def _images(pixels: NDArray[np.uint8]) -> tuple[Image.Image, Image.Image]:
    """Bytes as an image, grey where they have no colour, and its luma."""
    grey = is_grey(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    return image, image if grey else image.convert("L")


def _filled(pixels: Pixels) -> bool:
    """Whether an edge 8 pixels wide is exactly the middle grey that JPEG's decoder leaves where data ended early."""
    edges = (pixels[-8:], pixels[:8], pixels[:, -8:], pixels[:, :8])  # any of them, since the image may be turned
    return any(edge[0, 0, 0] == 128 and (edge == 128).all() for edge in edges)


def _packed(bits: NDArray[np.bool_]) -> int:
    """64 bits as one number."""
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")
