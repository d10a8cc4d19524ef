"""The configuration of a run, from a preset, a file and overrides, and its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.config import presets
from sfumato.config.config import Config, read_toml
from sfumato.data import Dataset, open_data
from sfumato.data.mirror import mirror_test_of
from sfumato.data.store.build import Progress
from sfumato.model import load
from sfumato.run.folder import Run
from sfumato.run.places import located, spelled_as_begun
from sfumato.run.sinks.protocol import check as check_sinks
from sfumato.train.plan import check_source

if TYPE_CHECKING:
    import torch


def choose(
    preset: str | None,
    file: Path | None,
    overrides: Mapping[str, str],
    device: torch.device,
    on_progress: Progress | None = None,
    init: str | None = None,
) -> tuple[Config, Dataset, str]:
    """Return the configuration, the images, and `PRESET: why this one`.

    Args:
        preset: its name; None chooses by the images. It mirrors images (`data.flip`) only where the mirror test says
            that sides do not matter, unless file or overrides decide it.
        file: a TOML file, whose values replace the preset's.
        overrides: text by dotted key, `data.source` among them.
        device: what will train.
        on_progress: called while images are read.
        init: weights to begin with, as `model.load` takes them: without a preset the network, the process and the codec
            are theirs, so that all of them fit.

    Raises:
        UserError: an unknown preset or key, a value out of its range, images or weights that can't be opened.
    """
    data, base = None, None
    if preset is not None:
        reason = "as asked"
        check_sinks(presets.resolve(preset, file, overrides).train.log)  # what is wrong is said before images are read
    else:
        if init is None:  # else they are of a network that is not known yet
            presets.check(file, overrides)
        asked = presets.resolve(None, file, overrides, only=("data", "train"))
        check_sinks(asked.train.log)
        data = open_data(asked.data, on_progress=on_progress)
        preset, reason, values = presets.choose(data.shape, len(data.train), str(device), asked.train.budget)
        base = presets.resolve(preset, overrides=values)
        if init is not None:
            donor = load(init).config
            base = replace(base, net=donor.net, diffusion=donor.diffusion, codec=donor.codec)
            reason += f"; network and process are those of {init}"
    config = presets.resolve(None if base else preset, file, overrides, base=base)
    chosen = "data.flip" in overrides or (file is not None and "flip" in read_toml(file).get("data", {}))
    asks = config.data.flip and not chosen
    wanted = replace(config.data, flip=False) if asks else config.data
    if data is None or data.config != wanted:
        data = open_data(wanted, on_progress=on_progress)
    if asks:
        config, data = flip_if_allowed(config, data)
    over = "" if file is None else f"; {file} is laid over it"
    return config, data, f"{preset}: {reason}{over}"


def resume(run: Run, overrides: Mapping[str, str], on_progress: Progress | None = None) -> tuple[Config, Dataset, str]:
    """Return the configuration and the images of a run that was begun, and a sentence about it.

    Args:
        run: the run.
        overrides: text by dotted key; `data.source` may be among them, in any spelling. Other values stay as they are.
        on_progress: called while images are read.

    Raises:
        UserError: an unknown key, a value out of its range, other images, images that can't be opened.
    """
    begun = run.config()
    config = presets.resolve(overrides=overrides, base=begun)
    config = replace(config, data=spelled_as_begun(config.data, run))
    check_source(config, run)
    data = open_data(located(run) if config.data == begun.data else config.data, on_progress=on_progress)
    return config, data, "as this run was begun"


def flip_if_allowed(config: Config, data: Dataset) -> tuple[Config, Dataset]:
    """Return the configuration and its images with `data.flip` only where the mirror test allows it, and a note."""
    mirror = mirror_test_of(data)
    what = "mirrors each training image with probability 1/2" if mirror.allows else "would mirror images; that is off"
    note = f"the preset {what} ({mirror.reason}); data.flip={str(not mirror.allows).lower()} decides otherwise"
    own = replace(config.data, flip=mirror.allows)
    return replace(config, data=own), replace(data, config=own, notes=(*data.notes, note))


def flip_as_begun(config: Config, data: Dataset, run: Run) -> tuple[Config, Dataset]:
    """Return the configuration and its images with the `data.flip` of a run that was begun with the same other data."""
    config = replace(config, data=spelled_as_begun(config.data, run))
    if not run.exists() or (begun := run.config().data) == config.data:
        return config, data
    if replace(begun, flip=config.data.flip) != config.data:
        return config, data
    return replace(config, data=begun), replace(data, config=begun)


def default_run(source: str) -> Path:
    """Return runs/DATA."""
    return Path("runs") / (Path(source).name or "images")
