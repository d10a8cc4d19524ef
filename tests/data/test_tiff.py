"""TIFF of many bands and of deep colour, put together by hand from the specification's directory entries."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pytest

from sfumato.data.formats.decode import header_size, read_picture
from sfumato.data.formats.fitting import flattened
from sfumato.data.sources.protocol import Blob, Unreadable

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (11, 7, 5)).astype(np.uint16)


def tiff(
    array: np.ndarray, order: str = "<", packing: int = 1, apart: bool = False, block: tuple[int, int] | None = None,
    rows: int = 4, differences: bool = False, following: int = 0, **tags: int | list[int],
) -> Blob:  # fmt: skip
    """A file of one page: strips of `rows`, or tiles of `block`; bands chunky, or one after another."""
    height, width, samples = array.shape
    planes = [array[..., k : k + 1] for k in range(samples)] if apart else [array]
    pieces = []
    for plane in planes:
        high, wide = block or (rows, width)
        for top in range(0, height, high):
            for left in range(0, width, wide):
                piece = plane[top : top + high, left : left + wide]
                if block:  # tiles are whole
                    piece = np.pad(piece, ((0, high - piece.shape[0]), (0, wide - piece.shape[1]), (0, 0)))
                if differences:
                    piece = np.concatenate([piece[:, :1], np.diff(piece, axis=1)], axis=1)
                data = piece.astype(array.dtype.newbyteorder(order)).tobytes()
                pieces.append(zlib.compress(data) if packing == 8 else data)
    starts, at = [], 8
    for piece in pieces:
        starts.append(at)
        at += len(piece)
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    entries: dict[int, int | list[int]] = {
        256: width, 257: height, 258: [8 * array.itemsize] * samples, 259: packing, 262: 1, 277: samples,
        284: 2 if apart else 1, 317: 2 if differences else 1, 339: [kind] * samples,
    }  # fmt: skip
    lengths = [len(piece) for piece in pieces]
    entries |= (
        {322: block[1], 323: block[0], 324: starts, 325: lengths} if block else {273: starts, 278: rows, 279: lengths}
    )
    entries |= {int(name[1:]): value for name, value in tags.items()}
    extra, fields, after = b"", b"", at + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack(f"{order}I", after + len(extra))
        fields += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    return Blob(
        head
        + b"".join(pieces)
        + struct.pack(f"{order}H", len(entries))
        + fields
        + struct.pack(f"{order}I", following)
        + extra
    )


def pixels(file: Blob) -> np.ndarray:
    return read_picture(file).pixels


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packing", [1, 8])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("block", [None, (4, 3)])
@pytest.mark.parametrize("differences", [False, True])
def test_every_layout_holds_the_same_bands(order, packing, apart, block, differences) -> None:
    file = tiff(DEEP, order, packing, apart, block, differences=differences)
    assert np.array_equal(pixels(file), DEEP)
    assert header_size(file) == (11, 7)


@pytest.mark.parametrize(("dtype", "becomes"), [("u1", "u1"), ("i2", "f4"), ("f4", "f4"), ("f8", "f4"), ("u2", "u2")])
def test_numbers_keep_their_values(dtype: str, becomes: str) -> None:
    bands = (100 * RNG.random((6, 5, 6))).astype(dtype)
    got = pixels(tiff(bands))
    assert got.dtype == np.dtype(becomes)
    assert np.array_equal(got, bands.astype(np.float32) if becomes == "f4" else bands)


def test_deep_colour_and_its_opacity() -> None:
    assert np.array_equal(pixels(tiff(DEEP[..., :3], _262=2)), DEEP[..., :3])
    clear = tiff(DEEP[..., :4], _262=2, _338=2)
    picture = read_picture(clear)
    assert np.array_equal(picture.pixels, DEEP[..., :4])
    ink, a = DEEP[..., :3].astype(float), DEEP[..., 3:4] / 65535
    assert np.array_equal(flattened(picture, "white"), np.rint(a * ink + (1 - a) * 65535))
    bands = read_picture(tiff(DEEP[..., :4], _262=2, _338=0))  # a fourth band, not opacity
    assert np.array_equal(flattened(bands, "white"), DEEP[..., :4])


def test_further_pages_are_told_of() -> None:
    assert read_picture(tiff(DEEP, following=8)).animated
    assert not read_picture(tiff(DEEP)).animated


def test_it_is_turned() -> None:
    file = tiff(DEEP, _274=6)
    assert np.array_equal(pixels(file), np.rot90(DEEP, -1))
    assert header_size(file) == (7, 11)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (tiff(DEEP, _257=400), "its strips don't reach"),
        (tiff(DEEP, _279=[10, 10, 10]), "before its last row"),
        (tiff(DEEP, _256=60_000, _257=60_000), "too large"),
        (tiff(DEEP, _277=5000), "too large"),
        (tiff(np.zeros_like(DEEP), packing=8, _259=1), "before its last row"),
        (tiff(DEEP, _259=8), "damaged"),
        (tiff(DEEP, _322=0, _323=0, _324=[8], _325=[8]), "blocks of no size"),
        (tiff(np.full((2, 2, 5), np.inf, np.float32)), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(file: Blob, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        pixels(file)


def written(bands: np.ndarray, **options: object) -> Blob:
    """The bands as tifffile writes them."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    apart = options.get("planarconfig") == "separate"
    content = io.BytesIO()
    if bands.shape[2] == 1:
        bands, options = bands[..., 0], {key: value for key, value in options.items() if key != "planarconfig"}
    else:
        bands, options = bands.transpose(2, 0, 1) if apart else bands, {"planarconfig": "contig"} | options
    tifffile.imwrite(content, bands, photometric="minisblack", **options)
    return Blob(content.getvalue())


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("u2", {"compression": "lzw"}),
        ("u2", {"compression": "lzw", "predictor": 2, "tile": (16, 16)}),
        ("f4", {"compression": "deflate", "predictor": 3}),
        ("f8", {"compression": "lzw", "predictor": 3, "tile": (16, 16), "byteorder": ">"}),
        ("u1", {"compression": "zstd", "planarconfig": "separate"}),
        ("i2", {"compression": "packbits"}),
        ("f4", {"compression": "lzw", "planarconfig": "separate", "tile": (16, 16)}),
    ],
)
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_compressions_of_bytes_need_no_extra(
    dtype: str, options: dict[str, object], bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by tifffile, read without it."""
    values = (100 * RNG.random((40, 30, bands)) - (50 if dtype in ("i2", "f4", "f8") else 0)).astype(dtype)
    file = written(values, **options)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert np.array_equal(pixels(file), values.astype(np.float32) if dtype[0] in "if" else values)
    assert header_size(file) == (40, 30)


@pytest.mark.parametrize(("dtype", "options"), [("u2", {"compression": "png"}), ("f4", {"compression": "lerc"})])
def test_the_extra_reads_what_is_not_read_here(
    dtype: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by tifffile; and refused with the name of the extra where it isn't installed."""
    bands = (100 * RNG.random((40, 30, 4))).astype(dtype)
    file = written(bands, **options)
    assert np.array_equal(pixels(file), bands)
    assert header_size(file) == (40, 30)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(Unreadable, match=r"need tifffile: pip install 'sfumato\[tiff\]'"):
        pixels(file)


@pytest.mark.parametrize("tags", [{"_259": 7}, {"_317": 3}, {"_258": [12] * 5}, {"_258": [16, 16, 8, 16, 16]}])
def test_other_forms_are_refused_without_the_extra(tags: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(Unreadable, match="need tifffile"):
        pixels(tiff(DEEP, **tags))


def test_big_tiffs_keep_their_bands() -> None:
    assert np.array_equal(pixels(written(DEEP, bigtiff=True, byteorder="<")), DEEP)
    with pytest.raises(Unreadable, match="a big-endian BigTIFF"):
        pixels(written(DEEP, bigtiff=True, byteorder=">"))


EIGHT = RNG.integers(0, 256, (11, 7, 5)).astype(np.uint8)


@pytest.mark.parametrize(
    ("bands", "tags"),
    [
        (2, {}), (3, {}), (4, {}),
        (2, {"_338": 0}), (3, {"_338": [0, 0]}), (4, {"_338": [0, 0, 0]}), (4, {"_262": 2, "_338": 0}),
    ],
)  # fmt: skip
def test_bytes_of_any_number_of_bands_are_kept(bands: int, tags: dict[str, int]) -> None:
    """MinIsBlack, or RGB and a band whose meaning is not given."""
    picture = read_picture(tiff(EIGHT[..., :bands], **tags))
    assert np.array_equal(picture.pixels, EIGHT[..., :bands])
    assert not picture.alpha


def test_usual_colour_and_opacity_stay() -> None:
    assert np.array_equal(pixels(tiff(EIGHT[..., :3], _262=2)), EIGHT[..., :3])
    for bands, tags in ((4, {"_262": 2, "_338": 2}), (4, {"_262": 2}), (2, {"_338": 2})):
        picture = read_picture(tiff(EIGHT[..., :bands], **tags))
        assert picture.alpha
        wanted = EIGHT[..., :bands] if bands == 4 else EIGHT[..., [0, 0, 0, 1]]
        assert np.array_equal(picture.pixels, wanted), tags


def test_opacity_that_colours_are_multiplied_with() -> None:
    """ExtraSamples 1, associated: the stored grey is a times the grey that is meant."""
    picture = read_picture(tiff(np.dstack([np.full((3, 3), 60, np.uint8), np.full((3, 3), 120, np.uint8)]), _338=1))
    assert picture.alpha
    assert picture.pixels[1, 1].tolist() in ([127, 127, 127, 120], [128, 128, 128, 120])


@pytest.mark.parametrize("dtype", ["i1", "i2", "f2", "f8"])
def test_one_band_of_signed_integers_or_other_floats(dtype: str) -> None:
    values = np.array([[-100, 0, 100], [1, 2, 3]]).astype(dtype)[..., None]
    got = pixels(tiff(values))
    assert got.dtype == np.float32
    assert np.array_equal(got, values.astype(np.float32))


@pytest.mark.parametrize("missing", [256, 257, 258, 262])
def test_a_header_without_a_size_is_damaged(missing: int) -> None:
    """Bytes cut away must not turn a picture into another one of a single row."""
    data = bytearray(tiff(DEEP).data)
    (directory,) = struct.unpack_from("<I", data, 4)
    at = next(k for k in range(directory + 2, len(data), 12) if struct.unpack_from("<H", data, k)[0] == missing)
    struct.pack_into("<H", data, at, 300)
    with pytest.raises(Unreadable, match="damaged"):
        pixels(Blob(bytes(data)))


@pytest.mark.parametrize("tags", [{"_259": 5}, {"_259": 7}, {"_258": [16, 16, 8, 16, 16]}])
def test_what_the_extra_cannot_read_is_damaged(tags: dict[str, int]) -> None:
    pytest.importorskip("imagecodecs")
    with pytest.raises(Unreadable, match="damaged"):
        pixels(tiff(DEEP, **tags))


def test_mutated_files_are_read_or_refused() -> None:
    """Whatever a byte becomes: pixels or `Unreadable`, and never for long."""
    good = tiff(DEEP, packing=8, block=(4, 3)).data
    for seed in range(400):
        rng = np.random.default_rng(seed)
        data = bytearray(good)
        for place in rng.integers(0, len(data), 1 + seed % 4):
            data[place] = rng.integers(0, 256)
        try:
            assert pixels(Blob(bytes(data))).size
        except Unreadable:
            continue
