from __future__ import annotations

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sfumato.data.formats.decode import MAX_PIXELS, header_size, read_picture
from sfumato.data.formats.fitting import fit, is_grey, with_channels
from sfumato.data.sources.protocol import Unreadable

RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
SIXTEEN = np.array([[0, 127, 128, 129, 257, 384], [386, 1000, 32767, 32768, 65407, 65535]], np.uint16)


def saved(tmp_path: Path, image: Image.Image, suffix: str, **options: object) -> Path:
    path = tmp_path / f"picture{suffix}"
    image.save(path, **options)
    return path


def pixels(path: Path, background: str = "white") -> np.ndarray:
    return read_picture(path, background).pixels


# ---- modes, each against the stated rule ----


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp", ".gif"])
def test_grey_is_as_it_is(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    got = pixels(saved(tmp_path, Image.fromarray(GREY), suffix, **options))
    assert is_grey(got)
    assert np.array_equal(got[..., 0], GREY)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_rgb_is_as_it_is(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    got = pixels(saved(tmp_path, Image.fromarray(RGB), suffix, **options))
    assert np.array_equal(got, RGB)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = RNG.random((6, 9)) < 0.5
    assert np.array_equal(pixels(saved(tmp_path, Image.fromarray(bits), ".png"))[..., 0], bits * np.uint8(255))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
    places = RNG.integers(0, 4, (6, 9), dtype=np.uint8)
    image = Image.fromarray(places, "P")
    image.putpalette(colours.tobytes())
    for suffix in (".png", ".gif", ".bmp"):
        assert np.array_equal(pixels(saved(tmp_path, image, suffix)), colours[places])


def over(colour: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    a = alpha[..., None].astype(float)
    return (a * colour + (255 - a) * np.array(background)) / 255


@pytest.mark.parametrize(("name", "background"), [("white", (255, 255, 255)), ("#204060", (32, 64, 96))])
def test_transparent_colour_lies_on_the_background(tmp_path: Path, name: str, background: tuple[int, int, int]) -> None:
    alpha = np.resize(np.array([0, 1, 64, 128, 200, 254, 255], np.uint8), (6, 9))
    image = Image.fromarray(np.dstack([RGB, alpha]))
    got = pixels(saved(tmp_path, image, ".png"), name)
    assert np.abs(got - over(RGB, alpha, background)).max() <= 1
    assert np.array_equal(got[alpha == 0], np.broadcast_to(background, got[alpha == 0].shape))
    assert np.array_equal(got[alpha == 255], RGB[alpha == 255])


def test_transparent_grey_lies_on_the_background(tmp_path: Path) -> None:
    alpha = np.resize(np.array([0, 128, 255], np.uint8), (6, 9))
    image = Image.fromarray(np.dstack([GREY, alpha]), "LA")
    got = pixels(saved(tmp_path, image, ".png"), "#ff0000")
    assert np.abs(got - over(GREY[..., None].repeat(3, 2), alpha, (255, 0, 0))).max() <= 1


def test_one_transparent_colour_of_an_opaque_mode(tmp_path: Path) -> None:
    """PNG's tRNS chunk: for RGB one colour, for a palette one entry, for grey one level is transparent."""
    key = tuple(int(v) for v in RGB[2, 3])
    got = pixels(saved(tmp_path, Image.fromarray(RGB), ".png", transparency=key), "#0000ff")
    assert got[2, 3].tolist() == [0, 0, 255]
    assert np.array_equal(got[0], RGB[0])
    places = np.resize(np.arange(4, dtype=np.uint8), (6, 9))
    image = Image.fromarray(places, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    for suffix in (".png", ".gif"):
        got = pixels(saved(tmp_path, image, suffix, transparency=1), "#0000ff")
        assert (got[places == 1] == [0, 0, 255]).all()
        assert (got[places == 2] == [70, 80, 90]).all()
    got = pixels(saved(tmp_path, Image.fromarray(GREY), ".png", transparency=int(GREY[0, 0])), "#0000ff")
    assert got[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    got = pixels(saved(tmp_path, Image.fromarray(SIXTEEN), suffix))[..., 0]
    assert np.array_equal(got, np.floor(SIXTEEN / 257 + 0.5))
    assert got[0, 4] == 1  # 257; clipping would give 255


def test_sixteen_bits_of_other_files(tmp_path: Path) -> None:
    big = SIXTEEN.astype(">u2")
    path = tmp_path / "picture.pgm"
    path.write_bytes(b"P5 6 2 65535\n" + big.tobytes())
    assert np.array_equal(pixels(path)[..., 0], np.floor(SIXTEEN / 257 + 0.5))
    image = Image.frombytes("I;16B", (6, 2), big.tobytes())
    assert np.array_equal(pixels(saved(tmp_path, image, ".tif"))[..., 0], np.floor(SIXTEEN / 257 + 0.5))


def test_sixteen_bit_colour_is_scaled(tmp_path: Path) -> None:
    raw = b"".join(b"\0" + struct.pack(">9H", *(v * 4096 + 255 for v in range(9))) for _ in range(2))
    path = tmp_path / "picture.png"
    path.write_bytes(png(3, 2, raw, depth=16, colour=2))
    assert pixels(path)[0].ravel().tolist() == [round((v * 4096 + 255) / 257) for v in range(9)]


def test_integers_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    good = Image.fromarray(SIXTEEN.astype(np.int32))
    assert np.array_equal(pixels(saved(tmp_path, good, ".tif"))[..., 0], np.floor(SIXTEEN / 257 + 0.5))
    for value in (-1, 65536):
        with pytest.raises(Unreadable, match="beyond 0 to 65535"):
            pixels(saved(tmp_path, Image.fromarray(np.full((2, 2), value, np.int32)), ".tif"))


def test_floats_in_the_unit_range_or_in_bytes(tmp_path: Path) -> None:
    unit = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(pixels(saved(tmp_path, Image.fromarray(unit), ".tif"))[..., 0], np.rint(unit * 255))
    wide = np.linspace(0, 255, 12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(pixels(saved(tmp_path, Image.fromarray(wide), ".tif"))[..., 0], np.rint(wide))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.5, 256.0])
def test_other_floats_are_refused(tmp_path: Path, value: float) -> None:
    image = np.full((3, 4), 0.5, np.float32)
    image[1, 2] = value
    with pytest.raises(Unreadable, match="floating-point"):
        pixels(saved(tmp_path, Image.fromarray(image), ".tif"))


def test_cmyk_by_its_formula(tmp_path: Path) -> None:
    inks = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    got = pixels(saved(tmp_path, Image.fromarray(inks, "CMYK"), ".tif"))
    wide = inks.astype(float)
    assert np.abs(got - (255 - wide[..., :3]) * (255 - wide[..., 3:]) / 255).max() <= 1


def test_ycbcr_by_its_formula(tmp_path: Path) -> None:
    ycc = np.full((6, 9, 3), 128, np.uint8) + RNG.integers(-30, 30, (6, 9, 3)).astype(np.uint8)
    got = pixels(saved(tmp_path, Image.fromarray(ycc, "YCbCr"), ".tif"))
    y, cb, cr = (ycc[..., k].astype(float) - (128 if k else 0) for k in range(3))
    expected = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    assert np.abs(got - expected.clip(0, 255)).max() <= 2


def test_a_mode_without_a_rule_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="LAB"):
        pixels(saved(tmp_path, Image.new("LAB", (4, 4)), ".tif"))


# ---- orientation ----


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_every_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Against Pillow's own transposition of the same decoded file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8)))
    path = saved(tmp_path, image, suffix, exif=exif)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    got = pixels(path)
    assert got.shape == ((72, 48, 3) if orientation >= 5 else (48, 72, 3))
    assert np.array_equal(got, expected)
    if suffix != ".png":
        assert header_size(path) == got.shape[:2]


def test_orientation_six_turns_clockwise(tmp_path: Path) -> None:
    """By hand: EXIF 6 says that row 0 of the file is the right-hand side of the picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    assert pixels(saved(tmp_path, Image.fromarray(grey), ".png", exif=exif))[..., 0].tolist() == [
        [40, 10],
        [50, 20],
        [60, 30],
    ]


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(RGB), ".jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 20)
    assert pixels(path).shape == RGB.shape


# ---- several frames ----


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif", ".webp"])
def test_the_first_frame_is_taken_and_the_others_are_told(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if suffix == ".webp" else {}
    many = read_picture(saved(tmp_path, frames[0], suffix, save_all=True, append_images=frames[1:], **options), "white")
    assert many.animated
    assert (many.pixels == [255, 0, 0]).all()
    assert not read_picture(saved(tmp_path, frames[0], suffix, **options), "white").animated


# ---- what is not an image, or is damaged, or too large ----


def png(width: int, height: int, raw: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG file put together by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_a_bomb_is_seen_by_its_header(tmp_path: Path, side: int) -> None:
    """Pillow only warns of 144 million pixels, and raises its own error of 400 million; neither is decoded."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, bytes(side * (side // 8 + 1)), depth=1))
    assert path.stat().st_size < 60_000
    start = time.perf_counter()
    with pytest.raises(Unreadable, match="too large"):
        pixels(path)
    with pytest.raises(Unreadable, match="too large"):
        header_size(path)
    assert time.perf_counter() - start < 0.5


def test_the_cap_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PIXELS == 8192 * 8192
    monkeypatch.setattr("sfumato.data.formats.decode.MAX_PIXELS", RGB.shape[0] * RGB.shape[1])
    path = saved(tmp_path, Image.fromarray(RGB), ".png")
    assert pixels(path).shape == RGB.shape
    monkeypatch.setattr("sfumato.data.formats.decode.MAX_PIXELS", RGB.shape[0] * RGB.shape[1] - 1)
    with pytest.raises(Unreadable, match="too large: 9x6"):
        pixels(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"hello, I am a PNG\n", "text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x00\x01\x02\x03", "not an image of an allowed format"),
        (b"GIF89a\x00", "not an image of an allowed format|damaged"),
        (b"\x89PNG\r\n\x1a\n", "not an image of an allowed format|damaged"),
    ],
)
def test_disguises_are_told_by_content(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with pytest.raises(Unreadable, match=words):
        pixels(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_damaged(tmp_path: Path, suffix: str, share: float) -> None:
    path = saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)), suffix)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(Unreadable):
        pixels(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tif", ".webp", ".ppm"])
def test_random_damage_never_raises_anything_else(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, Image.fromarray(RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)), suffix)
    data = path.read_bytes()
    reasons = []
    for trial in range(60):
        rng = np.random.default_rng(trial)
        bytes_ = bytearray(data)
        for place in rng.integers(0, min(len(bytes_), 200), 3):
            bytes_[place] = rng.integers(256)
        path.write_bytes(bytes_)
        try:
            got = pixels(path)
            assert got.dtype == np.uint8
            assert got.ndim == 3
            assert got.shape[2] in (1, 3)
            header_size(path)
        except Unreadable as fault:
            reasons.append(fault.reason)
    assert reasons
    assert all(reason and reason.isprintable() for reason in reasons)


