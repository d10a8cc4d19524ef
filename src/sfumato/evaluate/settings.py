"""What is asked of an evaluation, checked before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfumato.diffusion import DDIM, VARIANCES, Ancestral, Sampler, Variance
from sfumato.errors import UserError, nearest

from .cache import SPLITS

__all__ = ["KINDS", "METHODS", "SAMPLERS", "VARIANCE_NAMES", "Settings"]

KINDS = ("bits", "quality", "memorisation")
"""What can be measured, in the order in which it is."""
METHODS, SAMPLERS = ("sampled", "vlb", "flow"), ("ddim", "ddpm")
VARIANCE_NAMES = (*VARIANCES, "analytic")
SCORED, DRAWN, DDIM_STEPS = 256, 1000, 50
TERMS, PROBES, RTOL = 64, 1, 1e-3


@dataclass(frozen=True)
class Settings:
    """What is asked.

    Attributes:
        num: images drawn, and held-out images scored; None is 1,000 and 256.
        seed: of the images drawn, of the noise that held-out ones meet, and of the bootstrap.
        sampler: ddim or ddpm.
        steps: of the sampler, and of the chain whose bound `vlb` takes, evenly spaced; None is 50 for ddim and the
            whole chain for the others.
        eta: of ddim.
        clip: keep each predicted image within [-1, 1], in drawing and in scoring.
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
    sampler: str = "ddim"
    steps: int | None = None
    eta: float = 0.0
    clip: bool = True
    variance: str | None = None
    method: str = "sampled"
    repeats: int | None = None
    extractor: str | None = None
    real: str = "train"

    def __post_init__(self) -> None:
        for name in ("num", "steps", "repeats"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}: it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"seed is {self.seed}: it must be a whole number from 0 to 2^64 - 1")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta is {self.eta:g}: it must lie from 0 (deterministic) to 1 (ancestral)")
        if self.eta and self.sampler == "ddpm":
            raise UserError("eta belongs to ddim: leave it out, or use the sampler ddim (where eta = 1 is ancestral)")
        for name, choices in (("sampler", SAMPLERS), ("method", METHODS), ("real", SPLITS)):
            if getattr(self, name) not in choices:
                raise UserError(f"{name} can't be '{getattr(self, name)}'{nearest(getattr(self, name), choices)}")
        if self.variance is not None and self.variance not in VARIANCE_NAMES:
            raise UserError(f"variance can't be '{self.variance}'{nearest(self.variance, VARIANCE_NAMES)}")

    @property
    def scored(self) -> int:
        """How many held-out images are asked for."""
        return self.num or SCORED

    @property
    def drawn(self) -> int:
        """How many images are drawn."""
        return self.num or DRAWN

    def sampler_steps(self, chain: int) -> int:
        """Return the sampler's steps on a chain."""
        return self.steps or (chain if self.sampler == "ddpm" else min(DDIM_STEPS, chain))

    def build_sampler(self, variance: Variance) -> Sampler:
        """Return the sampler; ddim has no use for the variance."""
        return DDIM(self.eta) if self.sampler == "ddim" else Ancestral(variance)

    def drawing(self, chain: int, variance: str) -> dict[str, Any]:
        """Return what decides a drawn image, besides the model."""
        noise = {"eta": self.eta} if self.sampler == "ddim" else {"variance": variance}
        steps = self.sampler_steps(chain)
        return {"seed": self.seed, "sampler": self.sampler, "steps": steps, **noise, "clip": self.clip}

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
