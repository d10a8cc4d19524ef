"""Figures, advice, text, page and list of planted collections."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.config.presets import choose
from sfumato.data import open_data, open_source
from sfumato.data.formats.fitting import fit
from sfumato.data.split import split
from sfumato.errors import UserError
from sfumato.inspect import Report, advise, check
from sfumato.inspect.duplicates import Duplicates
from sfumato.inspect.render import as_html, as_text
from sfumato.inspect.report import cleaned

from .images import Made, drawn, drawn_many

WILD = "<img src=x onerror=alert(1)> \u202e\n'\"&.png"


def of(images: list[object], config: DataConfig | None = None, **options: object) -> Report:
    return check(Made(images, **options), config or DataConfig("made"), workers=0)  # type: ignore[arg-type]


def topics(report: Report, preset: str | None = None) -> dict[str, str]:
    return {item.topic: item.level for item in advise(report, preset)}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Thirty images of two classes, an exact and a near duplicate, a single colour, three bad files and a wild name."""
    folder = tmp_path / "pictures"
    for n in range(30):
        path = folder / ("ab"[n % 3 == 0]) / f"{n:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn(n).save(path)
    drawn(1).save(folder / "a" / "x copy.bmp")
    drawn(2).save(folder / "b" / "x again.jpg", quality=60)
    drawn(77).save(folder / "a" / WILD)
    Image.new("RGB", (80, 64), "red").save(folder / "a" / "red.png")
    (folder / "a" / "torn.png").write_bytes((folder / "a" / "01.png").read_bytes()[:200])
    (folder / "b" / "text.png").write_text("nothing")
    (folder / "link.png").symlink_to("/etc/hostname")
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}
    yield folder
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}
    assert after == before, "nothing is written into the collection"


def test_the_figures_of_a_folder(folder: Path) -> None:
    report = check(open_source(str(folder)), DataConfig(str(folder)), workers=0)
    table = json.loads(json.dumps(report.table()))
    assert (table["total"], table["readable"], table["distinct"]) == (37, 34, 32)
    assert {item["file"]: item["reason"] for item in table["unreadable"]} == {
        "a/torn.png": "damaged: image file is truncated",
        "b/text.png": "not an image: text",
        "link.png": "a symbolic link, which is not followed",
    }
    assert table["exact_copies"] == [["a/01.png", "a/x copy.bmp"]]
    assert table["near_copies"] == [["a/02.png", "b/x again.jpg"]]
    assert table["formats"] == {"PNG": 32, "BMP": 1, "JPEG": 1}
    assert table["sizes"] == {"80x64": 34}
    assert table["attributes"] == {"class": {"a": 23, "b": 11}}
    assert [item["file"] for item in table["suspicious"]] == ["a/red.png"]
    assert table["training"]["size"] == [64, 64]
    text = as_text(report, advise(report))
    assert all(line.isprintable() for line in text.splitlines())
    assert "a/torn.png: damaged" in text


def test_a_sample_is_spread_over_the_collection() -> None:
    report = check(Made(drawn_many(40)), DataConfig("made"), num=10, workers=0)
    assert (report.total, report.scanned) == (40, 10)
    assert report.records["index"].tolist() == [0, 4, 9, 13, 17, 22, 26, 30, 35, 39]
    assert "a sample" in topics(report)


def test_a_sample_counts_the_images_that_the_whole_scan_counts(folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "copy", symlinks=True))
    for n in range(20):
        (folder / f"{n:02} note.txt").write_text("no image")
    config = DataConfig(str(folder))
    source, data = open_source(str(folder)), open_data(config)
    whole = check(source, config, workers=0)
    part = check(source, config, 12, workers=0, skipped=data.skipped)
    assert part.total == whole.total == len(data) + len(whole.faults)
    assert [i for i, _ in part.others] == [i for i, _ in whole.others]
    assert len(whole.records) == len(data)


