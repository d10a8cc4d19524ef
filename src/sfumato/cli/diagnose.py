"""`sfumato diagnose`: why samples are noise, grey, tinted, blurred or copies, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from sfumato.cli.console import pick_device, print_json, progress, say
from sfumato.cli.options import Flag, option
from sfumato.errors import UserError


@dataclass(frozen=True)
class Diagnose:
    """Find out what is wrong with a run's samples, why, and how to fix it.

    Images are sampled with each of the run's weights, with few and with many steps, from noise and from noised training
    images, and compared with the data; the network predicts held-out images at ten noise levels, its output interpreted
    as each parameterisation; and the event log is read. Each finding comes with its figures and a command that fixes
    it.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "sfumato diagnose runs/faces",
        "sfumato diagnose runs/photos --num 32 --json",
    )

    source: Annotated[Path, Positional, option("RUN_OR_WEIGHTS")]
    """a run folder, or a weights file"""
    data: Annotated[str | None, option("NAME|PATH")] = None
    """images to compare with; the model's training data by default"""
    num: int = 64
    """how many images to sample each time; fewer are quicker and less certain"""
    seed: int = 0
    """of the noise"""
    device: Annotated[str, option("auto|cpu|cuda|mps")] = "auto"
    """where to compute; a GPU where there is one by default"""
    json: Flag = False
    """print one JSON object, with every figure and how it was measured, instead of text"""

    def perform(self) -> int:
        """Measure, conclude, and report."""
        if self.num < 8:
            raise UserError(f"--num is {self.num}: statistics need at least 8 images; 64 are usual")
        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}: give 0 or more")
        from sfumato.diagnose import as_json, as_text, conclude, measure, observe

        on_progress = progress("measuring")
        evidence = measure(self.source, self.num, self.seed, pick_device(self.device), on_progress, self.data)
        symptoms, findings = observe(evidence), conclude(evidence)
        if self.json:
            print_json(as_json(evidence, symptoms, findings))
        else:
            say(as_text(evidence, symptoms, findings))
        return 0


VERB = Diagnose
