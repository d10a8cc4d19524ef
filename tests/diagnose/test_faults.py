"""Faults planted in real runs: each is distinguished from all others, and a healthy run has nothing wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sfumato.diagnose import conclude, measure, observe

from .faults import FAULTS, HEALTHY

pytestmark = pytest.mark.slow
Plant = Callable[[Path], Path]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def names(plant: Plant) -> str:
    return plant.__name__


@pytest.mark.parametrize("plant", HEALTHY, ids=names)
def test_a_healthy_run_has_nothing_wrong(plant: Plant, tmp_path: Path) -> None:
    evidence = measure(plant(tmp_path / "run"), 64, 0, "cpu", lambda done, total: None)
    assert observe(evidence) == ()
    assert [finding for finding in conclude(evidence) if finding.severity > 1] == []


@pytest.mark.parametrize("plant", FAULTS, ids=names)
def test_the_planted_fault_is_found_first(plant: Plant, tmp_path: Path) -> None:
    evidence = measure(plant(tmp_path / "run"), 64, 0, "cpu", lambda done, total: None)
    first = conclude(evidence)[0]
    assert first.cause == FAULTS[plant]
    assert first.severity > 1
