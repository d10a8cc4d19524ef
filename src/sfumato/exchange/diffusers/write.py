"""A model as a diffusers folder: UNet2DModel, DDPMScheduler, and the pipeline that samples with them.

    model_index.json, unet/, scheduler/         DDPMPipeline.from_pretrained(DIR)
    sfumato_pipeline.py too, where needed       DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)

`DDPMPipeline` holds a U-Net that predicts eps, x_0 or v of images whose sides need no extension. The pipeline file
(`pipeline`) adds labels, guidance, patches, sizes that are extended, and the other parameterisations. Several
attributes, and networks that are no U-Net, fit neither.

The scheduler computes its levels from betas in float32: abar_t = prod (1 - beta_s). The betas written here are chosen
one after the other, each so that the product so far is nearest to ours, so that their roundings do not add up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.diffusion import Schedule
from sfumato.errors import UserError
from sfumato.exchange.diffusers import names, settings
from sfumato.exchange.formats import Written
from sfumato.files import write_synced
from sfumato.model import Model
from sfumato.nets.unet.unet import UNet
from sfumato.weights import tensors_of

VERSION = "0.35.0"
"""The version of diffusers whose settings are written."""
PIPELINE = "sfumato_pipeline"
_PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
_VARIANCES = {"small": "fixed_small", "large": "fixed_large", "fixedlarge": "fixed_large", "learned": "learned_range"}


@dataclass(frozen=True)
class Diffusers:
    """The format, which has no options."""

    def write(self, model: Model, out: Path) -> Written:
        """Write the folder; raises `UserError` where UNet2DModel can't hold the network, or no pipeline the rest."""
        _check(model)
        assert isinstance(model.net, UNet)
        extra = _extra(model)
        for folder in (out, out / "unet", out / "scheduler"):
            folder.mkdir()
        tensors = safetensors.torch.save(tensors_of(_weights(model)), {"format": "pt"})
        write_synced(out / "unet" / "diffusion_pytorch_model.safetensors", tensors)
        _json(out / "unet" / "config.json", _network(model))
        _json(out / "scheduler" / "scheduler_config.json", scheduler(model))
        pipeline: Any = [PIPELINE, "SfumatoPipeline"] if extra else "DDPMPipeline"
        index = {"_class_name": pipeline, "_diffusers_version": VERSION, **extra}
        index |= {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
        _json(out / "model_index.json", index)
        if extra:
            source = Path(__file__).with_name("pipeline.py").read_text(encoding="utf-8")
            write_synced(out / f"{PIPELINE}.py", source)
        return Written(_lines(model, bool(extra)), {"pipeline": PIPELINE if extra else "DDPMPipeline", **extra})


FORMAT = Diffusers


def _json(path: Path, table: dict[str, Any]) -> None:
    write_synced(path, json.dumps(table, indent=2) + "\n")


def _lines(model: Model, ours: bool) -> tuple[str, ...]:
    steps = model.schedule.num_steps
    if ours:
        load = "DiffusionPipeline.from_pretrained(DIR, trust_remote_code=True)"
        return (f"{load} runs {PIPELINE}.py, which is in the folder",)
    return (f"DDPMPipeline.from_pretrained(DIR)(num_inference_steps={steps})",)


def _check(model: Model) -> None:
    """Refuse what neither UNet2DModel nor the pipeline file can hold."""
    held = (
        "diffusers holds U-Nets, without labels or with one attribute of named values; --to safetensors holds any model"
    )
    if not isinstance(model.net, UNet):
        raise UserError(f"UNet2DModel can't hold this network ({model.config.net.__class__.__name__}): {held}")
    vocabulary = model.vocabulary
    if vocabulary is not None:
        one = isinstance(vocabulary, AttributeVocabulary) and len(vocabulary.attributes) == 1
        if not (one and model.attributes[0].values):
            raise UserError(f"UNet2DModel has one table of labels, and this model has other conditions: {held}")
    if model.codec.range != (-1.0, 1.0) or model.codec.shape != model.codec.image_shape:
        raise UserError(f"diffusers' pipelines sample pixels, and this model's x_0 is not pixels: {held}")


def _extra(model: Model) -> dict[str, Any]:
    """The settings of the pipeline file; empty where `DDPMPipeline` is enough."""
    config, (_, height, width) = model.config, model.shape
    net: Any = config.net
    predicts = config.diffusion.parameterization
    scale = getattr(net, "time_scale", 1.0)
    needed = (
        predicts not in _PREDICTIONS, net.patch > 1, scale != 1, model.vocabulary is not None,
        net.inside(height, width) != (height, width),
    )  # fmt: skip
    if not any(needed):
        return {}
    labels = None if model.vocabulary is None else list(model.attributes[0].values)
    return {
        "size": [height, width],
        "patch": net.patch,
        "multiple": net.multiple,
        "predicts": predicts,
        "time_scale": scale,
        "labels": labels,
        "needs_label": labels is not None and config.train.label_dropout == 0,
    }


def _network(model: Model) -> dict[str, Any]:
    """The settings of UNet2DModel."""
    net: Any = model.config.net
    (channels, height, width), square = model.shape, net.patch**2
    inside = [side // net.patch for side in net.inside(height, width)]
    classes = len(model.attributes[0].values) + 1 if model.vocabulary is not None else None
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        **settings.to_theirs(net),
        "sample_size": inside[0] if inside[0] == inside[1] else inside,
        "in_channels": channels * square,
        "out_channels": channels * square * (2 if model.config.diffusion.variance == "learned" else 1),
        "num_class_embeds": classes,
    }


def _weights(model: Model) -> dict[str, Tensor]:
    """The weights by their names; how an image was altered is left out, since unaltered images add nothing."""
    state = {name: value for name, value in model.net.state_dict().items() if not name.startswith("augment.")}
    return names.to_theirs(state)


def scheduler(model: Model) -> dict[str, Any]:
    """Return the settings of DDPMScheduler for a model's chain, with what the pipeline file hands to it."""
    config = model.config.diffusion
    return {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": model.schedule.num_steps,
        "trained_betas": betas(model.schedule),
        "prediction_type": _PREDICTIONS.get(config.parameterization, "sample"),
        "variance_type": _VARIANCES[config.variance],
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "timestep_spacing": "trailing",
    }


def betas(schedule: Schedule) -> list[float]:
    """Return betas in float32 whose running products of 1 - beta are nearest to abar of the schedule's steps."""
    steps = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64) / schedule.num_steps
    chosen, product = [], 1.0
    for abar in schedule(steps).abar.tolist():
        beta = torch.tensor(1 - abar / product, dtype=torch.float64).float()
        product *= float(1 - beta)  # in float32, as the scheduler subtracts
        chosen.append(float(beta))
    return chosen
