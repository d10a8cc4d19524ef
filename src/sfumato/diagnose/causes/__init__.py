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
        training.needs_labels, training.too_small, training.unfinished,
    )
}  # fmt: skip
"""Every cause by name; causes that explain others come first."""
WORDS = {
    "broken_weights": "weights that are not finite",
    "other_data": "images changed since the training",
    "wrong_reading": "weights read as the wrong parameterisation",
    "one_image": "too few different images",
    "narrow_data": "images that are nearly all black or white",
    "stretched_range": "values of the images far from the others",
    "skipped_steps": "skipped training steps",
    "average_too_long": "an average of the weights that is too long",
    "diverged": "a training that diverged",
    "shifted_output": "a constant shift of colour or brightness",
    "too_short": "a training that was too short",
    "schedule_end": "a noise schedule that ends too early",
    "last_steps": "last sampling steps that spoil the images",
    "first_level": "a first noise level that hides detail",
    "repeats": "repeated training images",
    "untaught_variance": "a learned variance that learned nothing",
    "more_steps": "too few sampling steps",
    "clipping": "harm by clipping",
    "unheeded_labels": "labels without effect",
    "needs_labels": "samples that need a label",
    "too_small": "a network that is too small",
    "unfinished": "a training that was stopped",
}
"""Each cause as a user knows it, in a list of what was looked for."""


def conclude(evidence: Evidence) -> tuple[Finding, ...]:
    """Return the findings, the gravest first; () where nothing wrong was found."""
    results = ((name, cause(evidence)) for name, cause in CAUSES.items())
    findings = [replace(finding, cause=name) for name, finding in results if finding is not None]
    explained = any(finding.severity > 1 and not finding.last for finding in findings)
    findings = [finding for finding in findings if not (finding.last and explained)]
    return tuple(sorted(findings, key=lambda finding: -finding.severity))  # stable: equals keep the order of CAUSES