# ---- size and channels ----


def test_the_right_size_is_not_touched() -> None:
    assert fit(RGB, RGB.shape[:2]) is RGB or np.array_equal(fit(RGB, RGB.shape[:2]), RGB)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [((4, 4), slice(0, 4), slice(3, 7)), ((4, 10), slice(0, 4), slice(0, 10)), ((4, 6), slice(0, 4), slice(2, 8))],
)
def test_the_centre_is_cut(size: tuple[int, int], rows: slice, columns: slice) -> None:
    wide = RNG.integers(0, 256, (4, 10, 3), dtype=np.uint8)
    assert np.array_equal(fit(wide, size), wide[rows, columns])
    tall = wide.swapaxes(0, 1)
    assert np.array_equal(fit(tall, size[::-1]), tall[columns, rows])


def test_shrinking_does_not_alias() -> None:
    """Stripes one pixel wide, 0 and 255: taking every fourth pixel gives black or white, a filter gives their mean."""
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]
    small = fit(stripes, (16, 16))
    assert np.abs(small.astype(int) - 127.5)[:, 2:-2].max() < 3
    assert stripes[::4, ::4].max() == 0


def test_a_constant_stays_and_the_mean_is_kept() -> None:
    assert (fit(np.full((37, 53, 3), 91, np.uint8), (16, 16)) == 91).all()
    smooth = (128 + 100 * np.sin(np.arange(96) / 30)[:, None] * np.cos(np.arange(96) / 20)).astype(np.uint8)[..., None]
    assert abs(fit(smooth, (24, 24)).mean() - smooth.mean()) < 1


