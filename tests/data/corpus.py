"""Two hundred good, odd and bad files, each with what must become of it.

    for case in cases(): case.data is written under case.name, and then either
        case.pixels    are what reading gives, within case.tolerance levels (lossy formats have one), or
        case.reason    matches the reason for which the file is left out

Expected pixels are computed here from the arrays that went into the files, never read back. The files are written by
Pillow or put together byte by byte where Pillow can't.
"""

from __future__ import annotations

import io
import struct
import zipfile
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from .corpus_bad import bombs, damaged, disguised, foreign, truncated
from .encode import Case, adam7, chunk, over, packed, png, rows, saved

RNG = np.random.default_rng(20)
RGB = RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (9, 12), dtype=np.uint8)
ALPHA = np.resize(np.array([0, 1, 64, 128, 200, 254, 255], np.uint8), (9, 12))
BITS = RNG.random((9, 12)) < 0.5
SIXTEEN = RNG.integers(0, 65536, (9, 12)).astype(np.uint16)
SIXTEEN[0, :4] = 0, 128, 129, 65535
PLACES = RNG.integers(0, 4, (9, 12)).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
Y, X = np.mgrid[:40, :60]
SMOOTH = np.stack([4 * X, 6 * Y, 255 - 4 * X], axis=-1).astype(np.uint8)
"""A colour ramp, which lossy formats keep within a few levels; no two of its eight orientations are alike."""


def cases() -> list[Case]:
    """Every case, in order."""
    groups = (modes, sixteen_bits, floats, transparent, lossy, orientations, frames, shapes, names, polyglots)
    return [case for group in (*groups, damaged, truncated, bombs, disguised, foreign) for case in group()]


