"""Presets: named configurations with their sources, the recommended one for a set of images, and `resolve`.

Ours follow from one rule (`recipe`) of the images' size and the time there is: `small32`, `medium64`, `large256`. The
others are published settings, which take days on a large GPU. Their numbers are those of the papers and their code,
each cited, so that results can be compared.

The published averages have no ramp: decay 0.9999 from the first step on, a half-life of ln 2 / -ln 0.9999 =
6,931 steps. Ours ramps up to that (`train.ema`), which changes early samples and not late ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sfumato.config import names, tree
from sfumato.config.augment import AugmentConfig
from sfumato.config.config import DERIVED, Config, from_dict, read_toml, to_dict, without_derived
from sfumato.config.data import DataConfig
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import EMAConfig, OptimConfig, TrainConfig
from sfumato.config.units import parse_size
from sfumato.diffusion import Cosine, EDMWeight, Importance, Linear, LogitNormal, LogNormal, Uniform
from sfumato.errors import UserError
from sfumato.nets import NETWORKS, Interface
from sfumato.nets.cost import flops

HALF_LIFE_STEPS = 6931
"""Steps in which a decay of 0.9999 halves: ln 2 / -ln 0.9999."""


_UNET: Any = NETWORKS["unet"]
_GENERAL: Any = NETWORKS["general"]
_PRECONDITIONED: Any = NETWORKS["preconditioned"]


@dataclass(frozen=True)
class Preset:
    """A configuration with a name: the values, what it is for in a few words, and where the values come from."""

    config: Config
    summary: str
    source: str


def _published(
    side: int,
    multipliers: tuple[int, ...],
    attention: int,
    dropout: float,
    variance: str,
    lr: float,
    batch: int,
    steps: int,
    warmup: int = 5000,
) -> Config:
    """What the published runs share: linear betas, T = 1000, eps, Adam, decay 0.9999, gradients clipped, flips."""
    return Config(
        data=DataConfig("faces", size=(side, side), flip=True),
        net=_UNET(base=128, multipliers=multipliers, blocks=2, attention=(attention,), dropout=dropout),
        diffusion=DiffusionConfig(schedule=Linear(), parameterization="eps", variance=variance),
        optim=OptimConfig(name="adam", lr=lr, beta2=0.999, warmup=warmup * batch, decay="constant", clip=1.0),
        ema=EMAConfig(half_life=HALF_LIFE_STEPS * batch),
        train=TrainConfig(batch=batch, images=steps * batch, save_every=600.0, grid_steps=50),
    )


def _improved(
    side: int, multipliers: tuple[int, ...], attention: tuple[int, ...], dropout: float, steps: int, objective: str
) -> Config:
    """What Improved DDPM's runs share: cosine, T = 4000, learned variances, scale and shift, no flips, no clipping."""
    net = _GENERAL(
        base=128,
        multipliers=multipliers,
        blocks=3,
        attention=attention,
        dropout=dropout,
        heads=4,
        scale_shift=True,
        eps=1e-5,
        cosine_first=True,
        frequency_shift=0,
        halving="conv",
    )
    return Config(
        data=DataConfig("faces", size=(side, side), flip=False),
        net=net,
        diffusion=DiffusionConfig(
            schedule=Cosine(num_steps=4000),
            parameterization="eps",
            variance="learned",
            objective=objective,
            timesteps=Importance() if objective == "vlb" else Uniform(),
        ),
        optim=OptimConfig(name="adam", lr=1e-4, beta2=0.999, warmup=0, decay="constant", clip=None),
        ema=EMAConfig(half_life=HALF_LIFE_STEPS * 128),
        train=TrainConfig(batch=128, images=steps * 128, save_every=600.0, grid_steps=50),
    )


def _edm() -> Config:
    """The settings of EDM for CIFAR-10 with the network DDPM++, unconditional; with labels they are the same."""
    net = _PRECONDITIONED(
        inner=_GENERAL(
            base=128,
            multipliers=(2, 2, 2),
            blocks=4,
            attention=(1,),
            dropout=0.13,
            early_condition=True,
            early_augment=True,
            least_group=4,
            output_scale=0.5**0.5,
            halving="block",
            doubling="block",
            resample_shortcut=True,
            up_attention="last",
            first_weights="song",
        )
    )
    eps = 1e-8 / (3 * 32 * 32)  # Adam's: the authors sum the loss over an image, here it is a mean
    return Config(
        data=DataConfig("faces", size=(32, 32), flip=False),
        net=net,
        diffusion=DiffusionConfig(net.chain, "x0", weighting=EDMWeight(), timesteps=LogNormal()),
        optim=OptimConfig(name="adam", lr=1e-3, beta2=0.999, eps=eps, warmup=10_000_000, decay="constant", clip=None),
        ema=EMAConfig(half_life=500_000, ramp=0.05),
        train=TrainConfig(
            batch=512, images=200_000_000, precision="fp32", label_dropout=0.0, save_every=600.0, grid_steps=50
        ),
        augment=AugmentConfig(p=0.12),
    )


