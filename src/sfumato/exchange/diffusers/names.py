"""The weights of diffusers' UNet2DModel by our names, and back.

Both keep the published network's weights. diffusers holds the queries, keys and values of attention as three dense
layers, we as one 1x1 convolution; versions before 0.15 called them query, key, value and proj_attn.

Conditions are rows of its table of classes. Of an attribute with values they are those of its own table, "not given"
first; of a number those of its dense layer, one for each wave, its bias, and "not given". What is added to the time is
the sum of the rows times their amounts, which the pipeline file computes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sfumato.conditions.embedding import WAVES

_BLOCK = {
    "norm1": "norm_1",
    "conv1": "conv_1",
    "time_emb_proj": "project",
    "norm2": "norm_2",
    "conv2": "conv_2",
    "conv_shortcut": "shortcut",
}
_ATTENTION = {"group_norm": "norm", "to_out.0": "out"}
_WHOLE = {
    "time_embedding.linear_1": "time.first",
    "time_embedding.linear_2": "time.second",
    "conv_in": "entrance",
    "conv_norm_out": "norm",
    "conv_out": "exit",
    "class_embedding": "condition.parts.0.table",
}
_SCORE = (
    (r"^down_blocks\.(\d+)\.resnet_down\.", r"down_blocks.\1.downsamplers.0."),
    (r"^up_blocks\.(\d+)\.resnet_up\.", r"up_blocks.\1.upsamplers.0."),
)
"""Blocks that resample in a score network, by the names of those in other networks."""
_OLD = {".query": ".to_q", ".key": ".to_k", ".value": ".to_v", ".proj_attn": ".to_out.0"}


def to_ours(state: Mapping[str, Tensor], conditions: Sequence[int] = ()) -> dict[str, Tensor]:
    """Return the weights of a `UNet2DModel` by the names of `UNet`, with q, k and v joined.

    Args:
        state: the weights by its names.
        conditions: how many values each attribute has, 0 for a number; () where its classes are all that there is.

    Raises:
        KeyError: a name that such a network doesn't have.
        ValueError: its table has not the rows of these attributes.
    """
    present = {renewed(name): value for name, value in state.items()}
    ours: dict[str, Tensor] = {}
    for name, value in present.items():
        module, leaf = name.rsplit(".", 1)
        if module.endswith((".to_k", ".to_v")):
            continue
        if module.endswith(".to_q"):
            parts = [present[name.replace(".to_q.", f".to_{letter}.")] for letter in "qkv"]
            ours[f"{_place(module.removesuffix('.to_q'))}.qkv.{leaf}"] = _pointwise(torch.cat(parts))
        else:
            pointwise = module.endswith(".to_out.0")
            ours[f"{_module(module)}.{leaf}"] = _pointwise(value) if pointwise else value
    if conditions:
        table = ours.pop(f"{_WHOLE['class_embedding']}.weight")
        for index, rows in enumerate(torch.split(table, [rows_of(count) for count in conditions])):
            ours |= {f"condition.parts.{index}.{name}": value for name, value in _part(rows, conditions[index]).items()}
    return ours


def score_to_ours(state: Mapping[str, Tensor], last: int) -> dict[str, Tensor]:
    """Return the weights of an NCSN++; `last` is the index of a level's last block, which attention follows."""
    ours, rest = {"time.waves": state["time_proj.weight"]}, dict[str, Tensor]()
    for name, value in state.items():
        if found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.skip_(conv|norm)\.(\w+)", name):
            way, level, part, leaf = found.groups()
            ours[f"{'beside' if way == 'down' else 'exits'}.{level}.{part}.{leaf}"] = value
        elif name != "time_proj.weight":
            for pattern, new in _SCORE:
                name = re.sub(pattern, new, name)
            rest[re.sub(r"^(up_blocks\.\d+\.attentions)\.0\.", rf"\1.{last}.", name)] = value
    return ours | to_ours(rest)


def rows_of(count: int) -> int:
    """Return how many rows an attribute has: with `count` values, 0 for a number."""
    return count + 1 if count else 2 * WAVES + 2


