"""What to do about what was seen: each piece of advice is a sentence with its evidence, and nothing is said without.

The facts from papers are no more than their abstracts state: that diffusion models memorise mostly where the training
set is small (Gu et al. 2023, arXiv 2310.02664; Somepalli et al. 2022, 2212.03860, on how the size of the training set
bears on copying), and that they can emit single training images (Carlini et al. 2023, 2301.13188). The number from
which a set counts as small is `data.dataset.FEW`, which the training's own warning uses too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sfumato.config.presets import choose
from sfumato.data.dataset import FEW
from sfumato.inspect.report import Report

__all__ = ["Advice", "advise", "many"]

PAPERS = "Gu et al. 2023 (arXiv 2310.02664), Carlini et al. 2023 (2301.13188), Somepalli et al. 2022 (2212.03860)"


@dataclass(frozen=True)
class Advice:
    """One thing to know.

    Attributes:
        level: `trouble` (training would be wrong or useless), `mind` (decide about it), or `good`.
        topic: a word or two.
        text: what was seen and what to do about it.
    """

    level: str
    topic: str
    text: str


def advise(report: Report, preset: str | None = None) -> list[Advice]:
    """Return the advice, trouble first.

    Args:
        report: what was seen.
        preset: the settings that the user has chosen; None recommends some.
    """
    if not len(report.sights):
        return [Advice("trouble", "nothing to train on", "no picture can be read; the reasons stand with the files")]
    rules = (_unreadable, _size, _memory, _copies, _mirror, _classes, _contents, _sampled)
    found = [*_settings(report, preset), *(advice for rule in rules for advice in rule(report))]
    return sorted(found, key=lambda advice: ("trouble", "mind", "good").index(advice.level))


def many(count: int, thing: str) -> str:
    """Return a number of things: `1 picture`, `2,000 pictures`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _unreadable(report: Report) -> Iterator[Advice]:
    """How much of it can be read."""
    bad = len(report.faults)
    if bad:
        share = bad / report.looked_at
        yield Advice(
            "trouble" if share > 0.1 else "mind",
            "unreadable files",
            f"{bad:,} of {report.looked_at:,} files can't be used ({share:.1%}); training leaves them out and names "
            "them. Each stands below with its reason",
        )
    else:
        yield Advice("good", "readable", f"all {report.looked_at:,} pictures can be decoded to the last row")


def _size(report: Report) -> Iterator[Advice]:
    """The resolution, and what it costs."""
    (height, width), why = report.size
    sides = np.minimum(report.sights["height"], report.sights["width"])
    low, middle, high = np.quantile(sides, [0.05, 0.5, 0.95])
    text = f"{why}; shorter sides run from {low:.0f} (5 %) over {middle:.0f} (median) to {high:.0f} (95 %)"
    yield Advice("good", "resolution", text)
    enlarged = report.enlarged / len(report.sights)
    if enlarged > 0.05:
        fits = int(low)
        yield Advice(
            "mind",
            "enlarging",
            f"{report.enlarged:,} pictures ({enlarged:.0%}) are smaller than {width}x{height} and would be enlarged: "
            f"the model learns their blur. --data.size {fits},{fits} would enlarge almost none, or leave them out",
        )
    lost = report.lost_to_crop
    if lost.mean() > 0.1:
        yield Advice(
            "mind",
            "proportions",
            f"the centred cut to {width}x{height} leaves out {lost.mean():.0%} of an average picture's pixels and "
            f"{np.quantile(lost, 0.95):.0%} or more of the most extreme twentieth: look whether what matters is in "
            "the middle, or set --data.size to the pictures' own proportions",
        )


def _settings(report: Report, preset: str | None) -> Iterator[Advice]:
    """The preset."""
    (height, width), _ = report.size
    shape, count = (report.channels, height, width), max(1, _distinct(report))
    name, reason = choose(shape, count, "cpu")
    large, why = choose(shape, count, "cuda")
    if preset is None:
        gpu = f"; with a GPU {large}: {why}" if large != name else ""
        yield Advice("good", "settings", f"preset {name}: {reason}{gpu}")
    elif preset in (name, large):
        yield Advice("good", "settings", f"preset {preset}, which would be chosen too")
    else:
        yield Advice("mind", "settings", f"preset {preset}; {name} would be chosen: {reason}")


def _distinct(report: Report) -> int:
    """How many different pictures there are; of a sample, what its share lets expect."""
    return round(report.distinct * report.total / report.looked_at)


def _memory(report: Report) -> Iterator[Advice]:
    """Whether the model will repeat its pictures."""
    distinct = _distinct(report)
    if distinct < 2:
        text = f"{distinct} different picture: a model needs at least 2, and a good one thousands"
        yield Advice("trouble", "too few", text)
    elif distinct < FEW:
        yield Advice(
            "trouble" if distinct < FEW / 10 else "mind",
            "memorisation",
            f"{distinct:,} different pictures are few: expect a model to repeat them rather than to invent. Diffusion "
            f"models tend to memorise small sets and can emit single training pictures: {PAPERS}. Gather more, train "
            "a smaller network, stop early by the held-out loss, and look at `sfumato evaluate`'s nearest pictures",
        )
    else:
        yield Advice("good", "number", f"{distinct:,} different pictures")


