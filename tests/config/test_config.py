"""The configuration: three sources laid over one another, read back exactly, impossible combinations refused."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.config import Config, difference, digest, from_dict, from_stored, to_dict, to_toml
from sfumato.config.diffusion import DiffusionConfig
from sfumato.config.presets import PRESETS, choose, resolve
from sfumato.diffusion import Cosine, EDMWeight, Linear, LogNormal, Shifted, Sigmoid, ZeroTerminalSNR
from sfumato.diffusion.chains import LogNoise
from sfumato.errors import UserError
from sfumato.exchange import edm
from sfumato.nets import Interface
from sfumato.nets.cost import parameters
from sfumato.nets.preconditioned import PreconditionedConfig
from sfumato.train.optim import learning_rate


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_both_formats(name):
    config = PRESETS[name].config
    assert from_dict(to_dict(config)) == config
    assert from_dict(tomllib.loads(to_toml(config))) == config
    assert resolve(name) == config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build(name):
    config = PRESETS[name].config
    with torch.device("meta"):
        net = config.net.build(Interface())
    assert parameters(net) > 1000
    config.diffusion.build_schedule()
    assert PRESETS[name].source.endswith(".")


@pytest.mark.parametrize(
    ("name", "millions", "steps", "batch", "lr", "flip", "dropout", "variance"),
    [  # the papers' own numbers: DDPM Sec. 4, Appendix B (35.7M and 114M parameters), and the published code
        ("cifar10-ddpm", 35.7, 800_000, 128, 2e-4, True, 0.1, "large"),
        ("celebahq256-ddpm", 114, 500_000, 64, 2e-5, True, 0.0, "small"),
        ("celeba64-ddpm", 78.7, 500_000, 128, 2e-4, True, 0.1, "large"),
    ],
)
def test_published_settings(name, millions, steps, batch, lr, flip, dropout, variance):
    config = PRESETS[name].config
    with torch.device("meta"):
        assert parameters(config.net.build(Interface())) / 1e6 == pytest.approx(millions, rel=5e-3)
    assert config.train.images == steps * batch
    assert (config.train.batch, config.optim.lr, config.optim.name) == (batch, lr, "adam")
    assert (config.data.flip, config.net.dropout, config.diffusion.variance) == (flip, dropout, variance)
    assert config.diffusion.schedule == Linear(1000, 1e-4, 0.02)
    assert config.diffusion.parameterization == "eps"
    # the published average: 0.9999 a step, once the ramp is over
    assert config.ema.decay(10**9, batch, steps * batch) == pytest.approx(0.9999, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "millions", "steps", "dropout", "objective", "timesteps"),
    [  # IDDPM's code names its networks 50M (CIFAR-10) and 100M (ImageNet-64); exact counts of the same structure
        ("cifar10-iddpm", 52.5, 500_000, 0.3, "hybrid", "uniform"),
        ("cifar10-iddpm-vlb", 52.5, 500_000, 0.3, "vlb", "importance"),
        ("imagenet64-iddpm", 121, 1_500_000, 0.0, "hybrid", "uniform"),
        ("imagenet64-iddpm-vlb", 121, 1_500_000, 0.0, "vlb", "importance"),
    ],
)
def test_settings_of_improved_ddpm(name, millions, steps, dropout, objective, timesteps):
    config = PRESETS[name].config
    with torch.device("meta"):
        assert parameters(config.net.build(Interface(learned_variance=True))) / 1e6 == pytest.approx(millions, rel=5e-3)
    assert config.train.images == steps * config.train.batch == steps * 128
    assert (config.optim.name, config.optim.lr, config.optim.clip, config.optim.decay) == (
        "adam",
        1e-4,
        None,
        "constant",
    )
    assert (config.data.flip, config.net.dropout, config.net.scale_shift) == (False, dropout, True)
    assert config.diffusion.schedule == Cosine(num_steps=4000)
    assert (config.diffusion.variance, config.diffusion.objective) == ("learned", objective)
    assert to_dict(config)["diffusion"]["timesteps"]["kind"] == timesteps


def test_settings_of_edm() -> None:
    """2206.00364, Table 1 and Appendix F.2, and the defaults of the authors' train.py; the network is the one that
    their snapshots of DDPM++ are read as."""
    config = PRESETS["cifar10-edm"].config
    song = edm._SONG | {"channel_mult": [2, 2, 2], "dropout": 0.13}
    read = edm._network("SongUNet", song, 32)
    assert config.net == PreconditionedConfig(replace(read, early_augment=True, first_weights="song"))
    with torch.device("meta"):
        assert parameters(config.net.build(config.interface(3))) / 1e6 == pytest.approx(55.7, abs=0.05)
    assert (config.train.batch, config.train.images, config.train.label_dropout) == (512, 200_000_000, 0.0)
    optim = config.optim
    assert (optim.name, optim.lr, optim.beta1, optim.beta2, optim.clip) == ("adam", 1e-3, 0.9, 0.999, None)
    assert optim.eps * 3 * 32 * 32 == pytest.approx(1e-8)  # of a loss that is summed over an image
    rates = [learning_rate(optim, n, 512, 200_000_000) for n in (0, 5_000_000, 10_000_000, 199_999_488)]
    assert rates == pytest.approx([512e-10, 5.000512e-4, 1e-3, 1e-3])
    halves = [config.ema.decay(n, 512, 200_000_000) for n in (1_000_000, 10_000_000, 200_000_000)]
    assert halves == pytest.approx([0.5 ** (512 / 50_000), 0.5 ** (512 / 500_000), 0.5 ** (512 / 500_000)])
    assert (config.augment.p, len(config.augment.kinds), config.data.flip) == (0.12, 6, False)
    diffusion = config.diffusion
    assert (diffusion.timesteps, diffusion.weighting) == (LogNormal(-1.2, 1.2), EDMWeight(0.5))
    assert (diffusion.parameterization, diffusion.schedule) == ("x0", LogNoise(1000, 0.002, 80.0))


def test_file_over_preset_and_override_over_file(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text('[net]\nbase = 48\n[optim]\nlr = 1e-4\n[diffusion.schedule]\nkind = "sigmoid"\ntau = 0.9\n')
    config = resolve("small16", file, {"net.base": "64", "net.groups": "16"})
    assert config.net.base == 64
    assert config.optim.lr == 1e-4
    assert config.diffusion.schedule == Sigmoid(tau=0.9)
    assert config.net.multipliers == PRESETS["small16"].config.net.multipliers


@pytest.mark.parametrize(
    ("preset", "overrides", "words"),
    [
        ("smal32", {}, ["smal32", "'small32'"]),
        (None, {"net.bas": "64"}, ["net.bas", "'net.base'"]),
        (None, {"nte.base": "64"}, ["nte", "'net'"]),
        (None, {"net.base": "many"}, ["net.base", '"many"', "whole number"]),
        (None, {"diffusion.schedule.kind": "cosin"}, ["diffusion.schedule.kind", "'cosine'"]),
        (None, {"diffusion.parameterization": "epss"}, ["diffusion.parameterization", "'eps'"]),
        (None, {"diffusion.variance": "smal"}, ["diffusion.variance", "'small'"]),
        (None, {"diffusion.loss_space": "w"}, ["diffusion.loss_space"]),
        (None, {"diffusion.schedule.num_steps": "1000000000000"}, ["schedule.num_steps"]),
        (None, {"diffusion.schedule.num_steps": "0"}, ["schedule.num_steps"]),
        (None, {"diffusion.schedule.s": "-1"}, ["diffusion.schedule.s", "0 or more"]),
        (None, {"diffusion.schedule.kind": "linear", "diffusion.schedule.beta_min": "-1e-4"}, ["schedule.beta_min"]),
        (
            None,
            {
                "diffusion.schedule.kind": "sigmoid",
                "diffusion.schedule.start": "50",
                "diffusion.schedule.end": "90",
            },
            ["diffusion.schedule", "abar does not fall"],
        ),
        ("cifar10-ddpm", {"diffusion.zero_terminal_snr": "true"}, ["eps", "parameterization=v"]),
        (None, {"optim.name": "adamm"}, ["optim.name", "'adam"]),
        (None, {"optim.decay": "cos"}, ["optim.decay", "'cosine'"]),
        (None, {"optim.lr": "0"}, ["optim.lr", "above 0"]),
        (None, {"optim.beta1": "1"}, ["optim.beta1"]),
        (None, {"ema.half_life": "0"}, ["ema.half_life"]),
        (None, {"ema.ramp": "-1"}, ["ema.ramp"]),
        (None, {"train.batch": "0"}, ["train.batch"]),
        (None, {"train.seed": "-1"}, ["train.seed"]),
        (None, {"train.seed": str(2**64)}, ["train.seed"]),
        (None, {"train.label_dropout": "1.5"}, ["train.label_dropout"]),
        (None, {"train.budget": "0"}, ["train.budget"]),
        (None, {"train.grid_steps": "2000"}, ["train.grid_steps", "1000"]),
        (None, {"net.base": "33"}, ["net.base"]),
        (None, {"net.channels": "1"}, ["net.channels", "leave it out"]),
    ],
)
def test_mistakes_are_named(preset, overrides, words):
    with pytest.raises(UserError) as error:
        resolve(preset, None, overrides)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_configuration(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        resolve(None, tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("[net\nbase = 3")
    with pytest.raises(UserError, match=r"bad\.toml.*line"):
        resolve(None, tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not text"):
        resolve(None, tmp_path / "binary.toml")


def test_the_schedule_is_built_as_configured():
    t = torch.linspace(0.01, 1, 7, dtype=torch.float64)
    plain = DiffusionConfig(Cosine(100), zero_terminal_snr=True, logsnr_shift=-1.5)
    expected = Shifted(ZeroTerminalSNR(base=Cosine(100)), -1.5)
    assert torch.equal(plain.build_schedule()(t).logsnr, expected(t).logsnr)
    assert DiffusionConfig(Cosine(100)).build_schedule() == Cosine(100)


def test_the_loss_space_defaults_to_the_parameterization():
    space = DiffusionConfig(parameterization="x0")
    assert space.build_objective().space == space.build_parameterization()
    other = DiffusionConfig(parameterization="x0", loss_space="eps").build_objective().space
    assert other == DiffusionConfig(parameterization="eps").build_parameterization()


def test_the_interface_follows_from_data_and_process():
    config = resolve(
        "small16", None, {"augment.p": "0.1", "diffusion.variance": "learned", "diffusion.objective": "vlb"}
    )
    vocabulary = AttributeVocabulary((Attribute("letter", ("a", "b")), Attribute("age", mean=2.0, std=3.0)))
    assert config.interface(1, vocabulary) == Interface(1, vocabulary, 9, learned_variance=True)
    assert resolve("small16").interface(3) == Interface(3)


def test_a_mirrored_set_is_not_mirrored_by_the_augmentation_too():
    config = resolve("small16", None, {"augment.p": "0.1", "data.flip": "true"})
    assert "x-flip" not in config.augment.kinds
    assert from_dict(to_dict(config)) == config


def test_a_configuration_of_an_earlier_version_is_read():
    old = to_dict(resolve("small16"))
    del old["codec"], old["net"]["kind"]
    old["net"] |= {"channels": 3, "conditions": [2], "augment": 0, "learned_variance": False}
    old["train"]["grid_steps"] = 25
    assert from_stored(old) == resolve("small16", None, {"train.grid_steps": "25"})


def test_digest_and_difference_see_every_field():
    config = Config()
    other = resolve(None, None, {"optim.lr": "0.002"})
    assert digest(config) == digest(resolve())
    assert digest(config) != digest(other)
    assert difference(config, other) == "optim.lr 0.001 -> 0.002"
    assert difference(config, config) == ""


@pytest.mark.parametrize(
    ("shape", "count", "device", "budget", "name"),
    [
        ((1, 8, 8), 1500, "cpu", None, "small8"),
        ((3, 16, 16), 5000, "cpu", 60, "small16"),
        ((3, 32, 32), 50_000, "cpu", 3600, "small32"),
        ((3, 32, 32), 50_000, "cpu", 12 * 3600, "medium32"),
        ((3, 32, 32), 50_000, "cuda:0", 60, "medium32"),
        ((3, 64, 48), 200_000, "cpu", None, "small64"),
        ((3, 64, 48), 200_000, "cuda", None, "large64"),
        ((3, 64, 48), 200_000, "cpu", 4 * 86400, "large64"),
        ((3, 40, 20), 500, "cpu", None, "small32"),
        ((3, 300, 200), 30_000, "cpu", None, "small256"),
        ((3, 256, 256), 30_000, "cuda", 3600, "large256"),
    ],
)
def test_choose_goes_by_size_time_and_device(shape, count, device, budget, name):
    chosen, reason, values = choose(shape, count, device, budget)
    assert chosen == name
    assert f"{shape[2]}x{shape[1]}" in reason
    assert values == ({"train.batch": "128"} if device.startswith("cuda") else {})
    assert f"{count:,}" in reason


def test_importance_of_earlier_versions_is_a_kind_of_timesteps():
    table = to_dict(resolve("small16", None, {"diffusion.timesteps.kind": "importance"}))
    for said, kind in ((True, "importance"), (False, "uniform")):
        old = {key: value for key, value in table["diffusion"].items() if key != "timesteps"} | {"importance": said}
        assert to_dict(from_stored({**table, "diffusion": old}))["diffusion"]["timesteps"] == {"kind": kind}


def test_few_images_are_altered():
    name, reason, values = choose((3, 32, 32), 50, "cpu")
    assert (name, values) == ("small32", {"augment.p": "0.12"})
    assert "augment.p" in reason
