"""Columns of a store: the texts that they stand for, and what is counted without making these."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from sfumato.data.columns import Column, Digests, Lines, copies_of, leading_bits

TEXTS = tuple(f"a/{k} - {'é' * (k % 3)}" for k in range(9000))


def hashes(values: list[int]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(bytes([value])).hexdigest() for value in values)


def digests_of(texts: tuple[str, ...]) -> Digests:
    return Digests(np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, 32))


@pytest.mark.parametrize("kind", [Digests, Lines])
def test_a_column_is_the_sequence_of_its_texts(kind: type) -> None:
    texts = TEXTS if kind is Lines else hashes([k % 256 for k in range(9000)])
    column: Column = Lines("".join(f"{text}\n" for text in texts).encode()) if kind is Lines else digests_of(texts)
    assert len(column) == len(texts)
    assert tuple(column) == texts
    assert [column[k] for k in (0, 1, 4095, 4096, 8999, -1, -9000)] == [
        texts[k] for k in (0, 1, 4095, 4096, 8999, -1, -9000)
    ]
    assert column[5:1:-2] == texts[5:1:-2]
    assert column == texts
    assert texts == column
    assert column != texts[:-1]
    assert column != (*texts[:-1], "x")
    assert column[np.int64(7)] == texts[7]
    for far in (9000, -9001):
        with pytest.raises(IndexError):
            column[far]


def test_lines_that_are_cut_off_or_not_text_are_refused() -> None:
    assert list(Lines(b"")) == []
    for content, reason in ((b"a\nb", "has no end"), (b"\xff\n", "can't decode")):
        with pytest.raises(ValueError, match=reason):
            Lines(content)


@pytest.mark.parametrize("values", [[1, 2, 3], [1, 2, 1], [5] * 4, [1, 2, 1, 2, 2, 9], [7]])
def test_copies_are_counted_as_by_a_table(values: list[int]) -> None:
    texts = hashes(values)
    expected = len(texts) - len(set(texts)), max(Counter(texts).values())
    assert copies_of(texts) == expected
    assert copies_of(digests_of(texts)) == expected
    bits = [int(text[:16], 16) for text in texts]
    assert leading_bits(texts).tolist() == leading_bits(digests_of(texts)).tolist() == bits


def test_digests_that_only_begin_alike_are_no_copies() -> None:
    same = hashes([1])[0]
    assert copies_of((same, same[:16] + "0" * 48, same)) == (1, 2)
