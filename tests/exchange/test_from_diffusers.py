"""Folders that diffusers itself writes, read: the same outputs as its own network."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.codec.format import EIGHT, PixelFormat
from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.config.augment import AugmentConfig
from sfumato.config.config import from_dict
from sfumato.diffusion import Cosine, Linear, Quadratic, Table
from sfumato.errors import UserError
from sfumato.exchange.export import export
from sfumato.exchange.imports import Imported, difference, read_model, write_model
from sfumato.generate.recipe import Recipe
from sfumato.generate.sample import asked, prepare, sample
from sfumato.model import load
from sfumato.nets.unet.general import GeneralUNetConfig
from sfumato.nets.unet.unet import UNetConfig

from .models import random_model, randomise

diffusers = pytest.importorskip("diffusers")

SMALL = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
ATTEND = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
NETS: dict[str, tuple[dict[str, Any], type]] = {
    "google's": (ATTEND | {"attention_head_dim": None, "freq_shift": 1, "flip_sin_to_cos": False,
                           "downsample_padding": 0, "norm_eps": 1e-6}, UNetConfig),
    "google's, heads": (ATTEND | {"attention_head_dim": 8, "freq_shift": 1, "flip_sin_to_cos": False,
                                  "downsample_padding": 0, "norm_eps": 1e-6}, UNetConfig),
    "defaults": (ATTEND | {"attention_head_dim": 4}, GeneralUNetConfig),
    "residual blocks that resample": (
        {"down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
         "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"), "downsample_type": "resnet",
         "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift",
         "attn_norm_num_groups": 4}, GeneralUNetConfig,
    ),
    "classes": (ATTEND | {"num_class_embeds": 3}, GeneralUNetConfig),
    "no attention, odd widths": (
        {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
         "add_attention": False, "block_out_channels": (8, 12)}, GeneralUNetConfig,
    ),
    "learned variance": (ATTEND | {"out_channels": 6}, GeneralUNetConfig),
}  # fmt: skip


SCORE = {
    "block_out_channels": (64, 128, 64), "layers_per_block": 1, "attention_head_dim": None, "norm_num_groups": None,
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"), "center_input_sample": True,
    "up_block_types": ("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"), "time_embedding_type": "fourier",
    "mid_block_scale_factor": 2**0.5, "norm_eps": 1e-6,
}  # fmt: skip


def saved(folder: Path, settings: dict[str, Any], scheduler: dict[str, Any] | None = None, **options: Any) -> Path:
    """A pipeline of random weights, as diffusers saves it."""
    net = diffusers.UNet2DModel(**(SMALL | settings))
    randomise(net)
    learned = {"variance_type": "learned_range"} if settings.get("out_channels") else {}
    chain = diffusers.DDPMScheduler(**({"num_train_timesteps": 20} | learned | (scheduler or {})))
    diffusers.DDPMPipeline(net, chain).save_pretrained(folder, **options)
    return folder


def agree(imported: Imported, tmp_path: Path) -> None:
    error = difference(write_model(imported, tmp_path / "ours.safetensors", force=True), imported)
    assert error is not None
    assert error < 1e-5


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_those_of_diffusers(name: str, tmp_path: Path) -> None:
    settings, kind = NETS[name]
    imported = read_model(saved(tmp_path / "theirs", settings))
    assert type(imported.config.net) is kind
    agree(imported, tmp_path)


def score(folder: Path, **changes: Any) -> Path:
    """An NCSN++ of diffusers in its folder, as google's are."""
    net = diffusers.UNet2DModel(**(SMALL | SCORE | changes))
    randomise(net)
    net.save_pretrained(folder / "unet")
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=90.0)
    scheduler.save_pretrained(folder / "scheduler")
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "ScoreSdeVeScheduler"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "ScoreSdeVePipeline"} | parts))
    return folder


def test_score_networks_are_those_of_diffusers(tmp_path: Path) -> None:
    imported = read_model(score(tmp_path / "theirs"))
    assert (imported.config.net.least, imported.config.net.most) == (0.02, 180.0)  # type: ignore[attr-defined]
    agree(imported, tmp_path)
    path = tmp_path / "theirs" / "unet" / "config.json"
    whole = json.loads(path.read_text())
    for change, message in [
        ({"center_input_sample": False}, "center_input_sample = False"),
        ({"mid_block_scale_factor": 1}, r"not sqrt\(2\)"),
        ({"block_out_channels": [32, 128, 64]}, "less than 64 channels"),
        ({"in_channels": 1}, "not of colour"),
    ]:
        path.write_text(json.dumps(whole | change))
        with pytest.raises(UserError, match=message):
            read_model(tmp_path / "theirs")
    path.write_text(json.dumps(whole))
    saved(tmp_path / "other", ATTEND)
    shutil.copytree(tmp_path / "other" / "scheduler", tmp_path / "theirs" / "scheduler", dirs_exist_ok=True)
    with pytest.raises(UserError, match="its scheduler is a DDPMScheduler"):
        read_model(tmp_path / "theirs")


