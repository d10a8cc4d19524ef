"""Sampling: its configuration (`recipe`), the one loop (`sample`), pictures of samples (`pictures`), files
(`writers`)."""

from sfumato.lazy import lazy

__getattr__, __dir__ = lazy(__name__, {name: name for name in ("compiled", "pictures", "recipe", "sample", "writers")})
