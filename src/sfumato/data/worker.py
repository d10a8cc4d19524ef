"""A process that decodes files for another one: bytes in, rows out, and nothing else.

It is started as a plain `python` with a pipe each way (`pool`), on every system alike, so it inherits no threads, no
locks and no open files, and the program that asked for it is not run again. It knows the form of the rows and gets
files; a decoder that crashes or hangs takes this process along and nothing more. What goes over the pipes:

    to the process     the form, as JSON;  then batches: a number n, and n files, each `P` + path or `B` + bytes
    from the process   `ready`;            then for each file a row or the reason why there is none (`rows`)
    on its third pipe  a byte for each file that is begun, which tells where it stood when it died

Each item is behind its length, eight bytes. Answers are sent several at once, at least every `OFTEN` seconds, since
each sending wakes the other side. The process ends when its input does, and by the system's alarm where a single file
takes it too long and nobody is left to end it.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from sfumato.data.formats.decode import read_picture
from sfumato.data.sources.files import in_memory
from sfumato.data.sources.protocol import Blob, File, Unreadable, printable
from sfumato.data.sources.rows import Form, make_row, pack_fault

__all__ = ["OFTEN", "PATIENCE", "answer", "main", "receive", "send", "send_files"]

PATIENCE = 25.0
"""Seconds that one picture may take."""
OFTEN = 0.05
"""Seconds after which answers are sent."""

_LENGTH = struct.Struct("<Q")


def answer(file: File, form: Form) -> bytes:
    """Decode one file; its row, or the reason why there is none, as `rows` packs them."""
    try:
        return make_row(read_picture(in_memory(file), form.background, native=True, opacity=form.opacity), form).pack()
    except Unreadable as fault:
        return pack_fault(fault.reason)
    except MemoryError:
        return pack_fault("it needs more memory than there is")
    except Exception as error:  # a mistake of ours, which must not cost the import; it is named with the file
        return pack_fault(f"unexpected {type(error).__name__}: {printable(str(error))[:80]}")


def send(pipe: IO[bytes], *parts: bytes) -> None:
    """Write one item, which may be in parts."""
    pipe.write(_LENGTH.pack(sum(map(len, parts))))
    for part in parts:
        pipe.write(part)


def receive(pipe: IO[bytes]) -> bytes:
    """Read one item; raises EOFError where the pipe ends."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    data = pipe.read(length := _LENGTH.unpack(head)[0])
    if len(data) < length:
        raise EOFError
    return data


def send_files(pipe: IO[bytes], files: Iterable[File]) -> None:
    """Write one batch."""
    files = list(files)
    send(pipe, str(len(files)).encode())
    for file in files:
        if isinstance(file, Blob):
            send(pipe, b"B", file.data)
        else:
            send(pipe, b"P", os.fsencode(file))
    pipe.flush()


def _file(item: bytes) -> File:
    """The file that an item stands for."""
    return Blob(item[1:]) if item[:1] == b"B" else Path(os.fsdecode(item[1:]))


def _form(item: bytes) -> Form:
    """The form that JSON stands for."""
    table: dict[str, Any] = json.loads(item)
    return Form(**table | {"size": tuple(table["size"])})


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that asks decides
    alarm = getattr(signal, "alarm", lambda seconds: 0)
    source, sink, ticks = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", 2**18), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a library prints must not get among the answers
    os.dup2(nowhere, 2)
    send(sink, b"ready")
    sink.flush()
    try:
        form = _form(receive(source))
        while True:
            sent = time.monotonic()
            for item in [receive(source) for _ in range(int(receive(source)))]:
                alarm(int(2 * PATIENCE))
                os.write(ticks, b".")
                send(sink, answer(_file(item), form))
                if time.monotonic() - sent > OFTEN:
                    sink.flush()
                    sent = time.monotonic()
            alarm(0)
            sink.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # without closing `sink`, whose reader may be gone
