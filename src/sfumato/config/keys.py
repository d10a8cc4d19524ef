"""Keys of the configuration as the command line says them: `data.labels=source` as `--labels source`."""

from __future__ import annotations

import re
from dataclasses import fields

SHORT = {"lr": "optim.lr", "batch": "train.batch", "size": "data.size", "labels": "data.labels"}
"""The dotted options that are given most often, by the short names that they have in verbs with such options."""

_BRANCHES = "data|net|diffusion|optim|ema|train|augment|codec"
_SET = re.compile(rf"(?<![\w./=-])((?:{_BRANCHES})(?:\.[a-z_]\w*)+)=([^\s;:)]*[^\s;:),.'])")
_BARE = re.compile(rf"(?<![\w./='\"-])((?:{_BRANCHES})\.[a-z_]\w*)(?![\w.=(])(?! \S+ ->)")


def typed(text: str, bare: bool = False) -> str:
    """Return a text of the library with its keys as options: `data.labels=source` as `--labels source`,
    `net.dropout=0.1` as `--net.dropout 0.1`.

    Args:
        bare: whether keys without a value become options too; a file may be called `data.csv`, so only those that are
            keys.
    """

    def option(key: str) -> str:
        return next((f"--{short}" for short, long in SHORT.items() if long == key), f"--{key}")

    text = _SET.sub(lambda match: f"{option(match[1])} {match[2]}", text)
    if not bare or not _BARE.search(text):
        return text
    from sfumato.config.data import DataConfig

    keys = {*SHORT.values(), *(f"data.{field.name}" for field in fields(DataConfig))}
    return _BARE.sub(lambda match: option(match[1]) if match[1] in keys else match[0], text)
