"""The configuration of a run, from a preset, a file and overrides, and its images."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfumato.config import presets
from sfumato.config.config import Config, read_toml
from sfumato.data import Dataset, open_data
from sfumato.data.mirror import mirror_test_of
from sfumato.data.sources.opening import may_be_data
from sfumato.data.store.build import Progress
from sfumato.errors import UserError, command, similar
from sfumato.model import load
from sfumato.ranks import World
from sfumato.run.folder import Run
from sfumato.run.places import is_gone, located, spelled_as_begun
from sfumato.run.sinks.protocol import check as check_sinks
from sfumato.train.follow import open_together
from sfumato.train.plan import check_source

if TYPE_CHECKING:
    import torch

CLASS_SIZE = 20
"""Images of a class, on average, from which on a model learns the classes of its images without being asked."""


def choose(
    preset: str | None,
    file: Path | None,
    overrides: Mapping[str, str],
    device: torch.device,
    on_progress: Progress | None = None,
    init: str | None = None,
    world: World = World(),
) -> tuple[Config, Dataset, str]:
    """Return the configuration, the images, and `PRESET: why this one`.

    Args:
        preset: its name; None chooses by the images. It mirrors images (`data.flip`) only where the mirror test says
            that sides do not matter, and one of our own learns the classes of the source (`classes_of`), unless file or
            overrides decide it.
        file: a TOML file, whose values replace the preset's.
        overrides: text by dotted key, `data.source` among them.
        device: what will train.
        on_progress: called while images are read.
        init: weights to begin with, as `model.load` takes them: without a preset the network, the process and the codec
            are theirs, so that all of them fit; classes are learnt where these weights know labels.
        world: the ranks that decode the images together.

    Raises:
        UserError: an unknown preset or key, a value out of its range, images or weights that can't be opened.
    """
    data, base, learns = None, None, preset is None or presets.is_ours(preset)
    if preset is not None:
        reason = "as asked"
        check_sinks(presets.resolve(preset, file, overrides).train.log)  # what is wrong is said before images are read
    else:
        if init is None:  # else they are of a network that is not known yet
            presets.check(file, overrides)
        asked = presets.resolve(None, file, overrides, only=("data", "train"))
        check_sinks(asked.train.log)
        data = open_together(asked.data, world, on_progress)
        preset, reason, values = presets.choose(data.shape, len(data.train), str(device), asked.train.budget)
        base = presets.resolve(preset, overrides=values)
        if init is not None:
            donor = load(init)
            own, learns = donor.config, donor.vocabulary is not None
            base = replace(base, net=own.net, diffusion=own.diffusion, codec=own.codec)
            reason += f"; network and process are those of {init}"
    config = presets.resolve(None if base else preset, file, overrides, base=base)
    laid = {} if file is None else read_toml(file).get("data", {})
    decided = {*overrides, *(f"data.{name}" for name in laid)}
    asks = config.data.flip and "data.flip" not in decided
    wanted = replace(config.data, flip=False) if asks else config.data
    if data is None or data.config != wanted:
        data = open_together(wanted, world, on_progress)
    if learns and "data.labels" not in decided and (classes := classes_of(data)):
        config, data = learning(classes, config, data)
    if asks:
        config, data = flip_if_allowed(config, data)
    over = "" if file is None else f"; {file} is laid over it"
    return config, data, f"{preset}: {reason}{over}"


def resume(
    run: Run, overrides: Mapping[str, str], on_progress: Progress | None = None, world: World = World()
) -> tuple[Config, Dataset, str]:
    """Return the configuration and the images of a run that was begun, and a sentence about it.

    Args:
        run: the run.
        overrides: text by dotted key; `data.source` may be among them, in any spelling, or as another path of the same
            images. Other values stay as they are.
        on_progress: called while images are read.
        world: the ranks that decode the images together.

    Raises:
        UserError: an unknown key, a value out of its range, other images, images that can't be opened.
    """
    begun = run.config()
    config = presets.resolve(overrides=overrides, base=begun)
    check_sinks(config.train.log)
    config = replace(config, data=spelled_as_begun(config.data, run))
    check_source(config, run)
    there = located(run)
    names = [name for name in ("source", "labels") if getattr(config.data, name) == getattr(begun.data, name)]
    where = replace(config.data, **{name: getattr(there, name) for name in names})
    if "source" in names and is_gone(where.source):
        raise UserError(
            f"{run.path} is trained on {begun.data.source}, which is not there: "
            f"{command('train', 'PATH', '--run', run.path)} goes on with the same images at another path"
            f"{similar(where.source, may_be_data)}"
        )
    data = open_together(where, world, on_progress)
    if where.size is None and (size := _size_of(run)) not in (None, data.shape[1:]):
        data = open_together(replace(where, size=size), world, on_progress)  # another size would be chosen today
    check_source(config, run, data)
    return config, data, "as this run was begun"


def _size_of(run: Run) -> tuple[int, int] | None:
    """The size of a run's images, by its weights; None before its first checkpoint."""
    with suppress(UserError):
        _, height, width = load(run).codec.image_shape
        return height, width
    return None


def flip_if_allowed(config: Config, data: Dataset) -> tuple[Config, Dataset]:
    """Return the configuration and its images with `data.flip` only where the mirror test allows it, and a note."""
    mirror = mirror_test_of(data)
    what = "mirrors each training image with probability 1/2" if mirror.allows else "would mirror images; that is off"
    note = f"the preset {what} ({mirror.reason}); data.flip={str(not mirror.allows).lower()} decides otherwise"
    own = replace(config.data, flip=mirror.allows)
    return replace(config, data=own), replace(data, config=own, notes=(*data.notes, note))


def classes_of(data: Dataset) -> int:
    """Return how many classes the images have where a model is to learn them without being asked, else 0.

    They are the only labels that the source offers; every training image has one, and a class `CLASS_SIZE` images on
    average. A network that is told the class makes better images, at the price of a table of a few thousand numbers.
    """
    if data.offered is None or len(data.offered.attributes) != 1:
        return 0
    (attribute,) = data.offered.attributes
    known = np.unique(data.offered.conditions[data.train, 0])  # NaN is one of them where a label is missing
    enough = 2 <= len(known) <= len(data.train) / CLASS_SIZE
    return len(known) if attribute.values and enough and not np.isnan(known).any() else 0


def learning(classes: int, config: Config, data: Dataset) -> tuple[Config, Dataset]:
    """Return the configuration and its images with their own classes as labels, and a note."""
    data = open_data(replace(data.config, labels="source"))
    note = f"the model learns the {classes} classes, for 'sample --label'; --labels none trains without them"
    own = replace(config.data, labels="source")
    return replace(config, data=own), replace(data, notes=(*data.notes, note))


def as_begun(config: Config, data: Dataset, run: Run, decided: Collection[str]) -> tuple[Config, Dataset]:
    """Return the configuration and its images with what `choose` decides by the images as the run was begun.

    Args:
        decided: the keys of what was asked for here.
    """
    config = replace(config, data=spelled_as_begun(config.data, run))
    if not run.exists():
        return config, data
    begun = run.config().data
    own = replace(
        config.data, **{name: getattr(begun, name) for name in ("flip", "labels") if f"data.{name}" not in decided}
    )
    if own == config.data or replace(own, source=begun.source) != begun:
        return config, data
    return replace(config, data=own), open_data(own)


def default_run(source: str) -> Path:
    """Return runs/DATA."""
    return Path("runs") / (Path(source).name or "images")
