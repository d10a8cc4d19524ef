"""What the verbs of `sfumato edit` share: their options, the walk that these mean, and where the results go.

A verb turns each image into a `Row`: what was given, what came of it, what is to be reported. A row is a line of the
picture that is written, or, where `--out` names a folder, a few files in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import duration, pick_device, print_json, progress
from sfumato.cli.drawing import Drawing
from sfumato.cli.options import Flag, option
from sfumato.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.edit import Fitted, Walk
    from sfumato.generate.recipe import Recipe
    from sfumato.model import Model

__all__ = ["Editing", "Row", "Several"]


@dataclass(frozen=True)
class Row:
    """One image and what came of it.

    Args:
        name: what the row is called.
        tiles: (caption, (C, H, W) in [-1, 1]), all of one shape.
        said: what is to be said of it, in a few words.
        facts: the same as values by name.
    """

    name: str
    tiles: list[tuple[str, Tensor]]
    said: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Editing(Drawing):
    """Options of every verb of `sfumato edit`."""

    USUAL: ClassVar[dict[str, Any]] = {}
    """The recipe that `--sampler auto` means here, where it is not the one for drawing."""

    source: Annotated[Path, Positional, option("RUN_OR_WEIGHTS")]
    """a run folder, or a weights file"""
    images: Annotated[tuple[Path, ...], Positional, option("IMAGE...")]
    """image files; each is cut and resized to the model's size as training images are, and gets a row of its own"""
    batch: int = 64
    """images at a time; halved when the memory is too small"""
    label: Annotated[str | None, option("L")] = None
    """what the results should be: a value (sneaker, 3), or ATTRIBUTE=VALUE (glasses=dark,hair=long)"""
    raw: Flag = False
    """use the weights as trained rather than their average"""
    out: Annotated[Path | None, option("FILE.png|DIR")] = None
    """a picture with a row for each image, or a folder of single images; MODEL-VERB-IMAGE.png here by default"""
    device: Annotated[str, option("auto|cpu|cuda")] = "auto"
    """where to compute; a GPU where there is one by default"""
    json: Flag = False
    """print one JSON object instead of text"""

    @property
    def verb(self) -> str:
        """The verb's name."""
        return type(self).__name__.lower()

    def check(self) -> None:
        """Refuse values that can't be, before anything is loaded."""
        if not self.images:
            raise UserError(f"edit {self.verb} needs IMAGE, for example: {self.EXAMPLES[0]}")
        if self.batch < 1:
            raise UserError(f"--batch is {self.batch}: it must be at least 1")

    EXAMPLES: ClassVar[tuple[str, ...]] = ()

    def rows(self, model: Model, walk: Callable[[int, int], Walk]) -> Iterator[Row]:
        """Edit the images.

        Args:
            model: to edit with.
            walk: (k, n) -> how to draw the k-th of n edits; they differ in what they report.
        """
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """The verb's own options, for the files that are written."""
        return {}

    def perform(self) -> int:
        """Edit, write, say."""
        from sfumato.model import load

        self.check()
        asked = self.recipe()
        out = self.out or self._default_out()
        _probe(out)
        model = load(self._weights(), pick_device(self.device))
        recipe = asked.settle(model)
        if recipe.variance == "analytic":
            raise UserError("--variance analytic is for sample and evaluate: choose small, large or learned here")
        start = time.monotonic()
        rows = list(self.rows(model, self._walk(model, recipe)))
        facts = self._facts(model, recipe)
        _write(rows, out, facts)
        self._say(rows, out, facts, time.monotonic() - start)
        return 0

    def recipe(self, quality: str = "best") -> Recipe:
        """Return the options as a recipe; `auto` is the verb's usual one."""
        from dataclasses import replace

        if self.sampler != "auto" or not self.USUAL:
            return super().recipe(quality)
        left = {name: value for name, value in self.USUAL.items() if getattr(self, name) in (None, "auto")}
        return Drawing.recipe(replace(self, **left), quality)

    def read(self, model: Model, path: Path, shape: tuple[int, int, int] | None = None) -> Fitted:
        """Read an image for a model, or for a shape of another size."""
        from sfumato.edit import read_image

        data, shape = model.config.data, shape or model.shape
        opacity = data.channels == model.shape[0] and model.shape[0] in (2, 4)
        return read_image(path, shape, data.background, model.depth, opacity)

    def _walk(self, model: Model, recipe: Recipe) -> Callable[[int, int], Walk]:
        """Return what makes the walk of each edit."""
        import torch

        from sfumato.cli import labels
        from sfumato.edit import Walk

        rows = labels.asked(model, self.label)
        if recipe.guidance != 1 and rows is None:
            raise UserError("--guidance wants something to guide towards: give --label")
        told = None if rows is None else torch.tensor(rows, dtype=torch.float32)
        device = next(model.net.parameters()).device
        times = recipe.times(recipe.denoiser(model.denoiser), model.shape, told, device)
        shown = progress("editing")

        def walk(k: int, n: int) -> Walk:
            return Walk(
                recipe.build(), times, recipe.denoiser, told, self.batch,
                lambda done, total: shown(k * total + done, n * total),
            )  # fmt: skip

        return walk

    def _weights(self) -> Path:
        """The file or folder to load: with --raw the other file of a run."""
        if not self.raw:
            return self.source
        if not self.source.is_dir():
            raise UserError(
                "--raw chooses between the weights of a run: give the run folder, or the raw file without it"
            )
        return self.source / "weights" / "raw.safetensors"

    def _default_out(self) -> Path:
        source = self.source.resolve()
        parts = [source.name if source.is_dir() else source.stem, self.verb, *(path.stem for path in self.images[:1])]
        return Path("-".join(parts) + ".png")

    def _facts(self, model: Model, recipe: Recipe) -> dict[str, Any]:
        """What is written into every file: enough to make it again."""
        import hashlib

        facts = {"edit": self.verb, "images": [path.name for path in self.images], **self.facts(), **recipe.facts()}
        if self.label is not None:
            facts["label"] = self.label
        with model.path.open("rb") as file:
            facts["weights"] = hashlib.file_digest(file, "sha256").hexdigest()
        return facts

    def _say(self, rows: Sequence[Row], out: Path, facts: dict[str, Any], seconds: float) -> None:
        if self.json:
            told = [{"name": row.name, **row.facts} for row in rows]
            print_json({"out": str(out), "seconds": seconds, "rows": told, **facts})
            return
        for row in rows:
            print(f"{row.name}: {row.said}".replace("\n", ", "))
        print(f"{facts['sampler']} in {facts['steps']} steps: {duration(seconds)}\n{out}")


