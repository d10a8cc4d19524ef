"""Which weights file a path means. Nothing here imports torch, so that a wrong path is refused at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from sfumato.config.units import parse_count
from sfumato.errors import UserError, command, likely, nearest, similar
from sfumato.run.folder import WEIGHTS, Run

SHIPPED = ("faces", "fashion", "emoji32")
"""Models that come with the package, by name (assets/MODELS.md)."""
HUB = "hf:"
"""What begins the name of a model on the Hugging Face hub: hf:USER/NAME, or hf:USER/NAME@REVISION."""
HUB_WEIGHTS = "model.safetensors"
"""The weights in a folder of the hub's layout."""
ASSETS = Path(__file__).parents[1] / "assets"
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_LOOKED_AT = 2000
"""Most entries of a folder that are looked at to find out what it holds."""


def at(path: Path | str) -> tuple[Path, str | None]:
    """Return what RUN@200k or RUN@best means: the checkpoint of so many images, or the run and a choice of weights; any
    other path as it is.

    200k is the checkpoint of the step in which 200,000 images were reached.

    Raises:
        UserError: the run keeps no such checkpoint; those that it keeps are named.
    """
    name, _, mark = str(path).rpartition("@")
    run = Run(Path(name))
    if not name or Path(path).exists() or not run.exists():
        return Path(path), None
    if mark in WEIGHTS:
        return run.path, mark
    try:
        count = parse_count(mark)
    except UserError:
        hint = f"{name}@best" + (nearest(mark, WEIGHTS) if mark.isalpha() else "")
        raise UserError(f"{path}: '{mark}' is not a number of images: write {name}@200k, or {hint}") from None
    batch = run.config_table().get("train", {}).get("batch", 1)
    folder = run.checkpoint(-(-count // batch) * batch)
    if not folder.is_dir():
        kept = ", ".join(f"{name}@{int(checkpoint.name)}" for checkpoint in reversed(run.list_checkpoints()))
        raise UserError(
            f"{name} keeps no state of {count:,} images: there is {kept or 'none yet'} (train.keep chooses them)"
        )
    return folder, None


def locate(path: Path | str | Run, weights: str = "ema") -> Path:
    """Return the weights file that a path (a run, a checkpoint, RUN@IMAGES, a file, a folder with `HUB_WEIGHTS`, a name
    of `SHIPPED`, hf:USER/NAME) and a choice of weights mean. Raises `UserError` where there is none, or it can't be
    downloaded."""
    if not isinstance(path, Run) and str(path).startswith(HUB) and not Path(path).exists():
        return _downloaded(str(path).removeprefix(HUB))
    location, asked = at(path.path if isinstance(path, Run) else path)
    weights = weights if asked is None else asked
    if weights not in WEIGHTS:
        location = Path(weights)
    own = location.is_file() or Run(location).exists() or (location / HUB_WEIGHTS).is_file()
    if str(location) in SHIPPED and not own:
        return ASSETS / f"{location}.safetensors"
    if not location.is_dir():
        shipped, at_sign, _ = str(location).partition("@")
        if shipped in SHIPPED and at_sign:
            raise UserError(f"{location}: the models that come along have no checkpoints: write {shipped}")
        if not location.is_file():
            raise _missing(location)
        return location
    run = Run(location)
    for file in (run.weights_file(weights), location / f"{weights}.safetensors"):
        if file.is_file() and (file.parent != location or _is_checkpoint(location)):
            return file
    if _is_checkpoint(location):
        raise UserError(f"{location} is a checkpoint, and has no {weights} weights: choose ema or raw")
    if (location / HUB_WEIGHTS).is_file() and not run.exists():
        return location / HUB_WEIGHTS
    if not run.exists() and (inner := next((path for path in sorted(location.iterdir()) if Run(path).exists()), None)):
        raise UserError(f"{location} is not a run folder but holds some: give one, such as {inner}")
    if not run.exists() and _holds_pictures(location):
        raise UserError(
            f"{location} is a folder of images, not a run: first train a model, {command('train', location)}"
        )
    if instead := remedy(run, weights):
        raise UserError(f"{location} has no {weights} weights, {run.weights_file(weights)} is missing: {instead}")
    none = f"no {weights} weights" if any(run.weights.glob("*.safetensors")) else "no weights yet"
    raise UserError(f"{location} has {none}: give a weights file, or a run folder that has saved a checkpoint")


def _missing(location: Path) -> UserError:
    """The error of a path that leads nowhere, with what it probably is meant to be."""
    from sfumato.data.sources.builtin import BUILTIN

    name, trained = str(location), Path("runs") / location
    if name in BUILTIN:
        own = f"give its run, {trained}" if trained.is_dir() else f"first train one, {command('train', name)}"
        return UserError(f"{name} is a built-in data set, and no model of it comes along: {own}")
    hint = f"; did you mean '{trained}'?" if trained.is_dir() else _near(location)
    return UserError(
        f"{name} does not exist: give a weights file, a run folder that has saved a checkpoint, or a model that comes "
        f"along{hint}"
    )


def _near(location: Path) -> str:
    """What a path that leads nowhere is probably meant to be: a model that comes along, or one at a path."""
    return likely(str(location), SHIPPED) or similar(location, means_model) or nearest(str(location), SHIPPED)


def means_model(path: Path) -> bool:
    """Return whether a path means a model, also one that is missing, and not images: a built-in set's name, a pattern
    of shards, or what exists and neither is nor holds weights."""
    from sfumato.data.sources.builtin import BUILTIN

    if path.suffix == ".safetensors" or str(path) in SHIPPED:
        return True
    if path.is_dir():
        run = Run(path)
        return run.exists() or run.weights.is_dir() or _is_checkpoint(path) or any(path.glob("*.safetensors"))
    return not (path.is_file() or str(path) in BUILTIN or "{" in path.name)


def hub_name(name: str) -> str:
    """Return USER/NAME of `hf:USER/NAME`; raises `UserError` for another form."""
    plain = name.removeprefix(HUB)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", plain):
        raise UserError(f"{name}: give {HUB}USER/NAME, such as {HUB}ada/faces")
    return plain


def _downloaded(name: str) -> Path:
    """The weights file of a model on the hub, from its cache where it was downloaded before."""
    return _fetched(name, lambda hub, identity, revision: hub.hf_hub_download(identity, HUB_WEIGHTS, revision=revision))


def hub_files(name: str) -> Path:
    """Return the folder with the settings and the weights of `hf:USER/NAME`, of any library, or its file where it has
    one alone, from the hub's cache; raises `UserError` where it can't be downloaded."""

    def fetch(hub: Any, identity: str, revision: str | None) -> Any:
        return hub.snapshot_download(identity, revision=revision, allow_patterns=["*.json", *_FOREIGN])

    folder = _fetched(name.removeprefix(HUB), fetch)
    files = [path for pattern in _FOREIGN for path in folder.rglob(pattern)]
    alone = len(files) == 1 and not any((folder / file).is_file() for file in ("model_index.json", "config.json"))
    return files[0] if alone else folder


def _fetched(name: str, fetch: Callable[[Any, str, str | None], Any]) -> Path:
    """What a function of huggingface_hub, an identity and a revision brings."""
    plain, _, revision = name.partition("@")
    identity = hub_name(f"{HUB}{plain}")
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{HUB}{name} needs the package huggingface_hub: pip install 'sfumato[hub]'") from None
    try:
        return Path(fetch(huggingface_hub, identity, revision or None))
    except Exception as error:  # its errors, and those of the transport, have no base class
        reason, kinds = " ".join(str(error).split())[:200], {kind.__name__ for kind in type(error).__mro__}
        hints = [hint for kind, hint in _HINTS.items() if kind in kinds]
        hint = hints[0].format(revision=revision) if hints else f"({reason}): check the name and the network"
        raise UserError(f"{HUB}{name} can't be downloaded{':' if hints else ''} {hint}") from None


_FOREIGN = ("*.safetensors", "*.bin", "*.pt", "*.pkl")
"""Weights of other libraries."""
_HINTS = {
    "LocalEntryNotFoundError": "it is not among those downloaded before, and the hub can't be reached",
    "RepositoryNotFoundError": "there is no model of this name, or you may not read it (`hf auth login` logs in)",
    "RevisionNotFoundError": "it has no revision '{revision}'",
    "EntryNotFoundError": f"it holds no {HUB_WEIGHTS}, so it is no model of this library (sfumato import reads the "
    "folders and files of others)",
}
"""What errors of huggingface_hub mean, the narrower kind first."""


def run_of(file: Path) -> Run | None:
    """Return the run that a weights file belongs to, as one of its weights or in a checkpoint; None where in none."""
    folder = file.absolute().parent
    for run, home in ((Run(folder.parent), folder), (Run(folder.parent.parent), folder.parent)):
        if home in (run.weights, run.checkpoints) and run.exists():
            return run
    return None


def remedy(run: Run, weights: str) -> str:
    """Return what can be done where weights of a run are missing or their file is cut; empty where nothing is known."""
    others = [f"--weights {kind}" for kind in WEIGHTS if kind != weights and run.weights_file(kind).is_file()]
    again = weights in ("ema", "raw") and run.list_checkpoints()
    train = f"run `{command('train', run.path)}`, which writes the file again from the newest checkpoint"
    return ", or ".join(filter(None, [f"take {' or '.join(others)}" if others else "", train if again else ""]))


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "optim.safetensors").is_file()


def _holds_pictures(folder: Path) -> bool:
    """Whether pictures are among the first entries of a folder or its folders."""
    return any(path.suffix.lower() in _PICTURES for path in islice(folder.rglob("*"), _LOOKED_AT))
