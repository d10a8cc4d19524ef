"""What a training is chosen to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.config.data import DataConfig
from sfumato.data import open_data
from sfumato.run.folder import Run
from sfumato.train.choose import CLASS_SIZE, as_begun, choose, classes_of
from sfumato.train.loop import train

CPU = torch.device("cpu")


def pictures(folder, count, first=0):
    folder.mkdir(parents=True)
    for index in range(first, first + count):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return str(folder)


def test_a_file_goes_before_what_is_chosen_for_few_images(tmp_path):
    photos, file = pictures(tmp_path / "photos", 12), tmp_path / "own.toml"
    given = {"data.source": photos}
    chosen, _, _ = choose(None, None, given, CPU)
    assert chosen.augment.p == 0.12
    file.write_text("[augment]\np = 0.5\n")
    assert choose(None, file, given, CPU)[0].augment.p == 0.5
    assert choose(None, file, {**given, "augment.p": "0"}, CPU)[0].augment.p == 0


@pytest.fixture
def classes(tmp_path):
    for k, name in enumerate(("cat", "dog")):
        pictures(tmp_path / "pets" / name, CLASS_SIZE + 4, 100 * k)
    return str(tmp_path / "pets")


def test_our_own_presets_learn_from_classes_unless_labels_are_decided(classes, tmp_path):
    given, file = {"data.source": classes}, tmp_path / "own.toml"
    file.write_text('[data]\nlabels = "none"\n')
    for preset in (None, "small8"):
        config, data, _ = choose(preset, None, given, CPU)
        assert config.data.labels == data.config.labels == "source"
        assert [a.values for a in data.attributes] == [("cat", "dog")]
        assert any("the model learns the 2 classes" in note for note in data.notes)
        assert not any("not used" in note for note in data.notes)
    for asked in (("cifar10-ddpm", None, given), (None, file, given), (None, None, {**given, "data.labels": "none"})):
        config, data, _ = choose(*asked, CPU)
        assert config.data.labels == "none"
        assert not data.attributes


def test_labels_that_a_model_does_not_learn_from_without_being_asked(classes, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8)
    for name, labels in (("few", np.arange(90) // 10), ("one", np.zeros(90, int)), ("many", np.arange(90) // 30)):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    assert [classes_of(open_data(DataConfig(str(tmp_path / f"{n}.npz")))) for n in ("few", "one", "many")] == [0, 0, 3]
    assert classes_of(open_data(DataConfig("faces"))) == 0  # fourteen attributes
    pictures(tmp_path / "pets" / "others" / "loose", 1, 900)
    Image.new("RGB", (8, 8)).save(tmp_path / "pets" / "loose.png")  # of no class
    assert classes_of(open_data(DataConfig(classes))) == 0


def test_a_run_keeps_the_labels_that_it_was_begun_with(classes, tmp_path):
    plain = {"data.source": classes, "data.labels": "none", "train.images": "32"}
    config, data, _ = choose("small8", None, plain, CPU)
    run = Run(tmp_path / "run")
    next(iter(train(config, run, data)))
    again, images, _ = choose("small8", None, {"data.source": classes}, CPU)
    assert again.data.labels == "source"
    config, data = as_begun(again, images, run, ())
    assert config.data.labels == "none"
    assert not data.attributes
    config, data = as_begun(again, images, run, ("data.labels",))
    assert config.data.labels == "source"
    assert data.attributes
