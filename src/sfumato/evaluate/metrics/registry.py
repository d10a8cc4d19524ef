"""The metrics by name. A new one is a file beside this and a line here."""

from __future__ import annotations

from sfumato.evaluate.metrics.frechet import Frechet, ShrunkFrechet
from sfumato.evaluate.metrics.kernel import KernelDistance
from sfumato.evaluate.metrics.prdc import PRDC
from sfumato.evaluate.metrics.protocol import Metric
from sfumato.evaluate.metrics.sliced import SlicedWasserstein

__all__ = ["METRICS"]

METRICS: dict[str, Metric] = {
    "frechet-shrunk": ShrunkFrechet(),
    "frechet": Frechet(),
    "kid": KernelDistance(),
    "prdc": PRDC(),
    "sliced-wasserstein": SlicedWasserstein(),
}
"""Every metric, in the order of a table."""
