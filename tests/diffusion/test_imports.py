"""The mathematics imports torch and the standard library, nothing else."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import torch
before = set(sys.modules)
import sfumato.diffusion
import sfumato.diffusion.samplers
new = {name.split('.')[0] for name in set(sys.modules) - before}
print(sorted(name for name in new if name not in sys.stdlib_module_names and name not in ('torch', 'sfumato')))
mine = (name for name in sys.modules if name.startswith('sfumato.'))
print(sorted(name for name in mine if not name.startswith(('sfumato.diffusion', 'sfumato.lazy'))))
"""


def test_diffusion_needs_only_torch() -> None:
    printed = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    assert printed[:2] == ["[]", "[]"]
