"""Samples: how they are drawn (`recipe`), the one loop (`sample`), and how they are written (`writers`)."""

from sfumato.lazy import lazy

__getattr__, __dir__ = lazy(__name__, {name: name for name in ("compiled", "recipe", "sample", "writers")})
