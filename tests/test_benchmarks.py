"""The benchmarks' own arithmetic: rates that follow the time, what is run again, exponents, and the judge."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sfumato
from sfumato.data import from_arrays

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import arithmetic
import gpu
import judge
import samplers
import scale
import time_to_quality
import trainings


def test_a_schedule_follows_the_time_that_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trainings.Sfumato("digits", 1000.0, 0)
    trainer = training.trainer
    trainer.images, rates = 320, []
    monkeypatch.setattr(trainer, "step", lambda: rates.append(trainer.planned))
    training.step(0.5)
    training.step(1.0)
    assert rates == [640, 320 + trainer.config.train.batch]  # at least one more step


@pytest.mark.parametrize(("progress", "rate"), [(0.025, 5e-4), (0.05, 1e-3), (0.525, 5e-4), (1.0, 0.0)])
def test_a_peer_with_another_rate_warms_up_by_time_and_ends_at_zero(progress: float, rate: float) -> None:
    peer = trainings.Diffusers.__new__(trainings.Diffusers)
    peer.lr, peer.short, peer.warm_at, peer.count = 1e-3, True, trainings.WARMUP, 0
    assert peer.rate(progress) == pytest.approx(rate)


def test_the_documented_warm_up_takes_500_steps_and_the_cosine_the_rest() -> None:
    peer = trainings.Diffusers.__new__(trainings.Diffusers)
    peer.lr, peer.short, peer.warm_at, peer.count = 1e-4, False, 0.0, 250
    assert peer.rate(0.4) == pytest.approx(5e-5)
    peer.count = 500
    assert peer.rate(0.4) == pytest.approx(1e-4)
    assert peer.rate(0.7) == pytest.approx(5e-5)


def test_what_is_measured_is_not_measured_again() -> None:
    asked = argparse.Namespace(data="faces", seconds=[5.0, 10.0], seeds=[0], num=100, contestants=["sfumato", "ddp"])
    row = {"data": "faces", "contestant": "sfumato", "seconds": 5.0, "seed": 0, "num": 100}
    kept = json.loads(json.dumps(row))
    assert list(time_to_quality.missing(asked, [kept])) == [("ddp", 5.0, 0), ("sfumato", 10.0, 0), ("ddp", 10.0, 0)]
    assert len(list(time_to_quality.missing(asked, [kept | {"num": 50}]))) == 4


def test_speed_counts_where_the_distance_is_not_worse() -> None:
    leading, trailing, ancestral = samplers.PEERS.values()
    found = {
        "ours": {"frechet": [5.0, 4.0, 6.0, 1.0], "num": 300, "seconds": 30.0},
        leading: {"frechet": [5.5, 4.5, 6.5, 1.0], "num": 300, "seconds": 60.0},
        trailing: {"frechet": [4.6, 4.2, 5.0, 1.0], "num": 200, "seconds": 100.0},
        ancestral: {"frechet": [4.0, 3.1, 4.9, 1.0], "num": 200, "seconds": 900.0},
    }
    assert samplers.times_faster(found, "ours") == {
        leading: pytest.approx(2),
        trailing: pytest.approx(5),
        ancestral: None,
    }


def test_exponents_are_slopes_of_logarithms() -> None:
    assert scale.slopes([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx((2.0, 2.0))
    every, last = scale.slopes([1, 2, 4], [1, 1, 4])
    assert every == pytest.approx(1.0)
    assert last == pytest.approx(2.0)


def test_the_judge_learns_the_labels_of_a_set_and_leaves_missing_ones_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright and dark images, some without a label."""
    generator = torch.Generator().manual_seed(0)
    bright = torch.arange(200) % 2
    images = (torch.randint(0, 100, (200, 1, 8, 8), generator=generator) + 150 * bright[:, None, None, None]).byte()
    data = sfumato.open_data(
        replace(sfumato.resolve("small8").data, labels="source", held_out=0.2),
        source=from_arrays(images, bright.numpy()),
    )
    monkeypatch.setattr(judge, "STEPS", 40)
    data.table[:20] = float("nan")
    net, accuracy = judge.train(data, [2])
    assert accuracy > 0.95
    again, _ = judge.train(data, [2])
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_one_device_exchanges_nothing_and_more_share_the_arithmetic() -> None:
    header, _, cifar, *_ = arithmetic.table(2e13, 3e11, 2.5e10, (1, 2))
    assert header.endswith("1 GPU | 2 GPUs |")
    one, two = cifar.split(" | ")[2:4]
    assert "(223 + 0 ms a step" in one  # 3 * 11.63 GFLOP * 128 / 20 TFLOP
    assert "(112 + 0.48 ms a step" in two  # 2 * 1/2 * 4 * 35.7M bytes / 300 GB


def test_the_benchmark_of_gpus_measures_a_cpu_and_says_what_is_missing(tmp_path: Path, capsys, monkeypatch) -> None:
    words = ["--device", "cpu", "--networks", "small8", "--batch", "2", "--steps", "1"]
    half, full = gpu.main([*words, "--json", str(tmp_path / "gpu.json")])
    printed = capsys.readouterr().out
    assert "the figures of a GPU are missing" in printed
    assert (half["precision"], full["precision"], full["batch"]) == ("bf16", "fp32", 2)
    assert full["images_s"] == pytest.approx(2e3 / full["ms"])
    assert 0 < full["of_convolution"] < 1.5
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == [half, full]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == []
    assert "all figures of this benchmark are missing" in capsys.readouterr().out
