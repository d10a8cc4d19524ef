"""A model as a diffusers folder: UNet2DModel, DDPMScheduler, and the pipeline that samples with them.

    model_index.json, unet/, scheduler/         DDPMPipeline.from_pretrained(DIR)
    sfumato_pipeline.py too, where needed       DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)

`DDPMPipeline` holds a U-Net that predicts eps, x_0 or v of images whose sides need no extension. The pipeline file
(`pipeline`) adds attributes, guidance, patches, sizes that are extended, and the other parameterisations. Networks that
are no U-Net fit neither.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import UserError
from sfumato.exchange.diffusers import names, own, schedulers, settings
from sfumato.exchange.formats import Written
from sfumato.files import write_synced
from sfumato.model import Model
from sfumato.nets.unet.unet import UNet
from sfumato.weights import tensors_of


@dataclass(frozen=True)
class Diffusers:
    """The format, which has no options."""

    def write(self, model: Model, out: Path) -> Written:
        """Write the folder; raises `UserError` where UNet2DModel can't hold the network, or no pipeline the rest."""
        _check(model)
        assert isinstance(model.net, UNet)
        entries = own.entries_of(model)
        extra = {} if entries is None else entries.plain()
        for folder in (out, out / "unet", out / "scheduler"):
            folder.mkdir()
        tensors = safetensors.torch.save(tensors_of(_weights(model)), {"format": "pt"})
        write_synced(out / "unet" / "diffusion_pytorch_model.safetensors", tensors)
        _json(out / "unet" / "config.json", _network(model))
        _json(out / "scheduler" / "scheduler_config.json", schedulers.to_theirs(model.config.diffusion))
        pipeline: Any = [own.PIPELINE, own.CLASS] if extra else "DDPMPipeline"
        index = {"_class_name": pipeline, "_diffusers_version": schedulers.VERSION, **extra}
        index |= {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
        _json(out / "model_index.json", index)
        if extra:
            write_synced(out / f"{own.PIPELINE}.py", own.SOURCE.read_bytes())
        return Written(_lines(model, bool(extra)), {"pipeline": own.PIPELINE if extra else "DDPMPipeline", **extra})


FORMAT = Diffusers


def _json(path: Path, table: dict[str, Any]) -> None:
    write_synced(path, json.dumps(table, indent=2) + "\n")


def _lines(model: Model, ours: bool) -> tuple[str, ...]:
    steps = model.schedule.num_steps
    if ours:
        load = "DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)"
        return (f"{load} runs {own.PIPELINE}.py, which is in the folder",)
    return (f"DDPMPipeline.from_pretrained(DIR)(num_inference_steps={steps})",)


def _check(model: Model) -> None:
    """Refuse what neither UNet2DModel nor the pipeline file can hold."""
    held = "diffusers holds U-Nets, without labels or with attributes; --to safetensors holds any model"
    if not isinstance(model.net, UNet):
        raise UserError(f"UNet2DModel can't hold this network ({model.config.net.__class__.__name__}): {held}")
    if model.vocabulary is not None and not isinstance(model.vocabulary, AttributeVocabulary):
        raise UserError(f"the pipeline file knows attributes, and this model has other conditions: {held}")
    if model.codec.range != (-1.0, 1.0) or model.codec.shape != model.codec.image_shape:
        raise UserError(f"diffusers' pipelines sample pixels, and this model's x_0 is not pixels: {held}")


def _network(model: Model) -> dict[str, Any]:
    """The settings of UNet2DModel."""
    net: Any = model.config.net
    (channels, height, width), square = model.shape, net.patch**2
    inside = [side // net.patch for side in net.inside(height, width)]
    rows = sum(names.rows_of(len(one.values)) for one in model.attributes)
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": schedulers.VERSION,
        **settings.to_theirs(net),
        "sample_size": inside[0] if inside[0] == inside[1] else inside,
        "in_channels": channels * square,
        "out_channels": channels * square * (2 if model.config.diffusion.variance == "learned" else 1),
        "num_class_embeds": rows or None,
    }


def _weights(model: Model) -> dict[str, Tensor]:
    """The weights by their names; how an image was altered is left out, since unaltered images add nothing."""
    state = {name: value for name, value in model.net.state_dict().items() if not name.startswith("augment.")}
    return names.to_theirs(state)