def test_the_crop_loses_what_fit_leaves_out() -> None:
    sizes = [(40, 80), (80, 40), (60, 60), (30, 90)]
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    for size in ((32, 32), (20, 40), (48, 16)):
        lost = of(images, DataConfig("made", size=size)).lost_to_crop
        for (h, w), share in zip(sizes, lost, strict=True):
            marked = np.zeros((h, w, 1), np.uint8)
            marked[:] = 255  # what fit keeps is a rectangle of the wanted proportions: count it by its shorter scale
            scale = min(h / size[0], w / size[1])
            assert share == pytest.approx(1 - scale * scale * size[0] * size[1] / (h * w), abs=1e-9)
            assert fit(marked, size).shape[:2] == size


def test_the_expected_groups_across_the_split_are_those_of_drawing() -> None:
    report = of(drawn_many(3), DataConfig("made", held_out=0.2))
    object.__setattr__(report, "duplicates", Duplicates([], [[0, 1], [0, 1, 2], [0, 1, 2, 3]], [], True))
    rng, across, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        for size in (2, 3, 4):
            digests = [hashlib.sha256(rng.bytes(8)).hexdigest() for _ in range(size + 20)]
            out = set(split(digests, 0.2)[1].tolist()) & set(range(size))
            across += 0 < len(out) < size
    assert report.across_split() == pytest.approx(across / trials, abs=0.07)


def test_suspicious_images_have_reasons() -> None:
    faint = np.full((64, 80, 3), 100, np.uint8)
    faint[:20] = 102
    report = of(
        [
            *drawn_many(5),
            np.zeros((9, 9, 3), np.uint8),
            faint,
            np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8),
        ]
    )
    found = dict(report.suspicious)
    assert found == {5: "a single colour", 6: "almost no contrast: 0.9 levels", 7: "tiny: 7x7"}


def test_advice_follows_what_was_planted() -> None:
    fine = of(drawn_many(1010))
    levels = topics(fine)
    assert "trouble" not in levels.values()
    assert {"readable", "number", "settings", "resolution"} <= set(levels)
    assert not {"memorisation", "exact duplicates", "near duplicates", "unreadable files", "outliers"} & set(levels)
    few = topics(of([*drawn_many(30), "torn", *["torn"] * 9]))
    assert few["memorisation"] == "trouble"
    assert few["unreadable files"] == "trouble"
    assert topics(of([*drawn_many(200), "torn"]))["unreadable files"] == "mind"
    assert topics(of([*drawn_many(20), *drawn_many(15)]))["exact duplicates"] == "mind"
    assert topics(of(["torn", "empty"])) == {"nothing to train on": "trouble"}
    assert topics(of([drawn_many(1)[0]] * 3))["too few"] == "trouble"


def test_advice_on_sizes_and_proportions() -> None:
    mixed: list[object] = [np.asarray(drawn(n, (96, 64) if n % 2 else (40, 40))) for n in range(40)]
    texts = {item.topic: item.text for item in advise(of(mixed, DataConfig("made", size=(64, 64))))}
    assert "20 images (50%) are smaller than 64x64" in texts["enlarging"]
    assert "loses 17% of an average image's pixels" in texts["proportions"]
    square = topics(of([np.asarray(drawn(n, (70, 70))) for n in range(20)]))
    assert not {"enlarging", "proportions"} & set(square)


def test_the_preset_is_the_one_that_training_chooses() -> None:
    report = of(drawn_many(60))
    name, reason, _ = choose((3, 64, 64), 60)
    advice = {item.topic: item for item in advise(report)}
    said = advice["settings"].text
    assert f"preset {name} on a CPU" in said
    assert reason in said
    assert topics(report, name)["settings"] == "good"
    assert topics(report, "small8")["settings"] == "mind"


@pytest.mark.parametrize(("flip", "level"), [(False, "good"), (True, "trouble")])
def test_flipping_digits_is_advised_against(flip: bool, level: str) -> None:
    report = check(open_source("digits"), DataConfig("digits", flip=flip), num=600, workers=0)
    (advice,) = [item for item in advise(report) if item.topic == "mirroring"]
    assert advice.level == level
    assert advice.text.startswith("leave data.flip off")


