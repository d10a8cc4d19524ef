"""diffusers' folders of unconditional models: a pipeline with a UNet2DModel, or the network's own folder.

    model_index.json, unet/config.json, unet/diffusion_pytorch_model.*, scheduler/scheduler_config.json

Weights are safetensors or .bin; of a folder with several the safetensors in full precision. A folder that needs a
pipeline file is read where the file is ours (`own`): what it does is done here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import TrainConfig
from sfumato.data.formats.torch_file import read_torch, tensors_in
from sfumato.errors import UserError
from sfumato.exchange.diffusers import names, own, schedulers, settings
from sfumato.exchange.imports import Contents, Imported, Reference, classes, load_safetensors, unscaled, with_absent
from sfumato.lazy import quietly
from sfumato.nets.preconditioned import PreconditionedConfig

_FILES = tuple(f"diffusion_pytorch_model.{end}" for end in ("safetensors", "bin", "fp16.safetensors", "fp16.bin"))
_CLASSES = "it was trained with a class for every image: without --label the classes take turns"


@dataclass(frozen=True)
class Reader:
    """The reader of diffusers' folders.

    Attributes:
        size: side of the images where the folder does not say it.
        predicts: what the network predicts where there is no scheduler: `eps`, `x0` or `v`; None is eps.
    """

    size: int | None = None
    predicts: str | None = None

    @staticmethod
    def recognises(contents: Contents) -> bool:
        """A folder with one of its JSON files."""
        return bool(contents.names & {"model_index.json", "unet/config.json"}) or (
            "config.json" in contents.names and "_diffusers_version" in contents.json("config.json")
        )

    def read(self, contents: Contents) -> Imported:
        """Read it; see `imports.Reader`."""
        folder = "unet/" if "unet/config.json" in contents.names else ""
        index = contents.json("model_index.json") if "model_index.json" in contents.names else {}
        for part in index:
            if part in ("vqvae", "vae", "text_encoder", "movq", "bert", "transformer"):
                raise UserError(f"it has a {part}: only models of pixels without text are read, which are a unet alone")
        entries = own.read_entries(contents, index)
        table = contents.json(folder + "config.json")
        if (kind := table.get("_class_name", "UNet2DModel")) != "UNet2DModel":
            raise UserError(f"its network is a {kind}: only UNet2DModel is read")
        if settings.is_score(table):
            return self._score(contents, folder, table)
        square = 1 if entries is None else entries.patch**2
        channels, out = int(table.get("in_channels", 3)) // square, int(table.get("out_channels", 3)) // square
        if out not in (channels, 2 * channels):
            raise UserError(f"its network takes {channels} channels and returns {out}: it needs more than images")
        name = "scheduler/scheduler_config.json"
        scheduler, notes = contents.json(name) if name in contents.names else {}, list[str]()
        if not scheduler:
            notes.append("there is no scheduler: the linear schedule of 1,000 steps is assumed, and "
                         f"that the network predicts {self.predicts or 'eps'}")  # fmt: skip
        predicts = self.predicts if entries is None else entries.predicts
        diffusion = schedulers.to_ours(scheduler, out == 2 * channels, predicts)
        state, vocabulary, train = self._conditions(contents, folder, table, entries)
        if entries is None and vocabulary:
            notes.append(_CLASSES)
        patch, scale = (1, 1.0) if entries is None else (entries.patch, entries.time_scale)
        imported = Imported(
            Config(net=settings.to_ours(table, patch, scale), diffusion=diffusion, train=train),
            (channels, *(self._size(table) if entries is None else entries.size)),
            state,
            vocabulary,
            notes=(*notes, *(own.changed_file(contents) if entries else ())),
            reference=lambda: _reference(table, _state(contents, folder), entries),
            library="diffusers",
        )
        return own.exact(contents, imported, scheduler)

    def _score(self, contents: Contents, folder: str, table: dict[str, Any]) -> Imported:
        """A score network: its images lie in [0, 1] and ours in [-1, 1], so that our noise is twice its own."""
        inner, name = settings.score_to_ours(table), "scheduler/scheduler_config.json"
        scheduler = contents.json(name) if name in contents.names else {}
        if str(scheduler.get("_class_name", "ScoreSdeVeScheduler")) != "ScoreSdeVeScheduler":
            raise UserError(f"its scheduler is a {str(scheduler['_class_name'])[:60]}: of score networks only "
                            "ScoreSdeVeScheduler's are read")  # fmt: skip
        least, most = (2 * float(scheduler.get(f"sigma_{end}", usual)) for end, usual in (("min", 0.01), ("max", 1348)))
        net = PreconditionedConfig(inner, least=least, most=most, form="ve")
        state = names.score_to_ours(_state(contents, folder), inner.blocks)
        return Imported(
            Config(net=net, diffusion=DiffusionConfig(schedule=net.chain, parameterization="x0", loss_space="v")),
            (3, *self._size(table)), {f"inner.{key}": value for key, value in state.items()},
            notes=(f"a score network, sampled from a noise of {most:g} down to {least:g}",),
            reference=lambda: _score_reference(table, _state(contents, folder), net), library="diffusers",
        )  # fmt: skip

    def _size(self, table: dict[str, Any]) -> tuple[int, int]:
        size = self.size or table.get("sample_size")
        if size is None:
            raise UserError("it does not say how large its images are: give --set size=PIXELS")
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    @staticmethod
    def _conditions(
        contents: Contents, folder: str, table: dict[str, Any], entries: own.Entries | None
    ) -> tuple[dict[str, Tensor], AttributeVocabulary | None, TrainConfig]:
        """The weights by our names, the conditions, and how often they were left out in training."""
        theirs, always = _state(contents, folder), TrainConfig(label_dropout=0.0)
        if entries is not None:
            state = names.to_ours(theirs, [len(one.values) for one in entries.attributes])
            vocabulary = AttributeVocabulary(entries.attributes) if entries.attributes else None
            return state, vocabulary, always if entries.needs_label else TrainConfig()
        state, vocabulary = names.to_ours(theirs), classes(int(table.get("num_class_embeds") or 0))
        if vocabulary is None:
            return state, None, TrainConfig()
        key = "condition.parts.0.table.weight"
        state[key] = with_absent(state[key])
        return state, vocabulary, always


READER = Reader


def _state(contents: Contents, folder: str) -> dict[str, Tensor]:
    """The weights of the network's folder."""
    for name in _FILES:
        if folder + name in contents.names:
            path = contents.path / folder / name
            return load_safetensors(path) if path.suffix == ".safetensors" else tensors_in(read_torch(path))
    if any(name.endswith(".index.json") for name in contents.names):
        raise UserError("its weights are in several files: save it with save_pretrained(max_shard_size='100GB')")
    raise UserError(f"it has no weights: one of {', '.join(_FILES)} is expected in {folder or 'it'}")


