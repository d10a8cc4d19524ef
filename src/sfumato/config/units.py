"""Durations, counts and sizes as people write them: `1h30m`, `500k`, `32x32`."""

from __future__ import annotations

import re

from sfumato.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {"s": "s|secs?|seconds?", "m": "m|mins?|minutes?", "h": "h|hrs?|hours?", "d": "d|days?"}
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def parse_seconds(text: str) -> float:
    """Read a duration, `90`, `90s`, `2m`, `10min`, `1h30m`, `1.5 hours`, `2d`, a bare number being seconds; raises
    `UserError` for anything else, or nothing above zero."""
    compact = text.strip().lower().replace(" ", "")
    for unit, names in _WORDS.items():
        compact = re.sub(rf"(?<=\d)({names})(?![a-z])", unit, compact)
    compact += "s" if compact[-1:].isdigit() else ""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact)
    written = "".join(number + unit for number, unit in parts)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if written != compact or seconds <= 0:
        raise UserError(f'"{text}" is not a length of time; write 90s, 2m or 1h30m')
    return seconds


def parse_count(text: str) -> int:
    """Read a number of images, `50000`, `50_000`, `50,000`, `1e5`, `500k`, `1.5M`; raises `UserError` for anything
    else, or less than one."""
    compact = re.sub(r",(?=\d{3}(?!\d))", "", text.strip().lower())
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?(?:e\+?\d\d?)?)([kmg]?)", compact)
    count = round(float(match[1].replace("_", "")) * _SUFFIXES[match[2]]) if match else 0
    if count < 1:
        raise UserError(f'"{text}" is not a number of images; write 50000, 500k or 1.5M')
    return count


def parse_milestones(text: str) -> tuple[int | None, tuple[int, ...]]:
    """Read numbers of images, `every 100k` or `50k,200k,1M`, and return (the interval, None without one; the numbers);
    raises `UserError` for anything else."""
    words = text.strip()
    if words.lower().startswith("every "):
        return parse_count(words[6:]), ()
    return None, tuple(sorted(parse_count(part) for part in words.split(",") if part.strip()))


def parse_size(text: str) -> str:
    """Return a size as the configuration has it, `height,width`: `32` is square, and `64x48` is width times height, as
    images are described; other text stays as it is."""
    match = re.fullmatch(r"(\d+)(?:\s*[x×]\s*(\d+))?", text.strip().lower())
    return f"{match[2] or match[1]},{match[1]}" if match else text


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


def suggested(seconds: float) -> str:
    """Return a round duration of at least so many seconds, as `--budget` reads it: 90s, 25m, 3h."""
    for unit, name, steps in ((1, "s", (30, 60, 90)), (60, "m", (2, 3, 5, 10, 15, 20, 30, 45, 60, 90))):
        for step in steps:
            if seconds <= step * unit * 1.02:
                return f"{step}{name}"
    return f"{-(-int(seconds) // 3600)}h"
