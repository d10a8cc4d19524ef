"""The configuration of a run, from a preset, a file and overrides, and its images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.config import presets
from sfumato.config.config import Config
from sfumato.data import Dataset, open_data
from sfumato.data.store.build import Progress

if TYPE_CHECKING:
    import torch


def choose(
    preset: str | None,
    file: Path | None,
    overrides: Mapping[str, str],
    device: torch.device,
    on_progress: Progress | None = None,
) -> tuple[Config, Dataset, str]:
    """Return the configuration, the images, and `PRESET: why this one`.

    Args:
        preset: its name; None chooses by the images.
        file: a TOML file, whose values replace the preset's.
        overrides: text by dotted key, `data.source` among them.
        device: what will train.
        on_progress: called while images are read.

    Raises:
        UserError: an unknown preset or key, a value out of its range, images that can't be opened.
    """
    data = None
    if preset is not None:
        reason = "as asked"
        presets.resolve(preset)  # an unknown name is reported before the images are read
    else:
        only_data = {key: value for key, value in overrides.items() if key.startswith("data.")}
        data = open_data(presets.resolve(None, file, only_data).data, on_progress=on_progress)
        budget = presets.resolve(None, file, {**overrides, **only_data}).train.budget
        preset, reason, values = presets.choose(data.shape, len(data.train), str(device), budget)
        overrides = values | dict(overrides)
    config = presets.resolve(preset, file, overrides)
    if data is None or data.config != config.data:
        data = open_data(config.data, on_progress=on_progress)
    over = "" if file is None else f"; {file} is laid over it"
    return config, data, f"{preset}: {reason}{over}"


def default_run(source: str) -> Path:
    """Return runs/DATA."""
    return Path("runs") / (Path(source).name or "images")