def _unet(table: dict[str, Any], state: dict[str, Tensor]) -> Any:
    """diffusers' network with the file's own weights."""
    with quietly():
        from diffusers import UNet2DModel  # type: ignore[attr-defined, unused-ignore]

    known = {name: table[name] for name in (*settings.DEFAULTS, "sample_size", "in_channels", "out_channels")
             if name in table}  # fmt: skip
    build: Any = UNet2DModel
    net: Any = build(**known)
    net.load_state_dict({names.renewed(name): value.float() for name, value in state.items()})
    return net.eval()


def _score_reference(table: dict[str, Any], state: dict[str, Tensor], config: PreconditionedConfig) -> Reference:
    """The image that diffusers' score means: of images in [0, 1], y + sigma^2 score."""
    net = _unet(table, state)

    def image(x: Tensor, steps: Tensor, rows: Tensor | None) -> Tensor:
        y, sigma = unscaled(config.chain, x, steps)
        score: Tensor = net((y + 1) / 2, sigma / 2).sample
        return y + sigma[:, None, None, None] ** 2 / 2 * score

    return image


def _reference(table: dict[str, Any], state: dict[str, Tensor], entries: own.Entries | None) -> Reference:
    """diffusers' network with the file's own weights, inside our pipeline file where it needs that."""
    net = _unet(table, state)
    if entries is None:
        return lambda x, steps, rows: net(x, steps, class_labels=None if rows is None else rows[:, 0].long()).sample
    from sfumato.exchange.diffusers.pipeline import SfumatoPipeline

    pipeline: Any = SfumatoPipeline(net, None, **entries.plain())
    return lambda x, steps, rows: pipeline.network(x, steps, None if rows is None else pipeline.amounts(rows))
