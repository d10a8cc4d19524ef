"""Trackio: a run of project `sfumato` (TRACKIO_PROJECT), in its own local data base; `trackio show`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio

from sfumato.run.folder import Run
from sfumato.run.sinks.identity import identity


class Trackio:
    """Resumes the run of the same name; what it has of later images than the training resumes at stays there."""

    def __init__(self, run: Run, config: Mapping[str, Any], resumed_at: int) -> None:
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "sfumato"),
            name=f"{run.path.resolve().name}-{identity(run, 'trackio')[:6]}",
            config=dict(config),
            resume="allow",
            embed=False,
        )

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Log them with the images seen as the step."""
        self._run.log(dict(values), step=images)

    def picture(self, name: str, file: Path, images: int) -> None:
        """Log the file as an image."""
        self._run.log({name: trackio.Image(str(file))}, step=images)

    def text(self, name: str, text: str, images: int) -> None:
        """Log the text."""
        self._run.log({name: text}, step=images)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()
