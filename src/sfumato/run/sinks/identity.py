"""The name under which another tool knows a run, kept in RUN/sinks.json so that it is resumed there too."""

from __future__ import annotations

import secrets

from sfumato.run.folder import Run


def kept(run: Run, sink: str) -> str | None:
    """Return the name that a sink has kept; None where it has none."""
    name = (run.read(run.sinks_path) or {}).get(sink)
    return name if isinstance(name, str) else None


def keep(run: Run, sink: str, name: str) -> None:
    """Keep a name; raises `OSError`."""
    run.write(run.sinks_path, {**(run.read(run.sinks_path) or {}), sink: name})


def identity(run: Run, sink: str) -> str:
    """Return the name that a sink has kept, or keep a new one."""
    name = kept(run, sink)
    if name is None:
        name = secrets.token_hex(8)
        keep(run, sink, name)
    return name
