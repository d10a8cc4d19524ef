"""Durations and counts as people write them: `1h30m`, `500k`."""

from __future__ import annotations

import re

from sfumato.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def parse_seconds(text: str) -> float:
    """Read a duration, `90`, `90s`, `2m`, `1h30m`, `1.5h`, `2d`, a bare number being seconds; raises `UserError` for
    anything else, or nothing above zero."""
    compact = text.strip().lower().replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact + ("s" if compact[-1:].isdigit() else ""))
    written = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if written.removesuffix("s") != compact.removesuffix("s") or seconds <= 0:
        raise UserError(f'"{text}" is not a length of time; write 90s, 2m or 1h30m')
    return seconds


def parse_count(text: str) -> int:
    """Read a number of images, `50000`, `50_000`, `500k`, `1.5M`; raises `UserError` for anything else, or less than
    one."""
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kmg]?)", text.strip().lower())
    count = round(float(match[1].replace("_", "")) * _SUFFIXES[match[2]]) if match else 0
    if count < 1:
        raise UserError(f'"{text}" is not a number of images; write 50000, 500k or 1.5M')
    return count
