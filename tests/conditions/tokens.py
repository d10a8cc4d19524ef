"""A second kind of condition: a sequence of words, such as a caption. Nothing outside this file knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.conditions.registry import VOCABULARIES
from sfumato.errors import UserError, nearest

PADDING, ABSENT = 0, 1


@dataclass(frozen=True, eq=False)
class Tokens:
    """(B, L) int64: 0 pads, a row of 1s is nothing given, and words count from 2."""

    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Tensor) -> Tokens:
        return Tokens(self.ids[index])

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.ids.to(device))

    def absent(self) -> Tokens:
        return Tokens(torch.full_like(self.ids, ABSENT))

    def cat(self, other: Tokens) -> Tokens:
        return Tokens(torch.cat([self.ids, other.ids]))

    num_uniforms = 1

    def dropped(self, u: Tensor, probability: float) -> Tokens:
        return Tokens(self.ids.where(u >= probability, ABSENT))


@dataclass(frozen=True)
class Words:
    """The words that there are, and how many a sequence has at most."""

    words: tuple[str, ...]
    length: int

    def embedding(self, width: int) -> nn.Module:
        return Embedding(len(self.words), width)

    def parse(self, text: str | None, complete: bool = False) -> Tokens | None:
        if text is None:
            return self.every() if complete else None
        if text == "all":
            return self.every()
        unknown = [word for word in text.split() if word not in self.words]
        if unknown:
            raise UserError(f"there is no word '{unknown[0]}'{nearest(unknown[0], self.words)}")
        ids = [2 + self.words.index(word) for word in text.split()][: self.length]
        return Tokens(torch.tensor([ids + [PADDING] * (self.length - len(ids))]))

    def describe(self, condition: Tokens) -> list[str]:
        return [" ".join(self.words[i - 2] for i in row if i > ABSENT) for row in condition.ids.tolist()]

    def every(self) -> Tokens:
        rows = [self.parse(word) for word in self.words]
        return Tokens(torch.cat([row.ids for row in rows if row is not None]))

    def recode(self, condition: Any, other: Any) -> Tokens:
        raise UserError("their words are others")

    def plain(self) -> dict[str, Any]:
        return {"kind": "words", "words": list(self.words), "length": self.length}

    @classmethod
    def from_plain(cls, table: Mapping[str, Any]) -> Words:
        return cls(tuple(table["words"]), int(table["length"]))


class Embedding(nn.Module):
    """The mean of the words' vectors."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(2 + count, width)

    def forward(self, condition: Tokens | None, num: int) -> Tensor:
        if condition is None:
            return self.table.weight[ABSENT].expand(num, -1)
        given = (condition.ids != PADDING)[..., None].float()
        return (self.table(condition.ids) * given).sum(1) / given.sum(1).clamp(min=1)


VOCABULARIES["words"] = Words.from_plain
