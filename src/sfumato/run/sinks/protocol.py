"""The protocol of a sink, and all sinks of a run together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from sfumato.errors import UserError, nearest
from sfumato.run.events import Changed, Event, Initialised, Replanned, Sampled, Warned
from sfumato.run.folder import Run
from sfumato.run.sinks.points import Points

SINKS = {
    "tensorboard": "tensorboard.TensorBoard",
    "wandb": "wandb.WandB",
    "mlflow": "mlflow.MLflow",
    "trackio": "trackio.Trackio",
}
"""Modules and classes by name; the package of that name must be installed (sfumato[NAME])."""


class Sink(Protocol):
    """Another tool's log of one run, made by `Sink(run, config, resumed_at)` when the training starts or resumes.

    The configuration is given as plain tables. When a run resumes at so many images, what the tool has of later ones is
    to be taken back where the tool can do that.
    """

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Log numbers by name at so many images seen."""
        ...

    def picture(self, name: str, file: Path, images: int) -> None:
        """Log a PNG file."""
        ...

    def text(self, name: str, text: str, images: int) -> None:
        """Log a sentence."""
        ...

    def close(self) -> None:
        """Write what is left; the training has ended or was stopped."""
        ...


def check(names: Sequence[str]) -> None:
    """Raise `UserError` for a name that is no sink's, or one whose package is not installed."""
    for name in names:
        if name not in SINKS:
            raise UserError(f"train.log: there is no sink '{name}'{nearest(name, SINKS)}")
        try:
            _class(name)
        except ImportError as error:
            raise UserError(
                f"train.log names {name}, which is not installed ({error.name or error}): "
                f"pip install 'sfumato[{name}]', or leave it out"
            ) from None


def _class(name: str) -> Callable[[Run, Mapping[str, Any], int], Sink]:
    module, _, attribute = SINKS[name].partition(".")
    found: Callable[[Run, Mapping[str, Any], int], Sink] = getattr(
        import_module(f"sfumato.run.sinks.{module}"), attribute
    )
    return found


class Sinks:
    """The sinks of a session.

    Args:
        names: of `SINKS`.
        run: the run.
        config: its configuration as plain tables.
        resumed_at: images seen.
        warn: called once for a sink that fails.
        memory: returns the bytes in use.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Run,
        config: Mapping[str, Any],
        resumed_at: int,
        warn: Callable[[str], None],
        memory: Callable[[], int] = lambda: 0,
    ) -> None:
        self.run, self.warn = run, warn
        self._points = Points(memory)
        self._sinks: dict[str, Sink] = {}
        for name in names:
            self._surviving(name, lambda name=name: self._open(name, config, resumed_at))  # type: ignore[misc]

    def _open(self, name: str, config: Mapping[str, Any], resumed_at: int) -> None:
        self._sinks[name] = _class(name)(self.run, config, resumed_at)

    def take(self, event: Event) -> None:
        """Pass an event on, as it was written to the log."""
        values = self._points.of(event)
        for name, sink in list(self._sinks.items()):
            self._surviving(name, lambda sink=sink: self._pass(sink, event, values))  # type: ignore[misc]

    def _pass(self, sink: Sink, event: Event, values: Mapping[str, float]) -> None:
        if values:
            sink.numbers(values, event.images)
        if isinstance(event, Sampled):
            sink.picture(f"samples/{event.kind}", self.run.grid(event.images, event.kind), event.images)
        elif isinstance(event, Warned):
            sink.text("warnings", event.message, event.images)
        elif isinstance(event, Changed):
            sink.text("changes", event.changes, event.images)
        elif isinstance(event, Initialised):
            sink.text("changes", f"begun with {event.source}: {event.taken}", event.images)
        elif isinstance(event, Replanned):
            sink.text("changes", f"{event.plan.images:,} images planned instead of {event.former:,}", event.images)

    def close(self) -> None:
        """Close all."""
        for name, sink in list(self._sinks.items()):
            self._surviving(name, sink.close)
        self._sinks.clear()

    def _surviving(self, name: str, action: Callable[[], None]) -> None:
        """Act; a sink that fails is reported and left out from then on."""
        try:
            action()
        except Exception as error:  # whatever another package raises must not end a training
            self._sinks.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self.warn(f"{name} gets no more of this run ({reason}); training continues")
