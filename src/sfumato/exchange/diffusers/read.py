"""diffusers' folders of unconditional models: a pipeline with a UNet2DModel, or the network's own folder.

    model_index.json, unet/config.json, unet/diffusion_pytorch_model.*, scheduler/scheduler_config.json

Weights are safetensors or .bin; of a folder with several the safetensors in full precision. The scheduler tells the
chain, what the network predicts and the variance; which sampler it was is not kept, since any samples from the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.config.config import Config
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import TrainConfig
from sfumato.data.formats.torch_file import read_torch, tensors_in
from sfumato.diffusion import Cosine, Linear, Quadratic
from sfumato.diffusion.schedule import Chain
from sfumato.errors import UserError
from sfumato.exchange.diffusers import names, settings
from sfumato.exchange.imports import Contents, Imported, Reference, load_safetensors, with_absent
from sfumato.exchange.schedules import chain_of

_FILES = tuple(f"diffusion_pytorch_model.{end}" for end in ("safetensors", "bin", "fp16.safetensors", "fp16.bin"))
_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}
_SCHEDULERS = ("DDPM", "DDIM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete",
               "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE", "UniPCMultistep", "DEISMultistep",
               "KDPM2Discrete", "KDPM2AncestralDiscrete", "DDPMParallel", "DDIMParallel", "DDIMInverse")  # fmt: skip


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
        if isinstance(own := index.get("_class_name"), list):
            raise UserError(
                f"its images need the code of a pipeline of its own ({own[0]}.py: patches, labels, or another "
                "prediction), which is not run: import what it was made from; export --to safetensors keeps all"
            )
        table = contents.json(folder + "config.json")
        if (kind := table.get("_class_name", "UNet2DModel")) != "UNet2DModel":
            raise UserError(f"its network is a {kind}: only UNet2DModel is read")
        net = settings.to_ours(table)
        has_scheduler = "scheduler/scheduler_config.json" in contents.names
        scheduler = contents.json("scheduler/scheduler_config.json") if has_scheduler else {}
        state = names.to_ours(_state(contents, folder))
        classes = table.get("num_class_embeds")
        if classes:
            key = "condition.parts.0.table.weight"
            state[key] = with_absent(state[key])
        channels, out = int(table.get("in_channels", 3)), int(table.get("out_channels", 3))
        if out not in (channels, 2 * channels):
            raise UserError(f"its network takes {channels} channels and returns {out}: it needs more than images")
        learned = out == 2 * channels
        diffusion, notes = self._diffusion(scheduler, learned)
        train = TrainConfig(label_dropout=0.0) if classes else TrainConfig()
        return Imported(
            Config(net=net, diffusion=diffusion, train=train),
            (channels, *self._size(table)),
            state,
            tuple(str(k) for k in range(int(classes or 0))),
            notes=(*notes, *([_CLASSES] if classes else [])),
            reference=lambda: _reference(table, _state(contents, folder)),
            library="diffusers",
        )

    def _size(self, table: dict[str, Any]) -> tuple[int, int]:
        size = self.size or table.get("sample_size")
        if size is None:
            raise UserError("it does not say how large its images are: give --set size=PIXELS")
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    def _diffusion(self, table: dict[str, Any], learned: bool) -> tuple[DiffusionConfig, list[str]]:
        """The process, from the scheduler's settings, and notes on it."""
        notes = []
        kind = str(table.get("_class_name", "DDPMScheduler"))
        if kind.removesuffix("Scheduler") not in _SCHEDULERS:
            raise UserError(f"its scheduler is a {kind[:60]}, which is not one of denoising diffusion in steps")
        if not table:
            notes.append("there is no scheduler: the linear schedule of 1,000 steps is assumed, and "
                         f"that the network predicts {self.predicts or 'eps'}")  # fmt: skip
        prediction = str(table.get("prediction_type") or table.get("predict_epsilon") or "epsilon")
        prediction = {"True": "epsilon", "False": "sample"}.get(prediction, prediction)
        if prediction not in _PREDICTIONS:
            raise UserError(f"prediction_type = {prediction[:40]!r} is not supported")
        variance = str(table.get("variance_type", "learned_range" if learned else "fixed_small"))
        if (_VARIANCES.get(variance) == "learned") != learned:
            if learned or variance == "learned":
                raise UserError(f"variance_type = {variance!r} with a network of these channels is not supported")
            variance = "fixed_small"
        diffusion = DiffusionConfig(
            schedule=_chain(table),
            parameterization=self.predicts or _PREDICTIONS[prediction],
            variance=_VARIANCES[variance],
            objective="hybrid" if learned else "simple",
            zero_terminal_snr=bool(table.get("rescale_betas_zero_snr", False)),
        )
        return diffusion, notes


READER = Reader

_CLASSES = "it was trained with a class for every image: without --label the classes take turns"


def _chain(table: dict[str, Any]) -> Chain:
    """The chain of a scheduler's settings."""
    if table.get("trained_betas") is not None:
        return chain_of(table["trained_betas"])
    steps, low, high = (table.get(name, default) for name, default in
                        (("num_train_timesteps", 1000), ("beta_start", 1e-4), ("beta_end", 0.02)))  # fmt: skip
    kind, unit = table.get("beta_schedule", "linear"), steps / 1000
    if kind == "linear":
        return Linear(steps, low * unit, high * unit)
    if kind == "scaled_linear":
        return Quadratic(steps, low * unit, high * unit)
    if kind == "squaredcos_cap_v2":
        return Cosine(steps)
    if kind == "sigmoid":
        betas = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid() * (high - low) + low
        return chain_of(betas.tolist())
    raise UserError(f"beta_schedule = {str(kind)[:40]!r} is not supported")


def _state(contents: Contents, folder: str) -> dict[str, Tensor]:
    """The weights of the network's folder."""
    for name in _FILES:
        if folder + name in contents.names:
            path = contents.path / folder / name
            return load_safetensors(path) if path.suffix == ".safetensors" else tensors_in(read_torch(path))
    if any(name.endswith(".index.json") for name in contents.names):
        raise UserError("its weights are in several files: save it with save_pretrained(max_shard_size='100GB')")
    raise UserError(f"it has no weights: one of {', '.join(_FILES)} is expected in {folder or 'it'}")


def _reference(table: dict[str, Any], state: dict[str, Tensor]) -> Reference:
    """diffusers' network with the file's own weights."""
    from diffusers import UNet2DModel  # type: ignore[attr-defined, unused-ignore]

    known = {name: table[name] for name in (*settings.DEFAULTS, "sample_size", "in_channels", "out_channels")
             if name in table}  # fmt: skip
    build: Any = UNet2DModel
    net: Any = build(**known)
    net.load_state_dict({names.renewed(name): value.float() for name, value in state.items()})
    net.eval()
    return lambda x, steps, classes: net(x, steps, class_labels=classes).sample
