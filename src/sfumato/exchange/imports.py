"""Reading a model of another library: what it is, its weights by our names, and whether both compute the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import safetensors
import torch
from torch import Tensor

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config import tree
from sfumato.config.config import Config, to_toml
from sfumato.config.data import DataConfig
from sfumato.data.formats.plain_pickle import NotPlain
from sfumato.data.formats.torch_file import read_torch
from sfumato.diffusion.chains import LogNoise
from sfumato.errors import UserError, command, nearest, similar
from sfumato.exchange.formats import IMPORTS
from sfumato.files import MEGABYTE, read_regular, write_atomic
from sfumato.model import Model, load, packed
from sfumato.run.folder import Run, environment

CHECKED_AT = (0.02, 0.3, 0.9)
"""Fractions of the chain at which the two networks are compared."""
Reference = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""The other library's network: (x (B, C, H, W), steps (B,) from 0, the conditions' numbers (B, attributes) or None) to
our network's output."""


@dataclass(frozen=True)
class Contents:
    """A file or a folder to be imported, read where it is asked for; `objects` are beginnings of the names of classes
    that a pickle may name (`torch_file`)."""

    path: Path
    objects: tuple[str, ...] = ("dnnlib", "torch_utils.", "training.", "torch.nn.modules.")

    @cached_property
    def names(self) -> frozenset[str]:
        """The files of a folder and of its folders, by their path in it; () for a file."""
        if not self.path.is_dir():
            return frozenset()
        inner = [*self.path.glob("*"), *self.path.glob("*/*")]
        return frozenset(path.relative_to(self.path).as_posix() for path in inner if path.is_file())

    @cached_property
    def tree(self) -> Any:
        """What a file holds: of safetensors the tensors by name, else see `read_torch`; {} for a folder."""
        if self.path.is_dir():
            return {}
        return (
            load_safetensors(self.path) if self.path.suffix == ".safetensors" else read_torch(self.path, self.objects)
        )

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The metadata of a safetensors file."""
        if self.path.suffix != ".safetensors" or self.path.is_dir():
            return {}
        with _opened(self.path) as file:
            return dict(file.metadata() or {})

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON object of a folder; raises `UserError` where it can't be read."""
        import json

        path = self.path / name
        try:
            table = json.loads(read_regular(path, 16 * MEGABYTE))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not JSON'}") from None
        if not isinstance(table, dict):
            raise UserError(f"{path} is not a JSON object")
        return table


def _opened(path: Path) -> Any:
    try:
        return safetensors.safe_open(path, framework="pt")
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} can't be read: {str(error)[:100]}") from None


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name; raises `UserError` where it can't be read."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@dataclass(frozen=True)
class Imported:
    """What a reader found.

    Attributes:
        config: of the model.
        shape: (C, H, W) of an image.
        state: the network's weights, float32, by our names.
        vocabulary: its attributes; None where it has none.
        images: training images seen, 0 where unknown.
        kind: `ema` or `raw`.
        notes: what a user should know, a line each.
        reference: builds the other library's network with the file's own weights; raises ImportError where the library
            is not installed, and UserError where what is installed can't run it.
        library: its name.
        format: of the values of its images.
        has_data: `config` is that of its training, images too; else nothing is known of it.
        origin: the library and the file.
    """

    config: Config
    shape: tuple[int, int, int]
    state: dict[str, Tensor] = field(repr=False)
    vocabulary: AttributeVocabulary | None = None
    images: int = 0
    kind: str = "ema"
    notes: tuple[str, ...] = ()
    reference: Callable[[], Reference] | None = None
    library: str = ""
    format: PixelFormat = EIGHT
    has_data: bool = False
    origin: str = ""


def classes(names: Sequence[str] | int) -> AttributeVocabulary | None:
    """Return classes, by their names or of a number, as one attribute; None for none."""
    values = tuple(map(str, range(names))) if isinstance(names, int) else tuple(names)
    return AttributeVocabulary((Attribute("class", values),)) if values else None


class Reader(Protocol):
    """Reads a format; a frozen dataclass, its fields are the options of `--set`."""

    @staticmethod
    def recognises(contents: Contents) -> bool:
        """Whether a file or folder is of this format."""
        ...

    def read(self, contents: Contents) -> Imported:
        """Read it.

        Raises:
            UserError: it is damaged, has something that can't be held, or leaves open what only the user knows.
            KeyError, TypeError, ValueError, AttributeError, NotPlain: it is not what it seemed.
        """
        ...


