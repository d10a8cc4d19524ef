"""From what was said on a command line to a configuration and its images: shared by `train` and `plan`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.cli.console import progress
from sfumato.errors import UserError

if TYPE_CHECKING:
    import torch

    from sfumato.config.config import Config
    from sfumato.data import Dataset

__all__ = ["choose", "default_run", "lengths"]


def choose(
    preset: str | None, file: Path | None, overrides: Mapping[str, str], device: torch.device
) -> tuple[Config, Dataset, str]:
    """Return the configuration, the images, and `PRESET: why this one`.

    Args:
        preset: as asked; None chooses by the images.
        file: a file of values, laid over the preset's.
        overrides: text by dotted name, `data.source` among them.
        device: what will train.

    Raises:
        UserError: an unknown preset or key, images that can't be opened, a value that can't be.
    """
    from sfumato.config.presets import choose as choose_preset
    from sfumato.config.presets import resolve
    from sfumato.data import open_data

    data = None
    if preset is not None:
        reason = "as asked"
        resolve(preset)  # an unknown name is said before the images are read
    else:
        only_data = {key: value for key, value in overrides.items() if key.startswith("data.")}
        data = open_data(resolve(None, file, only_data).data, on_progress=progress("reading images"))
        preset, reason = choose_preset(data.shape, len(data.train), str(device))
    config = resolve(preset, file, overrides)
    if data is None or data.config != config.data:
        data = open_data(config.data, on_progress=progress("reading images"))
    if file is not None:
        reason += f"; {file} is laid over it"
    return config, data, f"{preset}: {reason}"


def lengths(budget: str | None, images: str | None) -> dict[str, str]:
    """Return the dotted names that --budget and --images stand for.

    Raises:
        UserError: both are given, or one can't be read.
    """
    from sfumato.config.units import parse_count, parse_seconds

    if budget is not None and images is not None:
        raise UserError("--budget and --images both say how long to train: give one")
    if budget is not None:
        return {"train.budget": str(parse_seconds(budget)), "train.images": "none"}
    if images is not None:
        return {"train.images": str(parse_count(images)), "train.budget": "none"}
    return {}


def default_run(source: str, preset: str) -> Path:
    """Return runs/DATA-PRESET, or runs/DATA where both have one name."""
    name = Path(source).name or "images"
    return Path("runs") / (name if name == preset else f"{name}-{preset}")
