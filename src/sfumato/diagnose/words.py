"""A diagnosis in words: what the samples look like, why, on which figures that rests, and what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from sfumato.diagnose.causes import CAUSES, Finding
from sfumato.diagnose.evidence import Evidence, how, to_json
from sfumato.diagnose.looks import Look
from sfumato.diagnose.symptoms import Symptom, byte, channels

__all__ = ["as_json", "as_text"]

SEVERITY = {3: "ruins the samples", 2: "harms the samples", 1: "worth knowing"}
WIDTH = 100
_KINDS = {"ema": "the average of the weights", "raw": "the weights as trained", "best": "the best weights"}


def as_text(evidence: Evidence, symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> str:
    """Return the diagnosis for people: the verdict, the samples beside the data, the causes with figures and remedies.

    Args:
        evidence: what was measured.
        symptoms: what is off to look at.
        findings: why, the gravest first.
    """
    parts = [_wrap(f"{evidence.path}: {verdict(symptoms, findings)}", "", "  ")]
    parts += [_table(evidence), _network(evidence)]
    parts += [_finding(number, finding) for number, finding in enumerate(findings, 1)]
    if all(finding.severity == 1 for finding in findings):
        parts.append(_wrap(f"Looked for and not found: {', '.join(_unfound(findings))}.", "", "  "))
    return "\n\n".join(parts)


def verdict(symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> str:
    """Return the diagnosis in a sentence or two."""
    grave = [finding for finding in findings if finding.severity > 1]
    seen = "; ".join(symptom.sentence for symptom in symptoms)
    if grave:
        more = f" ({len(grave) - 1} more below)" if len(grave) > 1 else ""
        return f"{seen + '. ' if seen else ''}{grave[0].sentence}{more}"
    if seen:
        return f"{seen}. No cause was found for it; the figures below are what was measured"
    return "nothing wrong found" + ("; something is worth knowing" if findings else "")


def as_json(evidence: Evidence, symptoms: Sequence[Symptom], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the diagnosis as one JSON-able object, with every figure and how it was measured."""
    return {
        "path": evidence.path,
        "verdict": verdict(symptoms, findings),
        "symptoms": [vars(symptom) for symptom in symptoms],
        "findings": [vars(finding) for finding in findings],
        "evidence": to_json(evidence),
        "how": how(),
    }


def _finding(number: int, finding: Finding) -> str:
    lines = [_wrap(f"{number}. {finding.sentence} [{SEVERITY[finding.severity]}]", "", "   ")]
    lines += [_wrap(f"- {figure}", "   ", "     ") for figure in finding.figures]
    lines += [f"   {'do:' if n == 0 else 'or:'} {command}" for n, command in enumerate(finding.remedy)]
    return "\n".join(lines)


def _unfound(findings: Sequence[Finding]) -> list[str]:
    found = {finding.cause for finding in findings}
    return [name.replace("_", " ") for name in CAUSES if name not in found]


def _table(evidence: Evidence) -> str:
    """The samples' statistics beside the data's."""
    draw, data = evidence.draw, evidence.data
    seen = f", {evidence.training.images:,} images seen" if evidence.training else ""
    head = (
        f"samples of {_KINDS[draw.weights]}{seen}, DDIM in {draw.steps} steps, beside training images of {data.source}"
    )
    rows = [("", "samples", "data"), *_rows(draw.look, data.look)]
    rows.append(("distance from the data", f"{draw.apart:.3f}", f"{data.apart:.3f}"))
    held_out = f"{127.5 * data.nearest:.0f}" if data.nearest is not None else "-"
    rows.append(("nearest training image", f"{127.5 * draw.nearest:.0f}", held_out))
    width = max(len(name) for name, _, _ in rows) + 2
    lines = [f"  {name:{width}}{ours:>12}{theirs:>12}".rstrip() for name, ours, theirs in rows]
    return "\n".join([_wrap(head, "", "  "), *lines])


def _rows(ours: Look, theirs: Look) -> list[tuple[str, str, str]]:
    """Each statistic of both, in values of 0 .. 255 where it has any."""
    names = list(channels(len(ours.mean)))
    rows = [
        (f"mean, {name}" if len(names) > 1 else "mean", f"{byte(a)}", f"{byte(b)}")
        for name, a, b in zip(names, ours.mean, theirs.mean, strict=True)
    ]
    for name in ("contrast", "grain", "diversity"):
        rows.append((name, f"{127.5 * getattr(ours, name):.0f}", f"{127.5 * getattr(theirs, name):.0f}"))
    rows.append(("neighbours' correlation", f"{ours.correlation:.2f}", f"{theirs.correlation:.2f}"))
    shares = ((look.black, look.white) for look in (ours, theirs))
    black_white = [f"{100 * black:.0f} / {100 * white:.0f} %" for black, white in shares]
    return [*rows, ("black / white", *black_white)]  # type: ignore[list-item]


def _network(evidence: Evidence) -> str:
    """The network's error by noise level, for each of the weights and for the data's own mean."""
    readings = {name: reading for name, reading in evidence.readings.items() if not name.startswith("as ")}
    head = "error of the predicted image by noise level, as a share of that of the best guess made pixel by pixel"
    levels = "".join(f"{level.t:>7.2f}" for level in evidence.reading.levels)
    lines = [f"  {'t':5}{levels}"]
    lines += [
        f"  {name:5}" + "".join(f"{_short(level.ratio):>7}" for level in reading.levels)
        for name, reading in readings.items()
    ]
    return "\n".join([_wrap(head, "", "  "), *lines])


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0e}"


def _wrap(text: str, first: str, rest: str) -> str:
    """Wrapped for reading; commands are never broken, since nothing wraps them."""
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
