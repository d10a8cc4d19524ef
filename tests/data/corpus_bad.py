"""The files of the corpus that must be left out: cut, contradictory, enormous, or no pictures at all."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from .encode import SIGNATURE, Case, adam7, chunk, packed, png, rows, saved

RNG = np.random.default_rng(21)
RGB = RNG.integers(1, 256, (9, 12, 3), dtype=np.uint8)
GREY, BITS, PLACES = RGB[..., 0], RGB[..., 1] < 128, RGB[..., 2] % 4
NOT_OURS = "not an image of an allowed format"


def damaged() -> list[Case]:
    """Headers and contents that contradict themselves."""
    good = saved(Image.fromarray(RGB), "PNG")
    body = good.index(b"IDAT") + 6
    head = struct.pack(">IIBBBBB", 12, 9, 8, 2, 0, 0, 0)
    short = SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows(RGB[:5]))) + chunk(b"IEND", b"")
    black = np.concatenate([RGB[:5], np.zeros_like(RGB[5:])])
    bad = "damaged|not an image of an allowed format"
    tiff = saved(Image.fromarray(RGB), "TIFF")
    long_text = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(80_000_000), 9))
    return [
        Case("turned byte.png", good[:body] + bytes([good[body] ^ 255]) + good[body + 1 :], reason=bad),
        Case("wrong head.png", good[:18] + b"\xff" + good[19:], reason=bad),
        Case("no width.png", png(0, 9, b"", 8, 2), reason=bad),
        Case("no height.png", png(12, 0, b"", 8, 2), reason=bad),
        Case("colour type 7.png", png(12, 9, rows(RGB), 8, 7), reason=bad),
        Case("depth 3.png", png(12, 9, rows(RGB), 3, 2), reason=bad),
        Case("too few rows.png", short, reason="end before its last row"),
        Case("too few passes.png", png(12, 9, adam7(RGB)[:-1], 8, 2, interlaced=True), reason="end before|truncated"),
        Case("black below.png", png(12, 9, rows(RGB[:5]) + bytes(4 * 37), 8, 2), black),
        Case("black below interlaced.png", png(12, 9, adam7(black), 8, 2, interlaced=True), black),
        Case("too many rows.png", png(12, 9, rows(RGB) + rows(RGB), 8, 2), RGB),
        Case("no data.png", SIGNATURE + chunk(b"IHDR", head) + chunk(b"IEND", b""), reason=bad),
        Case("palette without colours.png", png(12, 9, packed(PLACES, 2), 2, 3), reason=bad),
        Case("long text.png", png(12, 9, rows(RGB), 8, 2, extra=long_text), reason="damaged|[Dd]ecompress"),
        Case("head alone.bmp", saved(Image.fromarray(RGB), "BMP")[:54], reason=bad),
        Case("no directory.tif", tiff[:4] + struct.pack("<I", 2**31) + tiff[8:], reason=bad),
        Case("taller than its strips.tif", retagged(tiff, 257, 4000), reason="strips don't reach"),
        Case("wider than its rows.tif", retagged(tiff, 256, 4000), reason=bad),
        Case("directory of itself.tif", b"II*\0" + struct.pack("<IHI", 8, 0, 8), reason=bad),
        Case("no frame.gif", b"GIF89a\x05\0\x04\0\0\0\0;", reason=bad),
        Case("no scan.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xd9", reason=bad),
        Case("0x0.pgm", b"P5 0 0 255\n", reason="not an image"),
        Case("letters.pgm", b"P2 2 1 255\nab cd\n", reason=bad),
        Case("wrong lengths.webp", b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff", reason=bad),
    ]


def retagged(tiff: bytes, tag: int, value: int) -> bytes:
    """A TIFF (little-endian) with another number in a tag of its directory."""
    start = struct.unpack_from("<I", tiff, 4)[0]
    changed = bytearray(tiff)
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", tiff, start)[0], 12):
        if struct.unpack_from("<H", tiff, entry)[0] == tag:
            struct.pack_into("<HII", changed, entry + 2, 4, 1, value)
    return bytes(changed)


def truncated() -> list[Case]:
    """Every format cut at three places."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "QOI", "JPEG2000"):
        data = saved(image, kind)
        for share in (0.02, 0.5, 0.9):
            if kind == "JPEG2000" and share == 0.9:
                continue  # a scalable format: what is missing costs detail alone, and the decoder reports nothing
            part = data[: max(3, int(share * len(data)))]
            found.append(Case(f"cut at {share}.{kind}", part, reason="damaged|not an image"))
    return found


