"""`sfumato demo`: two minutes of training, then pictures that explain it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from sfumato.cli.console import pick_device, progress, say
from sfumato.cli.launch import begun
from sfumato.cli.options import Device, option
from sfumato.errors import UserError, command
from sfumato.report.text import count, duration

if TYPE_CHECKING:
    import torch

    from sfumato.config.config import Config
    from sfumato.data import Dataset
    from sfumato.model import Model
    from sfumato.report.figures import Album
    from sfumato.run.folder import Run

MOMENTS, COLUMNS = 7, 10
PAGE = "report.html"
LEAST_IMAGES = 20_000
"""Images that a slow machine is trained on too, where that takes no more than three times the budget."""


@dataclass(frozen=True)
class Demo:
    """Train a small model for about two minutes and show what diffusion does: new images, their way from noise, an
    image's way to noise, and samples at several moments of the training."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ("sfumato demo", "sfumato demo --budget 5m --data digits --out digits-demo")

    budget: Annotated[str, option("TIME")] = "2m"
    """how long the training may take; 2m by default, up to three times as long on a slow machine"""
    out: Annotated[Path, option("DIR")] = Path("demo")
    """the folder for the pictures and the run; demo by default"""
    data: Annotated[str, option("DATA")] = "faces"
    """a built-in name, or a folder of images; faces by default"""
    device: Device = "auto"

    def perform(self) -> int:
        """Train, make the pictures, explain them."""
        began = begun()
        from sfumato.cli.train import train_in_view
        from sfumato.files import write_atomic
        from sfumato.model import load
        from sfumato.nets import keep_memory
        from sfumato.report.figures import album
        from sfumato.run.folder import Run
        from sfumato.run.locate import SHIPPED

        run = Run(self.out / "run")
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out} is a file: give --out a folder")
        others = {p.name for p in self.out.iterdir()} - {f"{name}.png" for name in SHIPPED} if self.out.exists() else ()
        if others and not run.path.exists():
            raise UserError(f"{self.out} holds other files: give --out a new or an empty folder")
        device = pick_device(self.device)
        if device.type == "cpu":
            keep_memory()
        config, data = self._prepare(str(device))
        say(f"1. Sampling models that come along, into {self.out}")
        ready = draw_ready(self.out, device)
        say("".join(f"   {path}\n" for path in ready))
        about = f"{len(data.train):,} images of {data.source_name} for about {self.budget}"
        say(f"2. Training on {about}, into {run.path}\n")
        train_in_view(config, run, data, device, began=began)
        say(f"\n3. Sampling, into {self.out}")
        model = load(run)
        pictures = album(run, model, data, self.out, report=progress("sampling"))
        say(f"\n4. Explaining all of it with this model, into {self.out / PAGE}")
        explain(run, self.out / PAGE, device)
        head, captions, commands = _words(self, pictures, model, data, run, ready)
        write_atomic(self.out / "README.md", _markdown(head, captions, commands))
        say("\n" + _plain(head, captions, commands))
        page = self.out / PAGE
        say(f"\nTo understand all of it, open {page} in a browser:\n    {page.resolve().as_uri()}")
        return 0

    def _prepare(self, device: str) -> tuple[Config, Dataset]:
        """Return the configuration and the images, with few and narrow grids, so that the time goes into training."""
        from sfumato.config.presets import choose, resolve
        from sfumato.config.units import parse_seconds
        from sfumato.data import open_data

        source, budget = {"data.source": self.data}, parse_seconds(self.budget)
        data = open_data(resolve(overrides=source).data, on_progress=progress("reading images"))
        preset, *_ = choose(data.shape, len(data.train), device, parse_seconds(self.budget))
        short = {
            "train.budget": str(budget),
            "train.images": "none",
            "train.least_images": str(LEAST_IMAGES),
            "train.grids": str(MOMENTS),
            "train.grid_images": str(COLUMNS),
            "train.held_outs": "4",
        }
        config = resolve(preset, overrides=source | short)
        if data.config != config.data:
            data = open_data(config.data, on_progress=progress("reading images"))
        return config, data


def explain(run: Run, out: Path, device: torch.device) -> None:
    """Write the illustrated page of the run."""
    from sfumato.explain import Context, as_html, make
    from sfumato.files import write_atomic

    context = Context.open(run.path, device=device, report=progress("computing"))
    write_atomic(out, as_html(make(context)))


def draw_ready(folder: Path, device: torch.device) -> list[Path]:
    """Draw a grid of each model that comes along, its labels in turn, and return the files."""
    from sfumato.codec.pixels import to_bytes
    from sfumato.generate.pictures import grid
    from sfumato.generate.sample import sample
    from sfumato.generate.writers import save_png
    from sfumato.model import load
    from sfumato.run.locate import SHIPPED

    paths = [folder / f"{name}.png" for name in SHIPPED]
    for name, path in zip(SHIPPED, paths, strict=True):
        model = load(name, device=device)
        asked = "all" if len(model.attributes) == 1 else None
        save_png(grid(to_bytes(sample(model, 2 * COLUMNS, condition=asked)), COLUMNS), path)
    return paths


Captions = list[tuple[Path, str]]
Commands = list[tuple[str, str]]


