"""A summary of a run folder, read once: everything that `info`, `diagnose`, a report or a studio shows of it.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import chain, pairwise
from operator import add, itemgetter
from pathlib import Path
from typing import Any, TypeVar

from sfumato.run.events import TIMED, Buckets, Event, HeldOut, Skipped, Started, Stepped, Warned, from_json
from sfumato.run.folder import WEIGHTS, Run
from sfumato.run.log import read_events
from sfumato.run.plan import Plan, read_course
from sfumato.run.progress import Progress, RecentLoss

E = TypeVar("E", bound=Event)


MOST_EVENTS = 4096
"""Events of a kind that are kept."""


def _events(run: Run) -> tuple[tuple[Event, ...], float | None]:
    """Read the log, of any length: of each kind at most `MOST_EVENTS`, reports of steps joined in pairs, of the others
    the newest. Return them, and the loss of the last steps."""
    kept: dict[type, list[tuple[int, Event]]] = {}
    recent = RecentLoss()
    for number, line in enumerate(read_events(run.events_path)):
        if (event := from_json(line)) is None:
            continue
        if isinstance(event, Stepped):
            recent.take(event)
        events = kept.setdefault(type(event), [])
        events.append((number, event))
        if len(events) < MOST_EVENTS:
            continue
        if isinstance(event, Stepped):
            events[:] = [(j, a + b) for (_, a), (j, b) in zip(events[::2], events[1::2], strict=True)]  # type: ignore[operator]
        else:
            del events[: MOST_EVENTS // 2]
    return tuple(event for _, event in sorted(chain(*kept.values()), key=itemgetter(0))), recent.value


@dataclass(frozen=True)
class RunSummary:
    """A run's configuration, events and files at the moment of reading.

    Attributes:
        run: the folder.
        config: the tables of config.toml.
        environment: software and machine, as `run.folder.environment` has them; empty where unknown.
        plan: the plan in force; None where unknown.
        events: the event log; a `Stepped` may join many steps, and of a very long log the oldest others are left out.
        finished: whether the planned length is reached.
        weights: the weights files that exist, by kind.
        grids: sample grids of all kinds, the oldest first.
        checkpoints: the oldest first.
        loss: the training loss of the last steps (`RecentLoss`); None before the first.
        before: seconds of the budget that passed before training began.
    """

    run: Run
    config: dict[str, Any]
    environment: dict[str, Any]
    plan: Plan | None
    events: tuple[Event, ...]
    finished: bool
    weights: dict[str, Path]
    grids: tuple[Path, ...]
    checkpoints: tuple[Path, ...]
    loss: float | None = None
    before: float = 0.0

    def __repr__(self) -> str:
        """The folder and how far it is: `describe` says more."""
        of = f" of {self.planned:,}" if self.planned else ""
        return f"RunSummary({str(self.run.path)!r}: {self.images:,}{of} images{', finished' if self.finished else ''})"

    @classmethod
    def read(cls, run: Run) -> RunSummary:
        """Read a run folder, also during training; raises `UserError` where its config.toml can't be read."""
        course = read_course(run.read(run.plan_path))
        files = {kind: run.weights_file(kind) for kind in WEIGHTS}
        events, loss = _events(run)
        return cls(
            run=run,
            config=run.config_table(),
            environment=run.read(run.environment_path) or {},
            plan=None if course is None else course.plans[-1],
            events=events,
            finished=run.finished_path.exists(),
            weights={kind: file for kind, file in files.items() if file.is_file()},
            grids=tuple(sorted(run.list_grids("ema") + run.list_grids("raw"))),
            checkpoints=tuple(reversed(run.list_checkpoints())),
            loss=loss,
            before=0.0 if course is None else course.plans[0].before,
        )

    @property
    def begun_with(self) -> int:
        """Images that the weights had seen which the run began with; 0 where it began by itself, or as a branch."""
        table = self.run.read(self.run.lineage_path) or {}
        images = table.get("images", 0) if "init" in table else 0
        return images if isinstance(images, int) else 0

    @property
    def lineage(self) -> str:
        """What the run was begun with, in words; empty where it began by itself."""
        table = self.run.read(self.run.lineage_path) or {}
        images = table.get("images", 0)
        if "from" in table:
            return f"a branch of {table['from']}, from {images:,} images on"
        origin = f" (imported: {table['origin']})" if "origin" in table else ""
        return f"begun with the {table.get('kind')} weights of {table['init']}{origin}" if "init" in table else ""

    def of(self, kind: type[E]) -> tuple[E, ...]:
        """Return the events of a kind, in order."""
        return tuple(event for event in self.events if isinstance(event, kind))

    def until(self, images: int) -> RunSummary:
        """Return the summary as it was when so many images had been seen."""
        if images >= self.images:
            return self
        events = tuple(event for event in self.events if event.images <= images)
        recent = RecentLoss()
        for event in events:
            if isinstance(event, Stepped):
                recent.take(event)
        grids = tuple(grid for grid in self.grids if int(grid.name[:12]) <= images)
        checkpoints = tuple(checkpoint for checkpoint in self.checkpoints if int(checkpoint.name) <= images)
        return replace(self, finished=False, events=events, grids=grids, checkpoints=checkpoints, loss=recent.value)

    @property
    def averaged_grids(self) -> list[Path]:
        """The sample grids of the averaged weights, the oldest first."""
        return [path for path in self.grids if path.stem.isdecimal()]

    def stepped(self, parts: int | None = None) -> tuple[Stepped, ...]:
        """Return the reports of steps, joined into at most `parts` of equally many lines."""
        lines = self.of(Stepped)
        if parts is None or not lines:
            return lines
        parts = min(parts, len(lines))
        ends = [round(i * len(lines) / parts) for i in range(parts + 1)]
        return tuple(reduce(add, lines[a:b]) for a, b in pairwise(ends))

    @cached_property
    def buckets(self) -> Buckets:
        """The training losses of the whole run by noise level, as often as training drew each."""
        return reduce(add, (event.buckets for event in self.of(Stepped)), Buckets())

    def training_loss(self, buckets: Buckets) -> float:
        """Return the mean of losses at the noise levels of the training, so that parts of a run and held-out losses
        can be compared; at least one step must be logged.

        Importance sampling draws other levels all the time and weighs the losses for it, so there the mean stays as it
        is.
        """
        kind = self.config.get("diffusion", {}).get("timesteps", {}).get("kind")
        return buckets.mean if kind == "importance" else buckets.at_levels_of(self.buckets)

    def describe(self) -> dict[str, Any]:
        """Return the summary of the training, as JSON has it."""
        held_out, packages = self.held_out, self.environment.get("packages")
        return {
            "run": str(self.run.path),
            "lineage": self.lineage,
            "finished": self.finished,
            "images": self.images,
            "planned_images": self.planned,
            "plan": None if self.plan is None else vars(self.plan),
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "loss": self.loss,
            "held_out_loss": None if held_out is None else held_out.loss,
            "held_out_train": None if held_out is None else held_out.train,
            "held_out_at": None if held_out is None else held_out.images,
            "warnings": len(self.warnings) + len(self.of(Skipped)),
            "checkpoints": [str(path) for path in self.checkpoints],
            "grids": [str(path) for path in self.grids],
            "device": self.environment.get("device"),
            "torch": packages.get("torch") if isinstance(packages, dict) else None,
        }

    @property
    def planned(self) -> int | None:
        """Planned length in images, the last batch full; None where it is unknown."""
        if self.plan is not None:
            return self.plan.steps * self.plan.batch
        images, batch = (self.config.get("train", {}).get(name) for name in ("images", "batch"))
        return -(-images // batch) * batch if isinstance(images, int) and isinstance(batch, int) and batch else None

    @property
    def images(self) -> int:
        """Images seen."""
        return max((event.images for event in self.of(Stepped)), default=0)

    @property
    def seconds(self) -> float:
        """Seconds spent, as a budget counts them: all sessions with grids, held-out losses and saving, and `before`."""
        spent = max((event.seconds for event in self.events if isinstance(event, TIMED)), default=None)
        return 0.0 if spent is None else self.before + spent

    @cached_property
    def images_per_second(self) -> float | None:
        """Speed of the last steps, as `watch` shows it (`Progress.speed`)."""
        progress = Progress(self.run)
        for event in self.events:
            progress.take(event)
        return progress.speed

    @property
    def held_out(self) -> HeldOut | None:
        """The last held-out loss."""
        return (self.of(HeldOut) or (None,))[-1]

    @property
    def skipped(self) -> int:
        """Number of steps whose loss or gradient was not finite."""
        return sum(event.steps for event in self.of(Skipped))

    @property
    def restarts(self) -> int:
        """How many times the run was resumed."""
        return max(0, len(self.of(Started)) - 1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, in order."""
        return tuple(event.message for event in self.of(Warned))
