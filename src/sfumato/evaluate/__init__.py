"""How good a model is: features, distances between sets of them, and whether training images are repeated.

Read in this order: `features` (what an extractor is, and which there are), `statistics`, `bootstrap` (how every number
gets its interval), `frechet`, `kernel`, `neighbours`, `sliced` (the measures), `measure` (a number with all that makes
it comparable), `cache` (features of real images), `memorisation`. `bits`, how many bits a model needs for an image,
stands apart.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bootstrap import Interval, Linearised
    from .cache import real_features, split_rows
    from .features import EXTRACTORS, Extractor, batches, extract, fitting, open_extractor
    from .frechet import frechet_distance, frechet_of_statistics
    from .kernel import kid
    from .measure import MEASURES, Measure, compare, quality
    from .memorisation import Memorisation, Nearness, contact_sheet, find_memorised
    from .neighbours import neighbourhoods
    from .sliced import sliced_wasserstein
    from .statistics import Statistics

_HOMES = {
    "EXTRACTORS": "features",
    "Extractor": "features",
    "Interval": "bootstrap",
    "MEASURES": "measure",
    "Measure": "measure",
    "Memorisation": "memorisation",
    "Nearness": "memorisation",
    "Statistics": "statistics",
    "batches": "features",
    "compare": "measure",
    "contact_sheet": "memorisation",
    "extract": "features",
    "find_memorised": "memorisation",
    "fitting": "features",
    "frechet_distance": "frechet",
    "frechet_of_statistics": "frechet",
    "kid": "kernel",
    "neighbourhoods": "neighbours",
    "open_extractor": "features",
    "quality": "measure",
    "real_features": "cache",
    "sliced_wasserstein": "sliced",
    "split_rows": "cache",
}

__all__ = [
    "EXTRACTORS",
    "MEASURES",
    "Extractor",
    "Interval",
    "Linearised",
    "Measure",
    "Memorisation",
    "Nearness",
    "Statistics",
    "batches",
    "compare",
    "contact_sheet",
    "extract",
    "find_memorised",
    "fitting",
    "frechet_distance",
    "frechet_of_statistics",
    "kid",
    "neighbourhoods",
    "open_extractor",
    "quality",
    "real_features",
    "sliced_wasserstein",
    "split_rows",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
