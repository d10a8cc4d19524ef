"""TensorBoard: an event file in RUN/tensorboard, `tensorboard --logdir RUN`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sfumato.run.folder import Run


class TensorBoard:
    """Writes one more event file a session; points after the images that it resumes at are marked as void."""

    def __init__(self, run: Run, config: Mapping[str, Any], resumed_at: int) -> None:
        self._writer = EventFileWriter(str(run.path / "tensorboard"))
        voided = resumed_at + 1 if resumed_at else 0  # from here on what was written before
        self._add(Event(session_log=SessionLog(status=SessionLog.START)), voided)
        if resumed_at == 0:
            self.text("config", f"```json\n{json.dumps(config, indent=1)}\n```", 0)

    def _add(self, event: Event, images: int) -> None:
        event.step, event.wall_time = images, time.time()
        self._writer.add_event(event)

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Add a scalar for each."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._add(Event(summary=summary), images)

    def picture(self, name: str, file: Path, images: int) -> None:
        """Add the file as it is."""
        content = file.read_bytes()
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))  # of a PNG's first chunk
        image = Summary.Image(encoded_image_string=content, width=width, height=height, colorspace=3)
        self._add(Event(summary=Summary(value=[Summary.Value(tag=name, image=image)])), images)

    def text(self, name: str, text: str, images: int) -> None:
        """Add the text, which TensorBoard shows as Markdown."""
        tensor = TensorProto(
            dtype=DT_STRING,
            string_val=[text.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = create_summary_metadata(display_name=name, description="")
        value = Summary.Value(tag=f"{name}/text_summary", metadata=metadata, tensor=tensor)
        self._add(Event(summary=Summary(value=[value])), images)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()
