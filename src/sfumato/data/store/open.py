"""Every image decoded once: the store of a source, CACHE/store/SLOT/KEY/, opened, and built where there is none.

SLOT is a hash of the request (source, size, channels, depth, ..., the version of the rules) and KEY of the source's
contents (`Source.key`). So a changed folder gets a new store and its old one is removed, while stores of two sizes of
one folder exist side by side. CACHE is the `cache` argument, else $SFUMATO_CACHE, else $XDG_CACHE_HOME/sfumato, else
~/.cache/sfumato.

A store is built under a temporary name, flushed to the disk, and renamed: it exists whole or not at all. When two
processes build the same store, the one that finishes second discards its own.

A store keeps the source's own labels. A file of labels is read separately (`labels`), so that editing it decodes
nothing again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from sfumato.config.data import DataConfig
from sfumato.data.sources.protocol import Source, captioned
from sfumato.data.store.build import Progress, build
from sfumato.data.store.format import RULES, Stored, load
from sfumato.errors import UserError


def cache_folder(cache: Path | None = None) -> Path:
    """Return the folder for caches: the argument, $SFUMATO_CACHE, or the user's own cache folder."""
    if cache is not None:
        return cache
    if folder := os.environ.get("SFUMATO_CACHE"):
        return Path(folder)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base, "sfumato")
    return Path(os.path.expanduser("~"), ".cache", "sfumato")


def open_store(
    source: Source, config: DataConfig, cache: Path | None = None, on_progress: Progress | None = None
) -> Stored:
    """Open the store of a source, and build it where there is none for the state that the source is in.

    Of the configuration all that changes pixels matters here: not the labels, the split, flips, a range without clamps.

    Raises:
        UserError: no picture is readable, or the cache can't be written.
    """
    rule = [RULES, source.name, config.size, config.channels, config.background, config.kind, config.crop]
    rule += [config.resample, config.nodata, config.percentiles, config.range if config.clamp else None]
    rule += ["captions"] * captioned(source)  # older stores have no captions
    entry = cache_folder(cache) / "store" / _short_hash(json.dumps(rule)) / _short_hash(source.key())
    try:
        for _ in range(3):  # again where another process removes the finished store
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
