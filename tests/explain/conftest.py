"""Small runs of all kinds of images, and a browser to open their pages in."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sfumato
from sfumato.explain import Context, as_html, make
from sfumato.explain.effort import Effort
from sfumato.explain.report import Report
from sfumato.train import train

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "</script><script>alert(2)</script>",
    "'\"&amp; 😀 \u202eesrever",
    "=1+1,\n\t",
)
"""Labels that are markup, quotes, emoji, right-to-left text, a formula."""
FILE = "<svg onload=alert(3)> '\"&lt; 😀 \u202egnp {:02d}.png"
"""The name of a file that is as bad."""


def trained(folder: Path, images: np.ndarray, **options: str) -> Path:
    """Train a tiny network for five steps on an array and return the run folder."""
    if "data__source" not in options:
        np.savez(folder / "images.npz", images=images)
    overrides = {
        "data.source": str(folder / "images.npz"), "data.labels": "none",
        "data.held_out": "0.2", "diffusion.schedule.num_steps": "50", "net.base": "8", "net.multipliers": "1,2",
        "net.groups": "4", "net.attention": "1", "train.batch": "8", "train.images": "40", "train.grids": "2",
        "train.grid_images": "4", "train.held_outs": "2",
        **{name.replace("__", "."): value for name, value in options.items()},
    }  # fmt: skip
    config = sfumato.resolve("small8", overrides=overrides)
    for _ in train(config, sfumato.Run(folder / "run"), sfumato.open_data(config.data)):
        pass
    return folder / "run"


def pictures(num: int, side: int, channels: int, dtype: Any = np.uint8) -> np.ndarray:
    """Smooth random images (N, H, W, C)."""
    generator = np.random.default_rng(side * channels)
    rough = generator.random((num, side // 4, side // 4, channels))
    smooth = rough.repeat(4, axis=1).repeat(4, axis=2)
    return (smooth * (65535 if dtype == np.uint16 else 255)).astype(dtype)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 8x8 colour images whose names and labels are hostile, in a folder with a hostile name."""
    folder = tmp_path_factory.mktemp("hostile") / "<b>it's"
    (photos := folder / "photos").mkdir(parents=True)
    images = pictures(40, 8, 3)
    images[5] = images[6]
    with (photos / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label"])
        for n, pixels in enumerate(images):
            Image.fromarray(pixels).save(photos / FILE.format(n))
            table.writerow([FILE.format(n), HOSTILE[n % len(HOSTILE)]])
    (photos / FILE.format(99)).write_bytes(b"not an image")
    return trained(folder, images, data__source=str(photos), data__labels="source")


SMALL = Effort(
    images=8, examined=2, times=6, scored=6, terms=6, ranked=16, frames=8, filmed=2, compared=4, shown=2, wall=8,
    moments=4, size=192, diagnosed=8, checked=64, evaluations=(2, 4),
)  # fmt: skip
"""As little as every section can be made of."""


def opened_run(run: Path, **options: Any) -> Context:
    """Open a run for a page that is made quickly."""
    context = Context.open(run, **options)
    context.__dict__["effort"] = SMALL
    return context


@pytest.fixture(scope="session")
def context(hostile: Path) -> Context:
    return opened_run(hostile)


@pytest.fixture(scope="session")
def report(context: Context) -> Report:
    return make(context)


@pytest.fixture(scope="session")
def page_file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "a page's <name>.html"
    path.write_text(as_html(report), encoding="utf-8")
    return path


class Opened:
    """A page in the browser with everything that went wrong while it was open."""

    def __init__(self, page: Any) -> None:
        self.page, self.problems, self.requests = page, [], []
        page.on("console", lambda message: self.problems.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: (self.problems.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path, fragment: str = "") -> Opened:
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
        return self


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    context = browser.new_context(accept_downloads=True, reduced_motion="reduce")
    yield Opened(context.new_page())
    context.close()
