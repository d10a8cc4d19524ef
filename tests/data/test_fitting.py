"""Pixels of any depth brought to one depth, size and number of channels: exact rules, and the same filter for all."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.data.formats.fitting import border, converted, fit, flattened, is_grey, rendered, with_channels
from sfumato.data.sources.protocol import Picture, Unreadable

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (9, 14, 3)).astype(np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def test_bytes_become_sixteen_bits_and_come_back() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    wide = converted(every, "16")
    assert wide.dtype == np.uint16
    assert (wide.min(), wide.max()) == (0, 65535)
    assert np.array_equal(converted(wide, "8"), every)
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    assert np.array_equal(converted(deep, "8"), np.rint(deep / 257))


def test_floats_take_integers_as_they_are_and_become_them_by_range() -> None:
    assert converted(BYTES, "float").tolist() == BYTES.tolist()
    unit = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4, 1)
    assert np.array_equal(converted(unit, "16"), np.rint(unit.astype(np.float64) * 65535))
    assert np.array_equal(converted(unit * 255, "8"), np.rint(unit * np.float32(255)))
    for kind, values in (("16", unit * 2), ("8", unit * 256), ("8", -unit)):
        with pytest.raises(Unreadable, match="floating-point"):
            converted(values, kind)


@pytest.mark.parametrize("size", [(4, 7), (20, 20), (9, 5)])
def test_every_depth_is_resampled_by_the_same_filter(size: tuple[int, int]) -> None:
    """The filter is linear: what differs is the rounding, and Pillow's bytes have a filter of 8-bit fixed point."""
    middle = BYTES // 2 + 64  # bytes are clipped between rows and columns, where the filter overshoots
    eight = fit(middle, size).astype(float)
    sixteen = fit(converted(middle, "16"), size).astype(float)
    floats = fit(converted(middle, "float"), size)
    assert np.abs(sixteen / 257 - eight).max() < 1.3  # bytes are rounded after each of two passes
    assert np.abs(sixteen - (257 * floats.astype(float)).clip(0, 65535)).max() <= 0.51
    five = np.concatenate([middle, middle[..., :2]], axis=2)
    assert np.array_equal(fit(five, size)[..., 3:], fit(five, size)[..., :2])
    assert np.abs(fit(five, size)[..., :3] - eight).max() < 1.3


def test_sixteen_bits_gain_levels_that_bytes_do_not_have() -> None:
    ramp = np.linspace(1000, 1400, 64).astype(np.uint16)[None, :, None].repeat(8, axis=0)
    assert len(np.unique(fit(ramp, (8, 48)))) > 40
    assert len(np.unique(fit(converted(ramp, "8"), (8, 48)))) <= 4


def test_a_letterbox_keeps_all_of_the_picture() -> None:
    wide = np.full((4, 8, 3), 7, np.uint8)
    got = fit(wide, (8, 8), crop="letterbox", fill=np.array([1, 2, 3], np.uint8))
    assert np.array_equal(got[2:6], wide)
    assert (got[[0, 1, 6, 7]] == [1, 2, 3]).all()
    tall = fit(np.full((40, 10, 1), 500, np.uint16), (8, 8), crop="letterbox")
    assert (tall[:, 3:5] == 500).all()
    assert (tall[:, [0, 1, 2, 5, 6, 7]] == 0).all()


def test_a_border_is_the_backgrounds_colour_where_there_is_one() -> None:
    assert border("#ff8000", 3, "8").tolist() == [255, 128, 0]
    assert border("#ff8000", 3, "16").tolist() == [65535, 128 * 257, 0]
    assert border("white", 1, "16").tolist() == [65535]
    assert border("white", 5, "8").tolist() == [0] * 5
    assert border("white", 1, "float").tolist() == [0]


