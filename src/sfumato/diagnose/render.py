"""A diagnosis as text and as JSON: symptoms, causes, figures and remedies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfumato.diagnose.causes import WORDS, Finding
from sfumato.diagnose.evidence import Evidence, how, to_json
from sfumato.diagnose.symptoms import Symptom, byte, channel_names
from sfumato.evaluate.verdict import CLOSE
from sfumato.report.text import columns, wrapped

SEVERITY = {3: "ruins the samples", 2: "harms the samples", 1: "worth knowing"}
KINDS = {"ema": "the average of the weights", "raw": "the weights as trained", "best": "the best weights"}


def as_text(evidence: Evidence, symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> str:
    """Return the diagnosis for people: the verdict, the samples beside the data, the causes with figures and
    remedies."""
    parts = [
        wrapped(f"{evidence.path}: {verdict(evidence, symptoms, findings)}", indent="  "),
        _statistics(evidence),
        _errors(evidence),
        *(_finding(number, finding) for number, finding in enumerate(findings, 1)),
    ]
    if all(finding.severity == 1 for finding in findings):
        names = {finding.cause for finding in findings}
        absent = ", ".join(words for name, words in WORDS.items() if name not in names)
        parts.append(wrapped(f"Looked for and not found: {absent}.", indent="  "))
    return "\n\n".join(parts)


def verdict(evidence: Evidence, symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> str:
    """Return the diagnosis in a few sentences: the likeliest cause, how far the samples are from the data, and what is
    wrong with them."""
    quality = evidence.quality
    samples = f"The samples are {quality.sentence}."
    seen = "".join(f" {symptom.sentence[0].upper()}{symptom.sentence[1:]}." for symptom in symptoms)
    grave = [finding for finding in findings if finding.severity > 1]
    if grave:
        more = f" ({len(grave) - 1} more below)" if len(grave) > 1 else ""
        return f"{grave[0].sentence.rstrip('.')}{more}. {samples}{seen}"
    first = f"{findings[0].sentence[0].lower()}{findings[0].sentence[1:]}" if findings else ""
    if seen or quality.least > CLOSE:
        return f"{samples}{seen} " + (
            f"Most likely: {first}" if first else "No cause was found for it; the figures are below."
        )
    found = f"worth knowing: {first}" if first else ""
    if quality.worst > CLOSE:  # "nothing wrong" would contradict it
        return f"{samples} {found[0].upper()}{found[1:]}" if found else f"{samples} No fault was found."
    return f"nothing wrong found{'; ' + found if found else '.'} {samples}"


def as_json(evidence: Evidence, symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the diagnosis as one JSON-able object, with every figure and how it was measured."""
    return {
        "path": evidence.path,
        "verdict": verdict(evidence, symptoms, findings),
        "symptoms": to_json(symptoms),
        "findings": to_json(findings),
        "evidence": to_json(evidence),
        "how": how(),
    }


def _finding(number: int, finding: Finding) -> str:
    """A numbered sentence, its figures, and the commands, which are never broken into lines."""
    lines = [wrapped(f"{number}. {finding.sentence} [{SEVERITY[finding.severity]}]", indent="   ")]
    lines += [wrapped(figure, "   - ") for figure in finding.figures]
    lines += [f"   {'do:' if n == 0 else 'or:'} {command}" for n, command in enumerate(finding.remedy)]
    return "\n".join(lines)


def beside(evidence: Evidence) -> tuple[str, list[tuple[str, str, str]]]:
    """Return a heading, and rows of a name, the samples' statistic, the data's; in values of 0 .. 255 where they are
    values."""
    samples, data = evidence.default, evidence.data
    both = (samples.statistics, data.statistics)
    seen = f", {evidence.training.images:,} images seen" if evidence.training else ""
    head = (
        f"samples of {KINDS[samples.weights]}{seen}, {evidence.recipe['sampler']} in {samples.steps} steps, beside "
        f"training images of {data.source}"
    )
    names = channel_names(len(both[0].mean))
    means = zip(names, *(x.mean for x in both), strict=True)
    rows = [(f"mean, {name}" if len(names) > 1 else "mean", f"{byte(a)}", f"{byte(b)}") for name, a, b in means]
    for name in ("contrast", "grain", "diversity"):
        a, b = (f"{127.5 * getattr(x, name):.0f}" for x in both)
        rows.append((name, a, b))
    held_out = f"{127.5 * data.nearest:.0f} of 255" if data.nearest is not None else "-"
    black = [f"{100 * x.black:.0f} / {100 * x.white:.0f} %" for x in both]
    rows += [
        ("neighbours' correlation", f"{both[0].correlation:.2f}", f"{both[1].correlation:.2f}"),
        ("black / white", black[0], black[1]),
        ("distance from the data", f"{samples.distance:.3f}", f"{data.distance:.3f}"),
        ("nearest training image", f"{127.5 * samples.nearest:.0f} of 255", held_out),
    ]
    return head, rows


def ratios(evidence: Evidence) -> tuple[str, list[float], list[tuple[str, list[float]]]]:
    """Return a heading, times, and the network's relative errors there for each of the weights, equal ones in one
    row."""
    head = (
        "error of the predicted image by noise level, divided by that of the best guess that looks at each pixel "
        "alone; below 1 is better than that"
    )
    rows = dict[tuple[float, ...], list[str]]()
    for name, reading in evidence.readings.items():
        if name not in evidence.others:
            rows.setdefault(tuple(level.ratio for level in reading.levels), []).append(name)
    times = [level.t for level in evidence.reading.levels]
    return head, times, [(", ".join(names), list(values)) for values, names in rows.items()]


def _statistics(evidence: Evidence) -> str:
    """The samples' statistics beside the data's."""
    head, rows = beside(evidence)
    return "\n".join([wrapped(head, indent="  "), columns([("", "samples", "data"), *rows], 12)])


def _errors(evidence: Evidence) -> str:
    """The network's error by noise level."""
    head, times, found = ratios(evidence)
    lines = [("t", *(f"{t:.2f}" for t in times))]
    lines += [(name, *(f"{r:.2f}" if r < 100 else f"{r:.0e}" for r in values)) for name, values in found]
    return "\n".join([wrapped(head, indent="  "), columns(lines, 7)])
