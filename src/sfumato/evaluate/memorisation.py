r"""Detection of memorised training images.

A generated image is suspicious if it is nearer to a training image than unseen images are. But the distance alone
misleads: a smooth image is near many others, a detailed one near none. So each image's distance to its nearest training
image is compared with those to the next ones (Yoon et al. 2023; Carlini et al. 2023, 2301.13188),

    ratio = d_1 / mean(d_2 .. d_(k+1)),    near 1: no training image stands out;  near 0: a copy

and a generated image's ratio is compared with those of held-out images, which no model can have copied. If the model
has not memorised, both come from one distribution, and two tests follow without an assumption about it:

- **The tail.** The threshold is the m-th smallest of the H held-out ratios, m about H / 100; generated images below it
are *flagged*. The chance that g or more of the N generated come before m of the held-out ones, all orders
  being equally likely, is that of finding fewer than m held-out images among the first g + m - 1:

      p = sum over j < m of C(H, j) C(N, g + m - 1 - j) / C(H + N, g + m - 1)

- **The whole.** AUC, the chance that a generated image's ratio is below a held-out one's, is 1/2; its one-sided p is
  that of Mann and Whitney (1947), with their normal approximation and the correction for ties.

Copies, byte for byte, are a third sign, with its own probability: where R of the M training images are duplicated, a
new image is a copy with a chance of about R / M (Good 1953), and copies among N are binomial. Of training images with
the same bytes only the first counts as a neighbour, else ratios of copied images would be 1. Where R = 0, that chance
says nothing: no image of the distribution was met twice, so a single copy is a finding of its own.

The verdict is "memorised" where p < 0.001 for copies or for the tail of some space, or where there is a copy and R = 0.
AUC is only reported: a model that copies one image in twenty hardly changes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sfumato.data import Dataset
from sfumato.errors import UserError
from sfumato.evaluate.cache import check_shape, real_features, split_rows
from sfumato.evaluate.features import Extractor, extract
from sfumato.evaluate.neighbours import nearest
from sfumato.generate.pictures import strip

NEIGHBOURS = 10
"""k: how many further training images the nearest is compared with."""
NEAR = 2.0
"""Levels of 255, root mean square, up to which an image is called a near copy."""
SAME = 1e-3
"""The same up to which floats, whose distances are rounded, are called copies."""
TAIL, LINE = 0.01, 0.001
"""The fraction of held-out images below the flagging line, and the p below which the verdict is "memorised"."""


@dataclass(frozen=True, eq=False)
class NearestDistances:
    """The distances of generated images to their nearest training images in one space.

    Attributes:
        space: `pixels` (distances are root mean squares in levels of 255) or an extractor's name (Euclidean).
        distance: (N,), to the nearest training image.
        row: (N,), that image's row in the data set.
        ratio: (N,), d_1 / mean(d_2 .. d_(k+1)).
        held_out_distance, held_out_ratio: (H,), the same of held-out images.
    """

    space: str
    distance: Tensor
    row: Tensor
    ratio: Tensor
    held_out_distance: Tensor
    held_out_ratio: Tensor

    def __repr__(self) -> str:
        return f"NearestDistances({self.space}: {len(self.distance):,} images, {int(self.flagged.sum()):,} flagged)"

    @classmethod
    def of(cls, space: str, generated: Any, train: Any, held_out: Any, rows: Tensor) -> NearestDistances:
        """Find the nearest of different training images (M, D), M >= 3, which are `rows` of the data set."""
        k = min(NEIGHBOURS, len(train) - 1)
        distance, which = nearest(generated, train, k + 1)
        unseen, _ = nearest(held_out, train, k + 1)
        return cls(space, distance[:, 0], rows[which[:, 0]], _ratio(distance), unseen[:, 0], _ratio(unseen))

    @property
    def median_ratio(self) -> float:
        """Median distance of generated images over that of held-out ones: below 1, nearer to the training images."""
        return float(self.distance.median() / self.held_out_distance.median().clamp(min=1e-12))

    @property
    def line(self) -> tuple[float, int]:
        """The ratio below which an image is flagged, and m, its rank among the held-out ones."""
        rank = max(1, round(TAIL * len(self.held_out_ratio)))
        return float(self.held_out_ratio.sort().values[rank - 1]), rank

    @property
    def flagged(self) -> Tensor:
        """(N,) bool: the ratio lies below the line."""
        return self.ratio < self.line[0]

    @property
    def expected(self) -> float:
        """The fraction that would be flagged without memorisation, on average."""
        return self.line[1] / (len(self.held_out_ratio) + 1)

    @property
    def tail_p(self) -> float:
        """The chance of so many flagged images without memorisation."""
        return tail_chance(int(self.flagged.sum()), len(self.ratio), self.line[1], len(self.held_out_ratio))

    @property
    def auc(self) -> tuple[float, float]:
        """AUC and its one-sided p."""
        return mann_whitney(self.ratio, self.held_out_ratio)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain values."""
        line, _ = self.line
        auc, auc_p = self.auc
        return {
            "space": self.space,
            "median_distance": float(self.distance.median()),
            "held_out_median_distance": float(self.held_out_distance.median()),
            "median_ratio": self.median_ratio,
            "auc": auc,
            "auc_p": auc_p,
            "flagged": float(self.flagged.double().mean()),
            "flagged_expected": self.expected,
            "flagging_line": line,
            "tail_p": self.tail_p,
        }


