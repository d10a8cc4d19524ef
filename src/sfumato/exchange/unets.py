"""U-Nets whose weights are named by place and part, by the names of ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def renamed(state: Mapping[str, Tensor], places: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, Tensor]:
    """Return weights by our names.

    Args:
        state: by `PLACE.PART.LEAF` or `PLACE.LEAF`, such as `input_blocks.1.0.in_layers.0.weight`.
        places: their places and ours; a longer one is found before a shorter one.
        parts: what blocks and attentions consist of, theirs and ours.

    Raises:
        KeyError: a name that is not among them.
    """
    ours = {}
    for name, value in state.items():
        module, leaf = name.rsplit(".", 1)
        place, part = module, ""
        while place not in places:
            place, dot, end = place.rpartition(".")
            if not dot:
                raise KeyError(name)
            part = f"{end}.{part}" if part else end
        new = f"{places[place]}.{parts[part]}" if part else places[place]
        ours[f"{new}.{leaf}"] = value
    return ours


def heads_inside(value: Tensor, heads: int, order: str) -> Tensor:
    """Return the weight or bias of queries, keys and values, 3 C numbers a row, with all queries first; the order of
    their rows is `head` (H, 3, d) or `channel` (H, d, 3)."""
    rows, rest = value.flatten(1) if value.ndim > 1 else value[:, None], value.shape[1:]
    shape = (heads, 3, len(value) // (3 * heads)) if order == "head" else (heads, len(value) // (3 * heads), 3)
    split = rows.reshape(*shape, rows.shape[1])
    axes = (1, 0, 2, 3) if order == "head" else (2, 0, 1, 3)
    return split.permute(*axes).reshape(value.shape[0], *rest)


def pointwise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with those of attention's dense or 1-d layers as 1x1 convolutions."""
    return {
        name: value.reshape(*value.shape[:2], 1, 1)
        if name.endswith((".qkv.weight", ".out.weight")) and "attention" in name
        else value
        for name, value in state.items()
    }
