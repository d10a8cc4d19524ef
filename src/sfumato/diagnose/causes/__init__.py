"""Causes: each is a function of the evidence that returns a finding, with its figures and a remedy, or None.

A cause is never concluded from a symptom, but from a fact of the run (skipped steps, the fraction of initial weights in
their average, duplicates in the data) or from an experiment that differs only in that cause (other weights, another
reading of the output, another start, more steps), and it must be large enough to matter.

Findings are ranked by what they do: 3 ruins the samples, 2 harms them, 1 is worth knowing. Among equals a cause that
explains others comes first: weights read the wrong way also look as if they had learned nothing. Every threshold is a
constant with its reason; docs/diagnose.md has the figures of healthy runs and planted faults that they are between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sfumato.diagnose.causes import model, training
from sfumato.diagnose.causes.finding import Finding
from sfumato.diagnose.evidence import Evidence

__all__ = ["CAUSES", "Finding", "conclude"]

CAUSES: dict[str, Callable[[Evidence], Finding | None]] = {
    cause.__name__: cause
    for cause in (
        model.broken_weights, training.other_data, model.wrong_reading, training.one_image, training.narrow_data,
        training.stretched_range, training.skipped_steps, model.average_too_long, training.diverged,
        model.shifted_output, training.too_short, model.schedule_end, model.last_steps, model.first_level,
        training.repeats, model.untaught_variance, model.more_steps, model.clipping, training.unheeded_labels,
        training.needs_labels, training.unfinished,
    )
}  # fmt: skip
"""Every cause by name; causes that explain others come first."""


def conclude(evidence: Evidence) -> tuple[Finding, ...]:
    """Return the findings, the gravest first; () where nothing wrong was found."""
    results = ((name, cause(evidence)) for name, cause in CAUSES.items())
    findings = [replace(finding, cause=name) for name, finding in results if finding is not None]
    return tuple(sorted(findings, key=lambda finding: -finding.severity))  # stable: equals keep the order of CAUSES
