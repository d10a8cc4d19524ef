"""Samplers: frozen values that step from one time to an earlier one."""

from collections.abc import Callable
from functools import partial

from sfumato.diffusion.samplers.ddim import DDIM, Ancestral
from sfumato.diffusion.samplers.dpm import DPMSolver, DPMSolverSDE
from sfumato.diffusion.samplers.heun import EDM, Heun
from sfumato.diffusion.samplers.pndm import PNDM
from sfumato.diffusion.samplers.protocol import Sampler
from sfumato.diffusion.samplers.unipc import UniPC

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ddpm": Ancestral,
    "ddim": DDIM,
    "euler": partial(DDIM, eta=0.0),
    "heun": Heun,
    "edm": EDM,
    "dpmpp-1": partial(DDIM, eta=0.0),
    "dpmpp-2": partial(DPMSolver, order=2),
    "dpmpp-3": partial(DPMSolver, order=3),
    "dpmpp-sde": DPMSolverSDE,
    "unipc": UniPC,
    "pndm": PNDM,
}
"""The samplers by their names on the command line; `euler` and `dpmpp-1` are other names of deterministic DDIM."""
