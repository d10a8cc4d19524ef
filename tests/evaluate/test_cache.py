from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.evaluate import Extractor, real_features, split_rows
from sfumato.evaluate.cache import cache_path


class Counting:
    """An extractor of the first four pixels, which counts the images that it is given."""

    def __init__(self, sha256: str = "a" * 64) -> None:
        self.seen = 0
        self.extractor = Extractor("counting", sha256, 4, "the first four pixels", self.features)

    def features(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1)[:, :4].float()


def test_the_rows_are_all_of_the_split_in_a_random_order_that_is_always_the_same(faces: Dataset) -> None:
    rows = split_rows(faces, "train")
    assert sorted(rows.tolist()) == faces.train.tolist() != rows.tolist()
    assert torch.equal(rows, split_rows(faces, "train"))
    half = rows[: len(rows) // 2].double().mean()
    assert abs(float(half) - faces.train.mean()) < 150, "a half is spread over the whole"


def test_features_are_made_once_and_more_are_added(faces: Dataset, tmp_path: Path) -> None:
    counting = Counting()
    expected = torch.tensor(faces.images[split_rows(faces)[:130].numpy()]).flatten(1)[:, :4].float()
    for num, seen in ((100, 100), (40, 100), (130, 130), (130, 130)):
        assert torch.equal(real_features(faces, counting.extractor, "train", num, tmp_path), expected[:num])
        assert counting.seen == seen
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_other_data_another_extractor_and_another_split_have_their_own(faces: Dataset, tmp_path: Path) -> None:
    other = replace(faces, digests=faces.digests[::-1])
    paths = {
        cache_path(data, extractor, split, tmp_path)
        for data in (faces, other)
        for extractor in (Counting().extractor, Counting("b" * 64).extractor)
        for split in ("train", "held_out")
    }
    assert len(paths) == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda x: x[:-9],
        lambda x: x[:-5] + bytes([x[-5] ^ 64]) + x[-4:],
        lambda x: b"",
        lambda x: x.replace(b"held_out", b"hold_out"),
    ],
)
def test_a_damaged_cache_is_made_anew(faces: Dataset, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    counting = Counting()
    expected = real_features(faces, counting.extractor, "held_out", 50, tmp_path)
    path = cache_path(faces, counting.extractor, "held_out", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert torch.equal(real_features(faces, counting.extractor, "held_out", 50, tmp_path), expected)
    assert counting.seen == 100
    assert path.read_bytes() != damage(whole)


def test_a_cache_that_cannot_be_written_is_done_without(
    faces: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = real_features(faces, Counting().extractor, "train", 10, blocked)
    assert found.shape == (10, 4)
    assert "not kept" in caplog.text


def test_an_empty_or_unknown_split_is_one_line(faces: Dataset) -> None:
    with pytest.raises(UserError, match="'held_out' of faces is empty"):
        split_rows(replace(faces, held_out=np.zeros(0, np.int64)), "held_out")
    with pytest.raises(UserError, match="no split 'heldout'; did you mean 'held_out'"):
        split_rows(faces, "heldout")
