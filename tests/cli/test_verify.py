"""The verb verify: what it says, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

import sfumato.verify
from sfumato.verify import Check, Setting

from .conftest import Command

GOOD = Check("noise: moments", "passed", 1.5, 4.5, "the noise is normal", 0.1)
LEFT = Check("sampler ddim: order", "skipped", None, None, "float32 rounds it away", 0.0)
BAD = Check("flow: density", "failed", 0.3, 0.001, "likelihoods are off", 0.2)


def outcomes(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> list[Setting]:
    asked: list[Setting] = []

    def verify(setting: Setting) -> Iterator[Check]:
        asked.append(setting)
        yield from checks

    monkeypatch.setattr(sfumato.verify, "verify", verify)
    return asked


def test_all_well(sfumato: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = outcomes(monkeypatch, GOOD, LEFT)
    said = sfumato("verify", "--device", "cpu", "--dtype", "float32", "--compile")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split()[0] == "passed"
    assert "1.5 (at most 4.5)" in lines[0]
    assert lines[1].startswith("skipped sampler ddim: order")
    assert lines[-1].startswith("All is well on cpu: 1 checks passed, 1 skipped")
    assert (str(asked[0].dtype), asked[0].compile) == ("torch.float32", True)


def test_a_failure_is_exit_code_1_and_says_what_it_means(sfumato: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes(monkeypatch, GOOD, BAD)
    said = sfumato("verify", "--device", "cpu")
    assert said.code == 1
    assert said.out.splitlines()[1].startswith("FAILED  flow: density")
    assert said.out.splitlines()[-2:] == ["1 of 2 checks FAILED on cpu:", "  flow: density: likelihoods are off"]


@pytest.mark.parametrize("checks", [(GOOD, LEFT), (GOOD, BAD)])
def test_json(checks: tuple[Check, ...], sfumato: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = outcomes(monkeypatch, *checks)
    said = sfumato("verify", "--device", "cpu", "--json")
    found = json.loads(said.out)
    assert said.code == (1 if BAD in checks else 0)
    assert found["passed"] is (BAD not in checks)
    assert [(c["name"], c["outcome"], c["measured"]) for c in found["checks"]] == [
        (c.name, c.outcome, c.measured) for c in checks
    ]
    assert (found["device"], found["dtype"], asked[0].compile) == ("cpu", "float64", False)
