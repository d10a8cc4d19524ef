"""Durations, counts and lengths as people write them."""

from __future__ import annotations

import pytest

from sfumato.config.train import TrainConfig, in_images
from sfumato.config.units import parse_count, parse_seconds, parse_size
from sfumato.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("2m", 120),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1h 30m 5s", 5405),
        ("2d", 172800),
        ("0.5", 0.5),
        ("2M", 120),
        (" 10m ", 600),
        ("1m30", 90),
        ("10min", 600),
        ("1 hour 30 minutes", 5400),
        ("90 sec", 90),
        ("1h30mins", 5400),
        ("2 days", 172800),
    ],
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "2x", "-2m", "0", "0s", "2m!", "two minutes", "1..5h", "2mm", "inf", "s2", "10ms", "5 moments"]
)
def test_no_durations(text):
    with pytest.raises(UserError, match="1h30m"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("50000", 50_000),
        ("50_000", 50_000),
        ("500k", 500_000),
        ("1.5M", 1_500_000),
        ("2g", 2 * 10**9),
        ("1", 1),
        ("1e5", 100_000),
        ("1.5e3", 1500),
        ("50,000", 50_000),
    ],
)
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "-5", "5x", "k", "1e-5", "1e", "1,5", "0.2", "inf", "1.5.2k"])
def test_no_counts(text):
    with pytest.raises(UserError, match="500k"):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("32", "32,32"), ("32x32", "32,32"), ("64x48", "48,64"), ("64 X 48", "48,64"), ("8,16", "8,16"), ("x8", "x8")],
)
def test_sizes_are_height_and_width_but_written_with_an_x_width_and_height(text, size):
    assert parse_size(text) == size


def test_lengths_below_one_are_fractions_of_the_plan():
    assert in_images(0.25, 1000) == 250
    assert in_images(1, 1000) == 1
    assert in_images(5000, 1000) == 5000


def test_steps_are_full_batches():
    assert TrainConfig(batch=64, images=128).steps == 2
    assert TrainConfig(batch=64, images=129).steps == 3
