"""How good a model is: features, distances between sets of them, and whether training images are repeated.

Read in this order: `features` (what an extractor is, and which there are), `statistics`, `bootstrap` (how every number
gets its interval), `frechet`, `kernel`, `neighbours`, `sliced` (the measures), `measure` (a number with all that makes
it comparable), `cache` (features of real images), `memorisation`. `bits`, how many bits a model needs for an image,
stands apart.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.evaluate.bits import Bits, flow_bits, sampled_bits, vlb_bits
    from sfumato.evaluate.bootstrap import Interval, Linearised
    from sfumato.evaluate.cache import real_features, split_rows
    from sfumato.evaluate.evaluation import Evaluation, results
    from sfumato.evaluate.features import EXTRACTORS, Extractor, batches, extract, fitting, open_extractor
    from sfumato.evaluate.frechet import frechet_distance, frechet_of_statistics
    from sfumato.evaluate.kernel import kid
    from sfumato.evaluate.measure import MEASURES, Measure, compare, quality
    from sfumato.evaluate.memorisation import Memorisation, Nearness, contact_sheet, find_memorised
    from sfumato.evaluate.neighbours import neighbourhoods
    from sfumato.evaluate.settings import Settings
    from sfumato.evaluate.sliced import sliced_wasserstein
    from sfumato.evaluate.statistics import Statistics
    from sfumato.evaluate.subject import open_subject

_HOMES = {
    "Bits": "bits",
    "EXTRACTORS": "features",
    "Evaluation": "evaluation",
    "Extractor": "features",
    "Interval": "bootstrap",
    "Linearised": "bootstrap",
    "MEASURES": "measure",
    "Measure": "measure",
    "Memorisation": "memorisation",
    "Nearness": "memorisation",
    "Settings": "settings",
    "Statistics": "statistics",
    "batches": "features",
    "compare": "measure",
    "contact_sheet": "memorisation",
    "extract": "features",
    "find_memorised": "memorisation",
    "fitting": "features",
    "flow_bits": "bits",
    "frechet_distance": "frechet",
    "frechet_of_statistics": "frechet",
    "kid": "kernel",
    "neighbourhoods": "neighbours",
    "open_extractor": "features",
    "open_subject": "subject",
    "quality": "measure",
    "real_features": "cache",
    "results": "evaluation",
    "sampled_bits": "bits",
    "sliced_wasserstein": "sliced",
    "split_rows": "cache",
    "vlb_bits": "bits",
}

__all__ = [
    "EXTRACTORS",
    "MEASURES",
    "Bits",
    "Evaluation",
    "Extractor",
    "Interval",
    "Linearised",
    "Measure",
    "Memorisation",
    "Nearness",
    "Settings",
    "Statistics",
    "batches",
    "compare",
    "contact_sheet",
    "extract",
    "find_memorised",
    "fitting",
    "flow_bits",
    "frechet_distance",
    "frechet_of_statistics",
    "kid",
    "neighbourhoods",
    "open_extractor",
    "open_subject",
    "quality",
    "real_features",
    "results",
    "sampled_bits",
    "sliced_wasserstein",
    "split_rows",
    "vlb_bits",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
