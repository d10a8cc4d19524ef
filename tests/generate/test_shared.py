"""Samples by several processes: the files of one process, byte for byte."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.errors import UserError
from sfumato.generate.shared import stream
from sfumato.generate.writers import Samples, write
from sfumato.ranks import World

from ..ranks.jobs import Job, results
from .test_writers import samples

NAMES = ("grid.png", "film.gif", "array.npz", "pages.tif", "folder")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("size", "num"), [(2, 7), (3, 20), (4, 3)])
def test_any_number_of_processes_writes_the_files_of_one(tmp_path: Path, size: int, num: int) -> None:
    """Seven images in batches of two are rounds of four and three; of four processes with three images one has none."""

    def act(world: World) -> int | None:
        if not world.main:
            return replace(samples(num), world=world).follow()
        write(replace(samples(2), world=World()), tmp_path / "many" / "folder")  # which is continued
        for name in NAMES:
            write(replace(samples(num), world=world), tmp_path / "many" / name)
        return None

    for name in NAMES:
        write(samples(num), tmp_path / "one" / name)
    assert results(size, act, tmp_path / "job") == [None, *[0] * (size - 1)]
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_every_process_gets_every_image_bit_for_bit(tmp_path: Path) -> None:
    expected = torch.cat([x for _, x in samples(9).sampling.stream(9, 1, first=3, batch=2)])

    def act(world: World) -> tuple[list[int], torch.Tensor, list[tuple[int, int]]]:
        reports: list[tuple[int, int]] = []
        parts = list(
            stream(samples(9).sampling, 9, 1, world=world, first=3, batch=2, report=lambda *done: reports.append(done))
        )
        list(() if world.main else world.orders())
        return [start for start, _ in parts], torch.cat([x for _, x in parts]), reports

    for size, starts in ((1, [3, 5, 7, 9, 11]), (2, [3, 7, 11])):
        for found, images, reports in results(size, act, tmp_path / str(size)):
            assert found == starts
            assert torch.equal(images.view(torch.int32), expected.view(torch.int32))
            assert all(total == 27 and 0 <= done <= total for done, total in reports)
        assert reports == sorted(reports)


def test_a_process_with_another_model_is_named(tmp_path: Path) -> None:
    def act(world: World) -> int | Path:
        mine: Samples = replace(samples(4), world=world, facts={"weights": "a" if world.main else "b"})
        return write(mine, tmp_path / "x.png") if world.main else mine.follow()

    job = Job(2, act, tmp_path / "job")
    assert job.codes() == [2, 2]
    assert "is not the same here as at rank 0" in job.result()[0]
    assert not (tmp_path / "x.png").exists()


def test_a_process_that_dies_while_sampling_ends_the_job(tmp_path: Path) -> None:
    def act(world: World) -> int | None:
        mine = replace(samples(10**9), world=world)
        if not world.main:
            return mine.follow()
        for _ in mine.stream():
            time.sleep(0.01)
        return None

    job = Job(2, act, tmp_path)
    time.sleep(1)
    os.kill(job.pids[0], signal.SIGKILL)
    assert job.codes(30) == [-signal.SIGKILL, 2]
    assert f"rank 0 (process {job.pids[0]} on " in job.result(1)[0]


def test_what_goes_wrong_on_rank_0_ends_the_others_with_its_code(tmp_path: Path) -> None:
    def act(world: World) -> int | None:
        mine = replace(samples(6), world=world)
        if not world.main:
            return mine.follow()
        for _ in mine.stream():
            raise UserError("the disk is full")
        return None

    job = Job(2, act, tmp_path)
    assert job.codes(30) == [2, 2]
    assert job.result() == "the disk is full"
