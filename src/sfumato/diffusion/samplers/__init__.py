"""Samplers: frozen values that step from one time to an earlier one."""

from collections.abc import Callable
from functools import partial

from sfumato.diffusion.samplers.ancestral import Ancestral
from sfumato.diffusion.samplers.ddim import DDIM
from sfumato.diffusion.samplers.dpm import DPMSolver, DPMSolverSDE
from sfumato.diffusion.samplers.euler import Euler
from sfumato.diffusion.samplers.heun import EDM, Heun
from sfumato.diffusion.samplers.pndm import PNDM
from sfumato.diffusion.samplers.protocol import NoiseSource, Sampler, State, sample, trajectory
from sfumato.diffusion.samplers.unipc import UniPC

__all__ = [
    "DDIM",
    "EDM",
    "PNDM",
    "SAMPLERS",
    "Ancestral",
    "DPMSolver",
    "DPMSolverSDE",
    "Euler",
    "Heun",
    "NoiseSource",
    "Sampler",
    "State",
    "UniPC",
    "sample",
    "trajectory",
]

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ddpm": Ancestral,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "edm": EDM,
    "dpmpp-1": partial(DPMSolver, 1),
    "dpmpp-2": partial(DPMSolver, 2),
    "dpmpp-3": partial(DPMSolver, 3),
    "dpmpp-sde": DPMSolverSDE,
    "unipc": UniPC,
    "pndm": PNDM,
}
"""The samplers by the name that the command line knows them by; the options of each are its fields."""
