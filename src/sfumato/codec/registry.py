"""Every codec by the name that `config.codec.kind` gives it."""

from __future__ import annotations

from sfumato.codec.pixels import PixelsConfig
from sfumato.codec.protocol import CodecConfig

CODECS: dict[str, type[CodecConfig]] = {"pixels": PixelsConfig}