@dataclass(frozen=True, eq=False)
class Memorisation:
    """Whether training images are repeated, and the evidence.

    Attributes:
        spaces: by pixels, and by features where an extractor was given.
        copies: the fraction of generated images whose bytes are a training image's.
        copies_p: the chance of so many without memorisation.
        near_copies: the fraction within 2 levels of 255 of one (root mean square), copies included.
        copied: the positions of the copies among the generated images.
        repeated: how many training images are equal to another one.
    """

    spaces: tuple[NearestDistances, ...]
    copies: float
    copies_p: float
    near_copies: float
    num_train: int
    num_held_out: int
    num_generated: int
    extractor_sha256: str = ""
    copied: tuple[int, ...] = ()
    repeated: int = 0

    def __repr__(self) -> str:
        return f"Memorisation({self.sentence})"

    @property
    def memorised(self) -> bool:
        """Whether more images are copies, or flagged in some space, than chance explains."""
        return self.copied_unique or min(self.copies_p, *(space.tail_p for space in self.spaces)) < LINE

    @property
    def copied_unique(self) -> bool:
        """Whether there is a copy although no two training images are equal."""
        return bool(self.copied) and not self.repeated

    @property
    def sentence(self) -> str:
        """The verdict in words: copies, then images that are too close to a single training image."""
        worst = min(self.spaces, key=lambda space: space.tail_p)
        flagged, expected = int(worst.flagged.sum()), len(worst.ratio) * worst.expected
        close = "none is" if not flagged else f"{flagged:,} {'is' if flagged == 1 else 'are'}"
        verdict = "the model repeats" if self.memorised else "no sign that the model repeats"
        rare = f"; by chance so many are with probability {worst.tail_p:.1g}" if worst.tail_p < LINE else ""
        return (
            f"{verdict} training images: {self._copies}; {close} suspiciously close to a single one (by "
            f"{worst.space}); without memorisation about {expected:.0f} would be{rare}"
        )

    @property
    def _copies(self) -> str:
        """How many generated images are equal to a training image, or nearly."""
        number = len(self.copied)
        shown = ", ".join(str(n + 1) for n in self.copied[:5]) + ", ..." * (number > 5)
        near = round(self.near_copies * self.num_generated) - number
        equal = f"{number:,}" if number else "none"
        equal += f" of {self.num_generated:,} generated images {'is' if number < 2 else 'are'} equal to one"
        if number:
            rare = self.copies_p < LINE and not self.copied_unique
            equal += f" (number {shown})"
            equal += ", though no two training images are equal" if self.copied_unique else ""
            equal += f" (by chance with probability {self.copies_p:.1g})" if rare else ""
        return equal + (f", and {near:,} more {'is' if near == 1 else 'are'} so nearly" if near > 0 else "")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them."""
        names = ("memorised", "sentence", "copies", "copies_p", "near_copies", "num_train", "num_held_out")
        table = {name: getattr(self, name) for name in (*names, "num_generated", "extractor_sha256")}
        table |= {"copied": list(self.copied), "repeated": self.repeated}
        return {**table, "spaces": [space.to_dict() for space in self.spaces]}


def find_memorised(
    data: Dataset, generated: Tensor, extractor: Extractor | None = None, cache: Path | None = None
) -> Memorisation:
    """Search for training images among generated ones (N, C, H, W), stored values.

    Args:
        data: what the model was trained on, with its held-out images.
        extractor: a second space, besides pixels.
        cache: where features of the data set are kept; None is the default folder.

    Raises:
        UserError: nothing is held out, fewer than three different training images, no generated image, or
            images of another shape.
    """
    check_shape(data, generated)
    held_out, train = split_rows(data, "held_out"), split_rows(data, "train")
    kept, repeated = _different([data.digests[row] for row in train.tolist()])
    if len(kept) < 3 or not len(generated):
        raise UserError(f"{len(kept)} different training and {len(generated)} generated images are too few to compare")
    rows, unit = train[kept], 127.5 / data.format.scale / math.sqrt(math.prod(data.shape))
    raw = NearestDistances.of("pixels", generated.flatten(1), _Vectors(data, rows), _Vectors(data, held_out), rows)
    spaces = [replace(raw, distance=raw.distance * unit, held_out_distance=raw.held_out_distance * unit)]
    if extractor is not None and extractor.name not in ("pixels", "wavelets"):
        theirs, unseen = (real_features(data, extractor, split, cache=cache) for split in ("train", "held_out"))
        ours = extract(extractor, torch.split(generated, 64), format=data.format)
        spaces.append(NearestDistances.of(extractor.name, ours, theirs[kept], unseen, rows))
    distance = spaces[0].distance
    copied = tuple((distance <= (0 if data.format.levels else SAME)).nonzero()[:, 0].tolist())
    copies = len(copied)
    return Memorisation(
        tuple(spaces),
        copies=copies / len(generated),
        copies_p=binomial_tail(copies, len(generated), (repeated + 1) / (len(train) + 1)),
        near_copies=float((distance <= NEAR).double().mean()),
        num_train=len(train),
        num_held_out=len(held_out),
        num_generated=len(generated),
        extractor_sha256=extractor.sha256 if len(spaces) > 1 and extractor else "",
        copied=copied,
        repeated=repeated,
    )


def tail_chance(before: int, generated: int, rank: int, held_out: int) -> float:
    """Return the chance that at least `before` of the generated come before `rank` of the held-out ones: g, N, m, H."""
    first = before + rank - 1
    terms = [
        _log_choose(held_out, j) + _log_choose(generated, first - j) - _log_choose(held_out + generated, first)
        for j in range(rank)
        if first - j <= generated
    ]
    return min(1.0, sum(math.exp(term) for term in terms))


def binomial_tail(least: int, trials: int, chance: float) -> float:
    """Return the chance of at least `least` successes in `trials` trials of a chance in (0, 1]."""
    if least == 0 or chance >= 1:
        return 1.0
    odds = [k * math.log(chance) + (trials - k) * math.log1p(-chance) for k in range(least, trials + 1)]
    return min(1.0, sum(math.exp(_log_choose(trials, k) + log) for k, log in enumerate(odds, least)))


def mann_whitney(low: Tensor, high: Tensor) -> tuple[float, float]:
    """Return the chance that one of `low` (N,) is below one of `high` (H,), ties half, and its one-sided p."""
    n, m = len(low), len(high)
    values, counts = torch.unique(torch.cat((low, high)), return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts - 1) / 2)[torch.searchsorted(values, high)]
    wins = float(ranks.sum()) - m * (m + 1) / 2
    ties = float((counts.double().pow(3) - counts).sum()) / ((n + m) * (n + m - 1))
    deviation = math.sqrt(n * m / 12 * (n + m + 1 - ties))
    if deviation == 0:
        return 0.5, 1.0
    return wins / (n * m), math.erfc((wins - n * m / 2) / deviation / math.sqrt(2)) / 2


def contact_sheet(
    data: Dataset, generated: Tensor, memorisation: Memorisation, num: int = 40, columns: int = 10
) -> Image.Image:
    """Draw the `num` most suspicious of the generated images above their nearest training images in each space.

    Each band has a row of generated images, the smallest ratios (by pixels) first; as many bands as can be filled.
    """
    worst = memorisation.spaces[0].ratio.argsort()[:num]
    columns = min(columns, len(worst))
    rows: list[Any] = []
    labels: list[str] = []
    for band in torch.split(worst[: len(worst) // columns * columns], columns):
        near = (data.shown(space.row[band].numpy()) for space in memorisation.spaces)
        rows += [data.format.shown(generated[band]).numpy(), *near]
        labels += ["generated", *(f"nearest by\n{space.space}" for space in memorisation.spaces)]
    return strip(rows, labels, group=1 + len(memorisation.spaces))


@dataclass(frozen=True, eq=False)
class _Vectors:
    """Some images of a data set as rows of values, read from the store piece by piece."""

    data: Dataset
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Tensor:
        return torch.from_numpy(self.data.images[self.rows[part].numpy()]).flatten(1)


def _different(digests: Sequence[str]) -> tuple[Tensor, int]:
    """The positions of each digest's first occurrence, and the number of images with a repeated digest."""
    first: dict[str, int] = {}
    for position, digest in enumerate(digests):
        first.setdefault(digest, position)
    counts = Counter(digests)
    return torch.tensor(list(first.values()), dtype=torch.int64), sum(n for n in counts.values() if n > 1)


def _ratio(distance: Tensor) -> Tensor:
    """d_1 / mean(d_2 .. ), (N,); 1 where all are at distance 0, which only features can be."""
    others = distance[:, 1:].mean(1)
    return torch.where(others > 0, distance[:, 0] / others.clamp(min=1e-300), 1.0)


def _log_choose(n: int, k: int) -> float:
    """log C(n, k)."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