def test_imbalance_is_seen() -> None:
    labels = [0.0] * 110 + [1.0] * 10 + [float("nan")] * 5
    report = of(drawn_many(125), classes=("cat", "dog"), labels=labels)
    assert report.counts(0) == {"cat": 110, "dog": 10, "(not given)": 5}
    texts = {item.topic: item.text for item in advise(report)}
    assert texts["balance of class"].startswith("'cat' has 110 images and 'dog' 10")


def made(pictures: list[np.ndarray]) -> Made:
    """A source with a key of its own."""
    source = Made(pictures)
    source.key = lambda: hashlib.sha256(b"".join(map(bytes, pictures))).hexdigest()  # type: ignore[method-assign]
    return source


def floats(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(200, 490, (16, 16)).astype(np.float32)


@pytest.mark.parametrize("depth", ["auto", "float"])
def test_counts_of_sixteen_bits_are_read_as_training_reads_them(depth: str) -> None:
    """As bytes all of them are black and one picture."""
    counts = [np.random.default_rng(n).integers(0, 41, (32, 32)).astype(np.uint16) for n in range(30)]
    report = of(counts, DataConfig("made", depth=depth))
    assert report.distinct == 30
    assert not report.records["constant"].any()
    trained = open_data(DataConfig("made", depth=depth), source=made(counts))
    assert report.format == trained.format
    assert [finding.text for finding in report.findings if finding.text not in trained.notes] == []
    assert [finding.topic for finding in report.findings] == (["range"] if depth == "auto" else [])
    brightness = report.records["mean"][:, 0].mean() / 255
    assert brightness == pytest.approx(trained.format.shown(np.asarray(trained.images)).mean() / 255, abs=0.01)


def test_marked_floats_are_not_one_picture_and_the_mark_is_found() -> None:
    pictures = [floats(n) for n in range(30)]
    for picture in pictures:
        picture[2:8, 3:9] = -9999
    report = of(pictures)
    assert report.distinct == 30, "the mark does not make them alike"
    assert topics(report)["values"] == "trouble"
    trained = open_data(DataConfig("made"), source=made(pictures))
    assert [finding.text for finding in report.findings if finding.text not in trained.notes] == []
    filled = of(pictures, DataConfig("made", nodata="-9999"))
    assert filled.findings == []
    assert filled.format == open_data(DataConfig("made", nodata="-9999"), source=made(pictures)).format


def test_what_training_refuses_is_trouble_and_what_it_skips_is_unreadable() -> None:
    large = [floats(n) for n in range(30)]
    large[3][1, 1] = 1e30
    texts = [item.text for item in advise(of(large)) if item.topic == "values"]
    assert any(text.startswith("training refuses these images: values from") for text in texts)
    with pytest.raises(UserError) as refused:
        open_data(DataConfig("made"), source=made(large))
    assert str(refused.value) in texts[0] + texts[1]
    bands = [np.random.default_rng(n).integers(0, 256, (8, 8, 5 if n else 4), np.uint8) for n in range(6)]
    report = of(bands[1:] + bands[:1])
    assert report.faults == [(5, "4 channels, where the first picture has 5")]
    assert report.channels == 5
    assert open_data(DataConfig("made"), source=made(bands[1:] + bands[:1])).skipped == [
        ("made[5]", report.faults[0][1])
    ]


def test_mixed_depths_are_read_as_bytes() -> None:
    deep = [np.random.default_rng(n).integers(0, 65536, (8, 8)).astype(np.uint16) for n in range(3)]
    report = of([*deep, *[np.random.default_rng(9).integers(0, 256, (8, 8), np.uint8)]])
    assert report.format.kind == "8"
    assert set(report.records["kind"].tolist()) == {b"8"}


class Checked(HTMLParser):
    """Reads a page and keeps its tags, images and words, refusing what would be dangerous."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.images: list[bytes] = []
        self.words = ""
        self.feed(content)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset"):
                assert value is not None
                assert value.startswith("data:image/png;base64,"), value[:40]
                self.images.append(base64.b64decode(value.partition(",")[2]))
        if tag not in ("meta", "img", "br", "rect", "path", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_stands_alone_and_no_name_can_change_it(folder: Path) -> None:
    report = check(open_source(str(folder)), DataConfig(str(folder)), workers=0)
    content = as_html(report, advise(report))
    found = Checked(content)
    assert not found.tags & {"script", "iframe", "object", "embed", "link", "form", "base", "audio", "video"}
    assert "default-src 'none'" in content
    assert "<img src=x onerror=alert(1)> \\u202e\\n'\"&.png" in found.words
    assert "\u202e" not in content
    assert "a symbolic link, which is not followed" in found.words
    assert len(found.images) > 30
    for image in found.images:
        opened = Image.open(io.BytesIO(image))
        assert max(opened.size) in range(60, 97)
    assert not re.search(r"https?://", content)


def test_labels_cannot_change_the_page_either() -> None:
    with pytest.raises(UserError, match="control character"):
        of(drawn_many(8), classes=("<script>", "turned \u202e\n"), labels=[0.0, 1.0] * 4)
    report = of(drawn_many(8), classes=("<script>", "joined \u200d"), labels=[0.0, 1.0] * 4)
    content = as_html(report, advise(report))
    assert "\u200d" not in content
    assert "script" not in Checked(content).tags


def test_the_page_of_nothing_is_a_page() -> None:
    report = of(["torn", "empty"])
    found = Checked(as_html(report, advise(report)))
    assert "made[0]" in found.words
    assert found.images == []


def test_the_cleaned_list_names_the_files_to_keep(folder: Path) -> None:
    source = open_source(str(folder))
    (folder / "a" / WILD).rename(wild := folder / "a" / WILD.replace("\n", ""))
    source = open_source(str(folder))
    kept = cleaned(check(source, DataConfig(str(folder)), workers=0))
    wild.rename(folder / "a" / WILD)
    assert all(path.is_absolute() for path in kept)
    left = {path.relative_to(folder).as_posix() for path in kept}
    assert len(left) == 31
    assert not {"a/x copy.bmp", "b/x again.jpg", "a/red.png", "a/torn.png", "b/text.png", "link.png"} & left


def test_what_no_list_can_hold_is_refused(folder: Path) -> None:
    report = check(open_source(str(folder)), DataConfig(str(folder)), workers=0)
    with pytest.raises(UserError, match="has a line break"):
        cleaned(report)
    with pytest.raises(UserError, match="is not a folder of images"):
        cleaned(of(drawn_many(3)))
    with pytest.raises(UserError, match="leave out --num"):
        cleaned(check(open_source(str(folder)), DataConfig(str(folder)), num=3, workers=0))


def test_the_page_does_not_print_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    report = check(open_source(str(folder)), DataConfig(str(folder)), workers=0)
    page = as_html(report, advise(report))
    assert str(folder.parent) not in page
    assert "<h1><bdi>pictures</bdi></h1>" in page
    assert "<bdi>~/pictures</bdi>" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_is_as_wide_as_the_window(tmp_path: Path, width: int) -> None:
    """Also with names of 240 letters, of files, of unreadable files and of classes."""
    for n, name in enumerate(("W" * 240, "Q" * 200)):
        (tmp_path / "set" / name).mkdir(parents=True)
        drawn(n).save(tmp_path / "set" / name / f"{name}.png")
        (tmp_path / "set" / name / f"bad {name}.png").write_text("nothing")
    report = check(open_source(str(tmp_path / "set")), DataConfig(str(tmp_path / "set")), workers=0)
    page = as_html(report, advise(report))
    probe = f"<script>document.title=Math.max(document.documentElement.scrollWidth,{width})</script></body>"
    open_page = re.sub("<meta http-equiv[^>]*>", "", page).replace("</body>", probe)
    (tmp_path / "page.html").write_text(f"<iframe id=f width={width} height=900 src=inner.html></iframe>")
    (tmp_path / "inner.html").write_text(open_page.replace("document.title=", "parent.document.title="))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--virtual-time-budget=9000",
    ]
    command = ["chromium", *flags, "--window-size=1400,1000", "--dump-dom", f"file://{tmp_path}/page.html"]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert f"<title>{width}</title>" in dom
