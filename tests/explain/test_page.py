"""The page in a browser: it opens from a file, loads nothing, computes as the library does, and can be used by keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.diffusion import marginal
from sfumato.explain import Context
from sfumato.explain.report import Report

from .conftest import HOSTILE, Opened


def test_it_opens_by_itself_without_an_error_or_a_request(opened: Opened, page_file: Path, report: Report) -> None:
    opened.open(page_file)
    drawn = opened.page.locator("figure[data-view] .view").evaluate_all("nodes => nodes.map(n => n.childElementCount)")
    assert len(drawn) == sum(len(each.figures) for each in report.sections)
    assert all(drawn), "every view has drawn something"
    assert opened.problems == []
    assert {url.partition("#")[0] for url in opened.requests if not url.startswith(("data:", "blob:"))} == {
        page_file.as_uri()
    }


def test_the_live_noisy_image_is_the_librarys(opened: Opened, page_file: Path, context: Context) -> None:
    opened.open(page_file, "#t=7&image=3")
    now = opened.page.evaluate("Array.from(Sfumato.noised(Sfumato.get('image'), Sfumato.get('t')))")
    for step in (1, 7, 25, 50):
        live = opened.page.evaluate(f"Array.from(Sfumato.noised(3, {step}))")
        assert step != 7 or live == now, "the address chooses"
        expected = marginal(context.images.x_0[3:4], context.schedule(step / 50)).sample(context.noise(4).prior()[3:4])
        assert np.abs(np.array(live) - expected.flatten().numpy()).max() < 1e-5


def test_the_generator_gives_the_librarys_noise_for_any_key(opened: Opened, page_file: Path) -> None:
    from sfumato.diffusion.noise import Purpose, normal

    opened.open(page_file)
    seed = 2**40 + 12345
    call = "([low, high]) => Array.from(Sfumato.normals(30001, 70000, {purpose: 1, step: 9, seed: [low, high]}))"
    live = np.array(opened.page.evaluate(call, [seed & 0xFFFFFFFF, seed >> 32]))
    expected = normal(seed, Purpose.STEP, torch.tensor([70000]), (30001,), step=9)[0].numpy()
    assert np.abs(live - expected).max() < 1e-5


def test_every_slider_moves_by_keys_and_the_address_keeps_the_state(opened: Opened, page_file: Path) -> None:
    opened.open(page_file)
    sliders = opened.page.locator("input[type=range]")
    for n in range(sliders.count()):
        slider = sliders.nth(n)
        opened.page.evaluate("node => node.closest('details')?.setAttribute('open', '')", slider.element_handle())
        before = slider.input_value()
        key = "ArrowLeft" if before == slider.get_attribute("max") else "ArrowRight"
        if slider.get_attribute("max") == "0":
            continue
        slider.focus()
        slider.press(key)
        assert slider.input_value() != before, slider.get_attribute("id")
    opened.page.evaluate("Sfumato.set('t', 20); Sfumato.set('image', 2)")
    opened.page.wait_for_timeout(600)
    hash_ = opened.page.evaluate("location.hash")
    assert {"t=20", "image=2"} <= set(hash_[1:].split("&"))
    again = opened.open(page_file, hash_)
    assert again.page.evaluate("[Sfumato.get('t'), Sfumato.get('image')]") == [20, 2]
    assert opened.problems == []


def test_every_button_of_a_figure_works(opened: Opened, page_file: Path) -> None:
    opened.open(page_file)
    for button in opened.page.locator(".view button").all():
        button.click(force=True)
    assert opened.problems == []


def test_a_wrong_address_is_taken_as_well_as_it_can_be(opened: Opened, page_file: Path) -> None:
    opened.open(page_file, "#t=nonsense&image=1e9&noise=-4&at=nowhere&__proto__=1")
    t, image = opened.page.evaluate("[Sfumato.get('t'), Sfumato.get('image')]")
    assert 0 <= t <= 50
    assert 0 <= image < 8
    assert opened.problems == []


def _download(opened: Opened, figure: str, kind: str) -> bytes:
    with opened.page.expect_download() as waiting:
        opened.page.locator(f"#fig-{figure} .tools button", has_text=kind).click()
    return Path(waiting.value.path()).read_bytes()


def test_exported_files_open(opened: Opened, page_file: Path, tmp_path: Path, context: Context) -> None:
    opened.open(page_file, "#t=10")
    png = tmp_path / "a.png"
    png.write_bytes(_download(opened, "forward", "PNG"))
    with Image.open(png) as picture:
        assert min(picture.size) > 300
        assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 20, "something is drawn"
    svg = _download(opened, "forward", "SVG").decode()
    import xml.etree.ElementTree as tree

    assert tree.fromstring(svg).tag.endswith("svg")
    assert "<image" in svg
    lines = _download(opened, "forward", "CSV").decode().splitlines()
    assert lines[0] == "channel,row,column,x_0,eps,x_t"
    table = np.array([[float(cell) for cell in line.split(",")] for line in lines[1:]])
    x_t = marginal(context.images.x_0[:1], context.schedule(0.2)).sample(context.noise(1).prior())
    assert np.abs(table[:, 5] - x_t.flatten().numpy()).max() < 1e-5
    stored = json.loads(_download(opened, "bound", "JSON"))
    assert stored["steps"][0] == 1
    assert len(stored["sides"]["train"]["bits"]["values"]) == np.prod(stored["sides"]["train"]["bits"]["shape"])


def test_every_figure_can_be_taken(opened: Opened, page_file: Path) -> None:
    opened.open(page_file)
    script = """() => Object.entries(Sfumato.figures).map(([name, made]) => {
      const text = Sfumato.compose(document.querySelector(`#fig-${name} .view`)), tree = new DOMParser().parseFromString(text, 'image/svg+xml');
      const table = made.table ? made.table() : { columns: [], rows: [] };
      return [name, tree.querySelector('parsererror') === null, tree.documentElement.childElementCount, table.rows.length, table.rows.every((row) => row.length === table.columns.length)];
    })"""  # noqa: E501
    taken = opened.page.evaluate(script)
    assert len(taken) > 15
    for name, well_formed, elements, rows, even in taken:
        assert well_formed, name
        assert elements > 1, f"{name} is empty"
        assert rows, name
        assert even, f"{name}: a row of its table has other columns"


def test_paper_has_the_figures_in_dark_ink_and_no_controls(opened: Opened, page_file: Path) -> None:
    opened.open(page_file)
    opened.page.emulate_media(media="print", color_scheme="dark")

    def shown(selector: str) -> list[bool]:
        found = opened.page.locator(selector)
        return list(found.evaluate_all("ns => ns.map(n => n.getClientRects().length > 0)"))

    assert not any(shown("nav, .tools, .controls, #theme"))
    for selector in ("figure[data-view]", ".wall canvas", ".algorithm li button"):
        assert shown(selector)
        assert all(shown(selector)), selector
    for _ in range(2):
        colours = "[...['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])]"
        assert opened.page.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(34, 37, 43)"]
        opened.page.evaluate("document.documentElement.dataset.theme = 'dark'")


def test_names_and_labels_are_text(opened: Opened, page_file: Path, hostile: Path) -> None:
    source = page_file.read_text(encoding="utf-8")
    assert "onerror=" not in source.replace("onerror=\\", "").replace("onerror=&quot;", "").partition("<script")[0]
    opened.open(page_file)
    assert opened.problems == [], "nothing of a name was run"
    assert opened.page.locator("img[src=x]").count() == 0
    assert opened.page.title() == "<b>it's/run: how it was made, and how it is doing"
    texts = opened.page.locator("body").evaluate(
        "n => n.innerText + [...n.querySelectorAll('[aria-label]')].map(x => x.getAttribute('aria-label')).join(' ')"
    )
    assert HOSTILE[0][:30] in texts
    assert "<svg onload=alert(3)> '" in texts
    assert opened.page.locator("svg[onload]").count() == 0
    assert "😀" in texts


def test_the_page_fits_a_phone(browser: Any, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    opened = Opened(context.new_page()).open(page_file)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


ACCESSIBLE = """() => {
  const problems = [], luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const ground = (node) => { const layers = []; for (let up = node; up; up = up.parentElement) layers.push(rgba(getComputedStyle(up).backgroundColor)); return layers.reverse().reduce((below, [r, g, b, a]) => [r, g, b].map((v, i) => a ? v * a + below[i] * (1 - a) : below[i]), [255, 255, 255]); };
  const name = (node) => (node.getAttribute('aria-label') || (node.labels && [...node.labels].map((l) => l.textContent).join('')) || node.textContent || node.title || '').trim();
  document.querySelectorAll('details').forEach((d) => { d.open = true; });
  for (const node of document.querySelectorAll('button, input, select, a[href], summary')) if (!name(node)) problems.push(`no name: ${node.outerHTML.slice(0, 80)}`);
  for (const node of document.querySelectorAll('canvas, svg')) if (!node.closest('[aria-hidden=true]') && !node.getAttribute('aria-label') && !node.closest('svg [aria-label], svg[aria-label]')) problems.push(`no alternative: ${node.outerHTML.slice(0, 80)}`);
  const ids = [...document.querySelectorAll('[id]')].map((n) => n.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) problems.push(`twice: ${id}`);
  for (const node of document.querySelectorAll('p, li, td, th, dt, dd, button, summary, label, output, .under, .key, h1, h2, h3, code span, figcaption')) {
    if (!node.textContent.trim() || !node.getClientRects().length || getComputedStyle(node).visibility === 'hidden') continue;
    const [a, b] = [luminance(rgba(getComputedStyle(node).color)), luminance(ground(node))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)}: ${node.tagName}.${node.className} ${node.textContent.slice(0, 40)}`);
  }
  for (const node of document.querySelectorAll('pre, .scroll')) if (node.scrollWidth > node.clientWidth && node.tabIndex < 0) problems.push(`can't be scrolled by keys: ${node.outerHTML.slice(0, 80)}`);
  return [...new Set(problems)];
}"""  # noqa: E501
"""A small checker of names, text alternatives, contrast (WCAG 2.1, 4.5 to 1) and ids."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_enough_contrast(browser: Any, page_file: Path, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce")
    opened = Opened(context.new_page()).open(page_file)
    assert opened.page.evaluate(ACCESSIBLE) == []
    opened.page.click("#theme")
    assert opened.page.evaluate(ACCESSIBLE) == [], "the other colours"
    context.close()