def read_model(
    path: Path, kind: str = "auto", options: Mapping[str, str] | None = None, name: str | None = None
) -> Imported:
    """Read a model of another library.

    Args:
        path: a file or a folder.
        kind: a name of `IMPORTS`, or `auto`: the first that recognises it.
        options: of the reader, as text.
        name: what it is called where it comes from; None is the name of the file or folder.

    Raises:
        UserError: not recognised, an unknown option, and what `Reader.read` raises.
    """
    if kind != "auto" and kind not in IMPORTS:
        raise UserError(f"there is no format '{kind}'{nearest(kind, IMPORTS)}")
    if not path.exists():
        raise UserError(f"{path} does not exist: give a file or a folder of another library{similar(path)}")
    contents = Contents(path)
    if "sfumato" in contents.metadata:
        raise UserError(f"{path} is a weights file of this library: use it as it is, such as {command('sample', path)}")
    readers = {name: import_module(form.module).READER for name, form in IMPORTS.items()}
    found = kind if kind != "auto" else next((name for name in readers if readers[name].recognises(contents)), None)
    if found is None:
        names = ", ".join(f"{name} ({form.about})" for name, form in IMPORTS.items())
        raise UserError(f"{path} is none of the formats that are read: {names}")
    reader: Reader = tree.convert(readers[found], tree.nest(options or {}), {})
    try:
        imported = reader.read(contents)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, IndexError, KeyError, NotPlain, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a file of {found}: {type(error).__name__} {str(error)[:200]}") from None
    origin = "" if imported.has_data else f"{imported.library}, {name or path.name}"
    return replace(_fitted(imported, path), origin=origin)


def _fitted(imported: Imported, path: Path) -> Imported:
    """The import, after a check that its weights are those of its network; raises `UserError` where they are not."""
    if imported.config.net.least_tensors > len(imported.state):
        raise UserError(f"{path}: its weights are not those of the network that its settings describe")
    with torch.device("meta"):
        net = imported.config.net.build(imported.config.interface(imported.shape[0], imported.vocabulary))
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    present = {name: tuple(value.shape) for name, value in imported.state.items()}
    for name in [*expected, *present]:
        if expected.get(name) != present.get(name):
            raise UserError(
                f"{path}: its weights are not those of the network that its settings describe: {name} is "
                f"{present.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
            )
    state = {name: imported.state[name].float() for name in expected}
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise UserError(f"{path}: its weights are not finite")
    return replace(imported, state=state)


def write_model(imported: Imported, out: Path, data: str | None = None, force: bool = False) -> Model:
    """Write an imported model as a weights file (.safetensors) or a run folder, and return it, loaded from there.

    Args:
        imported: what was read.
        out: where to.
        data: its images, for evaluation and diagnosis; None names none.
        force: overwrite a weights file.

    Raises:
        UserError: the path is taken.
    """
    config = replace(imported.config, data=_data(imported, data))
    codec = config.codec.build(imported.format, imported.shape)
    facts: dict[str, Any] = {"vocabulary": imported.vocabulary, "kind": imported.kind, "images": imported.images}
    facts["origin"] = imported.origin
    content = packed(imported.state, config, codec, **facts)
    if out.suffix == ".safetensors":
        if out.exists() and not force:
            raise UserError(f"{out} exists: choose another name, or give --force to overwrite it")
        write_atomic(out, content)
        return load(out)
    run = Run(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists: choose a new folder, or a name that ends in .safetensors for weights alone")
    write_atomic(run.weights_file(imported.kind), content)
    run.write(run.environment_path, environment())
    write_atomic(run.config_path, to_toml(config))
    return load(run, imported.kind)


def _data(imported: Imported, data: str | None) -> DataConfig:
    """The images of an import: as it says, which those given replace, or nothing but their shape."""
    if imported.has_data:
        return imported.config.data if data is None else replace(imported.config.data, source=data)
    channels, height, width = imported.shape
    source = DataConfig(source=data or NO_DATA, size=(height, width), channels=channels, held_out=0.05 if data else 0.0)
    return replace(source, labels="source" if data and imported.vocabulary else "none")


NO_DATA = "unknown"
"""The name of the images of a model whose images are not known."""


@torch.inference_mode()
def difference(model: Model, imported: Imported) -> float | None:
    """Run a batch through our network and the other library's, and return the largest difference of their outputs, of
    outputs whose deviation is above 1 as a fraction of it; None where there is no reference. Raises ModuleNotFoundError
    where the library is not installed, and `UserError` where the installed one can't run this model."""
    if imported.reference is None:
        return None
    try:
        theirs = imported.reference()
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever another library, or what it imports, does where its parts don't fit
        raise UserError(f"{imported.library} can't be run here: {' '.join(str(error).split())[:100]}") from None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(CHECKED_AT), *model.shape, generator=generator)
    steps = torch.tensor([round(part * (model.schedule.num_steps - 1)) for part in CHECKED_AT])
    rows, numbers = None, None
    if model.vocabulary is not None:
        columns = [torch.arange(len(steps)) % max(1, len(one.values)) for one in model.attributes]
        numbers = torch.stack(columns, 1).float()
        rows = imported.vocabulary.rows(numbers)  # type: ignore[union-attr]
    ours = model.net(x, steps.float(), rows)
    expected = theirs(x, steps, numbers)
    scale = expected.flatten(1).std(1).clamp(min=1)[:, None, None, None]  # of an untrained score network, the noise
    return float(((ours - expected) / scale).abs().max())


def unscaled(chain: LogNoise, x: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return y = x_0 + sigma eps, (B, C, H, W), and sigma (B,), of x_t at steps of a chain: what a network that takes a
    noise level sees."""
    sigma = chain.log_noise(steps.double()).exp().float()
    return x * (1 + sigma[:, None, None, None] ** 2).sqrt(), sigma


def with_absent(table: Tensor, absent: Tensor | None = None) -> Tensor:
    """Return a table of classes with a row for "not given" before it: the given one, or the mean of all."""
    first = table.mean(0) if absent is None else absent
    return torch.cat((first[None], table))
