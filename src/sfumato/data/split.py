"""Which images are held out, by their content alone.

The first 52 bits of an image's SHA-256, as a number u in [0, 1), decide: the image is held out if u < held_out. So an
image stays on its side when others come, go or are renamed, copies are never on both sides, and two people with the
same images have the same split. If that holds out nothing and there are at least `FEWEST_TO_SPLIT` images,
those with the smallest u are held out; if it would leave nothing to train on, nothing is held out.

A source that comes in parts (val and test beside train) keeps these, except that copies of training images train too
(`split_as`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sfumato.conditions.attributes import Attribute
from sfumato.data.columns import copies_of, leading_bits
from sfumato.data.sources.protocol import Labels
from sfumato.errors import plural

FEWEST_TO_SPLIT = 20
FEW = 1000
"""With fewer training images than this a model of usual size repeats them (Gu et al. 2023, arXiv
2310.02664)."""


def split(digests: Sequence[str], held_out: float) -> tuple[NDArray[np.int64], NDArray[np.int64], str | None]:
    """Divide images into those that train and those held out.

    Args:
        digests: the SHA-256 of each image, in hexadecimal.
        held_out: the fraction to hold out, in [0, 1).

    Returns:
        The rows that train, the rows held out, both ascending, and a sentence where the fraction could not be kept.
    """
    u = (leading_bits(digests) >> np.uint64(12)) / 2.0**52
    out, note = u < held_out, None
    if held_out > 0 and not out.any():
        if len(u) < FEWEST_TO_SPLIT:
            note = f"nothing is held out: fewer than {FEWEST_TO_SPLIT} images"
        else:
            out = u == u.min()
            note = f"the fraction {held_out:g} holds out no image; the one with the smallest hash was taken"
    if out.all():
        out, note = np.zeros_like(out), "nothing is held out: it would leave nothing to train on"
    return np.flatnonzero(~out).astype(np.int64), np.flatnonzero(out).astype(np.int64), note


def split_as(
    digests: Sequence[str], held_out: NDArray[np.bool_], where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], str]:
    """Divide images as the parts of their source say.

    Args:
        digests: the SHA-256 of each image, in hexadecimal.
        held_out: (N,) which are to be held out.
        where: what says so, in words.

    Returns:
        The rows that train, the rows held out, both ascending, and a sentence about it.
    """
    trained = {digest for digest, out in zip(digests, held_out.tolist(), strict=True) if not out}
    copies = held_out & np.array([digest in trained for digest in digests])
    out = held_out & ~copies
    count, copied = int(out.sum()), int(copies.sum())
    images = "is 1 image" if count == 1 else f"are the {count:,} images"
    note = f"held out {images} of {where} (data.held_out=0 trains on all)"
    if copied:
        more = "1 more is an exact copy" if copied == 1 else f"{copied:,} more are exact copies"
        note += f"; {more} of training images, and trained on like these"
    if not out.any():
        note = f"nothing is held out: the images of {where} are exact copies of training images"
    if not trained:
        out, note = np.zeros_like(out), f"nothing is held out: beside {where} there is nothing to train on"
    return np.flatnonzero(~out).astype(np.int64), np.flatnonzero(out).astype(np.int64), note


def trained(labels: Labels, train: NDArray[np.int64]) -> Labels:
    """Return labels of which only those values are left that a training image has, with a note of the others.

    A model does not learn a value that only held-out images have, so its vocabulary must not offer it; the value of
    these images is not given.
    """
    conditions, attributes, notes = labels.conditions.copy(), list(labels.attributes), list(labels.notes)
    for a, attribute in enumerate(attributes):
        if not attribute.values:
            continue
        known = np.unique(conditions[train, a])
        known = known[~np.isnan(known)].astype(np.int64)
        missing = [value for k, value in enumerate(attribute.values) if k not in known]
        if missing and len(known):
            new = np.full(len(attribute.values), np.nan, np.float32)
            new[known] = np.arange(len(known))
            given = ~np.isnan(conditions[:, a])
            conditions[given, a] = new[conditions[given, a].astype(np.int64)]
            attributes[a] = Attribute(attribute.name, tuple(attribute.values[k] for k in known))
            shown = ", ".join(missing[:6]) + ", ..." * (len(missing) > 6)
            notes.append(f"{attribute.name}: no training image has {shown}, which the model can't be asked for")
    return replace(labels, attributes=tuple(attributes), conditions=conditions, notes=tuple(notes))


def warnings(digests: Sequence[str], num_train: int) -> list[str]:
    """Return sentences about copies and too few images."""
    notes = []
    copies, most = copies_of(digests)
    if most == len(digests):
        notes.append("all images are identical")
    elif copies:
        exact = "exact copy" if copies == 1 else "exact copies"
        notes.append(f"{copies:,} {exact} of other images; all copies are on one side of the split")
    if num_train < FEW:
        notes.append(f"only {plural(num_train, 'training image')}: expect the model to memorise them")
    return notes