def test_binary_weights_and_a_network_alone_are_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "theirs", ATTEND, safe_serialization=False)
    assert (folder / "unet" / "diffusion_pytorch_model.bin").exists()
    agree(read_model(folder), tmp_path)
    assert read_model(folder, name="hf:ada/cats").origin == "diffusers, hf:ada/cats"
    alone = read_model(folder / "unet")
    assert "no scheduler" in alone.notes[0]
    agree(alone, tmp_path)


def test_names_of_attention_before_0_15_are_read(tmp_path: Path) -> None:
    import safetensors.torch

    folder = saved(tmp_path / "theirs", ATTEND)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state, old = safetensors.torch.load_file(path), {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value."}
    for new, name in {**old, ".to_out.0.": ".proj_attn."}.items():
        state = {key.replace(new, name): value for key, value in state.items()}
    assert any(".proj_attn." in key for key in state)
    safetensors.torch.save_file(state, path)
    agree(read_model(folder), tmp_path)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ({"num_train_timesteps": 1000}, Linear(1000)),
        ({"beta_schedule": "squaredcos_cap_v2"}, Cosine(20)),
        ({"beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012},
         Quadratic(1000, 0.00085, 0.012)),
        ({"beta_schedule": "sigmoid"}, None),
        ({"trained_betas": [0.1, 0.05, 0.3], "num_train_timesteps": 3}, Table(values=(0.1, 0.05, 0.3))),
    ],
)  # fmt: skip
def test_chains_are_those_of_the_scheduler(scheduler: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path / "theirs", {**ATTEND}, scheduler | {"prediction_type": "v_prediction"})
    diffusion = read_model(folder).config.diffusion
    assert diffusion.parameterization == "v"
    assert expected is None or diffusion.schedule == expected
    theirs = diffusers.DDPMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod.double()
    steps = torch.arange(1, len(theirs) + 1, dtype=torch.float64) / len(theirs)
    torch.testing.assert_close(diffusion.build_schedule()(steps).abar, theirs, rtol=1e-4, atol=1e-8)


def test_what_is_exported_is_read_back(tmp_path: Path) -> None:
    for name in ("google's, heads", "residual blocks that resample"):
        first = write_model(read_model(saved(tmp_path / name, NETS[name][0])), tmp_path / f"{name}.safetensors")
        export(first, "diffusers", tmp_path / f"{name} again")
        again = write_model(read_model(tmp_path / f"{name} again"), tmp_path / f"{name} 2.safetensors")
        assert again.config.net == first.config.net
        assert all(torch.equal(v, again.net.state_dict()[k]) for k, v in first.net.state_dict().items())


def test_classes_must_be_given_and_are_used(tmp_path: Path) -> None:
    imported = read_model(saved(tmp_path / "theirs", NETS["classes"][0]))
    model = write_model(imported, tmp_path / "run")
    assert (tmp_path / "run" / "config.toml").exists()
    every = model.vocabulary.parse(None, complete=True)  # type: ignore[union-attr]
    assert len(every) == 3
    recipe = Recipe(steps=2).resolve(model)
    sampling = prepare(model, recipe, asked(model, None))
    x = torch.stack(
        [sampling.denoiser(torch.zeros(1, 3, 8, 8), 0.5, every.take(torch.tensor([k]))).x0 for k in range(3)]
    )
    assert not torch.allclose(x[0], x[1])
    assert not torch.allclose(x[1], x[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "relu"}, "act_fn = 'relu'"),
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        ({"down_block_types": ["KDownBlock2D", "DownBlock2D"]}, "KDownBlock2D"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "in a score network"),
        ({"layers_per_block": 2}, "its weights are not those of the network"),
        ({"block_out_channels": [4096, 8192], "norm_num_groups": 32}, "its weights are not those of the network"),
        ({"in_channels": 4}, "takes 4 channels and returns 3"),
        ({"layers_per_block": "many"}, "is not a file of diffusers"),
        ({"sample_size": None}, "--set size="),
        ({"layers_per_block": 10**9}, "its weights are not those of the network"),
    ],
)
def test_other_networks_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "theirs", ATTEND)
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        read_model(folder)
    assert "\n" not in str(caught.value)


