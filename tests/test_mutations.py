"""The planted mistakes of scripts/mutations.py can be planted: their text and their tests are there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "scripts" / "mutations.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mutations"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mutation", _script().MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_applies(mutation: Any) -> None:
    text = (ROOT / "src" / "sfumato" / mutation.file).read_text(encoding="utf-8")
    assert mutation.old in text
    assert mutation.new not in ("", mutation.old)
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutation.tests.split())
