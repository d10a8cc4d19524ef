"""Evaluation: features, distances between sets of them, and whether a model repeats training images.

Read in this order: `features` (the extractors), `metrics` (the metrics and their intervals), `measurement` (a number
with everything that makes it comparable), `cache` (features of real images), `memorisation`. `bits` measures the code
length of images. `evaluation` runs all of it, as `stages` of `jobs`.
"""

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.evaluate.bits import Bits as Bits
    from sfumato.evaluate.bits import FlowDensity as FlowDensity
    from sfumato.evaluate.bits import SampledBound as SampledBound
    from sfumato.evaluate.bits import WholeBound as WholeBound
    from sfumato.evaluate.bits import measure_bits as measure_bits
    from sfumato.evaluate.cache import real_features as real_features
    from sfumato.evaluate.cache import split_rows as split_rows
    from sfumato.evaluate.evaluation import Evaluation as Evaluation
    from sfumato.evaluate.features import EXTRACTORS as EXTRACTORS
    from sfumato.evaluate.features import Extractor as Extractor
    from sfumato.evaluate.features import extract as extract
    from sfumato.evaluate.features import open_extractor as open_extractor
    from sfumato.evaluate.measurement import Measurement as Measurement
    from sfumato.evaluate.measurement import compare as compare
    from sfumato.evaluate.measurement import quality as quality
    from sfumato.evaluate.memorisation import Memorisation as Memorisation
    from sfumato.evaluate.memorisation import contact_sheet as contact_sheet
    from sfumato.evaluate.memorisation import find_memorised as find_memorised
    from sfumato.evaluate.metrics.frechet import frechet_distance as frechet_distance
    from sfumato.evaluate.metrics.kernel import kid as kid
    from sfumato.evaluate.metrics.prdc import prdc as prdc
    from sfumato.evaluate.metrics.protocol import Metric as Metric
    from sfumato.evaluate.metrics.protocol import MetricValue as MetricValue
    from sfumato.evaluate.metrics.registry import METRICS as METRICS
    from sfumato.evaluate.metrics.sliced import sliced_wasserstein as sliced_wasserstein
    from sfumato.evaluate.settings import Settings as Settings
    from sfumato.evaluate.target import Target as Target
    from sfumato.evaluate.target import open_target as open_target

__getattr__, __dir__ = lazy(__name__, __file__)
__all__ = __dir__()
