"""Pages for browsers: the library's noise and images, opened from the disk in Chromium."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import from_dict
from sfumato.errors import UserError
from sfumato.exchange.export import export
from sfumato.exchange.html.plan import check, plan
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import sample
from sfumato.model import Model

from .models import NET, random_model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

LABELS = AttributeVocabulary(
    (Attribute("<i>class", ("cat", "dog's", "eel")), Attribute("age", mean=40.0, std=10.0)),
    ((0.0, 0.5), (2.0, float("nan"))),  # what images take where nothing is given
)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model in colour with labels and a learned variance, and its page."""
    folder = tmp_path_factory.mktemp("html")
    diffusion = {"schedule": {"kind": "cosine", "num_steps": 50}, "variance": "learned", "objective": "hybrid"}
    model = random_model(folder / "x.safetensors", from_dict({"net": NET, "diffusion": diffusion}), (3, 8, 12), LABELS)
    export(model, "html", folder / "x.html", {"title": "</script><b>x"})
    return model, folder / "x.html"


@pytest.fixture(scope="module")
def opened(browser: Any, labelled: tuple[Model, Path]) -> Iterator[Any]:
    """The page, opened from the disk, after its first images; it must not ask for anything, or complain."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page, requests, complaints = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(labelled[1].as_uri())
    page.wait_for_function("() => window.sfumato && window.sfumato.result()", timeout=120_000)
    yield page
    assert not complaints
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []
    context.close()


@pytest.fixture
def page(opened: Any) -> Any:
    """The page with its form as at the start."""
    opened.evaluate("() => { form.reset(); sampler.dispatchEvent(new Event('change', { bubbles: true })) }")
    return opened


def drawn(page: Any, **fields: str) -> torch.Tensor:
    """Fill in the form, draw, and return x_0."""
    for name, value in fields.items():
        field = page.locator(f"#{name}")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        elif field.get_attribute("type") == "range":
            field.evaluate("(field, value) => { field.value = value }", value)
        else:
            field.fill(value)
    page.evaluate("() => { window.sfumato.draw() }")
    page.wait_for_function("() => !window.sfumato.busy()", timeout=120_000)
    return torch.tensor(page.evaluate("() => [...window.sfumato.result().x]")).reshape(-1, 3, 8, 12)


@pytest.mark.parametrize(
    ("entry", "recipe"),
    [
        (0, Recipe(steps=10)),
        (1, Recipe("ddim", steps=5)),
        (2, Recipe("heun", steps=5)),
        (3, Recipe("ddpm", steps=50)),
        (4, Recipe("dpmpp-sde", steps=10)),
    ],
    ids=lambda value: value.sampler if isinstance(value, Recipe) else "",
)
def test_the_page_samples_our_images(entry: int, recipe: Recipe, page: Any, labelled: tuple[Model, Path]) -> None:
    seed = 2**40 + 7
    x = drawn(page, sampler=str(entry), steps=str(recipe.steps), seed=str(seed), num="9")
    torch.testing.assert_close(x, sample(labelled[0], 9, recipe, seed=seed), atol=1e-3, rtol=0)


def test_no_labels_are_those_of_training_images_or_none(page: Any, labelled: tuple[Model, Path]) -> None:
    recipe = Recipe(steps=5, guidance=2.0)
    x = drawn(page, sampler="0", steps="5", num="4", guidance="2")
    torch.testing.assert_close(x, sample(labelled[0], 4, recipe), atol=1e-3, rtol=0)
    assert "--label" not in page.locator("#command").text_content()
    page.locator("#unconditional").check()
    x = drawn(page, sampler="0", steps="5", num="4", guidance="2")  # there is nothing to guide towards
    expected = sample(labelled[0], 4, Recipe(steps=5), condition="unconditional")
    torch.testing.assert_close(x, expected, atol=1e-3, rtol=0)
    assert page.locator("#command").text_content().endswith("--num 4 --label unconditional")


def test_labels_and_guidance(page: Any, labelled: tuple[Model, Path]) -> None:
    model = labelled[0]
    page.locator(".label").nth(0).select_option("1")
    page.locator(".label").nth(1).fill("52")
    x = drawn(page, sampler="0", steps="5", num="4", guidance="2.5")
    condition = model.vocabulary.rows([[1.0, 1.2]])  # type: ignore[union-attr]
    expected = sample(model, 4, Recipe(steps=5, guidance=2.5), condition=condition)
    torch.testing.assert_close(x, expected, atol=1e-3, rtol=0)
    command = page.locator("#command").text_content()
    assert command.startswith(
        "sfumato sample x.safetensors --sampler auto --steps 5 --seed 0 --num 4 --label '<i>class=dog'\\''s"
    )
    assert command.endswith("--guidance 2.5")


def test_what_the_model_does_not_have_is_not_shown(page: Any) -> None:
    """The page marks it as hidden, and its style sheet must not show it again."""
    for name in ("usual", "guidancelabel"):
        assert page.locator(f"#{name}").is_visible(), "the model has labels"
        page.evaluate("(name) => { document.getElementById(name).hidden = true }", name)
        assert not page.locator(f"#{name}").is_visible()
        page.evaluate("(name) => { document.getElementById(name).hidden = false }", name)


def test_the_page_by_keyboard(page: Any) -> None:
    page.locator("#seed").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("12")
    page.keyboard.press("Enter")
    page.wait_for_function("() => window.sfumato.result() && !window.sfumato.busy()")
    assert page.locator("canvas").first.get_attribute("aria-label") == "image 0 of seed 12"
    assert "ms per step" in page.locator("#status").text_content()
    page.locator("#frame").focus()
    page.keyboard.press("Home")
    assert page.locator("#frame").get_attribute("aria-valuetext") == "step 0 of 20"
    page.locator("#seed").fill("18446744073709551616")
    page.keyboard.press("Enter")
    assert "below 2^64" in page.locator("#status").text_content()


def test_the_page_fits_a_phone_and_shows_names_as_text(page: Any) -> None:
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("h1").text_content() == "</script><b>x"
    assert page.locator("b, i").count() == 0


def test_the_page_needs_no_other_file(labelled: tuple[Model, Path]) -> None:
    text = labelled[1].read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)\w+""", text)
    assert len(text) < 7_000_000
    plan = json.loads(re.findall(r'id="plan">(.*?)</script>', text)[0])
    assert plan["samplers"][0] == {
        "sampler": "auto", "name": "auto (dpmpp-2)", "method": "dpmpp-2", "grid": "logsnr", "steps": 20
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "parameters", "message"),
    [((3, 8, 264), 1000, "up to 256x256"), ((2, 8, 8), 1000, "have 2 channels"), ((3, 8, 8), 10_000_001, "holds 10 M")],
)
def test_what_a_page_cannot_hold_is_refused(shape: Any, parameters: int, message: str, tmp_path: Path) -> None:
    model = random_model(tmp_path / "x.safetensors", from_dict({"net": NET}), shape)
    with pytest.raises(UserError, match=message):
        check(model, parameters)


def test_a_model_without_label_dropout_needs_its_labels(labelled: tuple[Model, Path]) -> None:
    model = labelled[0]
    strict = replace(model.config, train=replace(model.config.train, label_dropout=0.0))
    facts = plan(replace(model, config=strict), "x")
    assert (facts["complete"], facts["guidable"]) == (True, False)


def test_the_runtime_is_that_of_its_package() -> None:
    """The contents that the script takes from the npm package, whatever compressed them."""
    root = Path(__file__).parents[2]
    files = runpy.run_path(str(root / "scripts" / "get_onnxruntime_web.py"))["FILES"]
    runtime = root / "src" / "sfumato" / "exchange" / "html" / "runtime"
    for name, expected in files.items():
        content = gzip.decompress((runtime / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == expected, name
    listed = (runtime / "LICENCES.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in listed for path in runtime.iterdir() if path.name != "LICENCES.md")
