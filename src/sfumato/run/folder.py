"""The run folder: the one thing that the verbs share.

    RUN/
      config.toml          the configuration, every value
      environment.json     Python, torch, machine, threads: what else the result may depend on
      plan.json            the planned length, and the speed that it was planned from
      events.jsonl         what happened, one JSON object a line
      checkpoints/IMAGES/  everything that resuming needs, the newest two
      weights/             ema.safetensors and raw.safetensors, each enough to sample from
      samples/IMAGES.png   grids of the same seeds through training
      finished.json        written last

Nothing is written in place. A file appears under its name only when all of it is on the disk: written beside it,
flushed, renamed, and the folder flushed too, since a rename lives in the folder.

A lock keeps two trainers out of one folder. The kernel holds it (`flock`) and lets go when the process ends, however it
ends, so there is no stale lock to clear away; the file's text says who holds it, for the message.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.errors import UserError
from sfumato.files import write_atomic

if TYPE_CHECKING:
    from sfumato.config.config import Config

try:
    import fcntl
except ImportError:  # a system without flock: nothing keeps a second trainer out
    fcntl = None  # type: ignore[assignment]

__all__ = ["Run", "environment"]

# What may lie in a folder where a run was about to be started when it was cut off: config.toml is written last.
_EARLY = {"lock", "environment.json", "plan.json"}
_PACKAGES = ("sfumato", "torch", "numpy", "pillow", "safetensors")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Return what a result may depend on besides its configuration: software, machine, threads."""
    import torch

    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _empty(folder: Path) -> bool:
    return all(entry.name in _EARLY or entry.name.startswith(".") for entry in folder.iterdir())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name; Linux alone hides it in a file."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Run:
    """A run folder by its path; the folder need not exist yet.

    Attributes:
        path: the folder.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def config_path(self) -> Path:
        """The configuration."""
        return self.path / "config.toml"

    @property
    def environment_path(self) -> Path:
        """Software and machine of the last session."""
        return self.path / "environment.json"

    @property
    def plan_path(self) -> Path:
        """The planned length."""
        return self.path / "plan.json"

    @property
    def events_path(self) -> Path:
        """What happened, line by line."""
        return self.path / "events.jsonl"

    @property
    def finished_path(self) -> Path:
        """Written when the planned length is reached."""
        return self.path / "finished.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, each a folder named by its images."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The folder of weights: ema.safetensors, raw.safetensors."""
        return self.path / "weights"

    @property
    def samples(self) -> Path:
        """The folder of sample grids."""
        return self.path / "samples"

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_path.exists()

    def config(self) -> Config:
        """Return the run's configuration.

        Raises:
            UserError: no run here, or its configuration can't be read.
        """
        from sfumato.config.config import from_dict, read_toml

        if not self.exists():
            raise UserError(f"{self.path} is not a run folder: it has no config.toml")
        try:
            return from_dict(read_toml(self.config_path))
        except UserError as error:
            raise UserError(f"{self.config_path}: {error}") from None

    def read(self, path: Path) -> dict[str, Any] | None:
        """Return one of the run's JSON objects, or None where it is missing or damaged."""
        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def write(self, path: Path, value: dict[str, Any]) -> None:
        """Write one of the run's JSON objects, whole or not at all."""
        write_atomic(path, json.dumps(value, indent=2) + "\n")

    def sweep(self) -> None:
        """Remove what was left half written when a process was killed; only for who holds the lock."""
        for folder in (self.path, self.weights, self.samples):
            for part in folder.glob(".*.part"):
                with suppress(OSError):
                    part.unlink()

    def check_place(self, source: str) -> None:
        """Refuse a run folder that would become part of its own training data, or that holds something else.

        Args:
            source: `Dataset.source_name`: a built-in name or an absolute path.

        Raises:
            UserError: the folder lies inside the data's, is a file, or holds files but no run.
        """
        data = Path(source)
        if data.is_absolute() and data.is_dir() and self.path.resolve().is_relative_to(data.resolve()):
            raise UserError(f"the run folder {self.path} lies inside the data {data}: give --run a place outside it")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: give --run a folder")
        if self.path.is_dir() and not self.exists() and not _empty(self.path):
            raise UserError(f"{self.path} holds files, but no run: give --run a new or an empty folder")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run folder's lock, making the folder where there is none.

        Raises:
            UserError: another process holds it, or the folder can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{self.path} can't be written: {error.strerror}; give --run another folder") from None
        try:
            self._acquire(handle)
            yield
        finally:
            os.close(handle)  # which also lets go of the lock

    def _acquire(self, handle: int) -> None:
        """Take the lock or say who has it."""
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            raise UserError(f"{self.path} is being trained by {holder}: wait for it, or give --run a new one") from None
        except OSError as error:  # such as a network file system without locks
            warnings.warn(f"{self.path} can't be locked ({error.strerror}): start no second trainer here", stacklevel=2)
        with suppress(OSError):
            os.ftruncate(handle, 0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode(), 0)
