"""A pipeline: a model, and images from it in one call, as notebooks want it.

pipe = sfumato.Pipeline.from_pretrained("faces")        a run, a weights file, a folder, hf:USER/NAME
images = pipe(16, seed=1, label="glasses=dark", guidance=2.0)
images                                                  a grid, where a notebook shows it
images[0], images.arrays                                a PIL image; stored values (N, H, W, C)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sfumato.errors import UserError
from sfumato.exchange.hub.layout import save_model
from sfumato.generate.pictures import grid
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample, wanted
from sfumato.model import Model, load


@dataclass(frozen=True, eq=False)
class Images:
    """Sampled images, in the forms that programs want: x_0 as the sampler returned it, float32 (N, C, H, W), and the
    model that it was sampled from."""

    model: Model
    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Image.Image:
        """Return one as a PIL image of 8 bits."""
        return self.pil[index]

    def __iter__(self) -> Iterator[Image.Image]:
        return iter(self.pil)

    @cached_property
    def pil(self) -> list[Image.Image]:
        """Each as a PIL image of 8 bits, in its own size."""
        shown = self.model.codec.shown(self.x).permute(0, 2, 3, 1).numpy()
        kept = {1: 1, 2: 1, 4: 4}.get(shown.shape[3], 3)
        pixels = np.ascontiguousarray(shown[..., 0] if kept == 1 else shown[..., :kept])
        return [Image.fromarray(image) for image in pixels]

    @cached_property
    def arrays(self) -> NDArray[Any]:
        """All as stored values of the model's data, (N, H, W, C): bytes, 16 bits or floats."""
        values: NDArray[Any] = self.model.codec.decode(self.x).permute(0, 2, 3, 1).numpy()
        return values

    def grid(self, columns: int | None = None) -> Image.Image:
        """Return one picture of all, `columns` beside one another, about a square by default."""
        return grid(self.model.codec.shown(self.x), columns)

    def _repr_png_(self) -> bytes:
        content = BytesIO()
        self.grid().save(content, "PNG")
        return content.getvalue()


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A trained model that samples when it is called."""

    model: Model

    @classmethod
    def from_pretrained(cls, source: Path | str, weights: str = "ema", device: torch.device | str = "cpu") -> Pipeline:
        """Load a model; arguments and errors as `sfumato.load`, and `source` may be a folder of `save_pretrained`."""
        return cls(load(source, weights, device))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the model into a folder that `from_pretrained` and `sfumato.load` read; an earlier model is replaced.
        Raises `UserError` where the path is a file or the model an ONNX file, and OSError where it can't be written."""
        save_model(self.model, Path(folder))

    def __call__(
        self,
        num: int = 16,
        seed: int = 0,
        label: str | None = None,
        guidance: float = 1.0,
        steps: int | None = None,
        recipe: Recipe | None = None,
        batch: int = 64,
    ) -> Images:
        """Sample images; the same arguments give the same images as `sfumato sample`.

        Args:
            num: how many images.
            seed: image i of a seed is always the same image.
            label: a condition as `--label` takes it, such as "glasses=dark"; several rows are cycled through. None is
                the labels of training images, "unconditional" none.
            guidance: scale of classifier-free guidance towards the label; 1 is none.
            steps: of the sampler; None is its usual number.
            recipe: the other choices of sampling (sampler, grid, ...); `guidance` and `steps` replace its own where
                they are given.
            batch: images at a time.

        Raises:
            UserError: a value out of its range, a label that the model does not have, or guidance without one.
        """
        if num < 1 or batch < 1 or not 0 <= seed < 2**64:
            raise UserError(f"num = {num}, batch = {batch}, seed = {seed}: give 1 or more images and a seed below 2^64")
        recipe = recipe or Recipe()
        if guidance != 1:
            recipe = replace(recipe, guidance=guidance)
        if steps is not None:
            recipe = replace(recipe, steps=steps)
        condition = wanted(self.model, label)
        if recipe.guidance != 1 and condition is None:
            raise UserError("guidance needs a label to guide towards: give label, or leave guidance out")
        return Images(self.model, sample(self.model, num, recipe, seed=seed, condition=condition, batch=batch))
