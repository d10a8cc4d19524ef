"""Views of a training: a live panel on a terminal, a line every few seconds elsewhere, JSON for programs.

Each view is a function that takes one event at a time. `run.progress` sums up the events so far; the panel and the
lines are two ways to print it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from sfumato.cli.console import optional_stdout, print_json, say, shown
from sfumato.errors import command, plural
from sfumato.report.text import duration
from sfumato.run.events import (
    Changed,
    Event,
    Finished,
    Initialised,
    Replanned,
    Sampled,
    Skipped,
    Started,
    Stepped,
    Warned,
    to_json,
)
from sfumato.run.plan import read_course
from sfumato.run.progress import Progress
from sfumato.run.summary import RunSummary

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.run.folder import Run

View = Callable[[Event], None]

SECONDS = 5.0
"""Seconds between two plain lines."""
MENTION = 0.1
"""Fraction of the length by which a corrected one differs from the one that was said last, where it is said."""
OFF = 0.1
"""Fraction of the planned time by which a run may end earlier or later without a remark."""


def progress_line(progress: Progress) -> str:
    """Return the progress on one line."""
    parts = [f"{progress.images:,} of {progress.planned:,} images{_quality(progress)}"]
    if progress.speed:
        parts.append(f"{progress.speed:,.0f} images/s")
    if progress.left is not None:
        parts.append(f"{duration(progress.left)} left")
    return ", ".join(parts)


def _quality(progress: Progress) -> str:
    """The losses, for a line; empty before the first step."""
    if progress.loss is None:
        return ""
    held_out = "" if progress.held_out is None else f", held-out {progress.held_out.loss:.4f}"
    return f", loss {progress.loss:.4f}{held_out}"


def bars(values: Sequence[float | None]) -> str:
    """Draw values of at least 0 as one character each, the highest full; None is a dot."""
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    blocks = "▁▂▃▄▅▆▇█"
    return "".join("·" if value is None else blocks[round(7 * value / top)] for value in values)


@contextmanager
def viewing(run: Run, title: str, as_json: bool) -> Iterator[View]:
    """Yield the view that suits the output: JSON lines with --json, a panel on a terminal, else plain lines.

    A view is a convenience: where stdout can't be written, it is dropped and training goes on.
    """
    progress, stack = Progress(run), ExitStack()
    if as_json:
        view: View = lambda event: print_json(to_json(event))  # noqa: E731
    elif sys.stdout.isatty():
        view = stack.enter_context(_live(progress, title))
    else:
        view = _lines(progress)

    def surviving(event: Event) -> None:
        if isinstance(event, Started) and event.resumed_at and progress.loss is None:
            progress.remember(RunSummary.read(run).until(event.resumed_at).of(Stepped))
        with optional_stdout():
            view(event)

    try:
        yield surviving
    finally:
        with optional_stdout():
            stack.close()


def remark(progress: Progress, event: Event) -> str | None:
    """Return the line that an event gets in every view, if any."""
    if isinstance(event, Started):
        progress.announced = progress.planned
        start = f"resuming at {event.resumed_at:,}" if event.resumed_at else "training"
        rate = f", planned from {event.plan.images_per_second:,.0f} images/s" if event.plan.images_per_second else ""
        until = f", {duration(event.plan.seconds)} in all" if event.plan.seconds else ""
        return f"{start}: {plural(progress.planned, 'image')} in steps of {event.plan.batch}{rate}{until}"
    if isinstance(event, Replanned):
        return _correction(progress, event)
    if isinstance(event, Initialised):
        return f"begun with {event.source}: {event.taken}"
    if isinstance(event, Changed):
        return f"from {event.images:,} images on: {event.changes}"
    if isinstance(event, Sampled):
        return f"sample grid: {progress.grid}"
    if isinstance(event, Warned):
        return f"warning: {event.message}"
    if isinstance(event, Skipped):
        return f"warning: {plural(event.steps, 'step')} skipped at {event.images:,} images: {event.reason}"
    if isinstance(event, Finished):
        if event.again:
            more = f"nothing to do ({command('train', progress.run.path, '--images', '+500k')} goes on)"
            return f"this run is finished: {event.images:,} images in {_duration(progress, event)}; {more}"
        return f"finished: {event.images:,} images in {_duration(progress, event)}{_quality(progress)}"
    return None


def _duration(progress: Progress, event: Finished) -> str:
    """The time spent, as a budget counts it, and how far from the plan it is. A run of several sessions has no such
    plan: what was done after a checkpoint was done twice, and is counted once."""
    course, plan = read_course(progress.run.read(progress.run.plan_path)), progress.plan
    spent = event.seconds + (course.plans[0].before if course else 0.0)
    if plan is None or not plan.seconds or progress.resumed or event.images < progress.planned:
        return duration(spent)
    if abs(spent - plan.seconds) <= OFF * plan.seconds:
        return duration(spent)
    pace = "faster" if spent < plan.seconds else "slower"
    return f"{duration(spent)} instead of {duration(plan.seconds)}: it was {pace} than when the speed was measured"


def _correction(progress: Progress, event: Replanned) -> str | None:
    """Say how the plan was corrected; nothing where the length is within `MENTION` of the one that was said last."""
    plan, batch = event.plan, event.plan.batch
    images, former = plan.steps * batch, progress.announced or -(-event.former // batch) * batch
    before = progress.former
    if plan.asked and plan.since == event.images and (before is None or before == plan or before.asked != plan.asked):
        again = "; the learning rate rises again and decays over what is added" if plan.start else ""
        progress.announced, former = images, -(-event.former // batch) * batch
        return f"going on to {images:,} images instead of {former:,}{again}"
    if abs(images - former) <= MENTION * former:
        return None
    progress.announced = images
    return f"at {plan.images_per_second:,.0f} images/s: {images:,} images instead of {former:,}, to keep the budget"


def _lines(progress: Progress) -> View:
    last = time.monotonic() - SECONDS + 1

    def view(event: Event) -> None:
        nonlocal last
        progress.take(event)
        if (line := remark(progress, event)) is not None:
            say(line)
        elif isinstance(event, Stepped) and time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            say(progress_line(progress))

    return view


@contextmanager
def _live(progress: Progress, title: str) -> Iterator[View]:
    from rich.live import Live

    class Shown:
        """Renders the current panel for rich."""

        def __rich__(self) -> RenderableType:
            return panel(progress, title)

    with Live(Shown(), refresh_per_second=4, redirect_stderr=False) as live:

        def view(event: Event) -> None:
            progress.take(event)
            line = remark(progress, event)
            if line is not None and not isinstance(event, Sampled):
                live.console.print(shown(line), markup=False, highlight=False)

        yield view


def panel(progress: Progress, title: str) -> RenderableType:
    """Return the panel: a bar, numbers in two columns, then paths."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    fraction = progress.images / progress.planned if progress.planned else 0.0
    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True)
    left = "" if progress.left is None else f", {duration(progress.left)} left"
    done = f"{100 * fraction:.0f} %{left}" if fraction else "starting"
    head.add_row(ProgressBar(total=1.0, completed=fraction), done)
    numbers, paths = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
    for table, columns in ((numbers, 4), (paths, 2)):
        for column in range(columns):
            table.add_column(no_wrap=True, style="dim" if column % 2 == 0 else "", min_width=13)
    for row in _numbers(progress):
        numbers.add_row(*row)
    # Text, since rich would read brackets in a path as markup
    paths.add_row("loss by noise", Text.assemble("little ", (bars(progress.by_noise), "cyan"), " much"))
    paths.add_row("last grid", Text(shown(progress.grid) or "none yet"))
    paths.add_row("saved", Text(shown(progress.saved) or "not yet"))
    if progress.skipped:
        paths.add_row("skipped", Text(plural(progress.skipped, "step"), "red"))
    body, below = Group(head, "", numbers, "", paths), Text(shown(str(progress.run.path)))
    return Panel(body, title=Text(shown(title)), title_align="left", subtitle=below, width=88)


def _numbers(progress: Progress) -> list[tuple[str, str, str, str]]:
    """Name, value, name, value: rows of the panel; empty where there is no number yet."""
    loss = step = rate = norm = held_out = at = images = speed = ""
    if progress.loss is not None:
        loss, step = f"{progress.loss:.4f}", f"{progress.last_loss:.4f}"
        rate, norm = f"{progress.lr:.2e}", f"{progress.grad_norm:.3g}"
    if progress.held_out is not None:
        held_out, at = f"{progress.held_out.loss:.4f}", f"{progress.held_out.images:,} images"
    if progress.planned:
        images = f"{progress.images:,} of {progress.planned:,}"
    if progress.speed is not None:
        speed = f"{progress.speed:,.0f} images/s"
    return [
        ("loss", loss, "this step", step),
        ("held-out", held_out, "after", at),
        ("images", images, "speed", speed),
        ("learning rate", rate, "gradient", norm),
    ]
