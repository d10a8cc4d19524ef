from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.sources.builtin import FASHION_FOLDER
from sfumato.data.sources.published import read_idx
from sfumato.errors import UserError
from sfumato.evaluate import Extractor, batches, extract, fitting, open_extractor
from sfumato.evaluate.extractors.classifier import CLASSIFIERS, Classifier, asset
from sfumato.evaluate.extractors.weights import resized
from sfumato.evaluate.features import Shape

from .conftest import images_of


def pixels(shape: Shape) -> Extractor:
    return open_extractor("pixels", shape)


def random_bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_small_images_are_their_own_features() -> None:
    x = random_bytes(4, 3, 16, 16)
    found = pixels((3, 16, 16))
    assert found.dim == 768
    torch.testing.assert_close(found(x), (x.double() / 127.5 - 1).flatten(1).float())


def test_large_images_become_means_of_blocks() -> None:
    x, found = random_bytes(2, 3, 64, 64), pixels((3, 64, 64))
    assert found.dim == 768
    expected = torch.empty(2, 3, 16, 16)
    for row in range(16):
        for column in range(16):
            block = x[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].float() / 127.5 - 1
            expected[:, :, row, column] = block.mean((2, 3))
    torch.testing.assert_close(found(x), expected.flatten(1))


def test_blocks_at_the_edge_are_means_of_what_is_there() -> None:
    found = pixels((1, 50, 33))  # blocks of 2: 25 x 17
    x = random_bytes(1, 1, 50, 33)
    assert found.dim == 25 * 17
    corner = x[0, 0, 48:, 32:].float().mean() / 127.5 - 1
    torch.testing.assert_close(found(x)[0, -1], corner)


def test_the_hash_is_of_the_recipe() -> None:
    assert pixels((3, 16, 16)).sha256 == pixels((3, 16, 16)).sha256
    assert pixels((3, 16, 16)).sha256 != pixels((3, 16, 15)).sha256
    clothes, digits = (open_extractor("classifier", shape) for shape in CLASSIFIERS)
    assert clothes.sha256 != digits.sha256


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resizing_keeps_constants_and_is_plain_where_it_enlarges(mode: str) -> None:
    grey = torch.full((1, 1, 28, 28), 51, dtype=torch.uint8)
    torch.testing.assert_close(resized(grey, 299, mode), torch.full((1, 3, 299, 299), 0.2))
    if mode == "bilinear":
        x = random_bytes(2, 3, 28, 28)
        plain = torch.nn.functional.interpolate(x.float() / 255, (299, 299), mode=mode, align_corners=False)
        torch.testing.assert_close(resized(x, 299, mode), plain, atol=1e-5, rtol=0)


def test_resizing_is_antialiased_where_it_shrinks() -> None:
    """A checkerboard, shrunk eight times, is grey; sampled without a filter it is not."""
    board = (torch.arange(512)[:, None] + torch.arange(512)) % 2 * 255
    small = resized(board.to(torch.uint8)[None, None], 64, "bilinear")
    assert float((small - 0.5).abs().max()) < 0.01


def accuracy(shape: tuple[int, int, int], images: torch.Tensor, labels: torch.Tensor) -> float:
    found, net = open_extractor("classifier", shape), Classifier(*shape[1:])
    net.load_state_dict(safetensors.torch.load_file(asset(CLASSIFIERS[shape])), strict=False)
    right = [net.head(found(x)).argmax(1) == y for x, y in zip(images.split(500), labels.split(500), strict=True)]
    return float(torch.cat(right).double().mean())


def facts_of(name: str) -> dict[str, str]:
    with safetensors.safe_open(asset(name), framework="pt") as file:
        return dict(json.loads(file.metadata()["facts"]))


def test_the_digit_classifier_knows_digits_that_it_was_not_trained_on(cache: Path) -> None:
    data = open_data(DataConfig(source="digits", held_out=0.2, labels="source"), cache)
    labels = torch.from_numpy(data.table[data.held_out, 0]).long()
    found = accuracy((1, 8, 8), torch.tensor(data.images[data.held_out]), labels)
    assert found > 0.95
    assert facts_of("digits")["test_accuracy"].startswith(f"{found:.4f}")


@pytest.mark.skipif(not FASHION_FOLDER.is_dir(), reason="Fashion-MNIST's test images are not installed")
def test_the_clothes_classifier_knows_clothes_that_it_was_not_trained_on() -> None:
    images = torch.tensor(read_idx(FASHION_FOLDER / "t10k-images-idx3-ubyte.gz"))[:, None]
    labels = torch.tensor(read_idx(FASHION_FOLDER / "t10k-labels-idx1-ubyte.gz")).long()
    found = accuracy((1, 28, 28), images, labels)
    assert found > 0.9
    assert facts_of("fashion")["test_accuracy"].startswith(f"{found:.4f}")


def test_the_classifiers_are_small_and_know_the_shipped_clothes(fashion: Dataset) -> None:
    assert sum(asset(name).stat().st_size for name in CLASSIFIERS.values()) < 2e6
    images = torch.tensor(fashion.images[:2000])
    assert accuracy((1, 28, 28), images, torch.from_numpy(fashion.table[:2000, 0]).long()) > 0.9


def test_features_do_not_depend_on_the_batch(fashion: Dataset) -> None:
    x = images_of(fashion, 0, 20)
    for name in fitting(fashion.shape):
        found = open_extractor(name, fashion.shape)
        one, many = extract(found, batches(x, size=1)), extract(found, batches(x, size=20))
        assert one.shape == (20, found.dim)
        torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)


def test_batches_take_the_rows_asked_for(fashion: Dataset) -> None:
    rows = torch.tensor([5, 3, 900, 3])
    found = list(batches(fashion.images, rows, size=3))
    assert [len(x) for x in found] == [3, 1]
    assert torch.equal(torch.cat(found), torch.tensor(fashion.images[rows.numpy()]))


def test_extractors_that_need_no_file_are_offered_for_what_they_know() -> None:
    assert fitting((1, 28, 28)) == ("classifier", "pixels")
    assert fitting((3, 64, 64)) == ("pixels",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("inceptoin", "no feature extractor 'inceptoin'; did you mean 'inception'"),
        ("inception", "needs a file of weights: give inception:PATH"),
        ("dinov2:", "needs a file of weights: give dinov2:PATH"),
        ("pixels:weights.pt", "takes no file of weights"),
        ("inception:missing.pth", "there is no file of weights 'missing.pth'"),
        ("classifier", r"knows images of 1x28x28 \(fashion\), 1x8x8 \(digits\) and these are 3x16x16"),
    ],
)
def test_what_cannot_be_opened_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_extractor(spec, (3, 16, 16))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["inception", "dinov2"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_not_such_weights_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    for content in (b"", b"not weights at all", b"\x80\x02}q\x00."):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            open_extractor(f"{name}:{path}", (3, 16, 16))
        assert "\n" not in str(caught.value)
    path = tmp_path / "weights.pth"
    torch.save({"pos_embed": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="does not hold the weights of"):
        open_extractor(f"{name}:{path}", (3, 16, 16))
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="more than named tensors"):
        open_extractor(f"{name}:{path}", (3, 16, 16))


class Hostile:
    """What a pickle can do to whoever loads it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"conv": Hostile(trace)}, path)
    with pytest.raises(UserError, match="can be read safely"):
        open_extractor(f"inception:{path}", (3, 16, 16))
    assert not trace.exists()


def test_no_image_is_refused() -> None:
    with pytest.raises(UserError, match="no image"):
        extract(pixels((3, 16, 16)), iter([]))