def _copies(report: Report) -> Iterator[Advice]:
    """Copies, and what they do to training and to the measures."""
    copies, spare = report.copies, len(report.copies.spare)
    share = spare / len(report.sights)
    exact = sum(len(group) - 1 for group in copies.exact)
    if exact:
        yield Advice(
            "mind",
            "exact copies",
            f"{many(exact, 'picture')} with the very pixels of another: they count double in training. All copies lie "
            "on one side of the split; --fix leaves out all but the first",
        )
    if copies.near:
        near = sum(len(group) - 1 for group in copies.near)
        yield Advice(
            "trouble" if share > 0.2 else "mind",
            "near copies",
            f"{many(near, 'picture')} nearly the same as another (re-saved, resized, brightened, slightly cut); about "
            f"{report.across_split():.1f} of {many(len(copies.near), 'group')} will lie on both sides of the split, "
            "where they make the held-out loss look better than it is; --fix leaves out all but the first",
        )
    if copies.mirrored:
        yield Advice(
            "mind",
            "mirrored copies",
            f"{many(len(copies.mirrored), 'pair')} of mirror images: somebody has augmented the set already, or "
            "it shows things from both sides; with data.flip they become copies. --fix keeps them",
        )
    if not copies.exhaustive:
        yield Advice("mind", "copies", "so many pictures look alike that near copies were searched for only in part")


def _mirror(report: Report) -> Iterator[Advice]:
    """Whether data.flip is sensible."""
    mirror, verdict = report.mirror, report.mirror.verdict
    evidence = (
        f"of {mirror.num:,} pictures {mirror.share:.0%} are nearer to the others than their mirror image is (sides "
        f"that don't matter give 50 %), and the mirror image lies {mirror.farther:.2f} times as far off"
    )
    flip = report.config.flip
    said = {
        "symmetric": "pictures are their own mirror images: data.flip changes nothing",
        "unsure": "too few pictures to tell whether left and right matter: leave data.flip off where they show text, "
        "digits, maps, or things that always point one way",
        "flip": f"--data.flip true is sensible and doubles what can be learnt from: {evidence}. Text in single "
        "pictures isn't seen by this measure",
        "some": f"part of the pictures have a side (text, things that point one way): {evidence}. With data.flip the "
        "model will draw them either way",
        "keep": f"leave data.flip off: mirror images don't belong to this set, as with text and digits: {evidence}",
    }
    level = "trouble" if flip and verdict == "keep" else "mind" if verdict in ("unsure", "some") else "good"
    yield Advice(level, "mirroring", said[verdict])


def _classes(report: Report) -> Iterator[Advice]:
    """The balance of labels."""
    for a, attribute in enumerate(report.source.attributes):
        counts = report.counts(a)
        given = {value: count for value, count in counts.items() if value != "(not given)"}
        if len(given) < 2:
            continue
        (most, many), (least, few) = max(given.items(), key=lambda x: x[1]), min(given.items(), key=lambda x: x[1])
        if many > 10 * max(few, 1):
            yield Advice(
                "mind",
                f"balance of {attribute.name}",
                f"'{most}' has {many:,} pictures and '{least}' {few:,}: a model with labels will draw the rare ones "
                "worse and repeat them sooner",
            )
        elif few < FEW / 10:
            yield Advice("mind", f"balance of {attribute.name}", f"'{least}' has only {few:,} pictures to learn from")
        else:
            text = f"{len(given)} values, from {few:,} ('{least}') to {many:,} ('{most}')"
            yield Advice("good", f"balance of {attribute.name}", text)


def _contents(report: Report) -> Iterator[Advice]:
    """Colour, contrast, depth, transparency, odd ones."""
    s, count = report.sights, len(report.sights)
    red, green, blue = s["mean"].mean(0)
    grey, far = int(s["grey"].sum()), len(report.odd.odd())
    rules = (
        (
            0 < grey < count,
            "colour",
            f"{grey:,} of {count:,} pictures grey and the others in colour: the model will draw both",
        ),
        (
            np.ptp((red, green, blue)) > 25,
            "colour cast",
            f"mean red, green and blue are {red:.0f}, {green:.0f} and {blue:.0f}: samples will have the data's tint",
        ),
        (
            s["constant"].any(),
            "single colours",
            f"{many(s['constant'].sum(), 'picture')} without anything on them; --fix leaves them out",
        ),
        (
            (s["bits"] == 16).any(),
            "bit depth",
            f"{many((s['bits'] == 16).sum(), 'picture')} of 16 bits a channel, which training reads as 8",
        ),
        (
            s["alpha"].any(),
            "transparency",
            f"{many(s['alpha'].sum(), 'picture')} with transparency: they will lie on {report.config.background} "
            "(--data.background COLOUR)",
        ),
        (
            far > 0,
            "odd pictures",
            f"{many(far, 'picture')} far from the others in brightness, contrast, colour, shape or appearance: look "
            "whether they belong",
        ),
    )
    yield from (Advice("mind", topic, text) for seen, topic, text in rules if seen)


def _sampled(report: Report) -> Iterator[Advice]:
    """What a sample can't tell."""
    if report.looked_at < report.total:
        text = (
            f"{report.looked_at:,} of {report.total:,} pictures were looked at: of the copies most are not seen, and "
            "of the unreadable files only a part"
        )
        yield Advice("mind", "a sample", text)
