"""Samplers: frozen values that step from one time to an earlier one."""

from .ancestral import Ancestral
from .ddim import DDIM
from .protocol import NoiseSource, Sampler, State, sample, trajectory

__all__ = ["DDIM", "SAMPLERS", "Ancestral", "NoiseSource", "Sampler", "State", "sample", "trajectory"]

SAMPLERS: dict[str, type[Ancestral] | type[DDIM]] = {"ddpm": Ancestral, "ddim": DDIM}
"""The samplers by the name that the command line knows them by."""