def test_the_filter_is_lanczos_three() -> None:
    """Halving a row: the weights are sinc(x) sinc(x / 3) at x = (k + 1/2) / 2, normalised."""
    row = RNG.integers(0, 256, 32).astype(float)
    image = np.tile(row, (32, 1)).astype(np.uint8)[..., None]
    got = fit(image, (16, 16))[8, :, 0].astype(float)
    x = (np.arange(-6, 6) + 0.5) / 2
    weights = np.sinc(x) * np.sinc(x / 3)
    weights /= weights.sum()
    for i in range(3, 13):
        expected = (weights * row[2 * i - 5 : 2 * i + 7]).sum()
        assert abs(got[i] - np.clip(expected, 0, 255)) <= 1


@pytest.mark.parametrize("shape", [(1, 10000, 3), (10000, 1, 1), (1, 1, 3), (2, 3, 1)])
def test_odd_shapes_still_give_the_size(shape: tuple[int, int, int]) -> None:
    assert fit(np.full(shape, 9, np.uint8), (8, 12)).shape == (8, 12, shape[2])


def test_channels() -> None:
    luma = RGB.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(with_channels(RGB, 1)[..., 0] - luma).max() <= 1
    three = with_channels(GREY[..., None], 3)
    assert (three == GREY[..., None]).all()
    assert np.array_equal(with_channels(three, 1)[..., 0], GREY)  # grey to colour and back changes nothing
    assert with_channels(RGB, 3) is RGB
    assert is_grey(three)
    assert not is_grey(RGB)
