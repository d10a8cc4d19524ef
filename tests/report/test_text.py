"""Numbers and lists as plain text."""

from __future__ import annotations

import pytest

from sfumato.errors import plural
from sfumato.report.text import count, duration, facts, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (119.6, "2 min 00 s"), (3599.6, "1 h 00 min"),
     (7260, "2 h 01 min"), (180000, "2 d 2 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_and_sizes() -> None:
    assert [count(n) for n in (7, 999, 1000, 35_746_307, 6.05e9)] == ["7", "999", "1 k", "35.7 M", "6.05 G"]
    assert [size(n) for n in (12, 999, 2_818_292)] == ["12 B", "999 B", "2.82 MB"]
    assert facts([("a", "1\n2"), ("long", "3"), ("none", "")]) == "a     1\n      2\nlong  3"


def test_one_thing_is_singular_and_so_is_its_verb() -> None:
    assert [plural(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert [plural(n, "loss") for n in (1, 2)] == ["1 loss", "2 losses"]
    assert [plural(n, "image", verb) for n in (1, 2) for verb in ("have", "are", "were")] == [
        "1 image has", "1 image is", "1 image was", "2 images have", "2 images are", "2 images were",
    ]  # fmt: skip
