"""`sfumato verify`: check the mathematics on this machine."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from sfumato.cli.console import pick_device, print_json, say
from sfumato.cli.options import Device, Flag, Json
from sfumato.report.text import duration

if TYPE_CHECKING:
    from sfumato.verify import Check


@dataclass(frozen=True)
class Verify:
    """Check on this machine that noise, schedules, samplers, guidance, likelihoods and networks are right.

    Each check compares the code that trains and samples with a closed form. A failed one makes the exit code 1.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato verify",
        "sfumato verify --device cuda --compile",
        "sfumato verify --dtype float32 --json",
    )

    device: Device = "auto"
    dtype: Literal["float32", "float64"] = "float64"
    """of the images in the mathematics; networks are always checked in float32"""
    compile: Flag = False
    """check torch.compile too, which takes longer than the rest"""
    json: Json = False

    def perform(self) -> int:
        """Run every check, print each result, and then the verdict."""
        import torch

        from sfumato.verify import Setting, verify

        device = pick_device(self.device)
        dtype = {"float32": torch.float32, "float64": torch.float64}[self.dtype]
        start, checks = time.monotonic(), []
        for check in verify(Setting(device, dtype, self.compile)):
            checks.append(check)
            if not self.json:
                say(_line(check))
        failed = sum(not check.passed for check in checks)
        if self.json:
            print_json(
                {
                    "passed": not failed,
                    "device": str(device),
                    "dtype": self.dtype,
                    "torch": torch.__version__,
                    "seconds": time.monotonic() - start,
                    "checks": [asdict(check) for check in checks],
                }
            )
        else:
            say(f"\n{_verdict(checks, str(device), time.monotonic() - start)}")
        return 1 if failed else 0


def _line(check: Check) -> str:
    """Return one check in a line: outcome, name, measured error and limit, and its meaning."""
    numbers = "" if check.measured is None else f"{check.measured:.2g} (at most {check.limit:.2g})"
    return (
        f"{check.outcome.upper() if not check.passed else check.outcome:8}{check.name:46} {numbers:26}{check.sentence}"
    )


def _verdict(checks: list[Check], device: str, seconds: float) -> str:
    """Return whether all checks passed, or which failed."""
    failed = [check for check in checks if not check.passed]
    skipped = sum(check.outcome == "skipped" for check in checks)
    left = f", {skipped} skipped" if skipped else ""
    if not failed:
        return f"All is well on {device}: {len(checks) - skipped} checks passed{left}, in {duration(seconds)}."
    failures = "\n".join(f"  {check.name}: {check.sentence}" for check in failed)
    return f"{len(failed)} of {len(checks)} checks FAILED on {device}{left}:\n{failures}"


VERB = Verify
