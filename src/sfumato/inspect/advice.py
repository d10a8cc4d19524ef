"""Advice on a collection: sentences with their evidence.

Papers are cited only for what their abstracts state: that diffusion models memorise mostly where the training
set is small (Gu et al. 2023, arXiv 2310.02664; Somepalli et al. 2022, 2212.03860, on how the size of the training set
bears on copying), and that they can emit single training images (Carlini et al. 2023, 2301.13188). The number below
which a set is small is `data.split.FEW`, which the warning in training uses too.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sfumato.config.presets import PRESETS, choose
from sfumato.data.sources.protocol import layout_of
from sfumato.data.split import FEW
from sfumato.errors import plural
from sfumato.inspect.report import Report

TABLES = (".csv", ".tsv", ".jsonl")
"""Suffixes of files that may be lists of labels."""
PAPERS = "Gu et al. 2023 (arXiv 2310.02664), Carlini et al. 2023 (2301.13188), Somepalli et al. 2022 (2212.03860)"


_WEIGHTY = (
    "values", "mark", "range", "memorisation", "near duplicates", "enlarging", "mirroring", "proportions", "balance",
    "unreadable", "labels", "exact duplicates", "settings", "a sample", "transparency",
)  # fmt: skip
"""Topics of advice, those first that change most of what is learned."""
TINT, MINORITY, SOME = 60.0, 0.05, 0.02
"""What is ordinary and only said: means of red, green and blue that are less far apart, in grey levels; fewer grey
images among those in colour, or the reverse; fewer mirrored duplicates or images far from the others, as fractions."""


@dataclass(frozen=True)
class Advice:
    """One piece of advice. The level is `trouble` (training would be wrong or useless), `mind` (needs a decision) or
    `good`."""

    level: str
    topic: str
    text: str


def advise(report: Report, preset: str | None = None) -> list[Advice]:
    """Return the advice, trouble first; a preset is recommended where none is given."""
    if not len(report.records):
        return [Advice("trouble", "nothing to train on", "no image can be read; the report lists the reasons by file")]
    rules = (_unreadable, _values, _size, _memorisation, _duplicates, _mirror, _balance, _labels, _contents, _sample)
    advices = [*_settings(report, preset), *(advice for rule in rules for advice in rule(report))]
    return sorted(advices, key=_weight)


def _weight(advice: Advice) -> tuple[int, int]:
    """The order of advice: by level, then by how much a decision changes what is learned."""
    first = next((k for k, topic in enumerate(_WEIGHTY) if advice.topic.startswith(topic)), len(_WEIGHTY))
    return ("trouble", "mind", "good").index(advice.level), first


def _unreadable(report: Report) -> Iterator[Advice]:
    bad, fraction = len(report.faults), len(report.faults) / report.scanned
    if not bad:
        yield Advice("good", "readable", f"all {report.scanned:,} images can be decoded to the last row")
        return
    text = f"{bad:,} of {plural(report.scanned, 'file')} cannot be read ({fraction:.1%}): training skips and lists them"
    yield Advice("trouble" if fraction > 0.1 else "mind", "unreadable files", text)


def _values(report: Report) -> Iterator[Advice]:
    for finding in report.findings:
        yield Advice("trouble" if finding.trouble else "mind", finding.topic, finding.text)


def _size(report: Report) -> Iterator[Advice]:
    (height, width), why = report.size
    sides = np.minimum(report.records["height"], report.records["width"])
    low, middle, high = np.quantile(sides, [0.05, 0.5, 0.95])
    text = f"{why}; the shorter side is {low:.0f} (5 % quantile), {middle:.0f} (median), {high:.0f} (95 %)"
    yield Advice("good", "resolution", text)
    enlarged = report.enlarged / len(report.records)
    if enlarged > 0.05:
        yield Advice(
            "mind",
            "enlarging",
            f"{report.enlarged:,} images ({enlarged:.0%}) are smaller than {width}x{height} and would be enlarged: the "
            f"model learns their blur. --data.size {int(low)},{int(low)} would enlarge almost none; or leave them out",
        )
    lost = report.lost_to_crop
    if lost.mean() > 0.1:
        yield Advice(
            "mind",
            "proportions",
            f"the centred crop to {width}x{height} loses {lost.mean():.0%} of an average image's pixels, and "
            f"{np.quantile(lost, 0.95):.0%} or more of the most extreme twentieth: check that the subject is in the "
            "middle, or set --data.size to the images' own proportions",
        )


def _settings(report: Report, preset: str | None) -> Iterator[Advice]:
    (height, width), _ = report.size
    shape, count = (report.channels, height, width), max(1, _distinct(report))
    name, reason, _ = choose(shape, count, "cpu")
    large, *_ = choose(shape, count, "cuda")
    if preset is None:
        gpu = f" on a CPU, {large} on a GPU" if large != name else ""
        yield Advice(
            "good", "settings", f"train takes preset {name}{gpu} by default, for {reason}{_flip(report, name)}"
        )
    elif preset in (name, large):
        yield Advice("good", "settings", f"preset {preset}, which is also the recommended one{_flip(report, preset)}")
    else:
        text = f"preset {preset}; recommended is {name}: {reason}{_flip(report, preset)}"
        yield Advice("mind", "settings", text)


def _flip(report: Report, preset: str) -> str:
    """What becomes of a preset's mirroring."""
    if not PRESETS[preset].config.data.flip or report.config.flip:
        return ""
    what = "mirrors images" if report.mirror.allows else "would mirror images, which training leaves off"
    return f". The preset {what}: {report.mirror.reason}"