@dataclass(frozen=True)
class Scale:
    """A size of our networks: channels of the first level, blocks a level, the largest side that the network computes
    at (larger images enter in patches), and images a step."""

    base: int
    blocks: int
    side: int
    batch: int


SCALES = {"small": Scale(32, 1, 16, 32), "medium": Scale(64, 1, 32, 32), "large": Scale(128, 2, 64, 64)}
SIDES = (8, 16, 32, 64, 128, 256)
_LENGTH = 200_000
"""Images that a network has to see before a larger one would do better in the same time."""
_RATES = {"cpu": 1e11, "gpu": 2e13}
"""FLOP a second that a training is taken to reach; only the choice of a scale depends on it."""
_BATCH = 128
"""Images a step on an NVIDIA GPU, at least: fewer do not fill it. In 30 s on an H200 the Frechet distance to emoji32
fell to 28.4 with batches of 32, 17.5 with 128, 18.5 with 256, the learning rate the same."""
_FEW = 200
"""Below this number of images augmentation is measured to help (docs/training.md)."""


def recipe(side: int, scale: str, source: str = "faces") -> Config:
    """Return our settings for images of up to `side` pixels: docs/training.md says why each part is there."""
    size = SCALES[scale]
    patch = max(1, side // size.side)
    inside = side // patch
    levels = max(2, (inside // 8).bit_length())
    return Config(
        data=DataConfig(source),
        net=_UNET(
            base=size.base,
            multipliers=(1, *[2] * (levels - 1)),
            blocks=size.blocks,
            attention=tuple(level for level in range(levels) if inside >> level <= 8),
            dropout=0.0,
            groups=8,
            patch=patch,
        ),
        diffusion=DiffusionConfig(
            schedule=Cosine(),
            parameterization="refined",
            timesteps=LogitNormal(0.7, 1.0),
        ),
        optim=OptimConfig(name="muon", lr=6e-3 * math.sqrt(32 / size.base), decay="late"),
        ema=EMAConfig(half_life=0.05),
        train=TrainConfig(batch=size.batch, images=_LENGTH),
    )


_BUILT_IN = {8: "digits", 16: "faces", 32: "fashion"}
"""The shipped images of a size, which a preset trains on where no others are given."""


def _ours() -> dict[str, Preset]:
    """Every scale at every size that it does not share with a smaller one."""
    return {
        f"{scale}{side}": Preset(
            recipe(side, scale, _BUILT_IN.get(side, "faces")),
            _SUMMARIES[scale].format(side=side),
            "Our own recipe (docs/training.md): the refined image, Muon (Jordan et al. 2024), logit-normal t (Esser et "
            "al. 2024), a late decay of the rate.",
        )
        for scale, size in SCALES.items()
        for side in SIDES
        if scale == "small" or side * 2 > size.side
    }


def is_ours(name: str) -> bool:
    """Return whether a preset is one of our own, and not one with published settings."""
    return name in _OURS


_SUMMARIES = {
    "small": "up to {side}x{side} pixels, minutes to an hour on a CPU",
    "medium": "up to {side}x{side} pixels, hours on a CPU or minutes on a GPU",
    "large": "up to {side}x{side} pixels, a day on a CPU or an hour on a GPU",
}
_IMPROVED = (
    "Improved DDPM (Nichol and Dhariwal 2021, arXiv 2102.09672), Table 2 and 3, and the authors' code, "
    "openai/improved-diffusion (README, script_util.py): cosine schedule, T = 4000, learned variances, 128 channels, "
    "three blocks per level, attention with four heads at 16x16 and 8x8, Adam 1e-4, batch 128, EMA 0.9999, no flips"
)
_HO_CODE = "the authors' code, hojonathanho/diffusion"

_OURS = _ours()
PRESETS: dict[str, Preset] = _OURS | {
    "cifar10-ddpm": Preset(
        _published(32, (1, 2, 2, 2), 1, dropout=0.1, variance="large", lr=2e-4, batch=128, steps=800_000),
        "the published CIFAR-10 network (35.7M parameters), 32x32, days on a GPU",
        "DDPM (Ho, Jain, Abbeel 2020, arXiv 2006.11239), Sec. 4 and Appendix B: T = 1000, beta 1e-4 to 0.02, Adam "
        f"2e-4, batch 128, 800k steps, dropout 0.1, flips, EMA 0.9999; {_HO_CODE} (scripts/run_cifar.py): warm-up of "
        "5,000 steps, gradient norm clipped to 1, fixed large variance.",
    ),
    "celeba64-ddpm": Preset(
        _published(64, (1, 2, 2, 2, 4), 2, dropout=0.1, variance="large", lr=2e-4, batch=128, steps=500_000, warmup=0),
        "the published CelebA network at 64x64 (79M parameters), days on a GPU",
        "DDIM (Song, Meng, Ermon 2020, arXiv 2010.02502), whose CelebA network PNDM uses too; the authors' code, "
        "ermongroup/ddim (configs/celeba.yml): 128 channels times 1, 2, 2, 2, 4, two blocks, attention at 16x16, "
        "dropout 0.1, linear beta 1e-4 to 0.02, Adam 2e-4, gradient norm 1, EMA 0.9999, fixed large variance. The "
        "configuration states no length: 500k steps is DDPM's for its larger images.",
    ),
    "celebahq256-ddpm": Preset(
        _published(256, (1, 1, 2, 2, 4, 4), 4, dropout=0.0, variance="small", lr=2e-5, batch=64, steps=500_000),
        "the published CelebA-HQ network at 256x256 (114M parameters), a week on several GPUs",
        "DDPM (Ho, Jain, Abbeel 2020, arXiv 2006.11239), Appendix B: Adam 2e-5, batch 64, 0.5M steps, no dropout, "
        f"flips, EMA 0.9999; {_HO_CODE} (scripts/run_celebahq.py, diffusion_utils.py): 128 channels times 1, 1, 2, 2, "
        "4, 4, attention at 16x16, warm-up of 5,000 steps, gradient norm clipped to 1, and the posterior's (small) "
        "variance.",
    ),
    "cifar10-iddpm": Preset(
        _improved(32, (1, 2, 2, 2), (1, 2), dropout=0.3, steps=500_000, objective="hybrid"),
        "Improved DDPM's CIFAR-10 network (52.5M parameters), 32x32, for pictures; days on a GPU",
        f"{_IMPROVED}: the hybrid loss, dropout 0.3, 500k steps.",
    ),
    "cifar10-iddpm-vlb": Preset(
        _improved(32, (1, 2, 2, 2), (1, 2), dropout=0.3, steps=500_000, objective="vlb"),
        "the same network trained for bits per dimension, days on a GPU",
        f"{_IMPROVED}: the bound with importance sampling of t, dropout 0.3, 500k steps.",
    ),
    "imagenet64-iddpm": Preset(
        _improved(64, (1, 2, 3, 4), (2, 3), dropout=0.0, steps=1_500_000, objective="hybrid"),
        "Improved DDPM's ImageNet network at 64x64 (121M parameters), for pictures; weeks on a GPU",
        f"{_IMPROVED}: the hybrid loss, 1.5M steps.",
    ),
    "imagenet64-iddpm-vlb": Preset(
        _improved(64, (1, 2, 3, 4), (2, 3), dropout=0.0, steps=1_500_000, objective="vlb"),
        "the same network trained for bits per dimension, weeks on a GPU",
        f"{_IMPROVED}: the bound with importance sampling of t, 1.5M steps.",
    ),
    "cifar10-edm": Preset(
        _edm(),
        "EDM's CIFAR-10 network (55.7M parameters), 32x32; 2 days on 8 GPUs",
        "EDM (Karras et al. 2022, arXiv 2206.00364), Table 1 and Appendix F, and the authors' code, NVlabs/edm "
        "(train.py --arch=ddpmpp, training/): DDPM++ with its first weights, preconditioned, noise log-normal (-1.2, "
        "1.2), Adam 1e-3 with a warm-up of 10M images and no decay or clipping, 200M images in batches of 512, dropout "
        "0.13, augmentation 0.12 with mirroring told to the network, half-life of 500k images, float32. Details "
        "differ: noise is rounded to 1,000 levels, 1 % apart, from 0.002 to 80; altered images are resampled by cubic "
        "splines, and a stretch is told by its doubled angle; and a step whose gradient is not finite is left out, "
        "where theirs sets such entries to 0 or 1e5. With labels it is their conditional model.",
    ),
}
"""Every preset by name. A built-in source in a preset is used unless another is given."""

_RENAMED = {"net.fold": "net.patch"}
"""Keys of earlier versions."""


def choose(
    shape: Sequence[int], count: int, device: str = "cpu", budget: float | None = None
) -> tuple[str, str, dict[str, str]]:
    """Return a preset's name for `count` training images (C, H, W) on a device, to be trained for `budget` seconds, the
    reason in one sentence, and values to be set besides, as overrides.

    The size is the least with as many pixels; the scale is the largest network that sees 200,000 images in the time.
    """
    channels, height, width = shape
    side = next((side for side in SIDES if height * width <= side * side), SIDES[-1])
    gpu = not device.startswith("cpu")
    seconds = budget if budget is not None else 3600.0
    scale = "small"
    for name in ("medium", "large"):
        preset = f"{name}{side}"
        if preset not in PRESETS or _images(preset, channels, height, width, gpu, seconds) < _LENGTH:
            break
        scale = name
    few = {"augment.p": "0.12"} if count < _FEW else {}
    more = {"train.batch": str(_BATCH)} if device.startswith("cuda") and SCALES[scale].batch < _BATCH else {}
    why = f"{count:,} images of {width}x{height}"
    why += "; they are altered at random (augment.p), since there are so few" if few else ""
    why += f"; batches of {_BATCH}, which fill a GPU" if more else ""
    return f"{scale}{side}", why, few | more


def _images(name: str, channels: int, height: int, width: int, gpu: bool, seconds: float) -> float:
    """How many images a preset's network would see in so many seconds."""
    return seconds * _RATES["gpu" if gpu else "cpu"] / (3 * _flops(name, channels, height, width))


@cache
def _flops(name: str, channels: int, height: int, width: int) -> int:
    """The FLOPs of a forward pass of a preset's network; counting them takes half a second."""
    config = PRESETS[name].config.net
    with torch.device("meta"):
        net = config.build(Interface(channels)).requires_grad_(False)
        return flops(net, (torch.empty(1, channels, *config.inside(height, width)), torch.zeros(1)))


def preset_of(config: Config) -> str:
    """Return the first preset that has a configuration's network; empty where none has."""
    return next((name for name, preset in PRESETS.items() if preset.config.net == config.net), "")


def check(file: Path | str | None, overrides: Mapping[str, str]) -> None:
    """Raise the `UserError` of values that no preset of ours accepts: before the images are read that choose one."""
    refused = []
    for preset in _ours():
        try:
            resolve(preset, file, overrides)
        except UserError as error:
            refused.append(error)
        else:
            return
    raise refused[0]


def resolve(
    preset: str | None = None,
    file: Path | str | None = None,
    overrides: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    base: Config | None = None,
) -> Config:
    """Return the configuration: a preset, `base` or the defaults, overridden by a TOML file, then by `overrides`.

    Overrides are text by dotted key, such as {"net.base": "64", "diffusion.schedule.kind": "linear"}. With `only`, the
    values of file and overrides are taken for those branches alone, such as ("data", "train"): before a preset is
    chosen, a network's values can't be checked.

    Raises:
        UserError: an unknown preset or key (the nearest valid one is named), an unreadable file, a wrong type, or a
            value or combination that can't work.
    """
    names.check("preset", preset, tuple(PRESETS))
    table = to_dict(PRESETS[preset].config if preset is not None else base or Config())
    if file is not None:
        table = tree.merge(table, without_derived(read_toml(Path(file))))
    for key in overrides or {}:
        if key.removeprefix("net.") in DERIVED and key.startswith("net."):
            raise UserError(f"{key} follows from the data and the process: leave it out")
    renamed = {_RENAMED.get(key, key): value for key, value in (overrides or {}).items()}
    if "data.size" in renamed:
        renamed["data.size"] = parse_size(renamed["data.size"])
    given = tree.merge(table, tree.nest(renamed))
    return from_dict(given if only is None else {branch: given[branch] for branch in only})
