"""The formats of other libraries: what is written, and what is read. Nothing here imports torch.

A new format is a module and one line here. The module has a frozen dataclass, `FORMAT` where it is written (`Export`),
`READER` where it is read (`imports.Reader`); its fields are the options of `--set`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sfumato.errors import UserError, nearest

if TYPE_CHECKING:
    from sfumato.model import Model


@dataclass(frozen=True)
class Format:
    """A format that models are written in.

    Attributes:
        module: where it is defined.
        about: what it is, in a line.
        suffix: of the file that it is, such as `.onnx`; "" for a folder.
        package: of other authors that it needs; "" for none.
    """

    module: str
    about: str
    suffix: str = ""
    package: str = ""


@dataclass(frozen=True)
class Written:
    """What an export has to say: lines for people, and facts as JSON has them."""

    lines: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class Export(Protocol):
    """Writes a model; a frozen dataclass, its fields are options."""

    def write(self, model: Model, out: Path) -> Written:
        """Write the model to a path that does not exist yet: make a folder of it, or a file, as the format is; raises
        `UserError` where the format can't hold the model: why, and what can be held."""
        ...


EXPORTS: dict[str, Format] = {
    "diffusers": Format("sfumato.exchange.diffusers.write", "a folder that diffusers' pipelines load"),
    "safetensors": Format("sfumato.exchange.tensors", "weights in safetensors, and all facts as JSON"),
    "onnx": Format("sfumato.exchange.onnx", "an ONNX graph that describes itself", ".onnx", "onnx"),
    "html": Format("sfumato.exchange.html.write", "one page that samples in a browser", ".html", "onnx"),
}
"""Every format that models are written in, by the name that `--to` gives it."""

IMPORTS: dict[str, Format] = {
    "diffusers": Format("sfumato.exchange.diffusers.read", "a folder of a pipeline or a UNet2DModel"),
    "ldp": Format("sfumato.exchange.lucid", "model-N.pt of denoising-diffusion-pytorch"),
    "openai": Format("sfumato.exchange.openai", "a .pt of improved-diffusion or guided-diffusion"),
    "k-diffusion": Format("sfumato.exchange.kdiffusion", "a slim .safetensors of k-diffusion"),
    "edm": Format("sfumato.exchange.edm", "a network snapshot .pkl of EDM"),
}
"""Every format that models are read from, by the name that `--as` gives it."""

MARK = "sfumato.json"
"""A file in every folder that is written here: only such a folder is replaced. `facts` are in it."""


def check_out(out: Path, kind: str, force: bool = False) -> Format:
    """Return the format of a name, after a check of the path to be written; raises `UserError` for an unknown format, a
    path that can't be one of its files, or one that is there and not forced."""
    if kind not in EXPORTS:
        raise UserError(f"there is no format '{kind}'{nearest(kind, EXPORTS)}")
    form = EXPORTS[kind]
    if form.suffix and out.suffix.lower() != form.suffix:
        raise UserError(f"{out}: {kind} is one file, its name must end in {form.suffix}")
    if form.suffix and out.is_dir():
        raise UserError(f"{out} is a folder, and {kind} is one file: give another name")
    if not form.suffix and out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, and {kind} is a folder: give another name")
    check_free(out, force)
    return form


def check_free(out: Path, force: bool) -> None:
    """Raise `UserError` for a file or a folder that is there and not forced, or a folder that was not written here."""
    taken = any(out.iterdir()) if out.is_dir() else out.exists()
    if taken and not force:
        raise UserError(f"{out} exists: choose another name, or force it to be replaced (--force)")
    if taken and out.is_dir() and not (out / MARK).is_file():
        raise UserError(f"{out} holds files that no export wrote: choose another folder")
