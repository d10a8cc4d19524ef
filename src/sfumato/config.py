"""The configuration: one tree of frozen dataclasses, each of them beside what it builds.

    Config
      data       DataConfig       which images, and how they are read                   data/
      net        UNetConfig       the network                                           nets/
      diffusion  DiffusionConfig  schedule, what the network predicts, variance         here
      optim      OptimConfig      Adam, its rate and decay                              train/
      ema        EMAConfig        the average of the weights                            train/
      train      TrainConfig      length, batches, seed, how often to look              train/
      augment    AugmentConfig    how training images are altered                       train/

Values come from three places, each laid over the one before: a preset, a TOML file, `key=value` from the command line.
The result is written whole into the run folder and into the header of every weights file, so nothing about a model is
ever a matter of what the defaults were that day.

Every value is checked by its own dataclass; combinations that can't work are refused here, before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sfumato import tree
from sfumato.attributes import Attribute
from sfumato.data.source import DataConfig
from sfumato.diffusion import (
    PARAMETERIZATIONS,
    SCHEDULES,
    VARIANCES,
    WEIGHTINGS,
    Bound,
    Cosine,
    Hybrid,
    Objective,
    Parameterization,
    Schedule,
    Shifted,
    Simple,
    Variance,
    Weighted,
    Weighting,
    ZeroTerminalSNR,
)
from sfumato.diffusion.schedule import Chain
from sfumato.errors import UserError, nearest
from sfumato.nets import UNetConfig
from sfumato.train.augment import NUMBERS, AugmentConfig
from sfumato.train.clock import TrainConfig
from sfumato.train.ema import EMAConfig
from sfumato.train.optim import OptimConfig

__all__ = ["Config", "DiffusionConfig", "difference", "digest", "fit", "from_dict", "resolve", "to_dict", "to_toml"]

CHOICES: tree.Choices = {Chain: SCHEDULES, Weighting: WEIGHTINGS}
"""The abstract types of the tree, and which dataclasses a table's `kind` may name for them."""

_OBJECTIVES = ("simple", "hybrid", "vlb")

