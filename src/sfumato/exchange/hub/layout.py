"""The files of a model on a hub, and writing the two that make a model.

model.safetensors       the weights, which describe themselves (`weights`): enough to load the model
config.json             the same facts for people and programs: size, labels, what the network predicts, abar
README.md               the model card (`card`)
samples.png             a grid of samples
metrics.json            the results of `sfumato evaluate`, where there are any
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from sfumato.data.sources.builtin import BUILTIN
from sfumato.errors import UserError
from sfumato.exchange.export import facts
from sfumato.files import write_atomic
from sfumato.model import Model, packed
from sfumato.run.locate import HUB, HUB_WEIGHTS
from sfumato.session import SessionNetwork

CONFIG, CARD, SAMPLES, METRICS = "config.json", "README.md", "samples.png", "metrics.json"


def save_model(model: Model, folder: Path) -> None:
    """Write weights and config into a folder, made where it is missing; errors as `Pipeline.save_pretrained`."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder")
    if isinstance(model.net, SessionNetwork):
        raise UserError(f"{model.path} is an ONNX file: give the run or its weights file")
    content = packed(
        model.net.state_dict(), model.config, model.codec, vocabulary=model.vocabulary, kind=model.kind,
        images=model.images, origin=model.origin,
    )  # fmt: skip
    write_atomic(folder / HUB_WEIGHTS, content)
    described = {"library_name": "sfumato", "model_type": "diffusion"} | facts(model, "sfumato")
    described["weights"]["sha256"] = hashlib.sha256(content).hexdigest()
    write_atomic(folder / CONFIG, json.dumps(described, indent=1) + "\n")


def public(model: Model) -> Model:
    """Return the model without the folders of this machine in its configuration: of a path the last name stays."""
    data = model.config.data
    source = data.source if data.source in BUILTIN or data.source.startswith(HUB) else Path(data.source).name
    labels = data.labels if data.labels in ("none", "source") else Path(data.labels).name
    return replace(model, config=replace(model.config, data=replace(data, source=source, labels=labels)))