ODD = {"kind": "unet", "base": 8, "multipliers": [1, 2], "blocks": 1, "attention": [1], "groups": 4, "patch": 2}
SEVERAL = AttributeVocabulary(
    (Attribute("hat", ("no", "yes")), Attribute("age", mean=40.0, std=10.0)), usual=((1.0, math.nan), (0.0, 0.3))
)
OURS: dict[str, tuple[dict[str, Any], tuple[int, int, int], AttributeVocabulary | None]] = {
    "patches, padding, 16 bits": ({"net": ODD, "diffusion": {"parameterization": "refined"}}, (1, 7, 9), None),
    "several attributes": ({"net": ODD | {"patch": 1}, "train": {"label_dropout": 0.2}}, (3, 8, 8), SEVERAL),
    "a schedule by formula": (
        {"net": ODD, "diffusion": {"schedule": {"kind": "sigmoid", "num_steps": 50}, "logsnr_shift": 0.5}},
        (3, 8, 8),
        None,
    ),
    "another unit of time, altered images": (
        {"net": ODD | {"kind": "general", "time_scale": 0.25}, "augment": {"p": 0.1}},
        (3, 8, 8),
        None,
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_what_needs_our_pipeline_file_is_read_back_exactly(name: str, tmp_path: Path) -> None:
    table, shape, vocabulary = OURS[name]
    format_ = PixelFormat("16", 0, 65535) if "16 bits" in name else EIGHT
    model = random_model(tmp_path / "x.safetensors", from_dict(table), shape, vocabulary, format_)
    export(model, "diffusers", tmp_path / "out")
    assert (tmp_path / "out" / "sfumato_pipeline.py").exists()
    imported = read_model(tmp_path / "out")
    assert not imported.notes
    again = write_model(imported, tmp_path / "again.safetensors")
    recipe = Recipe(steps=3)
    assert torch.equal(sample(again, 3, seed=5, recipe=recipe), sample(model, 3, seed=5, recipe=recipe))
    assert again.config == replace(model.config, augment=AugmentConfig())
    assert (again.vocabulary, again.codec, again.images) == (model.vocabulary, model.codec, model.images)
    error = difference(again, imported)
    assert error is not None
    assert error < 1e-5


def test_the_models_that_come_along_go_there_and_back(tmp_path: Path) -> None:
    for name in ("faces", "fashion"):
        export(load(name), "diffusers", tmp_path / name)
        again = write_model(read_model(tmp_path / name), tmp_path / f"{name}.safetensors")
        recipe = Recipe(steps=2)
        assert torch.equal(sample(again, 2, recipe=recipe), sample(load(name), 2, recipe=recipe))


def test_a_description_that_no_longer_fits_is_left_out(tmp_path: Path) -> None:
    """As where diffusers trained on and saved into the folder: the folder is what its own files say."""
    config = from_dict({"net": ODD, "diffusion": {"schedule": {"kind": "cosine", "num_steps": 50}}})
    export(random_model(tmp_path / "x.safetensors", config), "diffusers", tmp_path / "out")
    path = tmp_path / "out" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_betas": None, "num_train_timesteps": 70}))
    (tmp_path / "out" / "sfumato_pipeline.py").write_text("raise SystemExit")
    imported = read_model(tmp_path / "out")
    assert imported.config.diffusion.schedule == Linear(70, 1e-4 * 0.07, 0.02 * 0.07)
    assert imported.config.diffusion.parameterization == "v"
    assert [note.split()[0:2] for note in imported.notes] == [["its", "sfumato_pipeline.py"], ["sfumato.json", "no"]]
    for damaged in ({"format": "diffusers"}, {"format": "diffusers", "config": {"net": 3}, "vocabulary": []}):
        (tmp_path / "out" / "sfumato.json").write_text(json.dumps(damaged))
        assert "no longer" in read_model(tmp_path / "out").notes[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": ["my_pipeline", "Mine"]}, r"pipeline of its own \(my_pipeline.py\)"),
        ({"predicts": "soul"}, "not a file of diffusers: ValueError impossible entries"),
        ({"size": 8}, "not a file of diffusers"),
        ({"patch": 3}, "weights are not those"),
        ({"attributes": [{"name": "hat", "values": ["a", "b"]}]}, "not a file of diffusers: KeyError"),
    ],
)
def test_other_pipeline_files_and_damaged_entries_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """The network alone would be read as one of other images: of patches, of more classes, of another prediction."""
    export(random_model(tmp_path / "x.safetensors", from_dict({"net": ODD})), "diffusers", tmp_path / "out")
    path = tmp_path / "out" / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        read_model(tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_folders_of_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UserError, match="none of the formats"):
        read_model(tmp_path)
    folder = saved(tmp_path / "theirs", ATTEND)
    index = json.loads((folder / "model_index.json").read_text()) | {"vqvae": ["diffusers", "VQModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="has a vqvae"):
        read_model(folder)
