from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from sfumato.codec.format import SIXTEEN, PixelFormat
from sfumato.config.data import DataConfig
from sfumato.data import Dataset, open_data
from sfumato.data.sources.builtin import FASHION_FOLDER
from sfumato.data.sources.published import read_idx
from sfumato.errors import UserError
from sfumato.evaluate import Extractor, extract, open_extractor
from sfumato.evaluate.extractors.classifier import Classifier, asset
from sfumato.evaluate.extractors.weights import resized
from sfumato.evaluate.features import CLASSIFIERS

from .conftest import images_of, random_bytes


def pixels(*shape: int) -> Extractor:
    channels, height, width = shape
    return open_extractor("pixels", (channels, height, width))


def test_small_images_are_their_own_features() -> None:
    x, found = random_bytes(4, 3, 16, 16), pixels(3, 16, 16)
    assert found.dim == 768
    torch.testing.assert_close(found(x), (x.double() / 127.5 - 1).flatten(1).float())


def test_large_images_become_means_of_blocks_and_at_the_edge_of_what_is_there() -> None:
    x, found = random_bytes(2, 3, 64, 64), pixels(3, 64, 64)
    assert found.dim == 768
    blocks = (x.float() / 127.5 - 1).unflatten(2, (16, 4)).unflatten(4, (16, 4))
    torch.testing.assert_close(found(x), blocks.mean((3, 5)).flatten(1))
    x, found = random_bytes(1, 1, 50, 33), pixels(1, 50, 33)  # blocks of 2: 25 x 17
    assert found.dim == 25 * 17
    torch.testing.assert_close(found(x)[0, -1], x[0, 0, 48:, 32:].float().mean() / 127.5 - 1)


def test_the_hash_is_of_the_recipe() -> None:
    assert pixels(3, 16, 16).sha256 == pixels(3, 16, 16).sha256 != pixels(3, 16, 15).sha256
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


def accuracy(shape: tuple[int, int, int], images: np.ndarray, labels: np.ndarray) -> float:
    found, net = open_extractor("classifier", shape), Classifier(*shape[1:])
    net.load_state_dict(safetensors.torch.load_file(asset(CLASSIFIERS[shape])), strict=False)
    right = [net.head(found(x)).argmax(1).numpy() for x in torch.tensor(images).split(500)]
    return float((np.concatenate(right) == labels).mean())


def stated(name: str) -> str:
    """The accuracy in the file's header."""
    with safetensors.safe_open(asset(name), framework="pt") as file:
        return str(json.loads(file.metadata()["facts"])["test_accuracy"])


def test_the_digit_classifier_knows_digits_that_it_was_not_trained_on(cache) -> None:
    data = open_data(DataConfig(source="digits", held_out=0.2, labels="source"), cache)
    found = accuracy((1, 8, 8), data.images[data.held_out], data.table[data.held_out, 0])
    assert found > 0.95
    assert stated("digits").startswith(f"{found:.4f}")


@pytest.mark.skipif(not FASHION_FOLDER.is_dir(), reason="Fashion-MNIST's test images are not installed")
def test_the_clothes_classifier_knows_clothes_that_it_was_not_trained_on() -> None:
    images, labels = (read_idx(FASHION_FOLDER / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    found = accuracy((1, 28, 28), images[:, None], labels)
    assert found > 0.9
    assert stated("fashion").startswith(f"{found:.4f}")


def test_the_classifiers_are_small_and_know_the_shipped_clothes(fashion: Dataset) -> None:
    assert sum(asset(name).stat().st_size for name in CLASSIFIERS.values()) < 2e6
    assert accuracy((1, 28, 28), fashion.images[:2000], fashion.table[:2000, 0]) > 0.9


@pytest.mark.parametrize("name", ["classifier", "pixels", "wavelets"])
def test_features_do_not_depend_on_the_batch(name: str, fashion: Dataset) -> None:
    x, found = images_of(fashion, 0, 20), open_extractor(name, fashion.shape)
    one, many = extract(found, x.split(1)), extract(found, [x])
    assert one.shape == (20, found.dim)
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)


def test_the_best_extractor_that_needs_no_file_is_the_default() -> None:
    assert open_extractor(None, (1, 28, 28)).name == "classifier-fashion"
    names = {open_extractor(None, (1, 28, 28), format=SIXTEEN).name, open_extractor(None, (3, 64, 64)).name}
    assert names == {"wavelets"}


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("inceptoin", (3, 16, 16), "no feature extractor 'inceptoin'; did you mean 'inception'"),
        ("inception", (3, 16, 16), "needs a file of weights: give inception:PATH"),
        ("dinov2:", (3, 16, 16), "needs a file of weights: give dinov2:PATH"),
        ("pixels:weights.pt", (3, 16, 16), "takes no file of weights"),
        ("inception:missing.pth", (3, 16, 16), "there is no file of weights 'missing.pth'"),
        ("dinov2:missing.pth", (5, 16, 16), "takes images of 1 or 3 channels and these have 5"),
        ("classifier", (3, 16, 16), r"is for images of 1x28x28 \(fashion\), 1x8x8 \(digits\), and these are 3x16x16"),
    ],
)
def test_what_cannot_be_opened_is_one_line(spec: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_extractor(spec, shape)
    assert "\n" not in str(caught.value)


def test_an_image_whose_features_are_not_finite_is_counted_over_all_batches() -> None:
    extractor = open_extractor("pixels", (1, 2, 2), format=PixelFormat("float", 0.0, 1.0))
    batches = [torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2).index_fill(0, torch.tensor(1), torch.nan)]
    with pytest.raises(UserError, match="not finite for image 4"):
        extract(extractor, batches, format=extractor.format)


def test_no_image_is_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        extract(pixels(3, 16, 16), iter([]))
