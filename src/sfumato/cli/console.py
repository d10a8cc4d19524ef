"""What the verbs share: numbers and durations as people write them, aligned facts, progress, the device."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sfumato.errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = ["count", "duration", "facts", "pick_device", "print_json", "progress", "size"]


def duration(seconds: float) -> str:
    """Return a length of time: 4.2 s, 95 s, 12 min 05 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count(number: float) -> str:
    """Return a large number in three digits: 812, 35.7 M, 6.05 G."""
    for factor, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 0.9995 * factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.3g}"


def size(number: float) -> str:
    """Return a number of bytes: 812 B, 2.8 MB."""
    return f"{count(number)}B" if number >= 999.5 else f"{number:.0f} B"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return (name, value) pairs as aligned lines; a long value keeps its column, an empty one is left out."""
    pairs = [(name, value) for name, value in pairs if value]
    width = max(len(name) for name, _ in pairs) + 2
    return "\n".join(f"{name:{width}}" + value.replace("\n", "\n" + " " * width) for name, value in pairs)


def print_json(value: Any) -> None:
    """Print one JSON object on one line, at once."""
    print(json.dumps(value), flush=True)


def progress(what: str, every: float = 5.0) -> Callable[[int, int], None]:
    """Return a callback (done, total) that reports on stderr: a line rewritten on a terminal, else one now and then.

    Args:
        what: is done, such as "decoding".
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
    """Return the device `cpu`, `cuda` or `cuda:1`, or for `auto` the GPU where there is one.

    Raises:
        UserError: no such device here.
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