def _distinct(report: Report) -> int:
    """How many distinct images there are; of a sample, extrapolated."""
    return round(report.distinct * report.total / report.scanned)


def _memorisation(report: Report) -> Iterator[Advice]:
    distinct = _distinct(report)
    if distinct < 2:
        text = f"{plural(distinct, 'distinct image')}: training needs at least 2, and a good model thousands"
        yield Advice("trouble", "too few", text)
    elif distinct < FEW:
        yield Advice(
            "trouble" if distinct < FEW / 10 else "mind",
            "memorisation",
            f"{distinct:,} distinct images are few: expect the model to memorise them. Diffusion models tend to "
            f"memorise small sets and can emit single training images: {PAPERS}. Collect more, train a smaller "
            "network, stop at the lowest held-out loss, and look at the nearest training images in `sfumato evaluate`",
        )
    else:
        yield Advice("good", "number", plural(distinct, "distinct image"))


def _duplicates(report: Report) -> Iterator[Advice]:
    duplicates = report.duplicates
    if exact := sum(len(group) - 1 for group in duplicates.exact):
        yield Advice(
            "mind",
            "exact duplicates",
            f"{plural(exact, 'image')} with the same pixels as another: they count double in training. Exact "
            "duplicates are always on one side of the split; --fix FILE.txt leaves out all but the first",
        )
    if near := sum(len(group) - 1 for group in duplicates.near):
        yield Advice(
            "trouble" if len(duplicates.spare) > 0.2 * len(report.records) else "mind",
            "near duplicates",
            f"{plural(near, 'image')} nearly the same as another (saved again, resized, brightened, slightly cropped); "
            f"about {report.across_split():.1f} of {plural(len(duplicates.near), 'group')} will be on both sides of "
            "the split, where they make the held-out loss look better than it is; --fix FILE.txt leaves out all but "
            "the first",
        )
    if pairs := len(duplicates.mirrored):
        many = pairs > SOME * len(report.records)
        text = f"{plural(pairs, 'pair')} of mirror images; with --data.flip true they become duplicates"
        augmented = ". The set was augmented already, or it shows things from both sides. --fix FILE.txt keeps them"
        yield Advice("mind" if many else "good", "mirrored duplicates", text + (augmented if many else ""))
    if not duplicates.exhaustive:
        yield Advice("mind", "duplicates", "only some pairs were compared, because too many images look alike")


