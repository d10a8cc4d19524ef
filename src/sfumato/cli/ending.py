"""The last lines of a training: how good its samples are, whether more would help, and the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.errors import command
from sfumato.report.text import duration, wrapped

if TYPE_CHECKING:
    from sfumato.data import Dataset
    from sfumato.run.folder import Run


def ending(run: Run, data: Dataset) -> str:
    """Return the lines for a run that reached its planned length."""
    from sfumato.evaluate.ending import judge_grid, outlook, stored
    from sfumato.evaluate.verdict import CLOSE
    from sfumato.report.text import longer
    from sfumato.run.summary import RunSummary

    summary = RunSummary.read(run)
    verdict, what = judge_grid(summary, data), "of the last grid"
    if (measured := stored(summary, data)) is not None and (verdict is None or measured.num > verdict.num):
        verdict, what = measured, "that were evaluated"
    said, images = outlook(summary.images, data.shape, verdict)
    lines = []
    if verdict is not None:
        lines.append(wrapped(f"samples: the {verdict.num} {what} are {verdict.sentence}", indent="  "))
        if verdict.open_steps and verdict.settling:
            lines.append(f"settle it: {command('evaluate', run.path, '--quality', '--num', verdict.settling)}")
    if said:
        speed = summary.images / summary.seconds if summary.seconds else 0.0  # with all that comes beside the steps
        time = f", in about {duration((images - summary.images) / speed)} more here" if speed else ""
        said += f", besides the {summary.begun_with:,} that its first weights had seen" if summary.begun_with else ""
        lines.append(wrapped(f"{said}{time} (docs/training.md says how that is estimated)", indent="  "))
        lines.append(f"go on: {longer(str(run.path), images, summary.images)}")
    elif verdict is not None and verdict.least > CLOSE:
        lines.append(f"find out why: {command('diagnose', run.path)}")
    return "\n".join([*lines, f"sample from it: {command('sample', run.path)}"])
