"""Presets: named configurations with their sources, the recommended one for a set of images, and `resolve`.

Three are for two CPU cores and a few minutes (`digits`, `faces`, `fashion`), two for larger images without a GPU
(`small64`, `small256`), and three are published settings, which take days on a large GPU. Their numbers are those of
the papers and their code, each cited, so that results can be compared.

The published averages have no ramp: decay 0.9999 from the first step on, a half-life of ln 2 / -ln 0.9999 =
6,931 steps. Ours ramps up to that (`train.ema`), which changes early samples and not late ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.config import tree
from sfumato.config.config import DERIVED, Config, from_dict, read_toml, to_dict, without_derived
from sfumato.config.data import DataConfig
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import EMAConfig, OptimConfig, TrainConfig
from sfumato.diffusion import Cosine, Linear
from sfumato.errors import UserError, nearest
from sfumato.nets import NETWORKS

HALF_LIFE_STEPS = 6931
"""Steps in which a decay of 0.9999 halves: ln 2 / -ln 0.9999."""


_UNET: Any = NETWORKS["unet"]


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


def _small(
    data: DataConfig,
    base: int,
    multipliers: tuple[int, ...],
    attention: tuple[int, ...],
    batch: int,
    images: int,
    lr: float,
    blocks: int = 1,
    patch: int = 1,
) -> Config:
    """What our own settings share: v-prediction, cosine schedule, AdamW, a rate that decays to zero, no dropout."""
    return Config(
        data=data,
        net=_UNET(base, multipliers, blocks, attention, dropout=0.0, groups=base // 4, patch=patch),
        diffusion=DiffusionConfig(schedule=Cosine(), parameterization="v"),
        optim=OptimConfig(name="adamw", lr=lr, decay="cosine"),
        ema=EMAConfig(half_life=0.02),
        train=TrainConfig(batch=batch, images=images),
    )


_OURS = "Tuned by us on two CPU cores: v-prediction (Salimans and Ho 2022) and the cosine schedule (IDDPM, Sec. 3.2)."
_SCALED = "Our own settings, scaled from the smaller ones; not tuned on any one data set."
_HO_CODE = "the authors' code, hojonathanho/diffusion"

PRESETS: dict[str, Preset] = {
    "digits": Preset(
        _small(DataConfig("digits"), 32, (1, 2), (1,), batch=64, images=60_000, lr=1e-3),
        "8x8 handwritten digits, a minute on a CPU",
        _OURS,
    ),
    "faces": Preset(
        _small(DataConfig("faces"), 32, (1, 2, 2), (2,), batch=32, images=100_000, lr=3e-3),
        "16x16 drawn faces in colour, minutes on a CPU",
        _OURS,
    ),
    "fashion": Preset(
        _small(DataConfig("fashion"), 32, (1, 2, 2), (2,), batch=32, images=120_000, lr=3e-3, patch=2),
        "28x28 clothes in grey, ten minutes on a CPU; patches of 2x2 pixels for speed",
        _OURS,
    ),
    "small64": Preset(
        _small(DataConfig(flip=True), 64, (1, 2, 2), (2,), batch=32, images=500_000, lr=5e-4, blocks=2, patch=4),
        "your own images up to 64x64 where there is no GPU: hours; patches of 4x4 pixels",
        _SCALED,
    ),
    "small256": Preset(
        _small(DataConfig(flip=True), 64, (1, 2, 2, 4), (2, 3), batch=16, images=500_000, lr=3e-4, blocks=2, patch=8),
        "your own larger images where there is no GPU: a day; patches of 8x8 pixels",
        _SCALED,
    ),
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
}
"""Every preset by name. A built-in source in a preset is used unless another is given."""

# (largest side, preset without a GPU, preset with a GPU)
_BY_SIDE = (
    (12, "digits", "digits"),
    (20, "faces", "faces"),
    (32, "fashion", "cifar10-ddpm"),
    (64, "small64", "celeba64-ddpm"),
    (10**9, "small256", "celebahq256-ddpm"),
)
_MANY = 10_000
_RENAMED = {"net.fold": "net.patch"}
"""Keys of earlier versions."""


def choose(shape: Sequence[int], count: int, device: str = "cpu") -> tuple[str, str]:
    """Choose a preset for `count` training images (C, H, W) on a device.

    Returns:
        The preset's name and the reason, one sentence.
    """
    _, height, width = shape
    small, large = next(names for side, *names in _BY_SIDE if max(height, width) <= side)
    gpu = not device.startswith("cpu")
    name = large if gpu and count >= _MANY else small
    images = f"{count:,} images of {width}x{height}"
    if name == large != small:
        return name, f"{images} on a GPU: enough for the published network of that size"
    few = f", too few for the published {large}, which would memorise them" if gpu and small != large else ""
    return name, f"{images}{few}: {PRESETS[name].summary}"


def resolve(
    preset: str | None = None, file: Path | str | None = None, overrides: Mapping[str, str] | None = None
) -> Config:
    """Return the configuration: a preset or the defaults, overridden by a TOML file, overridden by `overrides`.

    Overrides are text by dotted key, such as {"net.base": "64", "diffusion.schedule.kind": "linear"}.

    Raises:
        UserError: an unknown preset or key (the nearest valid one is named), an unreadable file, a wrong type, or a
            value or combination that can't work.
    """
    if preset is not None and preset not in PRESETS:
        raise UserError(f'unknown preset "{preset}"{nearest(preset, PRESETS)}')
    table = to_dict(PRESETS[preset].config if preset is not None else Config())
    if file is not None:
        table = tree.merge(table, without_derived(read_toml(Path(file))))
    for key in overrides or {}:
        if key.removeprefix("net.") in DERIVED and key.startswith("net."):
            raise UserError(f"{key} follows from the data and the process: leave it out")
    renamed = {_RENAMED.get(key, key): value for key, value in (overrides or {}).items()}
    return from_dict(tree.merge(table, tree.nest(renamed)))
