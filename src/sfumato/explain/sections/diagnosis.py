"""What `sfumato diagnose` finds, from fewer samples than it takes by itself."""

from __future__ import annotations

from pathlib import Path

from sfumato.config.keys import typed
from sfumato.diagnose import Evidence, Finding, conclude, examine, observe
from sfumato.diagnose.causes import WORDS
from sfumato.diagnose.render import SEVERITY, beside, ratios, verdict
from sfumato.explain.context import Context
from sfumato.explain.figure import Figure, Missing

STEPS = 100
"""The largest number of sampling steps that is tried; the command tries 250."""


def collect(context: Context) -> Figure:
    """Examine the model; raises `Missing` where its images can't be opened."""
    target, num = context.needed, context.effort.diagnosed
    if len(context.data.train) < 2:
        raise Missing("a diagnosis compares with at least two training images")
    done = 0

    def tick(steps: int, total: int) -> None:
        nonlocal done
        context.tick((steps - done) * num)
        done = steps

    evidence = examine(target, Path(context.name), num, context.seed, tick, STEPS)
    return figure(context, evidence, conclude(evidence))


def figure(context: Context, evidence: Evidence, findings: tuple[Finding, ...]) -> Figure:
    """Return the figure of a diagnosis."""
    (_, rows), (_, times, errors) = beside(evidence), ratios(evidence)
    num, said = context.effort.diagnosed, verdict(evidence, observe(evidence), findings)
    named = {finding.cause for finding in findings}
    return Figure(
        name="diagnosis",
        title="Diagnosis",
        caption="Images are sampled with each of the run's weights, with few and with many steps, from noise and from "
        "noised training images, and compared with the data. Each finding is a fact of the run, or an experiment that "
        "differs in one thing alone. The chart shows the error of the network's guess at the image, divided by that "
        "of the best guess that looks at each pixel alone: below 1 the network has learned something. The findings are "
        f"from {num} samples of each kind; the command below takes 64, and its advice counts where the two differ.",
        data={
            "findings": [
                {
                    "level": finding.severity,
                    "title": SEVERITY[finding.severity],
                    "text": typed(finding.sentence),
                    "figures": list(map(typed, finding.figures)),
                    "commands": list(finding.remedy),
                }
                for finding in findings
            ],
            "absent": [words for name, words in WORDS.items() if name not in named],
            "beside": [list(row) for row in rows],
            "times": times,
            "errors": [[name, values] for name, values in errors],
        },
        code=("diagnose.causes.conclude", "diagnose.measurements.Bench.reading"),
        made=f"{num} samples of each kind in at most {STEPS} steps, which is less certain than "
        "the 64 samples in at most 250 steps of the command",
        command=f"sfumato diagnose {context.command}",
        findings=(f"{said[0].upper()}{said[1:]} This is from {num} samples of each kind.",),
    )
