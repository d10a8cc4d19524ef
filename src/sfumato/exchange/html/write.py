"""One HTML file that samples from a model in a browser, opened from the disk, without a network.

The file holds the network as an ONNX graph, ONNX Runtime Web (runtime/, see its LICENCES.md) as WebAssembly, and the
program of the page (assets/): the counter-based noise, five samplers, guidance. Everything runs in a worker; a content
security policy forbids the page to load anything. The same seed gives the image of `sfumato sample`.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import onnx  # noqa: F401  as in `onnx`
import onnxruntime  # noqa: F401
import onnxscript  # noqa: F401

from sfumato import __version__
from sfumato.data.sources.protocol import printable
from sfumato.errors import UserError, nearest
from sfumato.exchange.formats import Written
from sfumato.exchange.graph import checked, graph, rounded
from sfumato.exchange.html.plan import check, levels, plan
from sfumato.files import write_synced
from sfumato.model import Model
from sfumato.report.html import RANDOM
from sfumato.report.text import size
from sfumato.run.locate import run_of

RUNTIME_VERSION = "1.30.0"
_HERE = Path(__file__).parent
_TYPES = ("exact", "float16")


@dataclass(frozen=True)
class Html:
    """The page.

    Attributes:
        dtype: how the weights are stored: `exact`, in float16 where that changes none, as in the models that come
            along; or `float16`, rounded to it (half the bytes, and images that differ slightly).
        title: of the page; the name of the run where it is empty.
    """

    dtype: str = "exact"
    title: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in _TYPES:
            raise UserError(f"dtype is '{self.dtype}'{nearest(self.dtype, _TYPES)}")

    def write(self, model: Model, out: Path) -> Written:
        """Write the page; raises `UserError` where it can't hold the model, or the graph gives other numbers."""
        parameters = model.net.cost(*model.shape[1:]).parameters
        check(model, parameters)
        model = rounded(model) if self.dtype == "float16" else model
        content = graph(model, compact=True)
        off = checked(model, content)
        page = _page(model, content, self.title or _name(model), parameters)
        write_synced(out, page)
        lines = (f"{size(len(page))}: open it in a browser; it needs no network",)
        return Written(lines, {"bytes": len(page), "dtype": self.dtype, "difference": off})


FORMAT = Html


def _name(model: Model) -> str:
    """The name of the model's run, or of its file."""
    run = run_of(model.path)
    return run.path.resolve().name if run is not None else model.path.stem


def _page(model: Model, content: bytes, title: str, parameters: int) -> bytes:
    """The page as bytes: the template with everything put in its place."""
    parts = {name: (_HERE / "assets" / file).read_text(encoding="utf-8") for name, file in _PROGRAM.items()}
    parts["worker"] = RANDOM.read_text(encoding="utf-8") + parts["worker"]
    size_ = "x".join(map(str, model.shape[1:]))
    colour = {1: "grey", 3: "colour", 4: "colour with opacity"}[model.shape[0]]
    facts = {
        "network": f"{parameters:,} parameters; {model.net.summary()}",
        "images": f"{size_}, {colour}",
        "training": f"{model.images:,} images seen",
        "weights": f"SHA-256 {model.sha256}",
    }
    parts |= {
        "title": escape(printable(title)),
        "about": escape(f"A diffusion model of images of {size_} pixels, sampled in this browser."),
        "facts": "".join(
            f"<tr><th>{name}</th><td>{escape(printable(value))}</td></tr>" for name, value in facts.items()
        ),
        "version": __version__,
        "runtime_version": RUNTIME_VERSION,
        "wasm": _base64((_HERE / "runtime" / "ort-wasm-simd-threaded.wasm.gz").read_bytes()),
        "runtime": _base64((_HERE / "runtime" / "ort.wasm.bundle.min.mjs.gz").read_bytes()),
        "model": _base64(gzip.compress(content, 9, mtime=0)),
        "plan": _json(plan(model, title)),
        "levels": re.sub("Infinity", "1e999", _json(levels(model))),  # JSON's numbers have no infinity
    }
    template = (_HERE / "assets" / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], template).encode()


_PROGRAM = {"style": "page.css", "page": "page.js", "worker": "worker.js"}


def _json(value: Any) -> str:
    """JSON that can stand in an HTML element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