def bombs() -> list[Case]:
    """Small files of enormous pictures."""
    nothing = bytes(1000)
    found = [
        Case(f"{side}.png", png(side, side, bytes(side * (side // 8 + 1)), 1, 0), reason="too large")
        for side in (8193, 12_000, 20_000)
    ]
    huge = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    frame = b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", 65_500, 65_500) + b"\1\1\x11\0"
    return [
        *found,
        Case(
            "header alone.png", SIGNATURE + chunk(b"IHDR", huge + b"\x08\2\0\0\0") + nothing, reason="too large|damaged"
        ),
        Case("wide.png", png(2**26 + 1, 1, nothing, 1, 0), reason="too large"),
        Case(
            "65535.gif",
            b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\xf0\0\0" + nothing,
            reason="too large|damaged|not",
        ),
        Case("99999.ppm", b"P6 99999 99999 255\n" + nothing, reason="too large"),
        Case("65500.jpg", b"\xff\xd8" + frame + nothing, reason="too large|damaged|not"),
        Case("60000.qoi", b"qoif" + struct.pack(">II", 60_000, 60_000) + b"\3\0" + nothing, reason="too large"),
        Case("60000.bmp", bmp(60_000, 60_000) + nothing, reason="too large"),
    ]


def bmp(width: int, height: int) -> bytes:
    """The head of a bitmap."""
    return (
        b"BM"
        + struct.pack("<IHHI", 2**31 - 1, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *6 * [0])
    )


def disguised() -> list[Case]:
    """What is no picture at all, under the name of one."""
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    others = {
        "empty.png": (b"", "an empty file"),
        "text.png": (b"not a picture\n", "text"),
        "unicode.png": ("über\n".encode(), "text|" + NOT_OURS),
        "drawing.png": (svg, "an SVG drawing"),
        "drawing with a head.png": (b"<?xml version='1.0'?>\n" + svg, "an SVG drawing"),
        "paper.png": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF"),
        "figure.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        "binary figure.jpg": (b"\xc5\xd0\xd3\xc6" + bytes(60), "PostScript"),
        "page.jpg": (b"\xef\xbb\xbf\n<!DOCTYPE html><html></html>", "an HTML page"),
        "html.gif": (b"<HTML></HTML>", "an HTML page"),
        "archive.png": (b"PK\x03\x04" + bytes(40), "a zip archive"),
        "packed.png": (b"\x1f\x8b\x08" + bytes(40), "a gzip file"),
        "python.png": (b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94", "a pickle"),
        "json.png": (b'{"file": "a.png"}', "text"),
        "array.png": (b"\x93NUMPY\x01\0v\0{'descr': '|u1'}", "damaged"),
        "program.png": (b"\x7fELF\x02\x01\x01" + bytes(60), NOT_OURS),
        "noise.png": (np.random.default_rng(5).bytes(500), NOT_OURS),
        "zeros.png": (bytes(500), NOT_OURS),
        "mark alone.png": (SIGNATURE, "damaged|not an image"),
        "mark alone.jpg": (b"\xff\xd8\xff", "damaged|not an image"),
        "mark alone.gif": (b"GIF89a", "damaged|not an image"),
        "mark alone.tif": (b"II*\0", "damaged|not an image"),
        "mark alone.webp": (b"RIFF\0\0\0\0WEBP", "damaged|not an image"),
    }
    return [Case(name, data, reason=reason) for name, (data, reason) in others.items()]


def foreign() -> list[Case]:
    """Real pictures of formats that are not on the list, under an innocent name."""
    image = Image.fromarray(RGB)
    kinds = ("ICO", "ICNS", "TGA", "PCX", "SGI", "IM", "DDS", "EPS", "PDF", "MSP", "XBM", "SPIDER")
    ones = {"MSP": Image.fromarray(BITS), "XBM": Image.fromarray(BITS), "SPIDER": Image.fromarray(GREY)}
    square = Image.fromarray(np.kron(RGB[:8, :8], np.ones((4, 4, 1), np.uint8)))
    found = []
    for kind in kinds:
        data = saved(ones.get(kind, square if kind in ("ICO", "ICNS") else image), kind)
        found.append(Case(f"{kind.lower()} in disguise.png", data, reason="not an image|damaged"))
    return found