def _words(
    demo: Demo, pictures: Album, model: Model, data: Dataset, run: Run, ready: list[Path]
) -> tuple[str, Captions, Commands]:
    """Return the summary, the captions of the pictures, and commands to try next."""
    from sfumato.nets import cost

    finished = run.read(run.finished_path) or {}
    chain = f"{model.schedule.num_steps:,}"
    parameters, seconds = cost.parameters(model.net), float(finished.get("seconds", 0.0))
    _, height, width = data.shape
    head = (
        f"In {duration(seconds)} a network of {count(parameters)} parameters saw {model.images:,} noisy images, made "
        f"from {len(data.train):,} of '{data.source_name}' ({width}x{height} pixels), and learned one thing: to "
        "predict the image under the noise. That is enough to make new ones."
    )
    if model.images < LEAST_IMAGES:
        head += (
            f" This machine was slower than the one of the pictures in Sfumato's README, whose model saw "
            f"{LEAST_IMAGES:,} "
            "images, so these samples are rougher."
        )
    captions: list[tuple[Path | None, str]] = [
        (pictures.samples, SAMPLES),
        (pictures.training, TRAINING),
        (pictures.reverse, REVERSE.format(chain=chain)),
        (pictures.forward, FORWARD.format(chain=chain)),
        (pictures.film, FILM),
        *((path, READY.format(name=path.stem)) for path in ready),
    ]
    commands = [
        (command("sample", run.path, "--seed", "1", "--out", "more.png"), "other images"),
        ("sfumato sample emoji32 --label smiley --guidance 2", "a model that comes along"),
        (command("sample", run.path, "--steps", "5", "--out", "hurried.png"), "how few steps will do?"),
        (
            command("sample", run.path, "--sampler", "ddpm", "--steps", "250", "--out", "ddpm.png"),
            "fresh noise in every step",
        ),
        (command("illustrate", run.path, "--figure", "bound", "--out", "bound.png"), "where the bits go"),
        (command("info", run.path), "the network, the schedule, the training"),
        (command("train", demo.data, "--budget", "15m"), "longer makes cleaner"),
    ]
    return head, [(path, text) for path, text in captions if path is not None], commands


SAMPLES = """A hundred new images. Each began as pure noise and was denoised in 50 steps. Some are ragged; longer
training helps."""
TRAINING = """The same ten seeds at several moments of the training, one row for each moment: noise at first, then broad
shapes, then details."""
REVERSE = """Two of the new images on their way from noise, t = {chain}, to an image, t = 0. Above is the noisy image
x_t; below is what the network predicts of it, x_0. The prediction begins as a blur, the average of all that is still
possible, and sharpens as the noise goes."""
FORWARD = """The opposite direction, which needs no network: one image of the data becomes noise. The upper row adds a
little noise, t times over; the lower row reaches each t at once, by the closed form x_t = sqrt(abar_t) x_0 + sqrt(1 -
abar_t) eps. The two rows use different random noise, so single pixels differ. How much of the image is left at each t
is the same. The closed form is what makes training cheap."""
PAPER = """This is not in every detail the model of the DDPM paper (Ho, Jain and Abbeel 2020). Its network predicts the
image, refined by x_t, where the paper's predicts the noise eps; either follows from the other, since x_t is known. Its
schedule is a cosine where the paper's is linear, and it is sampled in 50 steps without fresh noise where the paper
takes all 1,000 with it. The paper's own:"""
PAPERS_OWN = """sfumato train faces --diffusion.parameterization eps --diffusion.schedule.kind linear --run runs/paper
sfumato sample runs/paper --sampler ddpm"""
READY = """Images of the model `{name}`, which comes with Sfumato and was trained for ten minutes on one thread."""
FILM = """Twenty of the new images on their way: at the left of each pair the sample x_t, at its right the network's
guess at x_0, which shows what is being decided long before the noise has gone."""


def _markdown(head: str, captions: Captions, commands: Commands) -> str:
    """Return the text around the pictures as a Markdown page."""
    pages = [f"## {path.name}\n\n![{path.stem}]({path.name})\n\n{_filled(text)}\n" for path, text in captions]
    return "\n".join(
        [
            "# What diffusion does\n",
            _filled(head) + "\n",
            f"**[{PAGE}]({PAGE})** explains all of it with this very model, in figures that can be moved: open it "
            "in a browser.\n",
            *pages,
            "## What differs from the paper\n",
            _filled(PAPER) + "\n",
            f"```sh\n{PAPERS_OWN}\n```\n",
            "## Try next\n",
            f"```sh\n{_aligned(commands)}\n```\n",
        ]
    )


def _plain(head: str, captions: Captions, commands: Commands) -> str:
    """Return the same text for a terminal."""
    items = [f"{path}\n{_filled(text, '    ')}" for path, text in captions]
    script = Path(sys.executable).with_name("activate")
    first = f" (first: . {os.path.relpath(script)})" if script.exists() and not shutil.which("sfumato") else ""
    return "\n\n".join([_filled(head), *items, f"Try next{first}:\n" + _aligned(commands, "    ")])


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(" ".join(text.split()), 100, initial_indent=indent, subsequent_indent=indent)


def _aligned(commands: Commands, indent: str = "") -> str:
    width = max(len(command) for command, _ in commands)
    return "\n".join(f"{indent}{command:{width}}  # {why}" for command, why in commands)


VERB = Demo
