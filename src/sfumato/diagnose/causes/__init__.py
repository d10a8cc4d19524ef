"""Why: each cause a function of the evidence that returns a finding, with the figures it rests on and the remedy.

A cause is never concluded from a symptom. It is either a fact of the run (steps that were skipped, what is left of the
initial weights in their average, copies in the data) or an experiment whose only difference is that cause (other
weights, another reading of the output, another start, more steps), and it must be large enough to matter.

Findings are ranked by what they do: 3 ruins the samples, 2 harms them, 1 is worth knowing. Among equals a cause that
explains others comes first: weights read the wrong way also look as if they had learned nothing. Every threshold is a
constant with its reason; docs/diagnose.md holds the figures of healthy runs and planted faults that they lie between.
"""

from __future__ import annotations

from collections.abc import Callable

from sfumato.diagnose.causes.data import narrow_data, one_image, other_data
from sfumato.diagnose.causes.finding import Finding
from sfumato.diagnose.causes.process import clipping, first_level, last_steps, more_steps, schedule_end
from sfumato.diagnose.causes.training import (
    diverged,
    needs_labels,
    repeats,
    skipped_steps,
    too_short,
    unfinished,
    unheeded_labels,
)
from sfumato.diagnose.causes.weights import (
    average_too_long,
    broken_weights,
    shifted_output,
    untaught_variance,
    wrong_reading,
)
from sfumato.diagnose.evidence import Evidence

__all__ = ["CAUSES", "Finding", "conclude"]

CAUSES: dict[str, Callable[[Evidence], Finding | None]] = {
    cause.__name__: cause
    for cause in (
        broken_weights, other_data, wrong_reading, one_image, narrow_data, skipped_steps, average_too_long, diverged,
        shifted_output, too_short, schedule_end, last_steps, first_level, repeats, untaught_variance, more_steps,
        clipping, unheeded_labels, needs_labels, unfinished,
    )
}  # fmt: skip
"""Every cause by name, what explains others first."""


def conclude(evidence: Evidence) -> tuple[Finding, ...]:
    """Return the findings, the gravest first; () where nothing wrong was found."""
    found = [finding for cause in CAUSES.values() if (finding := cause(evidence)) is not None]
    return tuple(sorted(found, key=lambda finding: -finding.severity))  # stable: equals stay in the order of CAUSES