MOST_STEPS = 1_000_000
"""The longest chain: beyond it the table of levels is a memory bomb, not a model."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The process that is learnt to be reversed.

    Attributes:
        schedule: the chain of noise levels.
        parameterization: what the network predicts: `eps`, `x0`, `v` or `mu`.
        variance: of the reverse step: `small`, `large`, or `learned` by a network with twice the channels.
        objective: what is minimised: `simple` (DDPM Eq. 14), `hybrid` (simple, and the bound for the variance alone,
            IDDPM Eq. 16), or `vlb` (the bound).
        weighting: of the simple loss by noise level, on the error of eps; None is the plain mean in `loss_space`.
        importance: draw t by loss history (IDDPM Eq. 18) in place of uniformly; made for `vlb`.
        zero_terminal_snr: rescale the chain so that it ends in pure noise (Lin et al. 2023).
        logsnr_shift: added to every level's logsnr; `diffusion.resolution_shift(size)` gives the usual one.
        loss_space: where the squared error is taken, by parameterisation; None is where the network predicts.

    Raises:
        ValueError: an unknown name, a chain of no or too many steps, eps-prediction on a chain that ends in pure noise,
            or an objective that can't teach the variance or has nothing to weigh.
    """

    schedule: Chain = Cosine()
    parameterization: str = "v"
    variance: str = "small"
    objective: str = "simple"
    weighting: Weighting | None = None
    importance: bool = False
    zero_terminal_snr: bool = False
    logsnr_shift: float = 0.0
    loss_space: str | None = None

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
        if self.parameterization == "eps" and float(self.build_schedule()(1.0).alpha) == 0:
            raise ValueError(
                'parameterization = "eps" can\'t recover the image where the chain ends in pure noise: '
                "use diffusion.parameterization=v, or diffusion.zero_terminal_snr=false"
            )

        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse an objective that leaves a learned variance untaught, or a choice that would have no effect."""
        learned = self.variance == "learned"
        if learned and self.objective == "simple":
            raise ValueError('variance = "learned" is not taught by the simple loss: use objective = hybrid or vlb')
        if self.objective == "hybrid" and not learned:
            raise ValueError('objective = "hybrid" teaches a variance: set variance = learned, or objective = simple')
        if self.objective == "vlb" and (self.weighting is not None or self.loss_space is not None):
            raise ValueError('objective = "vlb" has its own weights and space: leave out weighting and loss_space')
        if self.weighting is not None and self.loss_space is not None:
            raise ValueError("weighting is of the error of eps: leave out loss_space")

    def build_schedule(self) -> Schedule:
        """Return the schedule, rescaled and shifted as the configuration says."""
        chain = ZeroTerminalSNR(base=self.schedule) if self.zero_terminal_snr else self.schedule
        return Shifted(chain, self.logsnr_shift) if self.logsnr_shift else chain

    def build_parameterization(self) -> Parameterization:
        """Return what the network's output means."""
        return PARAMETERIZATIONS[self.parameterization]

    def build_variance(self) -> Variance:
        """Return the variance of an ancestral step."""
        return VARIANCES[self.variance]

    def build_simple(self) -> Objective:
        """Return L_simple, in the space or with the weights that the configuration names."""
        if self.weighting is not None:
            return Weighted(self.weighting)
        return Simple(PARAMETERIZATIONS[self.loss_space or self.parameterization])

    def build_objective(self, levels: int | None = 256) -> Objective:
        """Return what is minimised, on images of so many levels (`Depth.levels`)."""
        if self.objective == "simple":
            return self.build_simple()
        bound = Bound(self.build_variance(), levels)
        return bound if self.objective == "vlb" else Hybrid(self.build_simple(), bound)


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run will be. See the module's docstring for its branches."""

    data: DataConfig = DataConfig()
    net: UNetConfig = UNetConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    optim: OptimConfig = OptimConfig()
    ema: EMAConfig = EMAConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        if self.train.grid_steps > self.diffusion.schedule.num_steps:
            raise UserError(
                f"train.grid_steps = {self.train.grid_steps} on a chain of {self.diffusion.schedule.num_steps} steps: "
                f"choose at most as many"
            )


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dicts that JSON can hold."""
    table: dict[str, Any] = tree.plain(config, CHOICES)
    return table


def from_dict(table: Mapping[str, Any]) -> Config:
    """Build a configuration from nested dicts; missing keys take their defaults.

    Raises:
        UserError: an unknown key, a wrong type, or a value or combination that can't work.
    """
    return tree.convert(Config, table, CHOICES)


def to_toml(config: Config) -> str:
    """Return the configuration as TOML, every value written out; "none" stands for None."""
    return tree.to_toml(to_dict(config))


def digest(config: Config) -> str:
    """Return the SHA-256 of a configuration, in hexadecimal."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def difference(old: Config, new: Config) -> str:
    """Return where two configurations differ, as `key old -> new, key old -> new`; empty where they are the same."""
    return ", ".join(tree.difference(to_dict(old), to_dict(new)))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        UserError: no such file, not readable, or not TOML; the line is named.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not a TOML file: {error}") from None


def resolve(
    preset: str | None = None, file: Path | str | None = None, overrides: Mapping[str, str] | None = None
) -> Config:
    """Lay a preset, a file and overrides over one another and return the configuration.

    Args:
        preset: name of a preset; None starts from the defaults.
        file: a TOML file.
        overrides: text by dotted key, such as {"net.base": "64", "diffusion.schedule.kind": "linear"}; each is read as
            its field's type.

    Raises:
        UserError: an unknown preset or key (the nearest valid one is named), an unreadable file, a wrong type, or a
            value or combination that can't work.
    """
    from sfumato.presets import PRESETS  # here, since every preset is itself a Config

    if preset is not None and preset not in PRESETS:
        raise UserError(f'unknown preset "{preset}"{nearest(preset, PRESETS)}')
    table = to_dict(PRESETS[preset].config if preset is not None else Config())
    if file is not None:
        table = tree.merge(table, read_toml(Path(file)))
    return from_dict(tree.merge(table, tree.nest(overrides or {})))


def fit(config: Config, shape: Sequence[int], attributes: Sequence[Attribute] = ()) -> Config:
    """Return the configuration with the network's channels and conditions as data and diffusion have them.

    With `data.flip` a mirror image is an image like any other, which leaves nothing to tell the network about x-flip:
    it is taken out of the augmentation.

    Args:
        config: what was asked for.
        shape: (C, H, W) of the data.
        attributes: what the data knows of its images, which is what the network learns.
    """
    conditions, learned = tuple(len(a.values) for a in attributes), config.diffusion.variance == "learned"
    augment = config.augment
    if augment.on and config.data.flip:
        augment = replace(augment, kinds=tuple(kind for kind in augment.kinds if kind != "x-flip"))
    net = replace(
        config.net,
        channels=shape[0],
        conditions=conditions,
        augment=NUMBERS if augment.on else 0,
        learned_variance=learned,
    )
    return replace(config, net=net, augment=augment)
