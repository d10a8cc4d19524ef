"""The run folder, which all verbs share. The names of its files are defined here.

    RUN/
      config.toml          the configuration, every value
      environment.json     Python, torch, machine, threads: the result may depend on them too
      lineage.json         the run or the weights that it was begun with, where it was
      plan.json            the planned length, and the speed that it was planned from
      events.jsonl         what happened, one JSON object a line
      checkpoints/IMAGES/  everything that resuming needs, the newest two and those that train.keep names
      weights/             ema.safetensors, raw.safetensors and best.safetensors, each enough to sample from
      averages/            snapshots from which `sfumato ema` computes averages, with ema.snapshots
      samples/IMAGES.png   grids of the same seed through training (IMAGES-raw.png: of the raw weights)
      evaluation/          results of `sfumato evaluate`, and their intermediate results
      finished.json        written last
      sinks.json           the names under which other tools know the run, with train.log
      lock                 held while a process trains here
      sample-now, save-now files that a user makes to ask for a grid or a checkpoint (`train.requests`)

Nothing is written in place, see `sfumato.files`. The lock keeps two trainers out of one folder.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.errors import UserError, similar
from sfumato.files import MEGABYTE, Lock, read_regular, write_atomic
from sfumato.plugins import missing

if TYPE_CHECKING:
    from sfumato.config.config import Config

WEIGHTS = ("ema", "raw", "best")
"""The weights files of a run: the average, the weights as trained, the average where the held-out loss was lowest."""
_PACKAGES = ("sfumato", "torch", "numpy", "pillow", "safetensors")


class _Name:
    """A file or folder of a run: `run.config_path` is its path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: Run, owner: type[Run]) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class Run:
    """A run folder, which need not exist yet. The module's docstring lists its files."""

    path: Path
    config_path = _Name("config.toml")
    environment_path = _Name("environment.json")
    plan_path = _Name("plan.json")
    events_path = _Name("events.jsonl")
    finished_path = _Name("finished.json")
    lock_path = _Name("lock")
    sinks_path = _Name("sinks.json")
    lineage_path = _Name("lineage.json")
    sample_now_path = _Name("sample-now")
    save_now_path = _Name("save-now")
    checkpoints = _Name("checkpoints")
    weights = _Name("weights")
    samples = _Name("samples")
    evaluation = _Name("evaluation")
    averages = _Name("averages")

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    def checkpoint(self, images: int) -> Path:
        """Return the folder of the checkpoint made when so many images had been seen."""
        return self.checkpoints / f"{images:012d}"

    def list_checkpoints(self) -> list[Path]:
        """Return the folders that are named as checkpoints are, the newest first; others are not ours."""
        if not self.checkpoints.is_dir():
            return []
        digits = (p for p in self.checkpoints.iterdir() if p.name.isascii() and p.name.isdigit() and p.is_dir())
        ours = [path for path in digits if path.name == self.checkpoint(int(path.name)).name]
        return sorted(ours, key=lambda path: int(path.name), reverse=True)

    def weights_file(self, kind: str = "ema") -> Path:
        """Return the file of one of the `WEIGHTS`."""
        return self.weights / f"{kind}.safetensors"

    def grid(self, images: int, kind: str = "ema") -> Path:
        """Return the file of the sample grid of a kind of weights when so many images had been seen."""
        return self.samples / f"{images:012d}{'' if kind == 'ema' else f'-{kind}'}.png"

    def list_grids(self, kind: str = "ema") -> list[Path]:
        """Return the files of the sample grids of a kind, the oldest first."""
        suffix = self.grid(0, kind).name[12:]
        return sorted(p for p in self.samples.glob(f"*{suffix}") if p.name.removesuffix(suffix).isdecimal())

    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.config_path.exists()

    def has_results(self) -> bool:
        """Whether a training left weights here that a new beginning would overwrite; before its first checkpoint a
        training has no more than the best weights and a log."""
        best = self.weights_file("best").exists() and not self.events_path.exists()
        return best or any(self.weights_file(kind).exists() for kind in ("ema", "raw"))

    def config_table(self) -> dict[str, Any]:
        """Return the configuration as plain tables, without torch; raises `UserError` where it can't be read."""
        if not self.exists():
            hint = similar(self.path, lambda path: Run(path).exists())
            raise UserError(f"{self.path} is not a run folder: it has no config.toml{hint}")
        try:
            return tomllib.loads(read_regular(self.config_path, MEGABYTE).decode("utf-8"))
        except OSError as error:
            raise UserError(f"{self.config_path} can't be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.config_path} can't be read: {error}") from None

    def config(self) -> Config:
        """Return the configuration; raises `UserError` where it can't be read or is not valid."""
        from sfumato.config.config import from_stored

        table = self.config_table()
        try:
            return from_stored(table)
        except UserError as error:
            needed = missing((self.read(self.environment_path) or {}).get("plugins"))
            raise UserError(f"{self.config_path}: {error}{needed}") from None

    def read(self, path: Path) -> dict[str, Any] | None:
        """Return one of the run's JSON objects; None where it is missing, damaged or over a megabyte."""
        try:
            value = json.loads(read_regular(path, MEGABYTE))
        except (OSError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def write(self, path: Path, value: dict[str, Any]) -> None:
        """Write one of the run's JSON objects, whole or not at all."""
        write_atomic(path, json.dumps(value, indent=2) + "\n", parents=False)

    def sweep(self) -> None:
        """Remove half-written files of a process that was killed; the caller holds the lock."""
        for folder in (self.path, self.weights, self.samples, self.averages):
            for part in folder.glob(".*.part"):
                with suppress(OSError):
                    part.unlink()

    def check_path(self, source: str) -> None:
        """Raise `UserError` where the folder lies inside the data's (`Dataset.source_name`: a built-in name or an
        absolute path), is a file, or holds files but no run."""
        data = Path(source)
        if data.is_absolute() and data.is_dir() and self.path.resolve().is_relative_to(data.resolve()):
            raise UserError(f"the run folder {self.path} lies inside the data {data}: choose a --run folder outside it")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: choose a folder for --run")
        if self.path.is_dir() and not self.exists() and not self._is_empty():
            if self.list_checkpoints():
                raise UserError(
                    f"{self.path} holds checkpoints, but no config.toml: put it back, or choose a new --run"
                )
            raise UserError(f"{self.path} holds files, but no run: choose a new or an empty --run folder")

    def _is_empty(self) -> bool:
        """Whether the folder is empty, apart from the files of an interrupted start."""
        early = {path.name for path in (self.lock_path, self.environment_path, self.plan_path, self.lineage_path)}
        return all(entry.name in early or entry.name.startswith(".") for entry in self.path.iterdir())

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        """Hold the run folder's lock, and yield it; the folder is created if missing.

        Raises `UserError` where another process trains here, or the folder can't be written.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(Lock(self.lock_path))
            except OSError as error:
                raise UserError(f"{self.path} can't be written ({error.strerror}): choose another --run") from None
            if not lock.held:
                holder = lock.holder or "another process"
                if holder.startswith(f"process {os.getpid()} on {socket.gethostname()}"):
                    raise UserError(
                        f"{self.path} is being trained by this very process: close the earlier generator of train()"
                    )
                raise UserError(f"{self.path} is being trained by {holder}: wait for it, or choose another --run")
            stack.callback(self._remove_unused, missing)
            if not lock.enforced:
                warnings.warn(
                    f"{self.path} can't be locked here: start no second training in this folder meanwhile", stacklevel=3
                )
            yield lock

    def _remove_unused(self, folders: list[Path]) -> None:
        """Remove the lock, and the folders that were made for it, the innermost first, where no run began."""
        with suppress(OSError):
            if [entry.name for entry in self.path.iterdir()] == [self.lock_path.name]:
                self.lock_path.unlink()
                for folder in folders:
                    folder.rmdir()


def environment(device: str = "cpu") -> dict[str, Any]:
    """Return what a result depends on besides its configuration: software, machine, threads."""
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
        "folder": str(Path.cwd()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name; on Linux only a file has it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def changed_machine(run: Run, device: str) -> str:
    """Say which of threads and device differ from when a run began; empty where none does."""
    old, new = run.read(run.environment_path) or {}, environment(device)
    names = [name for name in ("threads", "device") if name in old and old[name] != new[name]]
    changes = ", ".join(f"{name} {old[name]} -> {new[name]}" for name in names)
    return changes and f"{changes} since this run began: its results can differ in the last bits"