def _mirror(report: Report) -> Iterator[Advice]:
    mirror, verdict = report.mirror, report.mirror.verdict
    evidence = (
        f"of {mirror.num:,} images {mirror.fraction:.0%} are nearer to the others than their mirror image is (50 % "
        f"where sides do not matter), and the mirror image is {mirror.farther:.2f} times as far away"
    )
    text = {
        "symmetric": "images are their own mirror images: data.flip changes nothing",
        "unsure": "too few images to tell whether left and right matter: leave data.flip off where they show text, "
        "digits, maps, or things that always point one way",
        "flip": f"--data.flip true is reasonable and doubles the training data: {evidence}. Text in single images is "
        "not detected by this test",
        "some": f"some images should not be mirrored (text, things that point one way): {evidence}. With --data.flip "
        "true the model will generate them in both directions",
        "keep": f"leave data.flip off: mirror images do not belong to this set, as with text and digits: {evidence}",
    }
    wrong = report.config.flip and verdict == "keep"
    level = "trouble" if wrong else "mind" if verdict in ("unsure", "some") else "good"
    yield Advice(level, "mirroring", text[verdict])


def _balance(report: Report) -> Iterator[Advice]:
    for a, attribute in enumerate(report.source.attributes):
        counts = {value: count for value, count in report.counts(a).items() if value != "(not given)"}
        if len(counts) < 2:
            continue
        rare, common = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        topic, few, many = f"balance of {attribute.name}", counts[rare], counts[common]
        if many > 10 * max(few, 1):
            text = f"'{common}' has {many:,} images and '{rare}' {few:,}: a model with labels will generate the rare "
            yield Advice("mind", topic, text + "ones worse and memorise them sooner")
        elif few < FEW / 10:
            yield Advice("mind", topic, f"'{rare}' has only {few:,} images to learn from")
        else:
            yield Advice("good", topic, f"{len(counts)} values, from {few:,} ('{rare}') to {many:,} ('{common}')")


def _labels(report: Report) -> Iterator[Advice]:
    tables = [table.origin for table in layout_of(report.source).tables]
    tables += [report.source.origin(i) for i, _ in report.others if report.source.origin(i).lower().endswith(TABLES)]
    if not tables or report.config.labels != "none":
        return
    file = "source" if layout_of(report.source).tables else shlex.quote(f"{report.source.name}/{tables[0]}")
    yield Advice("mind", "labels", f"--labels {file} trains with {tables[0]}, which looks like a list of labels")


def _contents(report: Report) -> Iterator[Advice]:
    r = report.records
    red, green, blue = r["mean"].mean(0)
    grey, constant, deep, clear = (int(x.sum()) for x in (r["grey"], r["constant"], r["bits"] == 16, r["alpha"]))
    far = len(report.outliers.far())
    if 0 < grey < len(r):
        text = f"{grey:,} of {len(r):,} images are grey and the others in colour: the model will generate both"
        few = min(grey, len(r) - grey) < MINORITY * len(r)
        yield Advice("good" if few else "mind", "colour", text)
    if (apart := np.ptp((red, green, blue))) > 25:
        text = f"mean red, green and blue are {red:.0f}, {green:.0f} and {blue:.0f}: samples will have the data's tint"
        yield Advice("good" if apart < TINT else "mind", "colour cast", text)
    if constant:
        text = f"{plural(constant, 'image')} of a single colour; --fix FILE.txt leaves them out"
        yield Advice("mind", "single colours", text)
    if 0 < deep < len(r) and report.config.depth == "auto":
        text = f"{plural(deep, 'image')} of 16 bits a channel, which training reads as 8 (--data.depth 16 keeps 16)"
        yield Advice("mind", "bit depth", text)
    if clear:
        text = f"{plural(clear, 'image')} with transparency: the background will be {report.config.background} "
        yield Advice("mind", "transparency", text + "(--data.background COLOUR)")
    if far:
        text = f"{plural(far, 'image')} far from the others in brightness, contrast, colour, shape or appearance"
        few = far < SOME * len(r)
        yield Advice("good" if few else "mind", "outliers", text + ": check that they belong")


def _sample(report: Report) -> Iterator[Advice]:
    if report.scanned < report.total:
        text = f"{report.scanned:,} of {report.total:,} images were scanned: most duplicates and unreadable files "
        yield Advice("mind", "a sample", text + "are not found")
