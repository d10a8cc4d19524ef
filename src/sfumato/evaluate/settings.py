"""What is asked of an evaluation, checked before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfumato.diffusion import SAMPLERS, VARIANCES
from sfumato.errors import UserError, nearest
from sfumato.evaluate.cache import SPLITS
from sfumato.generate.recipe import Recipe, takes

__all__ = ["KINDS", "METHODS", "VARIANCE_NAMES", "Settings"]

KINDS = ("bits", "quality", "memorisation")
"""What can be measured, in the order in which it is."""
METHODS = ("sampled", "vlb", "flow")
VARIANCE_NAMES = (*VARIANCES, "analytic")
SCORED, DRAWN = 256, 1000
TERMS, PROBES, RTOL = 64, 1, 1e-3


@dataclass(frozen=True)
class Settings:
    """What is asked.

    Attributes:
        num: images drawn, and held-out images scored; None is 1,000 and 256.
        seed: of the images drawn, of the noise that held-out ones meet, and of the bootstrap.
        sampler, steps, grid, eta, range, guidance, interval, rescale: how images are drawn, as `Recipe`; `vlb`
            takes the bound of a chain of so many `steps`, evenly spaced, all by default; `range` = "clip" clips in
            scoring too.
        variance: of the reverse step: small, large, learned, or analytic, which is measured; None is the model's own.
        method: of the bits: sampled, vlb or flow (see `bits`).
        repeats: draws of noise for each held-out image; None is 2 for sampled, else 1.
        extractor: as `open_extractor`; None is the most telling that needs no file.
        real: which real images drawn ones are compared with, `train` or `held_out`.

    Raises:
        UserError: a value that can't be.
    """

    num: int | None = None
    seed: int = 0
    sampler: str = "auto"
    steps: int | None = None
    grid: str | None = None
    eta: float | None = None
    range: str = "clip"
    guidance: float = 1.0
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    variance: str | None = None
    method: str = "sampled"
    repeats: int | None = None
    extractor: str | None = None
    real: str = "train"

    def __post_init__(self) -> None:
        for name in ("num", "repeats"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}: it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"seed is {self.seed}: it must be a whole number from 0 to 2^64 - 1")
        for name, choices in (("method", METHODS), ("real", SPLITS)):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} can't be '{getattr(self, name)}'{nearest(getattr(self, name), choices)}")
        if self.variance is not None and self.variance not in VARIANCE_NAMES:
            raise UserError(f"variance can't be '{self.variance}'{nearest(self.variance, VARIANCE_NAMES)}")
        _ = self.recipe  # which refuses what can't be

    @property
    def scored(self) -> int:
        """How many held-out images are asked for."""
        return self.num or SCORED

    @property
    def drawn(self) -> int:
        """How many images are drawn."""
        return self.num or DRAWN

    @property
    def clip(self) -> bool:
        """Whether predicted images are kept within [-1, 1] in scoring."""
        return self.range == "clip"

    @property
    def recipe(self) -> Recipe:
        """How images are drawn; the variance counts where the sampler has use for one."""
        names = ("sampler", "steps", "grid", "eta", "range", "guidance", "interval", "rescale")
        known = {name: getattr(self, name) for name in names}
        return Recipe(**known, variance=self.variance if self._stochastic else None)

    @property
    def _stochastic(self) -> bool:
        return self.sampler in SAMPLERS and takes(self.sampler, "variance")

    def scoring(self, chain: int, variance: str) -> dict[str, Any]:
        """Return what decides an image's bits, besides the model."""
        ways: dict[str, dict[str, Any]] = {
            "sampled": {"steps": chain, "terms": min(TERMS, chain - 1)},
            "vlb": {"steps": self.steps or chain},
            "flow": {"probes": PROBES, "rtol": RTOL},
        }
        repeats = self.repeats or (2 if self.method == "sampled" else 1)
        shared = {"seed": self.seed, "repeats": repeats, "variance": variance, "clip": self.clip}
        return {"method": self.method, **ways[self.method], **shared}
