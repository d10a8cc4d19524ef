"""What a training is chosen to be."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from sfumato.train.choose import choose


def test_a_file_goes_before_what_is_chosen_for_few_images(tmp_path):
    photos, file = tmp_path / "photos", tmp_path / "own.toml"
    photos.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{index}.png")
    given, cpu = {"data.source": str(photos)}, torch.device("cpu")
    chosen, _, _ = choose(None, None, given, cpu)
    assert chosen.augment.p == 0.12
    file.write_text("[augment]\np = 0.5\n")
    assert choose(None, file, given, cpu)[0].augment.p == 0.5
    assert choose(None, file, {**given, "augment.p": "0"}, cpu)[0].augment.p == 0
