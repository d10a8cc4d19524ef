"""Writing a model in another library's format, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from sfumato import __version__
from sfumato.codec import format as formats
from sfumato.config import tree
from sfumato.config.config import to_dict
from sfumato.errors import UserError
from sfumato.exchange.formats import MARK, Written, check_out
from sfumato.files import hidden, sync, write_synced
from sfumato.model import Model
from sfumato.session import SessionNetwork


def facts(model: Model, kind: str) -> dict[str, Any]:
    """Return what a program needs to know about a model to use its weights without this library."""
    diffusion = model.config.diffusion
    steps = torch.arange(1, model.schedule.num_steps + 1, dtype=torch.float64) / model.schedule.num_steps
    return {
        "format": kind,
        "sfumato": __version__,
        "weights": {"sha256": model.sha256, "kind": model.kind, "images": model.images},
        "shape": list(model.shape),
        "values": formats.plain(model.codec.format),
        "vocabulary": None if model.vocabulary is None else model.vocabulary.plain(),
        "predicts": diffusion.parameterization,
        "abar": model.schedule(steps).abar.tolist(),
        "config": to_dict(model.config),
    }


def export(
    model: Model, kind: str, out: Path, options: Mapping[str, str] | None = None, force: bool = False
) -> Written:
    """Write a model in a format: under a hidden name first, which is then renamed.

    Args:
        model: what to write.
        kind: a name of `EXPORTS`.
        out: the folder or file.
        options: of the format, as text.
        force: replace an earlier export.

    Raises:
        UserError: those of `check_out`, an unknown option, or a model that the format can't hold.
        OSError: it can't be written; nothing is left behind.
    """
    form = check_out(out, kind, force)
    if isinstance(model.net, SessionNetwork):
        raise UserError(f"{model.path} is an ONNX file, which can't be converted: give the run or its weights file")
    try:
        chosen = import_module(form.module).FORMAT
    except ImportError as error:
        first = f"pip install 'sfumato[{form.package}]'" if form.package else "install it first"
        raise UserError(f"--to {kind} needs the package {form.package or error.name}: {first}") from None
    exporter = tree.convert(chosen, tree.nest(options or {}), {})
    out.parent.mkdir(parents=True, exist_ok=True)
    with hidden(out, form.suffix) as part, hidden(out, ".old") as old:
        written: Written = exporter.write(model, part)
        if part.is_dir():
            write_synced(part / MARK, json.dumps(facts(model, kind), indent=1) + "\n")
        if out.is_dir():
            os.replace(out, old)
        os.replace(part, out)
    sync(out.parent)
    return replace(written, lines=tuple(line.replace(part.name, out.name) for line in written.lines))