def _part(rows: Tensor, count: int) -> dict[str, Tensor]:
    """The weights of an attribute's embedding from its rows."""
    if count:
        return {"table.weight": rows}
    waves = 2 * WAVES
    return {"dense.weight": rows[:waves].T.contiguous(), "dense.bias": rows[waves], "absent.weight": rows[waves + 1 :]}


def _rows(state: Mapping[str, Tensor]) -> Tensor | None:
    """The table of all attributes; None where there are none."""
    tables, index = [], 0
    while any(name.startswith(prefix := f"condition.parts.{index}.") for name in state):
        part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        number = "dense.weight" in part
        names = ("dense.weight", "dense.bias", "absent.weight") if number else ("table.weight",)
        tables += [
            part[name].T if name == "dense.weight" else part[name].reshape(-1, part[name].shape[-1]) for name in names
        ]
        index += 1
    return torch.cat(tables) if tables else None


def to_theirs(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a `UNet` by the names of `UNet2DModel`: the inverse of `to_ours`."""
    theirs: dict[str, Tensor] = {}
    block, whole = ({ours: name for name, ours in table.items()} for table in (_BLOCK, _WHOLE))
    if (rows := _rows(state)) is not None:
        theirs["class_embedding.weight"] = rows
    for name, value in state.items():
        module, leaf = name.rsplit(".", 1)
        if module.startswith("condition."):
            continue
        if module in whole:
            theirs[f"{whole[module]}.{leaf}"] = value
            continue
        place, part = module.rsplit(".", 1)
        place = _their_place(place)
        if part == "qkv":
            for letter, piece in zip(
                "qkv", value.flatten(1).chunk(3) if value.ndim > 1 else value.chunk(3), strict=True
            ):
                theirs[f"{place}.to_{letter}.{leaf}"] = piece
        elif ".attentions." in place:
            inverse = {ours: name for name, ours in _ATTENTION.items()}
            theirs[f"{place}.{inverse[part]}.{leaf}"] = value.flatten(1) if part == "out" and value.ndim > 1 else value
        else:
            theirs[f"{place}.{block.get(part, part)}.{leaf}"] = value
    return theirs


def renewed(name: str) -> str:
    """A name of an earlier version as the present one has it."""
    for old, new in _OLD.items():
        if ".attentions." in name and f"{old}." in name:
            return name.replace(f"{old}.", f"{new}.")
    return name


def _pointwise(value: Tensor) -> Tensor:
    """The weight of a dense layer as that of the 1x1 convolution which does the same; a bias as it is."""
    return value[:, :, None, None] if value.ndim == 2 else value


def _module(name: str) -> str:
    """Our name of one of their modules."""
    if name in _WHOLE:
        return _WHOLE[name]
    place, part = name.rsplit(".", 1)
    if place.endswith(".to_out"):
        place, part = place.removesuffix(".to_out"), "to_out.0"
    table = _ATTENTION if ".attentions." in place else {**_BLOCK, "conv": "conv"}
    return f"{_place(place)}.{table[part]}"


def _place(name: str) -> str:
    """Our name of one of their blocks, attentions or resamplers; both count in the order of the computation."""
    if name.startswith("mid_block."):
        _, kind, index = name.split(".")
        return "middle_attention" if kind == "attentions" else f"middle_{int(index) + 1}"
    way, level, kind, index = name.split(".")
    ours = f"{ {'down_blocks': 'down', 'up_blocks': 'up'}[way] }.{level}"
    return f"{ours}.resample" if kind in ("downsamplers", "upsamplers") else f"{ours}.{_KINDS[kind]}.{index}"


_KINDS = {"resnets": "blocks", "attentions": "attention"}


def _their_place(name: str) -> str:
    """Their name of one of our blocks, attentions or resamplers: the inverse of `_place`."""
    if name.startswith("middle_"):
        number = {"middle_1": "resnets.0", "middle_2": "resnets.1", "middle_attention": "attentions.0"}
        return f"mid_block.{number[name]}"
    way, level, *rest = name.split(".")
    if rest[0] == "resample":
        return f"{way}_blocks.{level}.{way}samplers.0"
    kind = {ours: name for name, ours in _KINDS.items()}[rest[0]]
    return f"{way}_blocks.{level}.{kind}.{rest[1]}"