def test_what_hides_under_transparent_pixels_does_not_show() -> None:
    """A red square on transparent green: made smaller, its edge stays red."""
    picture = np.zeros((16, 16, 4), np.uint16)
    picture[..., 1] = 60000
    picture[3:13, 3:13] = [50000, 0, 0, 65535]
    small = fit(picture, (5, 5), alpha=True)
    seen = small[..., 3] > 2000
    assert (small[seen][:, 0].astype(float) / 50000 == pytest.approx(1, abs=0.02)) if seen.any() else False
    assert small[seen][:, 1].max() < 1000
    assert fit(picture, (5, 5))[seen][:, 1].max() > 5000  # bands by themselves: green mixes in


def test_sixteen_bits_are_laid_on_a_background_of_sixteen_bits() -> None:
    pixels = np.array([[[9, 9, 9, 0], [1000, 2000, 3000, 65535], [65535, 0, 0, 32768]]], np.uint16)
    over = flattened(Picture(pixels, alpha=True), "#ff80ff")
    assert over.tolist() == [[[65535, 128 * 257, 65535], [1000, 2000, 3000], [65535, 16448, 32767]]]


def test_sixteen_bits_do_not_wrap_where_the_filter_overshoots() -> None:
    edge = np.tile(np.repeat([0, 65535], 16).astype(np.uint16), (8, 1))[..., None]
    small = fit(edge, (6, 24))
    assert small[:, :11].max() < 6000
    assert small[:, -11:].min() > 60000


def test_channels() -> None:
    grey, deep = BYTES[..., :1], converted(BYTES, "16")
    luma = (deep @ np.array([0.299, 0.587, 0.114]))[..., None]
    assert np.abs(with_channels(deep, 1) - luma).max() <= 1
    assert with_channels(np.full((1, 1, 3), 65535, np.uint16), 1).tolist() == [[[65535]]]
    assert np.allclose(with_channels(converted(BYTES, "float"), 1), luma / 257, atol=0.01)
    assert with_channels(grey, 2)[..., 1].tolist() == np.full(grey.shape[:2], 255).tolist()
    assert with_channels(deep, 4)[0, 0].tolist() == [*deep[0, 0].tolist(), 65535]
    clear = np.concatenate([grey, 255 - grey], axis=2)
    assert np.array_equal(with_channels(clear, 4, alpha=True), clear[..., [0, 0, 0, 1]])
    assert np.array_equal(with_channels(with_channels(clear, 4, alpha=True), 2, alpha=True), clear)


@pytest.mark.parametrize(("own", "wanted", "alpha"), [(5, 3, False), (4, 3, False), (2, 1, True), (4, 5, False)])
def test_bands_do_not_become_other_bands(own: int, wanted: int, alpha: bool) -> None:
    with pytest.raises(Unreadable, match=f"{own} channels can't be converted to {wanted}"):
        with_channels(np.zeros((2, 2, own), np.uint8), wanted, alpha)


def test_anything_can_be_looked_at() -> None:
    assert np.array_equal(rendered(BYTES), BYTES)
    assert rendered(np.zeros((2, 2, 2), np.uint16)).shape == (2, 2, 1)
    cold = np.array([-50.0, 0.0, 50.0], np.float32).reshape(1, 3, 1)
    assert rendered(cold).ravel().tolist() == [0, 128, 255]


# ---- size and channels of bytes ----


def test_the_right_size_is_not_touched() -> None:
    assert np.array_equal(fit(RGB, RGB.shape[:2]), RGB)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((4, 4), slice(0, 4), slice(3, 7)),
        ((4, 7), slice(0, 4), slice(1, 8)),
        ((4, 10), slice(0, 4), slice(0, 10)),
        ((4, 6), slice(0, 4), slice(2, 8)),
    ],
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


def test_grey_and_colour_of_bytes() -> None:
    luma = RGB.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(with_channels(RGB, 1)[..., 0] - luma).max() <= 1
    three = with_channels(GREY[..., None], 3)
    assert (three == GREY[..., None]).all()
    assert np.array_equal(with_channels(three, 1)[..., 0], GREY)  # grey to colour and back changes nothing
    assert with_channels(RGB, 3) is RGB
    assert is_grey(three)
    assert not is_grey(RGB)
