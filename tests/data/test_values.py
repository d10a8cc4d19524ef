"""The values of pictures: described, judged, filled, clamped, and the range that they are trained in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from sfumato.codec.format import EIGHT, SIXTEEN, PixelFormat
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.findings import findings
from sfumato.data.formats.fitting import without_holes
from sfumato.data.formats.rows import FACTS, Form, Rows, make_row
from sfumato.data.formats.values import FEW, Values
from sfumato.data.sources.protocol import Picture, Unreadable
from sfumato.errors import UserError

RNG = np.random.default_rng(3)
MakeFolder = Callable[..., Path]


def opened(path: Path, **options: Any) -> Dataset:
    return open_data(DataConfig(str(path), **options))


def saved(folder: Path, pictures: list[np.ndarray], suffix: str = "tif") -> Path:
    folder.mkdir()
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{k:02}.{suffix}")
    return folder


def stack(path: Path, pictures: np.ndarray) -> Path:
    np.save(path, pictures)
    return path


# ---- descriptions ----


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_description_is_what_counting_says_however_pictures_are_divided(dtype: str) -> None:
    pictures = [RNG.integers(low, low + 6, (5, 7, 1)).astype(dtype) for low in (20, 3, 3, 40, 11)]
    every = np.concatenate(pictures).ravel().astype(float)
    values = Values()
    for picture in pictures:
        values = values.merged(Values.of(picture))
    assert values == Values.of(np.concatenate(pictures)), "the same as of all at once"
    different = np.unique(every)
    assert (values.low, values.above_low) == tuple(different[:2])
    assert (values.below_high, values.high) == tuple(different[-2:])
    assert (values.at_low, values.at_high) == ((every == values.low).sum(), (every == values.high).sum())
    if dtype == "f4":
        assert values.deviation == pytest.approx(every.std())
    assert values.few == tuple(different)
    assert values.size == every.size
    assert Values.from_plain(json.loads(json.dumps(values.plain()))) == values


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_many_pictures_at_once_are_described_as_one_by_one(dtype: str, channels: int) -> None:
    pictures = (RNG.integers(0, 40, (7, 90, 100, channels)) * (6, 1)[channels == 3]).astype(dtype)
    pictures[:3] //= 4
    for some in (pictures, pictures[:3]):
        singly = Values.joined([Values(), *map(Values.of, some)])
        assert Values.joined([Values(), *Values.of_each(some)]) == singly
        assert Values.joined([Values(), *Values.of_each(np.asfortranarray(some))]) == singly


def test_many_different_pixels_are_not_listed_and_colours_are() -> None:
    assert Values.of(np.arange(FEW + 1, dtype=np.uint8)[:, None, None]).few is None
    assert Values.of(RNG.normal(size=(9, 9, 1)).astype(np.float32)).few is None
    three = np.zeros((9, 9, 3), np.uint8)
    three[2:4], three[5:, :2] = (255, 0, 0), (0, 0, 255)
    assert Values.of(three).few == (0.0, 255.0, 255.0 * 65536)


def test_a_row_survives_packing() -> None:
    picture = Picture(RNG.integers(0, 256, (20, 30, 4), np.uint8), animated=True, alpha=True, profile="converted")
    row = make_row(picture, Form((8, 8), 1, "white"))
    facts = ["animated", "resampled", "composited", "greyed", "converted"]
    assert [fact for fact in FACTS if row.facts.get(fact)] == facts
    assert row.lost == pytest.approx(1 / 3)
    again = Rows.unpack(row.pack())
    assert again.facts == dict.fromkeys(facts, 1)
    assert np.array_equal(again.planes, row.planes)
    assert (again.digests, again.grey, again.values) == (row.digests, row.grey, row.values)
    assert (again.kind, again.channels) == (row.kind, row.channels)
    assert again.lost == pytest.approx(row.lost)


# ---- findings ----


def topics(values: np.ndarray, format: PixelFormat, resampled: bool = False) -> list[str]:
    return [finding.topic for finding in findings(Values.of(values[..., None]), format, resampled)]


def ranged(values: np.ndarray) -> PixelFormat:
    return PixelFormat("float", float(values.min()), float(values.max()))


HEIGHTS = RNG.uniform(200, 490, (16, 16)).astype(np.float32)


@pytest.mark.parametrize("mark", [-9999.0, -32768.0, 1e30, -3.4028234663852886e38])
def test_a_mark_for_missing_data_is_found(mark: float) -> None:
    holed = HEIGHTS.copy()
    holed[3, 4:9] = mark
    (finding,) = findings(Values.of(holed[..., None]), ranged(holed), resampled=False)
    assert finding.trouble
    assert f"the value {mark:.8g} (5 times) is far from all others" in finding.text
    assert f"data.nodata={mark:.8g} " in finding.text
    assert "data.percentiles=5,95" in finding.text, "the first that cuts off 5 of 256"
    marked = float(finding.text.partition("data.nodata=")[2].partition(" ")[0])
    assert without_holes(holed[..., None], marked).holes is not None, "the advice can be followed"
    assert topics(holed, PixelFormat("float", 0.0, 500.0)) == [], "a given range without it is not stretched"


def test_ordinary_values_have_no_findings() -> None:
    for values, format in (
        (HEIGHTS, ranged(HEIGHTS)),
        (RNG.normal(size=(64, 64)).astype(np.float32), PixelFormat("float", -5.0, 5.0)),
        (RNG.integers(0, 60000, (16, 16)).astype(np.uint16), SIXTEEN),
        (RNG.integers(0, 256, (16, 16)).astype(np.uint8), EIGHT),
        (RNG.integers(0, 2, (16, 16)).astype(np.uint8) * np.uint8(255), EIGHT),
        (np.full((4, 4), 7, np.uint8), EIGHT),
    ):
        assert topics(values, format) == []


def test_an_unused_range_is_found() -> None:
    twelve = RNG.integers(0, 4096, (16, 16)).astype(np.uint16)
    twelve[0, :2] = 0, 4095
    (finding,) = findings(Values.of(twelve[..., None]), SIXTEEN, resampled=False)
    assert "training sees them in [-1, -0.875] of [-1, 1]" in finding.text
    assert topics(RNG.integers(0, 40, (16, 16)).astype(np.uint16), SIXTEEN) == ["range"]
    assert topics(RNG.integers(0, 2, (16, 16)).astype(np.uint8), EIGHT) == ["range"]
    stretched = np.concatenate([RNG.normal(size=(63, 64)), RNG.uniform(200, 400, (1, 64))]).astype(np.float32)
    stretched[-1, :40] = 0
    assert topics(stretched, PixelFormat("float", -3.0, 9000.0)) == ["range"]


def test_labels_with_a_mark_to_ignore_and_resizing_are_found() -> None:
    labels = RNG.integers(0, 20, (16, 16)).astype(np.uint8)
    labels[0] = 255
    assert topics(labels, EIGHT, resampled=True) == ["values", "label maps"]
    assert topics(RNG.integers(0, 2, (9, 9)).astype(np.uint8) * np.uint8(255), EIGHT, True) == ["label maps"]
    assert topics(RNG.integers(0, 256, (64, 64)).astype(np.uint8), EIGHT, True) == []


# ---- what training does with them ----


@pytest.mark.parametrize("mark", ["-9999", "nan"])
@pytest.mark.parametrize("size", [(16, 16), (8, 8)])
def test_holes_take_the_mean_and_nothing_rings(mark: str, size: tuple[int, int], tmp_path: Path) -> None:
    pictures = [RNG.uniform(200, 490, (16, 16)).astype(np.float32) for _ in range(24)]
    for picture in pictures[:20]:
        picture[4:7, 5:9] = float(mark)
    folder = saved(tmp_path / "set", pictures)
    if mark == "nan":
        assert len(opened(folder).skipped) == 20, "NaN is unreadable unless it is a mark"
    else:
        plain = opened(folder, size=size)
        assert plain.format.low <= -9999
        assert any("data.nodata=-9999" in note for note in plain.notes)
    data = opened(folder, size=size, nodata=mark)
    assert 150 < data.format.low < data.format.high < 540
    assert any("20 pictures have missing data" in note for note in data.notes)
    assert not any("far from all others" in note for note in data.notes)
    if size == (16, 16):
        holed = pictures[0] == -9999 if mark != "nan" else np.isnan(pictures[0])
        mean = pictures[0][~holed].mean(dtype=np.float64)
        assert data.images[0, 0][holed] == pytest.approx(mean)
        assert np.array_equal(data.images[0, 0][~holed], pictures[0][~holed])


def test_a_picture_of_nothing_but_holes_is_skipped() -> None:
    with pytest.raises(Unreadable, match="nothing but missing data"):
        without_holes(np.full((3, 3, 1), -9999, np.float32), -9999.0)
    bytes_ = np.array([[[9, 7], [0, 5]]], np.uint8)
    assert without_holes(bytes_, 0.0).pixels.tolist() == [[[9, 7], [9, 7]]], "one value is enough to make a hole"


def test_an_outlier_is_refused_and_percentiles_cut_it_off(tmp_path: Path) -> None:
    values = RNG.uniform(size=(40, 4, 4)).astype(np.float32)
    values[7, 2, 1] = 1e30
    path = stack(tmp_path / "a.npy", values)
    with pytest.raises(UserError, match=r"too large to train on .*data\.percentiles=1,99"):
        opened(path)
    data = opened(path, percentiles=(1.0, 99.0))
    others = np.delete(values, 7 * 16 + 2 * 4 + 1)
    assert data.format.low == pytest.approx(np.percentile(others, 1), abs=0.01)
    assert data.format.high == pytest.approx(np.percentile(others, 99), abs=0.01)
    assert data.images.max() == np.float32(data.format.high)
    assert data.images.min() == np.float32(data.format.low)
    assert float(data.format.to_model(torch.from_numpy(data.images.copy())).abs().max()) <= 1 + 1e-6
    assert any("percentiles 1 % and 99 %" in note for note in data.notes)
    assert opened(path, nodata="1e30").format.high <= 1


def test_a_range_clamps_only_where_it_is_told_to(tmp_path: Path) -> None:
    path = stack(tmp_path / "a.npy", RNG.normal(size=(30, 8, 8)))
    loose = opened(path, range=(-1.0, 1.0))
    assert loose.images.max() > 1
    assert any("are not clamped (data.clamp=true clamps them)" in note for note in loose.notes)
    for size in ((8, 8), (5, 5)):
        tight = opened(path, range=(-1.0, 1.0), clamp=True, size=size)
        assert np.abs(tight.images).max() == 1 if size == (8, 8) else np.abs(tight.images).max() <= 1
        assert tight.format == PixelFormat("float", -1.0, 1.0)
        assert any("were clamped" in note for note in tight.notes)


def test_a_range_makes_counts_floats(tmp_path: Path) -> None:
    counts = [RNG.integers(0, 41, (8, 8)).astype(np.uint16) for _ in range(5)]
    folder = saved(tmp_path / "set", counts)
    assert any("data.range=0,40" in note for note in opened(folder).notes)
    data = opened(folder, range=(0.0, 40.0))
    assert (data.images.dtype, data.format) == (np.float32, PixelFormat("float", 0.0, 40.0))
    assert not any("data.range" in note for note in data.notes)


def test_label_maps_keep_their_values_with_nearest(tmp_path: Path) -> None:
    maps = [np.kron(RNG.integers(0, 3, (4, 4)), np.ones((6, 6))).astype(np.uint8) for _ in range(6)]
    folder = saved(tmp_path / "set", maps, "png")
    mixed = opened(folder, size=(8, 8), depth="float")
    assert len(np.unique(mixed.images)) > 3
    assert any("data.resample=nearest keeps them" in note for note in mixed.notes)
    data = opened(folder, size=(8, 8), depth="float", resample="nearest")
    assert np.unique(data.images).tolist() == [0, 1, 2]
    assert any("resampled to the nearest pixel" in note for note in data.notes)
    assert not any("label maps" in note for note in data.notes)


# ---- what is said ----


def test_every_change_of_pixels_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(4):
        Image.fromarray(RNG.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{k}.png")
    Image.fromarray(RNG.integers(0, 256, (24, 32, 4), np.uint8)).save(folder / "clear.png")
    notes = opened(folder, size=(16, 16), channels=1, flip=True, background="#102030").notes
    for said in (
        "the crop cuts away 25.0% of a picture's pixels on average (data.crop=center)",
        "5 pictures were resampled with Lanczos",
        "1 picture has transparency and was laid on #102030 (data.background=COLOUR sets another)",
        "5 pictures have colour and became grey by their luma",
        "each training image is mirrored with probability 1/2 (data.flip=false does not)",
    ):
        assert said in notes
    plain = opened(folder, size=(24, 32), channels=4).notes
    assert not any("resampled" in note or "crop" in note or "laid" in note or "mirrored" in note for note in plain)


# ---- colour ----


def profile(gamma: float = 1.0) -> bytes:
    """Linear light with sRGB's primaries: the tables of sRGB's own profile exchanged for a straight line."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(content[128:132], "big")
    for k in range(count):
        tag = bytes(content[132 + 12 * k : 136 + 12 * k])
        start = int.from_bytes(content[136 + 12 * k : 140 + 12 * k], "big")
        if tag in (b"rTRC", b"gTRC", b"bTRC"):  # a curve of one number: a gamma of 8.8 bits
            content[start : start + 12] = b"curv" + bytes(4) + (1).to_bytes(4, "big")
            content[start + 12 : start + 14] = int(gamma * 256).to_bytes(2, "big")
    return bytes(content)


def srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_another_profile_is_converted_and_counted(tmp_path: Path) -> None:
    folder, pixels = tmp_path / "set", RNG.integers(0, 256, (8, 8, 3), np.uint8)
    folder.mkdir()
    for k in range(2):
        Image.fromarray(pixels).save(folder / f"{k}.png", icc_profile=profile())
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(folder / "2.png", icc_profile=own)
    Image.fromarray(pixels).save(folder / "3.png", icc_profile=b"nonsense")
    clear = np.concatenate([pixels, RNG.integers(0, 256, (8, 8, 1), np.uint8)], axis=2)
    Image.fromarray(clear).save(folder / "4.png", icc_profile=profile())
    data = opened(folder, channels=4)
    expected = 255 * srgb(pixels.transpose(2, 0, 1) / 255)
    assert np.abs(data.images[0, :3] - expected).max() < 3
    assert np.abs(expected - pixels.transpose(2, 0, 1)).max() > 50
    assert np.array_equal(data.images[2, :3], pixels.transpose(2, 0, 1)), "sRGB's own changes nothing"
    assert np.array_equal(data.images[3, :3], pixels.transpose(2, 0, 1)), "a damaged one neither"
    assert np.array_equal(data.images[4, 3], clear[..., 3]), "opacity has no colour"
    assert np.array_equal(data.images[4, :3], data.images[0, :3])
    assert "3 pictures have a colour profile other than sRGB and were converted to sRGB" in data.notes
    assert any(note.startswith("1 picture has a colour profile that was not applied") for note in data.notes)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "JPEG"])
def test_grey_stored_as_lossy_colour_is_grey(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for k in range(4):
        grey = np.kron(RNG.integers(0, 256, (8, 8)), np.ones((6, 6))).astype(np.uint8)
        Image.fromarray(grey[..., None].repeat(3, 2)).save(folder / f"{k}.{kind.lower()}", quality=20)
    assert opened(folder).shape == (1, 48, 48)
    faint = np.full((48, 48, 3), 90, np.uint8)
    faint[..., 0] = 93
    Image.fromarray(faint).save(folder / "faint.png")
    assert opened(folder).shape == (3, 48, 48), "what is stored exactly is colour, however faint"
