"""The names that options take, known without torch: a misspelt one is refused before anything is imported.

The registries decide (`SAMPLERS`, `GRIDS`, `RANGES`, `PRESETS`); a test checks that these are their names. A file that
`--use` loads may add others, so where one is given the names are not checked here.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfumato.errors import UserError, nearest

SAMPLERS = (
    "ddpm", "ddim", "euler", "heun", "edm", "dpmpp-1", "dpmpp-2", "dpmpp-3", "dpmpp-sde", "unipc", "pndm",
)  # fmt: skip
GRIDS = ("trailing", "leading", "uniform", "quadratic", "logsnr", "karras", "visible")
RANGES = ("clip", "threshold", "free")
PRESETS = (
    "small8", "small16", "small32", "small64", "small128", "small256", "medium32", "medium64", "medium128", "medium256",
    "large64", "large128", "large256", "cifar10-ddpm", "celeba64-ddpm", "celebahq256-ddpm", "cifar10-iddpm",
    "cifar10-iddpm-vlb", "imagenet64-iddpm", "imagenet64-iddpm-vlb", "cifar10-edm",
)  # fmt: skip

OPTIONS = {
    "sampler": ("auto", *SAMPLERS),
    "grid": (*GRIDS, "fitted"),
    "range": RANGES,
    "preset": PRESETS,
}
"""The names that an option takes."""


def check(option: str, value: str | None, names: Sequence[str] = ()) -> None:
    """Raise `UserError` for a value that an option does not take; `names` are those of its registry, where it is
    loaded."""
    choices = tuple(names) or OPTIONS[option]
    if value is not None and value not in choices:
        unknown = f'unknown preset "{value}"' if option == "preset" else f"{option}: '{value}' is unknown"
        raise UserError(unknown + nearest(value, choices))
