"""Samples: how they are drawn (`recipe`), the one loop (`sample`), pictures of them (`pictures`), files (`writers`)."""

from sfumato.lazy import lazy

__getattr__, __dir__ = lazy(__name__, {name: name for name in ("compiled", "pictures", "recipe", "sample", "writers")})
