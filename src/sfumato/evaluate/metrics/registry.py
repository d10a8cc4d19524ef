"""The metrics by name. A new one needs a file in this folder and a line here."""

from __future__ import annotations

from sfumato.evaluate.metrics.frechet import frechet_distance
from sfumato.evaluate.metrics.kernel import kid
from sfumato.evaluate.metrics.prdc import prdc
from sfumato.evaluate.metrics.protocol import Metric
from sfumato.evaluate.metrics.sliced import sliced_wasserstein

METRICS: dict[str, Metric] = {
    "frechet-shrunk": lambda real, ours, seed: {"frechet-shrunk": frechet_distance(real, ours, shrink=True)},
    "frechet": lambda real, ours, seed: {"frechet": frechet_distance(real, ours)},
    "kid": lambda real, ours, seed: {"kid": kid(real, ours)},
    "prdc": lambda real, ours, seed: prdc(real, ours),
    "sliced-wasserstein": lambda real, ours, seed: {"sliced-wasserstein": sliced_wasserstein(real, ours, seed=seed)},
}
"""Every metric, in the order of a table."""
EQUAL = ("prdc",)
"""Those that change with the ratio of the numbers of images, and so compare as many of each."""


def usual(num: int, dim: int) -> list[str]:
    """Return the metrics measured by default; the shrunk distance only where images are few."""
    return [name for name in METRICS if name != "frechet-shrunk" or num < dim]
