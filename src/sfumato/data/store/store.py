"""Every image decoded once: the store is a memory map of the values and an index, in a cache folder.

    CACHE/store/SLOT/KEY/    `stored` says what is in it, `build` how it comes there

SLOT is a hash of what was asked (which source, size, channels, depth, ..., the version of the decode rules) and KEY of
the state that the source was in (`Source.key`), so a changed folder makes a new store and its old one is removed, while
two sizes of one folder live side by side. CACHE is the `cache` argument, else $SFUMATO_CACHE, else
$XDG_CACHE_HOME/sfumato, else ~/.cache/sfumato.

A store is built beside its place under a temporary name, written to disk, and renamed: it is there whole or not at all.
A killed build leaves a temporary folder, with which the next build goes on. When two processes build the same store,
the one that is done second throws its own away.

What is kept of labels is what the source itself carries. A file of labels is read beside the store (`labels`), so that
an edited label decodes nothing anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from sfumato.config.data import DataConfig
from sfumato.data.sources.protocol import Source
from sfumato.data.store.build import ABANDONED, SIDES, Progress, build, choose_size
from sfumato.data.store.stored import Stored, load
from sfumato.errors import UserError

__all__ = ["ABANDONED", "SIDES", "Progress", "Stored", "cache_folder", "choose_size", "open_store"]

RULES = 4
"""The version of the rules in `decode` and of this layout: a change makes every store anew."""


def cache_folder(cache: Path | None = None) -> Path:
    """Return the folder for caches: the argument, $SFUMATO_CACHE, or the user's own cache folder."""
    if cache is not None:
        return cache
    if given := os.environ.get("SFUMATO_CACHE"):
        return Path(given)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base, "sfumato")
    return Path(os.path.expanduser("~"), ".cache", "sfumato")


def open_store(
    source: Source, config: DataConfig, cache: Path | None = None, on_progress: Progress | None = None
) -> Stored:
    """Open the store of a source, building it where there is none for the state that the source is in.

    Args:
        source: the pictures.
        config: size, crop, channels, depth and background; nothing else of it matters here.
        cache: the cache folder; None is the default one.
        on_progress: called with (pictures done, pictures in all) while a store is built.

    Returns:
        The store; its rows are in the source's order.

    Raises:
        UserError: no picture is readable, or the cache can't be written.
    """
    rule = [RULES, source.name, config.size, config.channels, config.background, config.depth, config.crop]
    entry = cache_folder(cache) / "store" / _short_hash(json.dumps(rule)) / _short_hash(source.key())
    try:
        for _ in range(3):  # once more where another process removes the store just when it is done
            stored = load(entry)
            if stored is not None:
                return stored
            build(source, config, entry, on_progress or (lambda done, total: None))
    except OSError as error:
        raise UserError(
            f"the image cache '{cache_folder(cache)}' cannot be used: {error.strerror or error}; "
            "set SFUMATO_CACHE to a folder that can be written and has room"
        ) from error
    raise UserError(f"the image cache '{entry}' cannot be read back: remove it and try again")


def _short_hash(text: str) -> str:
    """The first 20 hexadecimal digits of a text's SHA-256: a folder's name."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]
