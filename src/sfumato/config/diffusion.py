"""The diffusion process: schedule, what the network predicts, variance, objective."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.diffusion import (
    PARAMETERIZATIONS,
    VARIANCES,
    Bound,
    Cosine,
    Hybrid,
    Objective,
    Parameterization,
    Schedule,
    Shifted,
    Simple,
    Timesteps,
    Uniform,
    Variance,
    Weighted,
    Weighting,
    ZeroTerminalSNR,
)
from sfumato.diffusion.decoder import Decoder, Discretized
from sfumato.diffusion.process import step_variance
from sfumato.diffusion.schedule import Chain
from sfumato.errors import nearest

_LOSS_SPACES = {"refined": "v"}
"""The space of the loss where it is not the network's own."""
_OBJECTIVES = ("simple", "hybrid", "vlb")

MARKS = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
"""Number of times in `describe_schedule`."""
MOST_STEPS = 1_000_000
"""The longest chain: the table of levels of a longer one may not fit into memory."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion process and the training objective.

    Attributes:
        schedule: the chain of noise levels.
        parameterization: what the network predicts: `eps`, `x0`, `v`, `mu`, `velocity`, or `refined` (the image,
            refined by x_t).
        variance: of the reverse step: `small`, `large`, or `learned` by a network with twice the channels.
        objective: what is minimised: `simple` (DDPM Eq. 14), `hybrid` (simple, and the bound for the variance alone,
            IDDPM Eq. 16), or `vlb` (the bound).
        weighting: of the simple loss by noise level: `min-snr`, `p2` and `sigmoid` of the error of eps, `edm` of the
            error of x_0; None is the plain mean in `loss_space`.
        timesteps: the distribution of t in training: `uniform`, `logit-normal` with `mean` and `std`, `log-normal` with
            those of log(sigma / alpha), or `importance`, by the history of losses (IDDPM Eq. 18), meant for `vlb`.
        zero_terminal_snr: rescale the chain so that it ends in pure noise (Lin et al. 2023).
        logsnr_shift: added to every level's logsnr; `diffusion.resolution_shift(size)` gives the usual one.
        loss_space: the parameterisation in which the squared error is taken; None is the network's own, and v for
            `refined`.

    Raises:
        ValueError: an unknown name, a chain of no or too many steps, eps-prediction on a chain that ends in pure noise,
            an objective that does not train the variance, or a weighting without effect.
    """

    schedule: Chain = Cosine()
    parameterization: str = "v"
    variance: str = "small"
    objective: str = "simple"
    weighting: Weighting | None = None
    zero_terminal_snr: bool = False
    logsnr_shift: float = 0.0
    loss_space: str | None = None
    timesteps: Timesteps = Uniform()

    def __post_init__(self) -> None:
        for name, register in (
            ("parameterization", PARAMETERIZATIONS),
            ("variance", VARIANCES),
            ("objective", _OBJECTIVES),
            ("loss_space", PARAMETERIZATIONS),
        ):
            value = getattr(self, name)
            if value is not None and value not in register:
                raise ValueError(f'{name} = "{value}" is unknown{nearest(value, register)}')
        if not 1 <= self.schedule.num_steps <= MOST_STEPS:
            raise ValueError(f"schedule.num_steps = {self.schedule.num_steps}: must lie in 1 .. {MOST_STEPS}")
        end = self.build_schedule()(1.0)  # raises ValueError for a table that does not add noise at every step
        if self.parameterization == "eps" and float(end.alpha) == 0:
            raise ValueError(
                'parameterization = "eps" can\'t recover the image where the chain ends in pure noise: '
                "use diffusion.parameterization=v, x0 or velocity, or another schedule"
            )
        learned = self.variance == "learned"
        if learned and self.objective == "simple":
            raise ValueError('variance = "learned" is not trained by the simple loss: use objective = hybrid or vlb')
        if self.objective == "hybrid" and not learned:
            raise ValueError(
                'objective = "hybrid" trains a learned variance: set variance = learned, or objective = simple'
            )
        if self.objective == "vlb" and (self.weighting is not None or self.loss_space is not None):
            raise ValueError('objective = "vlb" has its own weights and space: leave out weighting and loss_space')
        if self.weighting is not None and self.loss_space is not None:
            raise ValueError("weighting has a loss space of its own: leave out loss_space, or weighting")

    def build_schedule(self) -> Schedule:
        """Return the schedule, rescaled and shifted as the configuration says."""
        chain = ZeroTerminalSNR(base=self.schedule) if self.zero_terminal_snr else self.schedule
        return Shifted(chain, self.logsnr_shift) if self.logsnr_shift else chain

    def describe_schedule(self) -> list[dict[str, float]]:
        """Return the schedule at some of its steps, as JSON has it: t, beta, logsnr, abar, alpha, sigma."""
        schedule, names = self.build_schedule(), ("logsnr", "abar", "alpha", "sigma")
        total = schedule.num_steps
        rows = []
        for step in sorted({max(1, round(mark * total)) for mark in MARKS}):
            before, level = schedule((step - 1) / total), schedule(step / total)
            rows.append({"t": step, "beta": float(step_variance(before, level))})
            rows[-1] |= {name: float(getattr(level, name)) for name in names}
        return rows

    def build_parameterization(self) -> Parameterization:
        """Return the network's parameterisation."""
        return PARAMETERIZATIONS[self.parameterization]

    def build_variance(self) -> Variance:
        """Return the variance of an ancestral step."""
        return VARIANCES[self.variance]

    @property
    def space(self) -> str:
        """The parameterisation in which the simple loss is measured."""
        return self.loss_space or _LOSS_SPACES.get(self.parameterization, self.parameterization)

    def build_objective(self, decoder: Decoder = Discretized()) -> Objective:
        """Return what is minimised; `decoder` gives the bound's last term (`Codec.decoder`)."""
        bound = Bound(self.build_variance(), decoder)
        if self.objective == "vlb":
            return bound
        space = PARAMETERIZATIONS[self.space]
        simple = Simple(space) if self.weighting is None else Weighted(self.weighting)
        return simple if self.objective == "simple" else Hybrid(simple, bound)
