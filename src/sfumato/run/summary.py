"""A summary of a run folder, read once: everything that `info`, `diagnose`, a report or a studio shows of it.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import chain, pairwise
from operator import add, itemgetter
from pathlib import Path
from typing import Any, TypeVar

from sfumato.run.events import Event, HeldOut, Skipped, Started, Stepped, Warned, from_json
from sfumato.run.folder import WEIGHTS, Run
from sfumato.run.log import read_events
from sfumato.run.plan import Plan, read_course

E = TypeVar("E", bound=Event)


MOST_EVENTS = 4096
"""Events of a kind that are kept."""


def _events(run: Run) -> tuple[Event, ...]:
    """Read the log, of any length: of each kind at most `MOST_EVENTS`, reports of steps joined in pairs, of the others
    the newest."""
    kept: dict[type, list[tuple[int, Event]]] = {}
    for number, line in enumerate(read_events(run.events_path)):
        if (event := from_json(line)) is None:
            continue
        events = kept.setdefault(type(event), [])
        events.append((number, event))
        if len(events) < MOST_EVENTS:
            continue
        if isinstance(event, Stepped):
            events[:] = [(j, a + b) for (_, a), (j, b) in zip(events[::2], events[1::2], strict=True)]  # type: ignore[operator]
        else:
            del events[: MOST_EVENTS // 2]
    return tuple(event for _, event in sorted(chain(*kept.values()), key=itemgetter(0)))


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

    def __repr__(self) -> str:
        """The folder and how far it is: `describe` says more."""
        of = f" of {self.planned:,}" if self.planned else ""
        return f"RunSummary({str(self.run.path)!r}: {self.images:,}{of} images{', finished' if self.finished else ''})"

    @classmethod
    def read(cls, run: Run) -> RunSummary:
        """Read a run folder, also during training; raises `UserError` where its config.toml can't be read."""
        course = read_course(run.read(run.plan_path))
        files = {kind: run.weights_file(kind) for kind in WEIGHTS}
        return cls(
            run=run,
            config=run.config_table(),
            environment=run.read(run.environment_path) or {},
            plan=None if course is None else course.plans[-1],
            events=_events(run),
            finished=run.finished_path.exists(),
            weights={kind: file for kind, file in files.items() if file.is_file()},
            grids=tuple(sorted(run.list_grids("ema") + run.list_grids("raw"))),
            checkpoints=tuple(reversed(run.list_checkpoints())),
        )

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

    def stepped(self, parts: int | None = None) -> tuple[Stepped, ...]:
        """Return the reports of steps, joined into at most `parts` of equally many lines."""
        lines = self.of(Stepped)
        if parts is None or not lines:
            return lines
        parts = min(parts, len(lines))
        ends = [round(i * len(lines) / parts) for i in range(parts + 1)]
        return tuple(reduce(add, lines[a:b]) for a, b in pairwise(ends))

    def describe(self) -> dict[str, Any]:
        """Return the summary of the training, as JSON has it."""
        stepped, held_out, packages = self.of(Stepped), self.held_out, self.environment.get("packages")
        return {
            "run": str(self.run.path),
            "lineage": self.lineage,
            "finished": self.finished,
            "images": self.images,
            "planned_images": self.planned,
            "plan": None if self.plan is None else vars(self.plan),
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "loss": stepped[-1].loss if stepped else None,
            "held_out_loss": None if held_out is None else held_out.loss,
            "held_out_at": None if held_out is None else held_out.images,
            "warnings": len(self.warnings) + len(self.of(Skipped)),
            "checkpoints": [str(path) for path in self.checkpoints],
            "grids": [str(path) for path in self.grids],
            "device": self.environment.get("device"),
            "torch": packages.get("torch") if isinstance(packages, dict) else None,
        }

    @property
    def planned(self) -> int | None:
        """Planned length in images; None where it is unknown."""
        if self.plan is not None:
            return self.plan.images
        images = self.config.get("train", {}).get("images")
        return images if isinstance(images, int) else None

    @property
    def images(self) -> int:
        """Images seen."""
        return max((event.images for event in self.of(Stepped)), default=0)

    @property
    def seconds(self) -> float:
        """Seconds spent training, all sessions together."""
        return max((event.seconds for event in self.of(Stepped)), default=0.0)

    @property
    def images_per_second(self) -> float | None:
        """Speed of the whole run, with grids, held-out losses and saving; None before the first step."""
        return self.images / self.seconds if self.seconds else None

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
