"""A configuration that can't be built is refused in one line that says what would do."""

from __future__ import annotations

import pytest

from sfumato.errors import UserError
from sfumato.nets.unet.unet import UNet, UNetConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 0}, r"net\.blocks is 0"),
        ({"heads": 0}, r"net\.heads is 0"),
        ({"patch": 0}, r"net\.patch is 0"),
        ({"groups": 0}, r"net\.groups is 0"),
        ({"base": 33}, r"net\.base is 33: give an even number"),
        ({"base": 2}, r"net\.base is 2"),
        ({"multipliers": ()}, r"net\.multipliers is \(\)"),
        ({"multipliers": (1, 0)}, r"net\.multipliers is \(1, 0\)"),
        ({"attention": (4,)}, r"net\.attention is \(4,\).*0 to 3"),
        ({"attention": (-1,)}, r"net\.attention"),
        ({"dropout": 1.0}, r"net\.dropout is 1\.0"),
        ({"dropout": -0.1}, r"net\.dropout"),
        ({"heads": 3}, r"net\.heads is 3.*256 channels of level"),
        ({"base": 48}, r"net\.groups is 32.*choose from 1, 2, 3, 4, 6, 8, 12, 16, 24$"),
        ({"base": 32}, r"net\.groups is 32.*at least two channels.*choose from 1, 2, 4, 8, 16$"),
    ],
)
def test_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        UNetConfig(**changes)
    assert "\n" not in str(caught.value)


def test_every_group_count_that_the_message_names_can_be_built() -> None:
    for groups in (1, 2, 3, 4, 6, 8, 12, 16, 24):
        UNet(UNetConfig(base=48, multipliers=(1,), blocks=1, attention=(), groups=groups))


@pytest.mark.parametrize(
    ("multipliers", "patch", "multiple"),
    [((1,), 1, 1), ((1, 2, 2), 1, 4), ((1, 2, 2), 2, 8), ((1, 1, 2, 2, 4, 4), 1, 32)],
)
def test_multiple(multipliers: tuple[int, ...], patch: int, multiple: int) -> None:
    assert UNetConfig(multipliers=multipliers, attention=(), patch=patch).multiple == multiple