def modes() -> list[Case]:
    """Plain modes in every lossless format."""
    grey, rgb, bits = Image.fromarray(GREY), Image.fromarray(RGB), Image.fromarray(BITS)
    palette = Image.fromarray(PLACES, "P")
    palette.putpalette(COLOURS.tobytes())
    found = []
    lossless: dict[str, dict[str, object]] = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}
    lossless |= {"JPEG2000": {"irreversible": False}, "QOI": {}}
    for kind, options in lossless.items():
        found.append(Case(f"rgb.{kind}", saved(rgb, kind, **options), RGB))
        if kind != "QOI":
            three = GREY[..., None].repeat(3, 2)  # WebP has no grey
            found.append(
                Case(f"grey.{kind}", saved(grey, kind, **options), three if kind == "WEBP" else three[..., :1])
            )
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        found.append(Case(f"bits.{kind}", saved(bits, kind), (BITS * np.uint8(255))[..., None]))
    for kind in ("PNG", "BMP", "TIFF", "GIF"):
        found.append(Case(f"palette.{kind}", saved(palette, kind), COLOURS[PLACES]))
    for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        found.append(Case(f"{how}.tif", saved(rgb, "TIFF", compression=how), RGB))
    for depth in (1, 2, 4):
        levels = (PLACES % 2**depth).astype(np.uint8)
        data = png(12, 9, packed(levels, depth), depth, 0)
        found.append(Case(f"grey of {depth} bits.png", data, (levels * (255 // (2**depth - 1)))[..., None]))
    for depth in (2, 4):
        table = chunk(b"PLTE", COLOURS.tobytes())
        data = png(12, 9, packed(PLACES, depth), depth, 3, extra=table)
        found.append(Case(f"palette of {depth} bits.png", data, COLOURS[PLACES]))
    found += [
        Case("interlaced.png", png(12, 9, adam7(RGB), 8, 2, interlaced=True), RGB),
        Case("interlaced grey.png", png(12, 9, adam7(GREY), 8, 0, interlaced=True), GREY[..., None]),
        Case(
            "plain P1.pbm", b"P1\n# a remark\n3 2\n1 0 1\n0 1 0\n", np.array([[[0], [255], [0]], [[255], [0], [255]]])
        ),
        Case("plain P2.pgm", b"P2\n3 1\n255\n0 7 255\n", np.array([[[0], [7], [255]]])),
        Case("plain P3.ppm", b"P3\n2 1\n255\n1 2 3 4 5 6\n", np.array([[[1, 2, 3], [4, 5, 6]]])),
        Case("of 100 levels.pgm", b"P5 3 1 100\n" + bytes([0, 50, 100]), np.array([[[0], [128], [255]]]), tolerance=1),
        Case("profile.png", saved(rgb, "PNG", icc_profile=profile()), RGB),
        Case("gamma.png", png(12, 9, rows(RGB), 8, 2, extra=chunk(b"gAMA", struct.pack(">I", 100_000))), RGB),
    ]
    inks = RNG.integers(0, 256, (9, 12, 4), dtype=np.uint8)
    wide = inks.astype(float)
    mixed = (255 - wide[..., :3]) * (255 - wide[..., 3:]) / 255
    found.append(Case("inks.tif", saved(Image.fromarray(inks, "CMYK"), "TIFF"), mixed, tolerance=1))
    ycc = RNG.integers(98, 159, (9, 12, 3)).astype(np.uint8)
    y, cb, cr = (ycc[..., k].astype(float) - (128 if k else 0) for k in range(3))
    mixed = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1).clip(0, 255)
    found.append(Case("ycc.tif", saved(Image.fromarray(ycc, "YCbCr"), "TIFF"), mixed, tolerance=2))
    found.append(Case("lab.tif", saved(Image.new("LAB", (4, 4)), "TIFF"), reason="LAB"))
    return found


@cache
def profile() -> bytes:
    """A colour profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def sixteen_bits() -> list[Case]:
    """16 bits a channel: scaled and never clipped; colour is the high byte."""
    scaled = np.floor(SIXTEEN / 257 + 0.5)[..., None]
    image, big = Image.fromarray(SIXTEEN), SIXTEEN.astype(">u2").tobytes()
    deep = RNG.integers(0, 65536, (9, 12, 3)).astype(np.uint16)
    opaque = np.concatenate([deep, np.full((9, 12, 1), 65535, np.uint16)], axis=-1)
    return [
        Case("sixteen.png", saved(image, "PNG"), scaled),
        Case("sixteen.tif", saved(image, "TIFF"), scaled),
        Case("sixteen.jp2", saved(image, "JPEG2000"), scaled),
        Case("sixteen big.tif", saved(Image.frombytes("I;16B", (12, 9), big), "TIFF"), scaled),
        Case("sixteen.pgm", b"P5 12 9 65535\n" + big, scaled),
        Case("sixteen interlaced.png", png(12, 9, adam7(SIXTEEN), 16, 0, interlaced=True), scaled),
        Case("sixteen by hand.png", png(12, 9, rows(SIXTEEN), 16, 0), scaled),
        Case("sixteen rgb.png", png(12, 9, rows(deep), 16, 2), np.rint(deep / 257)),
        Case("sixteen rgba.png", png(12, 9, rows(opaque), 16, 6), np.rint(deep / 257)),
        Case("thirty-two.tif", saved(Image.fromarray(SIXTEEN.astype(np.int32)), "TIFF"), scaled),
        Case(
            "negative.tif",
            saved(Image.fromarray(np.full((2, 2), -1, np.int32)), "TIFF"),
            reason="outside of 0 to 65535",
        ),
        Case(
            "beyond.tif",
            saved(Image.fromarray(np.full((2, 2), 65536, np.int32)), "TIFF"),
            reason="outside of 0 to 65535",
        ),
    ]


def floats() -> list[Case]:
    """Floating point in [0, 1] or [0, 255]; everything else is no picture."""
    unit = RNG.random((9, 12)).astype(np.float32)
    found = [
        Case("unit.tif", saved(Image.fromarray(unit), "TIFF"), np.rint(unit * 255)[..., None]),
        Case("levels.tif", saved(Image.fromarray(unit * 255), "TIFF"), np.rint(unit * 255)[..., None]),
    ]
    for name, value in (("nan", np.nan), ("inf", np.inf), ("-inf", -np.inf), ("below", -0.5), ("above", 256.0)):
        image = unit.copy()
        image[4, 5] = value
        found.append(Case(f"{name}.tif", saved(Image.fromarray(image), "TIFF"), reason="floating-point"))
    return found


def transparent() -> list[Case]:
    """Whatever is transparent lies on white."""
    rgba, la = Image.fromarray(np.dstack([RGB, ALPHA])), Image.fromarray(np.dstack([GREY, ALPHA]), "LA")
    found = [
        Case(f"rgba.{kind}", saved(rgba, kind, **options), over(RGB, ALPHA), tolerance=1)
        for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True}), ("QOI", {}))
    ]
    found += [Case(f"la.{kind}", saved(la, kind), over(GREY, ALPHA), tolerance=1) for kind in ("PNG", "TIFF")]
    palette = Image.fromarray(PLACES, "P")
    palette.putpalette(COLOURS.tobytes())
    shown = np.where((PLACES == 1)[..., None], 255, COLOURS[PLACES])
    found += [Case(f"one clear.{kind}", saved(palette, kind, transparency=1), shown) for kind in ("PNG", "GIF")]
    some = np.array([255, 128, 0, 64], np.uint8)
    data = saved(palette, "PNG", transparency=some.tobytes())
    found.append(Case("some clear.png", data, over(COLOURS[PLACES], some[PLACES]), tolerance=1))
    key = tuple(int(v) for v in RGB[2, 3])
    shown = np.where((key == RGB).all(-1, keepdims=True), 255, RGB)
    found.append(Case("clear colour.png", saved(Image.fromarray(RGB), "PNG", transparency=key), shown))
    level = int(GREY[0, 0])
    shown = np.where((level == GREY)[..., None], 255, GREY[..., None].repeat(3, 2))
    found.append(Case("clear level.png", saved(Image.fromarray(GREY), "PNG", transparency=level), shown))
    return found


def lossy() -> list[Case]:
    """Lossy formats, within a few levels of a smooth ramp."""
    image, grey = Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[..., 0])
    found = [
        Case("plain.jpg", saved(image, "JPEG", quality=95), SMOOTH, tolerance=12),
        Case("progressive.jpg", saved(image, "JPEG", quality=95, progressive=True), SMOOTH, tolerance=12),
        Case("444.jpg", saved(image, "JPEG", quality=98, subsampling=0), SMOOTH, tolerance=6),
        Case("restarts.jpg", saved(image, "JPEG", quality=95, restart_marker_blocks=1), SMOOTH, tolerance=12),
        Case("grey.jpg", saved(grey, "JPEG", quality=95), SMOOTH[..., :1], tolerance=6),
        Case("profile.jpg", saved(image, "JPEG", quality=95, icc_profile=profile()), SMOOTH, tolerance=12),
        Case("remark.jpg", saved(image, "JPEG", quality=95, comment=b"<script>"), SMOOTH, tolerance=12),
        Case("lossy.webp", saved(image, "WEBP", quality=95), SMOOTH, tolerance=16),
        Case("plain.avif", saved(image, "AVIF", quality=95, subsampling="4:4:4"), SMOOTH, tolerance=10),
        Case("lossy.jp2", saved(image, "JPEG2000", irreversible=True), SMOOTH, tolerance=6),
        Case("jpeg in a.tif", saved(image, "TIFF", compression="jpeg", quality=98), SMOOTH, tolerance=12),
        Case("without its end.jpg", saved(image, "JPEG", quality=95)[:-2], reason="damaged"),
    ]
    inks = image.convert("CMYK")
    found.append(Case("inks.jpg", saved(inks, "JPEG", quality=98), SMOOTH, tolerance=12))
    return found


def orientations() -> list[Case]:
    """EXIF's eight, each undone: 1 as is; 2 mirrored; 3 half a turn; 4 upside down; 5 to 8 with rows for columns."""
    undone = {
        1: SMOOTH, 2: SMOOTH[:, ::-1], 3: SMOOTH[::-1, ::-1], 4: SMOOTH[::-1], 5: SMOOTH.swapaxes(0, 1),
        6: np.rot90(SMOOTH, -1), 7: SMOOTH[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(SMOOTH),
    }  # fmt: skip
    found = []
    for value, pixels in undone.items():
        exif = Image.Exif()
        exif[0x0112] = value
        for kind, options, tolerance in (
            ("PNG", {}, 0), ("TIFF", {}, 0), ("JPEG", {"quality": 95}, 12), ("WEBP", {"lossless": True}, 0),
        ):  # fmt: skip
            data = saved(Image.fromarray(SMOOTH), kind, exif=exif, **options)
            found.append(Case(f"orientation {value}.{kind}", data, pixels, tolerance=tolerance))
    odd = Image.Exif()
    odd[0x0112] = 99
    wrecked = b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 20
    jpeg = {"quality": 95}
    return [
        *found,
        Case("orientation 99.jpg", saved(Image.fromarray(SMOOTH), "JPEG", exif=odd, **jpeg), SMOOTH, tolerance=12),
        Case("wrecked exif.jpg", saved(Image.fromarray(SMOOTH), "JPEG", exif=wrecked, **jpeg), SMOOTH, tolerance=12),
    ]


def frames() -> list[Case]:
    """Of several frames or pages the first is taken."""
    first, *others = (Image.new("RGB", (5, 4), colour) for colour in ("#ff0000", "#00ff00", "#0000ff"))
    red = np.broadcast_to(np.array([255, 0, 0]), (4, 5, 3))
    kinds: dict[str, dict[str, object]] = {"GIF": {}, "PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
    found = [
        Case(f"film.{kind}", saved(first, kind, save_all=True, append_images=others, **options), red, animated=True)
        for kind, options in kinds.items()
    ]
    film = saved(first, "GIF", save_all=True, append_images=others)
    return [*found, Case("film without an end.gif", film[:-20], red, animated=True)]


def shapes() -> list[Case]:
    """The smallest and the longest."""
    found = []
    for height, width in ((1, 1), (1, 10_000), (10_000, 1), (1, 2), (3, 1)):
        pixels = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        found.append(Case(f"{width}x{height}.png", saved(image, "PNG"), pixels))
        found.append(Case(f"{width}x{height}.webp", saved(image, "WEBP", lossless=True), pixels))
    white = Image.new("L", (1, 1), 255)
    ones = (("GIF", 3), ("BMP", 1), ("JPEG", 1))
    return found + [Case(f"one pixel.{kind}", saved(white, kind), np.full((1, 1, c), 255)) for kind, c in ones]


def names() -> list[Case]:
    """Names that break lines, terminals, shells and markup."""
    wild = (
        "line\nbreak.png", "tab\there.png", "return\r.png", "escape \x1b[31m.png", "bell \x07.png", "🙂🖼️.png",
        "עברית.png", "right to left \u202egnp.exe", "zero\u200bwidth.png", "e\u0301 combined.png", "-rf.png",
        "--out=x.png", " leading space.png", "trailing space .png ", "'quotes\".png", "$(echo no).png",
        "%s%n.png", "back\\slash.png", "<script>alert(1)<b>.png", "&amp;.png", "con.png", "no suffix",
        "two.suffixes.tar.png", "UPPER.PNG", "x" * 240 + ".png", "undecodable \udcff.png", "*.png", "?.png",
        "semi;colon.png", "null.png.html", "\u2028separator.png",
    )  # fmt: skip
    found = []
    for n, name in enumerate(wild):
        pixels = np.full((8, 8, 3), (n, 2 * n, 255 - n), np.uint8)
        found.append(Case(name, saved(Image.fromarray(pixels), "PNG"), pixels))
    return found


def polyglots() -> list[Case]:
    """Files that are pictures and something else too: the picture counts, the rest is not looked at."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../outside.txt", "never written")
    page = b"<html><script>alert(1)</script></html>"
    plain, ramp = saved(Image.fromarray(RGB), "PNG"), saved(Image.fromarray(SMOOTH), "JPEG", quality=95)
    script = saved(Image.fromarray(np.full((4, 0x2A2F, 1), 7, np.uint8)[..., 0]), "GIF")
    return [
        Case("picture and zip.png", plain + archive.getvalue(), RGB),
        Case("picture and page.png", plain + page, RGB),
        Case("picture and picture.png", plain + saved(Image.fromarray(GREY), "PNG"), RGB),
        Case("picture and zip.jpg", ramp + archive.getvalue(), SMOOTH, tolerance=12),
        Case("page in a chunk.png", png(12, 9, rows(RGB), 8, 2, extra=chunk(b"tEXt", b"x\0" + page)), RGB),
        Case(
            "page in a remark.jpg",
            saved(Image.fromarray(SMOOTH), "JPEG", quality=95, comment=page),
            SMOOTH,
            tolerance=12,
        ),
        Case("script.gif", script, np.full((4, 0x2A2F, 3), 7)),
        Case("paper round a picture.jpg", b"%PDF-1.4\n" + ramp, reason="a PDF"),
        Case("zip round a picture.png", archive.getvalue() + plain, reason="a zip archive"),
        Case("page round a picture.png", page + plain, reason="an HTML page"),
    ]
