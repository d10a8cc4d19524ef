"""A diagnosis as text and as JSON: symptoms, causes, figures and remedies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfumato.diagnose.causes import CAUSES, Finding
from sfumato.diagnose.evidence import Evidence, how, to_json
from sfumato.diagnose.symptoms import Symptom, byte, channel_names
from sfumato.report.text import columns, wrapped

SEVERITY = {3: "ruins the samples", 2: "harms the samples", 1: "worth knowing"}
KINDS = {"ema": "the average of the weights", "raw": "the weights as trained", "best": "the best weights"}


def as_text(evidence: Evidence, symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> str:
    """Return the diagnosis for people: the verdict, the samples beside the data, the causes with figures and
    remedies."""
    parts = [
        wrapped(f"{evidence.path}: {verdict(symptoms, findings)}", indent="  "),
        _statistics(evidence),
        _errors(evidence),
        *(_finding(number, finding) for number, finding in enumerate(findings, 1)),
    ]
    if all(finding.severity == 1 for finding in findings):
        names = {finding.cause for finding in findings}
        absent = ", ".join(name.replace("_", " ") for name in CAUSES if name not in names)
        parts.append(wrapped(f"Checked and not found: {absent}.", indent="  "))
    return "\n\n".join(parts)


def verdict(symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> str:
    """Return the diagnosis in a sentence or two."""
    grave = [finding for finding in findings if finding.severity > 1]
    seen = "; ".join(symptom.sentence for symptom in symptoms)
    if grave:
        more = f" ({len(grave) - 1} more below)" if len(grave) > 1 else ""
        return f"{seen + '. ' if seen else ''}{grave[0].sentence}{more}"
    if seen:
        return f"{seen}. No cause was found for it; the figures are below"
    return "nothing wrong found" + ("; something is worth knowing" if findings else "")


def as_json(evidence: Evidence, symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the diagnosis as one JSON-able object, with every figure and how it was measured."""
    return {
        "path": evidence.path,
        "verdict": verdict(symptoms, findings),
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


def _statistics(evidence: Evidence) -> str:
    """The samples' statistics beside the data's, in values of 0 .. 255 where they are values."""
    samples, data = evidence.default, evidence.data
    both = (samples.statistics, data.statistics)
    seen = f", {evidence.training.images:,} images seen" if evidence.training else ""
    head = (
        f"samples of {KINDS[samples.weights]}{seen}, {evidence.recipe['sampler']} in {samples.steps} steps, beside "
        f"training images of {data.source}"
    )
    names = channel_names(len(both[0].mean))
    means = zip(names, *(x.mean for x in both), strict=True)
    rows: list[tuple[str, ...]] = [("", "samples", "data")]
    rows += [(f"mean, {name}" if len(names) > 1 else "mean", f"{byte(a)}", f"{byte(b)}") for name, a, b in means]
    rows += [(name, *(f"{127.5 * getattr(x, name):.0f}" for x in both)) for name in ("contrast", "grain", "diversity")]
    held_out = f"{127.5 * data.nearest:.0f}" if data.nearest is not None else "-"
    rows += [
        ("neighbours' correlation", *(f"{x.correlation:.2f}" for x in both)),
        ("black / white", *(f"{100 * x.black:.0f} / {100 * x.white:.0f} %" for x in both)),
        ("distance from the data", f"{samples.distance:.3f}", f"{data.distance:.3f}"),
        ("nearest training image", f"{127.5 * samples.nearest:.0f}", held_out),
    ]
    return "\n".join([wrapped(head, indent="  "), columns(rows, 12)])


def _errors(evidence: Evidence) -> str:
    """The network's error by noise level, for each of the weights."""
    head = "error of the predicted image by noise level, relative to that of the best guess made pixel by pixel"
    rows = [("t", *(f"{level.t:.2f}" for level in evidence.reading.levels))]
    for name, reading in evidence.readings.items():
        if name not in evidence.others:
            ratios = [level.ratio for level in reading.levels]
            rows.append((name, *(f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0e}" for ratio in ratios)))
    return "\n".join([wrapped(head, indent="  "), columns(rows, 7)])
