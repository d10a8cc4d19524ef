"""The public names: all there, and none of them loaded before it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import sfumato


def test_importing_loads_nothing() -> None:
    code = """if True:
        import sys
        before = set(sys.modules)
        import sfumato
        loaded = set(sys.modules) - before
        print(sorted(m for m in loaded if m.partition(".")[0] not in sys.stdlib_module_names))
    """
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "['sfumato', 'sfumato.lazy']"


@pytest.mark.parametrize("name", [name for name in sfumato.__all__ if name != "__version__"])
def test_every_name_is_there_and_stays(name: str) -> None:
    assert getattr(sfumato, name) is getattr(sfumato, name)
    assert name in dir(sfumato)


def test_modules_are_reached_without_an_import_of_their_own() -> None:
    code = "import sfumato; print(sfumato.run.Run.__name__, sfumato.generate.pictures.WIDTH)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["Run", "880"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        _ = sfumato.smaple


def test_functions_are_what_they_are_called() -> None:
    from sfumato.model import load

    assert sfumato.load is load
    assert sfumato.sample.__module__ == "sfumato.generate.sample"


@pytest.mark.parametrize("package", ["data", "diffusion", "edit", "evaluate", "nets", "train"])
def test_every_name_that_a_package_promises_can_be_had(package: str) -> None:
    module = importlib.import_module(f"sfumato.{package}")
    for name in getattr(module, "__all__", dir(module)):
        assert getattr(module, name) is not None


def test_what_a_notebook_shows_is_one_short_line() -> None:
    config = sfumato.resolve("small8", overrides={"train.images": "640"})
    data, model = sfumato.open_data(config.data), sfumato.load("faces")
    assert repr(sfumato.Config()) == "Config()"
    assert "train.images=640" in repr(config)
    assert repr(data) == "<Dataset digits: 1697 + 100 images of 1x8x8>"
    assert f"faces.safetensors: ema weights of {model.images} images seen, makes 3x16x16" in repr(model)
    assert max(len(repr(config)), 2 * len(repr(model))) < 600
