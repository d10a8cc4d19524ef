"""A model in a hub's layout: into a folder, and from there to the hub, where that is asked for."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from sfumato.conditions.protocol import common
from sfumato.errors import UserError
from sfumato.exchange.export import facts
from sfumato.exchange.formats import MARK, Written
from sfumato.exchange.hub.card import Licence, card, model_label, results
from sfumato.exchange.hub.layout import CARD, METRICS, SAMPLES, public, save_model
from sfumato.files import write_atomic
from sfumato.generate.pictures import grid
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import prepare, wanted
from sfumato.generate.writers import save_png
from sfumato.model import Model
from sfumato.run.locate import HUB

SHOWN = 64
"""Images in the grid of samples."""


def write_folder(model: Model, folder: Path, name: str, licence: Licence) -> Written:
    """Write every file of the layout; a README.md that was changed by hand since is kept beside, as README.old.md.
    Raises `UserError` as `save_model` and for a model that can't be sampled, and OSError where it can't be written."""
    label = _label(model)
    condition, recipe = wanted(model, label), Recipe().resolve(model)
    sampling = prepare(model, recipe, condition)
    parts = [x for _, x in sampling.stream(SHOWN, 0, condition=condition)]
    save_model(public(model), folder)
    reports = results(model)
    told = {"seed": 0, "num": SHOWN, **recipe.describe(), **({} if label is None else {"label": label})}
    save_png(grid(model.codec.shown(torch.cat(parts))), folder / SAMPLES, {**told, "weights": model.sha256})
    metrics = {kind: _public(report) for kind, report in reports.items()}
    if metrics:
        write_atomic(folder / METRICS, json.dumps(metrics, indent=1) + "\n")
    else:
        (folder / METRICS).unlink(missing_ok=True)
    text, readme = card(model, name, licence, reports, label), folder / CARD
    old = readme.read_text(encoding="utf-8") if readme.is_file() else text
    if old != text:
        shutil.copy2(readme, folder / "README.old.md")
    write_atomic(readme, text)
    write_atomic(folder / MARK, json.dumps(facts(public(model), "hub"), indent=1) + "\n")
    measured = ", ".join(reports) or "none; sfumato evaluate measures them"
    lines = (
        f"model.safetensors, config.json, README.md, samples.png; figures: {measured}",
        *([] if licence.weights else ["no licence is stated: give --licence"]),
    )
    return Written(lines, {"figures": list(reports), "licence": licence.weights or None})


def upload(folder: Path, name: str, private: bool) -> str:
    """Upload a folder's files to the hub, as one commit, and return its address; raises `UserError` where
    huggingface_hub is not installed, no one is logged in, or the hub refuses."""
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(f"{HUB}{name} needs the package huggingface_hub: pip install 'sfumato[hub]'") from None
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        found: Any = api.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="Model by Sfumato", ignore_patterns=["README.old.md"]
        )
        return str(found)
    except Exception as error:  # its errors, and those of the transport, have no base class
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{HUB}{name}: the upload failed ({reason}); `hf auth login` logs in") from None


def push(model: Model, name: str, licence: Licence, private: bool) -> Written:
    """Write the layout into a folder for the time of the upload, and upload it; errors as `write_folder`, `upload`."""
    with tempfile.TemporaryDirectory(prefix="sfumato-push-") as folder:
        written = write_folder(model, Path(folder), name, licence)
        address = upload(Path(folder), name, private)
    return Written((*written.lines, address), written.facts | {"address": address})


def _label(model: Model) -> str | None:
    """The condition of the grid: None where that is the labels of training images, or the model has no labels; else
    every value of the only attribute, or one label."""
    attributes = model.attributes
    if model.vocabulary is None or (common(model.vocabulary) is not None and model.config.train.label_dropout > 0):
        return None
    one = len(attributes) == 1 and bool(attributes[0].values)
    return f"{attributes[0].name}=all" if one else model_label(model)


def _public(report: dict[str, Any]) -> dict[str, Any]:
    """A result without the paths of this machine and the curve of the bits."""
    result = {key: value for key, value in report["result"].items() if key not in ("curve", "contact_sheet")}
    return {"settings": report["settings"], "result": result, "notes": report["notes"]}
