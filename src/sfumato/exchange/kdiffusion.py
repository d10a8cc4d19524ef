"""Slim checkpoints of k-diffusion: safetensors with the training's configuration, as `convert_for_inference.py` writes.

Read is `image_transformer_v2`, the hourglass transformer, with or without classes. Its preconditioning is EDM's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.config.config import Config
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.train import TrainConfig
from sfumato.errors import UserError
from sfumato.exchange.imports import Contents, Imported, Reference, classes, unscaled, with_absent
from sfumato.nets.hourglass import HourglassConfig
from sfumato.nets.preconditioned import PreconditionedConfig

_KINDS = {"global": "global", "neighborhood": "neighborhood", "shifted-window": "window", "none": "none"}
_NAMES = (
    (r"^patch_in\.proj\.", "entrance."), (r"^patch_out\.proj\.", "exit."), (r"^out_norm\.", "norm."),
    (r"^time_in_proj\.", "time.proj."), (r"\.norm\.linear\.", ".norm."), (r"\.pos_emb\.freqs$", ".freqs"),
    (r"^(merges|splits)\.(\d+)\.proj\.", r"\1.\2."),
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """The reader of slim checkpoints.

    Attributes:
        steps: of the chain between the configuration's sigma_min and sigma_max.
    """

    steps: int = 1000

    @staticmethod
    def recognises(contents: Contents) -> bool:
        """Safetensors with a configuration that has a model's type."""
        try:
            return "type" in json.loads(contents.metadata.get("config", "{}")).get("model", {})
        except (AttributeError, TypeError, ValueError, RecursionError):
            return False

    def read(self, contents: Contents) -> Imported:
        """Read it; see `imports.Reader`."""
        table = json.loads(contents.metadata.get("config", "null"))
        if not isinstance(table, dict):
            raise UserError("it has no configuration: write it with convert_for_inference.py")
        model, count = table["model"], int(table.get("dataset", {}).get("num_classes", 0))
        if model["type"] != "image_transformer_v2":
            raise UserError(
                f"its network is an {str(model['type'])[:40]}: only image_transformer_v2 is read, of "
                "which alone k-diffusion's manual speaks; no weights of the others were published"
            )
        if model.get("mapping_cond_dim"):
            raise UserError("its network has other conditions than classes (mapping_cond_dim), which are not read")
        height, width = (int(side) for side in model["input_size"])
        inner = _network(model)
        least, most = float(model.get("sigma_min", 0.002)), float(model.get("sigma_max", 80.0))
        net = PreconditionedConfig(inner, float(model.get("sigma_data", 1.0)), 0.25, least, most, self.steps)
        state = {name.removeprefix("inner_model."): value.float() for name, value in contents.tree.items()}
        dropped = float(table.get("dataset", {}).get("cond_dropout_rate", 0.1))
        return Imported(
            Config(net=net, diffusion=DiffusionConfig(schedule=net.chain, parameterization="x0", loss_space="v"),
                   train=TrainConfig(label_dropout=dropped) if count else TrainConfig()),
            (int(model["input_channels"]), height, width),
            {f"inner.{name}": value for name, value in _ours(state).items()}, classes(count),
            notes=(f"sampled from a noise of {most:g} down to {least:g}",),
            reference=lambda: _reference(table, dict(contents.tree), net), library="k-diffusion",
        )  # fmt: skip


READER = Reader


def _reference(table: dict[str, Any], state: dict[str, Tensor], config: PreconditionedConfig) -> Reference:
    """The installed k-diffusion's denoiser with the file's own weights."""
    import k_diffusion  # type: ignore[import-not-found, unused-ignore]

    whole = k_diffusion.config.load_config(table)
    net: Any = k_diffusion.config.make_denoiser_wrapper(whole)(k_diffusion.config.make_model(whole))
    net.inner_model.load_state_dict({name.removeprefix("inner_model."): value.float() for name, value in state.items()})
    net.eval()

    def image(x: Tensor, steps: Tensor, rows: Tensor | None) -> Tensor:
        y, sigma = unscaled(config.chain, x, steps)
        return net(y, sigma, **({} if rows is None else {"class_cond": rows[:, 0].long()}))  # type: ignore[no-any-return]

    return image


def _network(model: Mapping[str, Any]) -> HourglassConfig:
    """The configuration of the network, with k-diffusion's defaults."""
    widths = [int(width) for width in model["widths"]]
    near, every = {"type": "neighborhood"}, {"type": "global"}
    specs = model.get("self_attns") or [near] * (len(widths) - 1) + [every]
    patch = model.get("patch_size", 1)
    sides = set(patch) if isinstance(patch, list) else {patch}
    if len(sides) != 1:
        raise UserError(f"patch_size = {patch}: only squares are read")
    rates = model.get("dropout_rate") or 0.0
    mapping = int(model.get("mapping_width", 256))
    return HourglassConfig(
        widths=tuple(widths), depths=tuple(int(depth) for depth in model["depths"]),
        feed=tuple(int(n) for n in model.get("d_ffs") or [3 * width for width in widths]),
        attention=tuple(_KINDS[spec["type"]] for spec in specs),
        reach=tuple(int(spec.get("kernel_size", 7) if spec["type"] == "neighborhood" else spec.get("window_size", 0))
                    for spec in specs),
        head_width=tuple(int(spec.get("d_head", 64)) for spec in specs), patch=int(sides.pop()), mapping=mapping,
        mapping_depth=int(model.get("mapping_depth", 2)), mapping_feed=int(model.get("mapping_d_ff") or 3 * mapping),
        dropout=float(max(rates) if isinstance(rates, list) else rates), time_factor=1.0,
    )  # fmt: skip


def _ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by our names.

    Alterations of images are left out: unaltered, their waves are cosines of 0, whose image is a constant. The row of
    classes for "not given" is their last.
    """
    waves, table = state.pop("time_emb.weight"), state.pop("class_emb.weight", None)
    unaltered = state.pop("aug_in_proj.weight")[:, : waves.shape[0]].sum(1)
    state.pop("aug_emb.weight", None)
    fractions = [state.pop(name) for name in sorted(state, key=_number) if re.fullmatch(r"splits\.\d+\.fac", name)]
    ours = {}
    for name, value in state.items():
        for pattern, new in _NAMES:
            name = re.sub(pattern, new, name)
        ours[name] = value
    ours |= {"time.waves": waves[:, 0], "time.proj.bias": unaltered}
    if fractions:
        ours["fractions"] = torch.cat(fractions)
    if table is not None:
        ours["condition.parts.0.table.weight"] = with_absent(table[:-1], table[-1])
    return ours


def _number(name: str) -> tuple[str, int]:
    """Names in the order of their first number."""
    found = re.search(r"\d+", name)
    return name.partition(".")[0], int(found[0]) if found else 0
