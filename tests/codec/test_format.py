"""PixelFormat: the line between values and the model's range, there and back, and what it does to a density."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato.codec.format import EIGHT, SIXTEEN, PixelFormat, format_of, from_plain, plain


@pytest.mark.parametrize(("depth", "levels"), [(EIGHT, 256), (SIXTEEN, 65536)])
def test_every_integer_comes_back(depth: PixelFormat, levels: int) -> None:
    values = torch.from_numpy(np.arange(levels).astype(depth.dtype))
    x = depth.to_model(values)
    exact = 2 * np.arange(levels, dtype=np.float64) / (levels - 1) - 1
    assert np.abs(x.numpy() - exact).max() < 1e-6 / 8
    assert (float(x[0]), float(x[-1])) == (-1.0, 1.0)
    back = depth.from_model(x)
    assert back.dtype == depth.tensor_dtype
    assert torch.equal(back, values)


def test_integers_are_rounded_and_clamped() -> None:
    x = torch.tensor([-3.0, math.nan, 3.0, 2 * 1000.4 / 65535 - 1])
    assert SIXTEEN.from_model(x).tolist() == [0, 0, 65535, 1000]


def test_floats_keep_their_units_and_are_not_clamped() -> None:
    depth = PixelFormat("float", -1000.0, 3000.0)
    values = torch.tensor([-1000.0, 1000.0, 3000.0, 5000.0])
    assert depth.to_model(values).tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert depth.from_model(depth.to_model(values)).tolist() == values.tolist()


def test_a_density_changes_by_the_scale_of_its_unit() -> None:
    """The differential entropy of N(m, s^2) in the data's units, through the model's."""
    depth, std = PixelFormat("float", -40.0, 160.0), 12.5
    x_std = std / 100  # one unit of the model is 100 of the data's
    entropy = [0.5 * math.log2(2 * math.pi * math.e * s**2) for s in (x_std, std)]
    assert entropy[0] + depth.bits_offset == pytest.approx(entropy[1])
    assert EIGHT.bits_offset == SIXTEEN.bits_offset == 0


def test_what_is_shown_is_the_models_range_in_bytes() -> None:
    assert EIGHT.shown(np.arange(256, dtype=np.uint8)).tolist() == list(range(256))
    assert SIXTEEN.shown(np.array([0, 128, 129, 257, 65535], np.uint16)).tolist() == [0, 0, 1, 1, 255]
    assert PixelFormat("float", 2.0, 4.0).shown(torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0])).tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]


def test_one_single_value_still_has_a_range() -> None:
    assert format_of("float", 7.0, 7.0) == PixelFormat("float", 7.0, 8.0)
    assert format_of("16", 7.0, 7.0) == SIXTEEN


@pytest.mark.parametrize("depth", [EIGHT, SIXTEEN, PixelFormat("float", -0.25, 1e4)])
def test_it_is_written_and_read(depth: PixelFormat) -> None:
    assert from_plain(plain(depth)) == depth
    assert from_plain(None) == EIGHT


@pytest.mark.parametrize("values", [("12", 0.0, 1.0), ("8", 0.0, 254.0), ("float", 1.0, 1.0), ("float", 0.0, math.inf)])
def test_other_depths_are_refused(values: tuple[str, float, float]) -> None:
    with pytest.raises(ValueError, match=r"depth|bits"):
        PixelFormat(*values)
