"""A small classifier of our own, for 28x28 clothes and 8x8 digits, for which Inception, trained on photographs, works
badly.

    5x5 convolution, stride 2, 24 - 3x3 convolution, stride 2, 48 - linear, 128 = the features - linear, the classes

each but the last with batch normalisation and ReLU. `scripts/train_classifier.py` trains it in under a minute and
writes the files in `assets/`; their headers say what they were trained on and how well they do. The classifiers saw all
of their training sets, held-out images of ours among them: use them to compare distributions, not to claim that an
image is new.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.errors import UserError
from sfumato.evaluate.extractors.weights import fill, fingerprint
from sfumato.evaluate.features import CLASSIFIERS, Extractor, Shape

DIM = 128
CLASSES = 10
RECIPE = "pixels in [-1, 1], as they are"


class Classifier(nn.Module):
    """Two convolutions and two linear layers, for grey images of one size."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        places = -(-height // 4) * -(-width // 4)
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48 * places, DIM, bias=False),
            nn.BatchNorm1d(DIM),
            nn.ReLU(),
        )
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the classes' logits, (B, 10), of images (B, 1, H, W) in [-1, 1]."""
        logits: Tensor = self.head(self.features(x))
        return logits


def asset(name: str) -> Path:
    """Return the file of a shipped classifier."""
    return Path(str(files("sfumato.evaluate").joinpath("assets", f"classifier-{name}.safetensors")))


def open_features(path: Path, shape: Shape, device: str, format: PixelFormat) -> Extractor:
    """Open the shipped classifier for images of a shape; raises `UserError` where there is none."""
    if shape not in CLASSIFIERS:
        sizes = ", ".join(f"{'x'.join(map(str, s))} ({name})" for s, name in CLASSIFIERS.items())
        raise UserError(
            f"'classifier' is for images of {sizes}, and these are {'x'.join(map(str, shape))}: use 'wavelets', or "
            "inception:PATH or dinov2:PATH"
        )
    path = asset(CLASSIFIERS[shape])
    content = path.read_bytes()
    with torch.device("meta"):
        net = Classifier(*shape[1:])
    net = fill(net, safetensors.torch.load(content), path, "our classifier").to(device)
    return Extractor(
        name=f"classifier-{CLASSIFIERS[shape]}",
        sha256=fingerprint(RECIPE, hashlib.sha256(content).hexdigest()),
        dim=DIM,
        recipe=RECIPE,
        features=lambda images: net.features(EIGHT.to_model(images)),
        device=device,
    )
