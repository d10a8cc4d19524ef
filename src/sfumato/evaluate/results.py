"""The files of results: where they are, and which are of a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfumato.files import MEGABYTE, read_regular
from sfumato.model import Model
from sfumato.run.folder import Run
from sfumato.run.locate import ASSETS, run_of

_MOST = 16 * MEGABYTE
"""Bytes of a file that is read."""


def results_folder(source: Path) -> Path:
    """Return the folder of a source's results: a run's own, or one beside a weights file; for a model that comes along
    one in the working folder."""
    if source.parent == ASSETS:
        return Path("evaluation")
    if source.is_dir():
        return (run_of(source / "ema.safetensors") or Run(source)).evaluation
    return (run_of(source) or Run(source.parent)).evaluation


def stored_results(model: Model) -> list[tuple[Path, dict[str, Any]]]:
    """Return the results that `Evaluation` has stored for exactly these weights, with their files, by name; a damaged
    one is left out."""
    found = []
    for file in sorted(results_folder(model.path).glob("*-*.json")):
        try:
            report = json.loads(read_regular(file, _MOST))
            if {"kind", "result", "notes"} <= report.keys() and report["settings"]["weights"] == model.sha256:
                found.append((file, report))
        except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
            continue
    return found
