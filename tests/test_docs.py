"""The page on adding things is true: its code runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_code_of_how_to_add_runs() -> None:
    command = [sys.executable, "scripts/check_docs.py", "docs/how-to-add.md"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
