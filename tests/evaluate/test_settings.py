"""What can be asked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sfumato.errors import UserError

from .targets import asked


@pytest.mark.parametrize(
    ("settings", "message"),
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
        ({"sampler": "dddpm"}, "'dddpm'.*; did you mean"),
        ({"method": "vbl"}, "did you mean 'vlb'"),
        ({"variance": "smal"}, "did you mean 'small'"),
        ({"real": "test"}, "real can't be 'test'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(**settings)


def test_a_variance_is_of_scoring_and_of_a_sampler_that_takes_one() -> None:
    assert asked(variance="large").recipe.variance is None
    assert asked(variance="large", sampler="ddpm").recipe.variance == "large"
