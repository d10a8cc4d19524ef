"""Weights & Biases: a run of project `sfumato` (WANDB_PROJECT) with the name of the run folder.

Without an API key, and unless WANDB_MODE says otherwise, it is kept offline in RUN/wandb, from where `wandb sync` sends
it: a training never waits for a login. The horizontal axis is `images`.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from sfumato.run.folder import Run
from sfumato.run.sinks.identity import identity


def _has_key() -> bool:
    """Whether the user has logged in."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return bool(netrc.netrc().authenticators("api.wandb.ai"))
    except (OSError, netrc.NetrcParseError):
        return False


class WandB:
    """Resumes the same run of W&B; what it has of later images than the training resumes at stays there."""

    def __init__(self, run: Run, config: Mapping[str, Any], resumed_at: int) -> None:
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "sfumato"),
            name=run.path.resolve().name,
            id=identity(run, "wandb"),
            resume="allow",
            config=dict(config),
            dir=str(run.path),
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(init_timeout=60, silent=True, console="off"),
        )
        self._run.define_metric("images", hidden=True)
        self._run.define_metric("*", step_metric="images")

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Log them at `images`."""
        self._run.log({**values, "images": images})

    def picture(self, name: str, file: Path, images: int) -> None:
        """Log the file as an image."""
        self._run.log({name: wandb.Image(str(file)), "images": images})

    def text(self, name: str, text: str, images: int) -> None:
        """Log the text as HTML."""
        escaped = text.replace("&", "&amp;").replace("<", "&lt;")
        self._run.log({name: wandb.Html(f"<pre>{escaped}</pre>"), "images": images})

    def close(self) -> None:
        """Send what is left, and end the run."""
        self._run.finish()