@dataclass(frozen=True, kw_only=True)
class Several(Editing):
    """Options of a verb that draws several results of each image."""

    num: int = 8
    """how many results"""
    seed: int = 0
    """which results; the same seed gives the same images"""

    def check(self) -> None:
        """Refuse a number or a seed that can't be."""
        super().check()
        if self.num < 1:
            raise UserError(f"--num is {self.num}: it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"--seed is {self.seed}: it must be a whole number from 0 to 2^64 - 1")

    def facts(self) -> dict[str, Any]:
        """The seed and the number."""
        return {"num": self.num, "seed": self.seed}


def numbered(images: Tensor) -> list[tuple[str, Tensor]]:
    """Return results with captions 1, 2, 3, ..."""
    return [(str(n + 1), image) for n, image in enumerate(images)]


def _probe(out: Path) -> None:
    """Find out before anything is drawn whether the results can be written.

    Raises:
        UserError: another suffix than .png, a folder that holds something, or a place that can't be written.
    """
    from sfumato.generate.writers import check_writable

    if out.is_dir() or not out.suffix:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is there and not an empty folder: give --out a new one")
        return
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the name must end in .png, or be a folder's")
    check_writable(out)


def _write(rows: Sequence[Row], out: Path, facts: dict[str, Any]) -> None:
    """Write one picture, or a folder of single images."""
    from sfumato.data import to_bytes
    from sfumato.generate import writers

    bytes_ = [
        writers.Row(row.name, [(caption, to_bytes(image.float().cpu())) for caption, image in row.tiles])
        for row in rows
    ]
    writers.write_rows(bytes_, out, facts)
