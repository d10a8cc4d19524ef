"""The texts: Markdown and formulae as HTML, the code beside them, and docs/explained.md made from the same."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as tree
from pathlib import Path

import pytest

from sfumato.explain import markdown
from sfumato.explain.mathml import mathml
from sfumato.explain.page import ASSETS
from sfumato.explain.registry import SECTIONS
from sfumato.explain.report import Report
from sfumato.explain.source import body, highlighted, source

ROOT = Path(__file__).parents[2]


def shape(latex: str) -> str:
    """MathML's tags and texts without attributes."""
    root = tree.fromstring(mathml(latex))
    return re.sub(r"\s[a-z]+=\"[^\"]*\"", "", tree.tostring(root[0], encoding="unicode"))


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("x_0", "<mrow><msub><mi>x</mi><mn>0</mn></msub></mrow>"),
        (r"\frac{1}{x}", "<mrow><mfrac><mrow><mn>1</mn></mrow><mrow><mi>x</mi></mrow></mfrac></mrow>"),
        (r"x_t^2", "<mrow><msubsup><mi>x</mi><mi>t</mi><mn>2</mn></msubsup></mrow>"),
        (r"\sqrt{\bar\alpha_t}", "<mrow><msqrt><mrow><msub><mi>𝛼̄</mi><mi>t</mi></msub></mrow></msqrt></mrow>"),
        (r"\text{a b}", "<mrow><mtext>a b</mtext></mrow>"),
    ],
)
def test_formulae(latex: str, expected: str) -> None:
    import unicodedata

    assert unicodedata.normalize("NFC", shape(latex)) == unicodedata.normalize("NFC", expected)


@pytest.mark.parametrize("latex", [r"\unknown", r"\frac{1}", "{x", r"\left( x", "x & y", r"\mathcal{Q}"])
def test_a_formula_that_is_not_understood_is_refused(latex: str) -> None:
    with pytest.raises(ValueError, match="formula"):
        mathml(latex)


def test_markdown_as_html() -> None:
    content = tuple(
        markdown.blocks("Some **bold** `a<b`, $x_t$.\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n@figure f")
    )
    page = markdown.as_html(content, {"f": "<figure>F</figure>", "g": "<figure>G</figure>"}, article=False)
    assert "<strong>bold</strong> <code>a&lt;b</code>, <math" in page
    assert page.count("<li>") == 2
    assert "<th scope='col'>a</th>" in page
    assert page.index("F</figure>") < page.index("G</figure>"), "a figure without a place comes last"


def test_derivations_are_open_in_the_article_only() -> None:
    content = tuple(markdown.blocks("@more Why\n\nBecause.\n\n@end\n\nAfter."))
    assert [block.kind for block in content] == ["more", "p"]
    assert "<details class='more' open>" in markdown.as_html(content, {}, article=True)
    assert "<details class='more'>" in markdown.as_html(content, {}, article=False)
    with pytest.raises(ValueError, match="no @end"):
        tuple(markdown.blocks("@more Why\n\nBecause."))


def test_a_report_says_nothing_of_the_articles_model(report: Report) -> None:
    for each in report.sections:
        content = markdown.read(each.section.name)
        page = markdown.as_html(content, {}, article=False)
        named = re.sub(
            "the shipped model of faces", "", re.sub("<pre.*?</pre>", "", page, flags=re.DOTALL), flags=re.IGNORECASE
        )
        assert not re.search(r"\b(face|faces|eye|hair)\b", named), each.section.name
    assert "The model of faces is given fourteen" in markdown.as_html(markdown.read("reverse"), {}, article=True)
    content = tuple(markdown.blocks("@article Of $x_0$.\n\nAfter."))
    assert "<p>Of <math" in markdown.as_html(content, {}, article=True)
    assert markdown.as_html(content, {}, article=False).strip() == "<p>After.</p>"
    assert markdown.as_document("T", content) == "## T\n\nOf $x_0$.\n\nAfter."


def test_every_section_has_its_text_and_every_figure_its_place_and_view(report: Report) -> None:
    for each in report.sections:
        content = markdown.read(each.section.name)
        assert content, each.section.name
        placed = {block.text.split()[0] for block in content if block.kind == "figure"}
        assert {figure.name for figure in each.figures} <= placed, each.section.name
        for figure in each.figures:
            assert (ASSETS / "views" / f"{figure.name}.js").is_file()
            assert figure.caption
            assert figure.live or figure.made
            for name in figure.code:
                assert source(name)[0]


def test_code_is_shown_as_it_is() -> None:
    text, place = source("diffusion.process.marginal")
    assert text.startswith("def marginal(")
    assert place.startswith("sfumato/diffusion/process.py, line ")
    assert '"""' not in body("diffusion.process.marginal")
    assert "return Gaussian(" in body("diffusion.process.marginal")
    plain = re.sub(r"<[^>]+>", "", highlighted(text))
    assert plain.replace("&gt;", ">").replace("&quot;", '"').replace("&#x27;", "'") == text


def test_the_document_is_made_from_the_texts() -> None:
    spec = importlib.util.spec_from_file_location("explained", ROOT / "scripts" / "explained.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (ROOT / "docs" / "explained.md").read_text(encoding="utf-8")
    assert written == script.document(), "run python scripts/explained.py"


def test_the_glossary_agrees_with_the_notation() -> None:
    notation = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    glossary = (markdown.TEXTS / "glossary.md").read_text(encoding="utf-8")
    for word in ("eps", "num_steps", "abar", "logsnr", "alpha"):
        assert f"`{word}`" in glossary
        assert word in notation
    assert "2k/255 - 1" in glossary
    assert "2k/255 - 1" in notation


def test_sections_have_one_name_each() -> None:
    names = [section.name for section in SECTIONS]
    assert len(names) == len(set(names))
