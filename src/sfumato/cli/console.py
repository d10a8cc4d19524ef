"""Helpers of all verbs: JSON, progress, the device."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sfumato.errors import UserError
from sfumato.report.text import duration

if TYPE_CHECKING:
    import torch


def print_json(value: Any) -> None:
    """Print one JSON object on one line, at once."""
    print(json.dumps(value), flush=True)


def progress(what: str, every: float = 5.0) -> Callable[[int, int], None]:
    """Return a callback (done, total) that reports on stderr: a rewritten line on a terminal, else a line every few
    seconds.

    Args:
        what: the work, such as "decoding".
        every: seconds between lines where stderr is no terminal, and before the first.
    """
    start = last = time.monotonic()
    live = sys.stderr.isatty()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        end = done >= total
        if now - last < (0.1 if live else every) and not (live and end):
            return
        last = now
        left = (now - start) * (total - done) / max(done, 1)
        line = f"{what}: {done:,} of {total:,}" + ("" if end else f", {duration(left)} left")
        width = shutil.get_terminal_size().columns - 1
        print(
            f"\r{line[:width]:{width}}" if live else line,
            end="" if live and not end else "\n",
            file=sys.stderr,
            flush=True,
        )

    return report


def pick_device(name: str) -> torch.device:
    """Return the device `cpu`, `cuda` or `cuda:1`, or for `auto` the GPU if there is one.

    Raises:
        UserError: the device does not exist.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device can't be '{name}': choose auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device can't be '{name}': choose auto, cpu or cuda")
    if device.type == "cuda" and not (available and (device.index or 0) < torch.cuda.device_count()):
        raise UserError(f"this machine has no {name} that torch can use: leave --device out, or use --device cpu")
    return device
