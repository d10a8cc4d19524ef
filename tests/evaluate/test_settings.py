"""What can be asked, and where the answers lie."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sfumato.errors import UserError
from sfumato.evaluate.settings import Settings
from sfumato.evaluate.subject import place


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num": 0}, "num is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"sampler": "ddim", "eta": 1.5}, "eta is 1.5"),
        ({"sampler": "ddim", "eta": math.nan}, "eta is nan"),
        ({"eta": 0.5}, "eta belongs to ddim"),
        ({"grid": "leeding"}, "did you mean 'leading'"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"sampler": "ddpm", "eta": 0.5}, "eta belongs to ddim"),
        ({"sampler": "dddpm"}, "sampler can't be 'dddpm'; did you mean"),
        ({"method": "vbl"}, "did you mean 'vlb'"),
        ({"variance": "smal"}, "did you mean 'small'"),
        ({"real": "test"}, "real can't be 'test'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Settings(**settings)


def test_results_lie_in_the_run_or_beside_the_file(tmp_path: Path) -> None:
    weights = tmp_path / "run" / "weights" / "ema.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert place(tmp_path / "run") == tmp_path / "run" / "evaluation"
    assert place(weights) == weights.parent / "evaluation", "not a run yet"
    (tmp_path / "run" / "config.toml").touch()
    assert place(weights) == tmp_path / "run" / "evaluation"
    assert place(tmp_path / "a.safetensors") == tmp_path / "evaluation"
