"""Sfumato: the complete denoising-diffusion system, from a folder of images to samples, measured and explained.

    import sfumato
    from sfumato.train import train

    config = sfumato.resolve("faces", overrides={"train.images": "100000"})
    for event in train(config, sfumato.Run("runs/faces"), sfumato.open_data(config.data)):
        print(event)
    model = sfumato.load("runs/faces")
    images = sfumato.sample(model, num=64, seed=0)  # (64, 3, 16, 16) in [-1, 1]
    sfumato.save_png(sfumato.grid(sfumato.to_bytes(images)), "faces.png")

Everything named here is loaded when it is first used (PEP 562), so `import sfumato` costs nothing by itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato.config import Config as Config
    from sfumato.config import resolve as resolve
    from sfumato.data import open_data as open_data
    from sfumato.data import to_bytes as to_bytes
    from sfumato.data import to_model as to_model
    from sfumato.diffusion import DDIM as DDIM
    from sfumato.diffusion import Ancestral as Ancestral
    from sfumato.diffusion import Cosine as Cosine
    from sfumato.diffusion import Linear as Linear
    from sfumato.errors import UserError as UserError
    from sfumato.generate import sample as sample
    from sfumato.pictures import film as film
    from sfumato.pictures import grid as grid
    from sfumato.pictures import save_png as save_png
    from sfumato.pictures import strip as strip
    from sfumato.run import Run as Run
    from sfumato.weights import Model as Model
    from sfumato.weights import load_weights

    load = load_weights

__version__ = "0.1.0"

_HOMES = {
    "config": ("Config", "resolve"),
    "data": ("open_data", "to_bytes", "to_model"),
    "diffusion": ("DDIM", "Ancestral", "Cosine", "Linear"),
    "errors": ("UserError",),
    "generate": ("sample",),
    "pictures": ("film", "grid", "save_png", "strip"),
    "run": ("Run",),
    "weights": ("Model", "load"),
}
_MODULES = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = (
    "config",
    "data",
    "diffusion",
    "edit",
    "errors",
    "evaluate",
    "generate",
    "nets",
    "pictures",
    "run",
    "train",
    "weights",
)

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of the package, when it is first used."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'sfumato' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), "load_weights" if name == "load" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_PACKAGES})
