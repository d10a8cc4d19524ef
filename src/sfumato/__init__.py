"""Sfumato: the complete denoising-diffusion system, from a folder of images to samples, measured and explained.

    import sfumato
    from sfumato.train import train

    config = sfumato.resolve("small16", overrides={"train.images": "100000"})
    for event in train(config, sfumato.Run("runs/faces"), sfumato.open_data(config.data)):
        print(event)
    model = sfumato.load("runs/faces")
    images = sfumato.sample(model, num=64, seed=0)  # (64, 3, 16, 16) in [-1, 1]
    sfumato.save_png(sfumato.grid(sfumato.to_bytes(images)), "faces.png")

Every name here is loaded on first use (PEP 562), so `import sfumato` alone is fast.
"""

from typing import TYPE_CHECKING

from sfumato.lazy import lazy

if TYPE_CHECKING:
    from sfumato.codec.pixels import to_bytes as to_bytes
    from sfumato.codec.pixels import to_model as to_model
    from sfumato.config.config import Config as Config
    from sfumato.config.presets import resolve as resolve
    from sfumato.data import open_data as open_data
    from sfumato.diffusion import DDIM as DDIM
    from sfumato.diffusion import Ancestral as Ancestral
    from sfumato.diffusion import Cosine as Cosine
    from sfumato.diffusion import Linear as Linear
    from sfumato.errors import UserError as UserError
    from sfumato.exchange.pipeline import Pipeline as Pipeline
    from sfumato.generate.pictures import grid as grid
    from sfumato.generate.pictures import strip as strip
    from sfumato.generate.recipe import Recipe as Recipe
    from sfumato.generate.sample import sample as sample
    from sfumato.generate.writers import film as film
    from sfumato.generate.writers import save_png as save_png
    from sfumato.model import Model as Model
    from sfumato.model import load as load
    from sfumato.plugins import use as use
    from sfumato.run.folder import Run as Run

__version__ = "0.1.0"

_HOMES = {
    "codec.pixels": ("to_bytes", "to_model"),
    "config.config": ("Config",),
    "config.presets": ("resolve",),
    "data": ("open_data",),
    "diffusion": ("DDIM", "Ancestral", "Cosine", "Linear"),
    "errors": ("UserError",),
    "exchange.pipeline": ("Pipeline",),
    "generate.pictures": ("grid", "strip"),
    "generate.recipe": ("Recipe",),
    "generate.sample": ("sample",),
    "generate.writers": ("film", "save_png"),
    "model": ("Model", "load"),
    "plugins": ("use",),
    "run.folder": ("Run",),
}
_PACKAGES = ("config", "data", "diffusion", "edit", "errors", "evaluate", "generate", "nets", "run", "train")
_MODULES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_MODULES]

__getattr__, __dir__ = lazy(__name__, _MODULES | {name: name for name in _PACKAGES})
