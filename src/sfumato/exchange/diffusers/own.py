"""What our pipeline file needs to know beside UNet2DModel and its scheduler: entries of model_index.json, read back.

A folder that an export wrote also has sfumato.json, with the whole configuration (`export.facts`). It is used where
the network, the scheduler and the index are still those that it describes; then what is read back is the model that
was exported, and a seed gives the same images. Where they are not, as in a folder that diffusers trained on and saved,
the folder is what its own files say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfumato.codec import format as formats
from sfumato.conditions.attributes import Attribute, from_plain, plain
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.augment import AugmentConfig
from sfumato.config.config import Config, from_stored
from sfumato.diffusion import PARAMETERIZATIONS
from sfumato.errors import UserError
from sfumato.exchange.diffusers import schedulers, settings
from sfumato.exchange.formats import MARK
from sfumato.exchange.imports import Contents, Imported
from sfumato.model import Model

PIPELINE, CLASS = "sfumato_pipeline", "SfumatoPipeline"
"""The module of the pipeline file, and its class."""
SOURCE = Path(__file__).with_name("pipeline.py")
"""The pipeline file."""


@dataclass(frozen=True)
class Entries:
    """The entries of model_index.json that the pipeline file reads; see there.

    Attributes:
        size: height and width of an image.
        patch: side of the squares of pixels that are one pixel to the network.
        multiple: images are extended to a multiple of this.
        predicts: what the network predicts.
        time_scale: factor of the network's time.
        attributes: the properties that images are asked for by.
        needs_label: the network was not trained without them.
    """

    size: tuple[int, int]
    patch: int = 1
    multiple: int = 1
    predicts: str = "eps"
    time_scale: float = 1.0
    attributes: tuple[Attribute, ...] = ()
    needs_label: bool = False

    def plain(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return vars(self) | {"size": list(self.size), "attributes": [plain(one) for one in self.attributes]}


def entries_of(model: Model) -> Entries | None:
    """Return what the pipeline file needs to know about a model; None where `DDPMPipeline` is enough."""
    config, (_, height, width) = model.config, model.shape
    net: Any = config.net
    predicts, scale = config.diffusion.parameterization, getattr(net, "time_scale", 1.0)
    needed = (
        predicts not in schedulers.PREDICTIONS, net.patch > 1, scale != 1, model.vocabulary is not None,
        net.inside(height, width) != (height, width),
    )  # fmt: skip
    if not any(needed):
        return None
    strict = bool(model.attributes) and config.train.label_dropout == 0
    return Entries((height, width), net.patch, net.multiple, predicts, scale, model.attributes, strict)


def read_entries(contents: Contents, index: Mapping[str, Any]) -> Entries | None:
    """Return the entries of a folder's index; None where its images need no pipeline file. Raises `UserError` where
    they need one that is not ours, since no file is run, and KeyError, TypeError or ValueError where it is not such an
    index."""
    own = index.get("_class_name")
    if not isinstance(own, list) and own != CLASS:
        return None
    if isinstance(own, list) and own != [PIPELINE, CLASS]:
        raise UserError(
            f"its images need the code of a pipeline of its own ({str(own[0])[:40]}.py), which is not run: import what "
            "it was made from"
        )
    height, width = (int(side) for side in index["size"])
    entries = Entries(
        (height, width), int(index["patch"]), int(index["multiple"]), str(index["predicts"]),
        float(index["time_scale"]), tuple(from_plain(one) for one in index["attributes"]), bool(index["needs_label"]),
    )  # fmt: skip
    if min(height, width, entries.patch) < 1 or entries.predicts not in PARAMETERIZATIONS:
        raise ValueError("impossible entries in model_index.json")
    return entries


def changed_file(contents: Contents) -> tuple[str, ...]:
    """Return a note where the folder's pipeline file is not the one that is written today."""
    name = f"{PIPELINE}.py"
    if name not in contents.names or (contents.path / name).read_bytes() == SOURCE.read_bytes():
        return ()
    return (f"its {name} is not the one that this version writes; it is not run, and what it changes is not read",)


def exact(contents: Contents, imported: Imported, scheduler: Mapping[str, Any]) -> Imported:
    """Return the import with what sfumato.json says, where it describes the folder; a note where it no longer does."""
    facts = contents.json(MARK) if MARK in contents.names else {}
    if facts.get("format") != "diffusers":
        return imported
    try:
        config = from_stored(facts["config"])
        vocabulary = None if facts["vocabulary"] is None else AttributeVocabulary.from_plain(facts["vocabulary"])
        kind, images = facts["weights"]["kind"], int(facts["weights"]["images"])
        same = tuple(facts["shape"]) == imported.shape and kind in ("ema", "raw") and images >= 0
        same &= vocabulary == imported.vocabulary and _describes(config, imported.config, scheduler)
        format_ = formats.from_plain(facts["values"])
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        same = False
    if not same:
        note = f"{MARK} no longer describes its network and its scheduler, and is left out"
        return replace(imported, notes=(*imported.notes, note))
    config = replace(config, augment=AugmentConfig())  # the weights that it needs are not in the folder
    facts = {"config": config, "vocabulary": vocabulary, "format": format_, "kind": kind, "images": images}
    return replace(imported, **facts, has_data=True)


def _describes(config: Config, found: Config, scheduler: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of the network and the scheduler that were found."""

    def network(own: Config) -> Any:
        net: Any = own.net
        return settings.to_theirs(net), net.patch, getattr(net, "time_scale", 1.0)

    expected = schedulers.to_theirs(config.diffusion)
    return (
        network(config) == network(found)
        and config.diffusion.parameterization == found.diffusion.parameterization
        and all(scheduler.get(name) == value for name, value in expected.items() if not name.startswith("_"))
    )
