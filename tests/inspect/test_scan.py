"""Each image is scanned once and no image ends the scan; a record says of it what numpy and scipy say."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.fft import dctn

from sfumato.data import Picture, Source, open_source
from sfumato.inspect.scan import Look, difference_hash, frequency_hash, record, scan

from .images import Made, drawn, drawn_many

GOOD = drawn_many(12)
IMAGE = GOOD[0]


DEADLY = """
import os, signal
from sfumato.inspect.scan import recorder as real
def recorder(setup):
    record = real(setup)
    def deadly(file):
        if file.open("rb").read(3) == b"DIE":
            os.kill(os.getpid(), signal.SIGKILL)
        return record(file)
    return deadly
"""


def folder(path: Path) -> Source:
    """The good images as files."""
    path.mkdir()
    for i, pixels in enumerate(GOOD):
        Image.fromarray(pixels).save(path / f"{i:02d}.png")
    return open_source(str(path))


def of(pixels: np.ndarray) -> np.void:
    return record(Picture(pixels))


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_any_number_of_processes_gives_the_same(workers: int, tmp_path: Path) -> None:
    images = [*GOOD[:6], "is torn", *GOOD[6:], "is empty"]
    calls: list[tuple[int, int]] = []
    records, _, faults = scan(Made(images), np.arange(14), lambda done, total: calls.append((done, total)), workers)
    assert faults == [(6, "is torn"), (13, "is empty")]
    assert records["index"].tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert calls == [(n, 14) for n in range(1, 15)]
    assert records.tobytes() == scan(Made(images), np.arange(14), workers=0)[0].tobytes()
    files, _, _ = scan(folder(tmp_path / "set"), np.arange(12), workers=workers)
    assert set(files["format"].tolist()) == {b"PNG"}
    for name in set(files.dtype.names) - {"index", "format", "mode", "bits"}:
        np.testing.assert_array_equal(files[name], records[name])


def test_only_the_images_asked_for_are_read() -> None:
    images = [GOOD[0], lambda: pytest.fail("read"), GOOD[2]]
    records, _, faults = scan(Made(images), np.array([0, 2]), workers=0)
    assert records["index"].tolist() == [0, 2]
    assert not faults


def test_an_image_that_crashes_the_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("sfumato.inspect.scan.RECORDER", "deadly:recorder")
    source = folder(tmp_path / "set")
    for i in (3, 7):
        (tmp_path / "set" / f"{i:02d}.png").write_bytes(b"DIE")
    records, _, faults = scan(source, np.arange(12), workers=2)
    assert faults == [(3, "the decoder crashed"), (7, "the decoder crashed")]
    assert records["index"].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]


def test_an_image_too_large_for_memory_is_named() -> None:
    def greedy() -> None:
        raise MemoryError

    _, _, faults = scan(Made([GOOD[0], greedy]), np.arange(2), workers=1)
    assert faults == [(1, "it needs more memory than is available")]


def test_no_process_is_left_behind_after_an_interrupt(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        scan(folder(tmp_path / "set"), np.arange(12), stop, 2)
    assert threading.active_count() == before


def test_conditions_are_recorded_and_transparent_images_lie_on_the_background(tmp_path: Path) -> None:
    _, conditions, _ = scan(Made(GOOD[:3], ("a", "b"), [1.0, 0.0, 1.0]), np.arange(3))
    assert conditions.tolist() == [[1.0], [0.0], [1.0]]
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    for background, mean in (("white", 255), ("#ff0000", 85)):
        records, _, _ = scan(open_source(str(tmp_path)), np.arange(1), look=Look(background))
        assert records["mean"].mean() == mean


def test_scanning_does_not_import_torch() -> None:
    """Each process imports what it needs, and torch alone would take it seconds."""
    code = "import sys; import sfumato.inspect.scan; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_statistics_are_numpys() -> None:
    r, grey = of(IMAGE), of(IMAGE[..., :1])
    assert (r["height"], r["width"]) == (64, 80)
    assert r["mean"] == pytest.approx(IMAGE.mean((0, 1)), rel=1e-6)
    luma = np.asarray(Image.fromarray(IMAGE).convert("L")).astype(float)
    assert r["contrast"] == pytest.approx(luma.std(), rel=1e-6)
    assert grey["mean"] == pytest.approx(IMAGE[..., 0].mean(), rel=1e-6)
    assert (bool(r["grey"]), bool(r["constant"]), bool(grey["grey"])) == (False, False, True)


def test_a_single_other_pixel_is_enough_not_to_be_constant() -> None:
    flat = np.full((20, 30, 3), (9, 200, 40), np.uint8)
    assert of(flat)["constant"]
    flat[3, 4, 1] += 1
    assert not of(flat)["constant"]


def test_the_digest_is_of_pixels_and_shape() -> None:
    assert (of(IMAGE)["digest"] == of(IMAGE.copy())["digest"]).all()
    changed = IMAGE.copy()
    changed[5, 5, 0] ^= 1
    assert (of(IMAGE)["digest"] != of(changed)["digest"]).any()
    assert (of(IMAGE)["digest"] != of(IMAGE.reshape(80, 64, 3))["digest"]).any()
    grey = IMAGE[..., :1]
    assert (of(grey)["digest"] == of(grey.repeat(3, axis=2))["digest"]).all(), "grey however it is stored"


def test_the_frequency_hash_is_that_of_scipys_transform() -> None:
    luma = Image.fromarray(IMAGE).convert("L")
    small = np.asarray(luma.resize((32, 32), Image.Resampling.BILINEAR)).astype(float)
    low = dctn(small, type=2)[:8, :8]  # four times the plain sum of cosines
    bits = low > np.median(low.ravel()[1:])
    bits[0, 0] = False
    assert int(of(IMAGE)["hashes"][1]) == int("".join("01"[int(bit)] for bit in bits.ravel()), 2)


def test_the_difference_hash_by_hand() -> None:
    rows = np.tile(np.array([0, 3, 3, 5, 8, 8, 8, 1, 9]), (8, 1))
    assert difference_hash(rows) == int("10010001" * 8, 2)  # 0<3, not 3=3, not 3<5 by 2, 5<8, ..., not 8>1, 1<9


@pytest.mark.parametrize("seed", range(5))
def test_mirrored_hashes_are_those_of_the_mirror_image(seed: int) -> None:
    image = drawn(seed)
    one, other = of(np.asarray(image)), of(np.asarray(ImageOps.mirror(image)))
    assert one["mirrored"].tolist() == other["hashes"].tolist() != one["hashes"].tolist()
    assert one["hashes"].tolist() == other["mirrored"].tolist()


def test_brighter_images_keep_their_hashes() -> None:
    dark = (IMAGE * 0.5).astype(np.uint8)
    assert frequency_hash(np.arange(64.0).reshape(8, 8)) == frequency_hash(np.arange(64.0).reshape(8, 8) * 3 + 1)
    one, other = of(dark), of(dark + 60)
    assert [int(a ^ b).bit_count() for a, b in zip(one["hashes"], other["hashes"], strict=True)] <= [2, 2]


def test_headers_of_files(tmp_path: Path) -> None:
    image = Image.fromarray(IMAGE)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", "JPEG")
    Image.fromarray(np.full((8, 8), 999, np.uint16)).save(tmp_path / "c.png")
    image.convert("RGBA").save(tmp_path / "d.png")
    image.save(tmp_path / "e.gif", save_all=True, append_images=[ImageOps.mirror(image)])
    image.save(tmp_path / "f.tiff")
    found, _, _ = scan(open_source(str(tmp_path)), np.arange(6), workers=0)
    assert [r["format"].item() for r in found] == [b"PNG", b"JPEG", b"PNG", b"PNG", b"GIF", b"TIFF"]
    assert [r["bits"].item() for r in found] == [8, 8, 16, 8, 8, 8]
    for name, which in (("misnamed", 1), ("alpha", 3), ("animated", 4)):
        assert [i for i, r in enumerate(found) if r[name]] == [which], name


def test_a_jpeg_that_ended_early_is_marked(tmp_path: Path) -> None:
    content = io.BytesIO()
    drawn(3, (160, 160)).save(content, "JPEG", quality=90)
    whole = content.getvalue()
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    records, _, _ = scan(open_source(str(tmp_path)), np.arange(2), workers=0)
    assert records["cut_short"].tolist() == [True, False]
