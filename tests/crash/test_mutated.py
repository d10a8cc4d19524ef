"""Checkpoints that were changed on the disk, and what pruning deletes: the newest good ones are found and kept."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sfumato.errors import UserError
from sfumato.run.folder import Run
from sfumato.train.checkpoint import KEPT, Position, State, _images, find_damage, load, newest, read_position, save

from .harness import FIGURES, attempt, copied, difference, good
from .mutations import DAMAGE, HARMLESS, forge

SLOW = pytest.mark.slow


def taken(run: Run) -> tuple[Position, State, list[str]]:
    """The position and tensors from which a run resumes, and what is said."""
    warnings: list[str] = []
    found = newest(run, warnings.append)
    assert found is not None
    return found[1], load(found[0], {}), warnings


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(
        a[kind].keys() == b[kind].keys() and all(torch.equal(a[kind][name], b[kind][name]) for name in a[kind])
        for kind in a
    )


@pytest.fixture(scope="module")
def truth(whole: Run) -> dict[int, tuple[Position, State]]:
    return {int(folder.name): (read_position(folder), load(folder, {})) for folder in whole.list_checkpoints()}


def only_checkpoints(whole: Run, path: Path) -> Run:
    shutil.copytree(whole.checkpoints, path / "checkpoints")
    return Run(path)


@pytest.mark.parametrize("kind", [*DAMAGE, *HARMLESS])
@pytest.mark.parametrize(("seed", "times"), [(0, 6), pytest.param(1, 60, marks=SLOW)])
def test_a_changed_checkpoint_is_never_taken_for_another(
    whole: Run, truth: dict[int, tuple[Position, State]], tmp_path: Path, kind: str, seed: int, times: int
) -> None:
    """Either it is damaged: the one before is taken, and both are named. Or nothing that counts has changed."""
    chance, (last, before) = random.Random(f"{kind} {seed}"), sorted(truth, reverse=True)
    for number in range(times):
        run = only_checkpoints(whole, tmp_path / str(number))
        folder, older = run.list_checkpoints()
        {**DAMAGE, **HARMLESS}[kind](chance, folder, older)
        damage, images = find_damage(folder), _images(folder)
        position, state, warnings = taken(run)
        assert (position, same(state, truth[position.images][1])) == (truth[position.images][0], True)
        if position.images == last:
            assert (damage, warnings) == (None, [])
            FIGURES["changed checkpoints with nothing changed that counts, taken as they were"] += 1
        else:
            assert kind in DAMAGE
            assert damage is not None
            assert position.images == before
            if warnings or images in (None, last):  # else the folder is a copy under another name: not ours
                (warning,) = warnings
                assert f"{last:012d}" in warning
                assert f"{before:012d}" in warning
            FIGURES["changed checkpoints found, with a fall back to the one before"] += 1
        FIGURES["changed checkpoints"] += 1
        shutil.rmtree(run.path)


@pytest.mark.parametrize(("seed", "times"), [(0, 6), pytest.param(1, 60, marks=SLOW)])
def test_forged_tensors_are_refused(
    whole: Run, truth: dict[int, tuple[Position, State]], tmp_path: Path, seed: int, times: int
) -> None:
    """With every checksum mended: values that are not finite, other shapes, other types."""
    chance = random.Random(seed)
    for number in range(times):
        run = only_checkpoints(whole, tmp_path / str(number))
        folder = run.list_checkpoints()[0]
        what = forge(chance, folder)
        assert find_damage(folder) is None
        with pytest.raises(UserError, match=r"not finite|differs"):
            print(what, load(folder, truth[int(folder.name)][1]))
        FIGURES["forged checkpoints refused"] += 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=SLOW) for seed in range(1, 12))])
def test_a_run_goes_on_from_the_one_before(whole: Run, tmp_path: Path, seed: int) -> None:
    """The same command on a run with a damaged checkpoint comes to the end of a run that nothing interrupted."""
    chance = random.Random(seed)
    run = copied(whole, tmp_path / "run")
    run.finished_path.unlink()
    folder, older = run.list_checkpoints()
    DAMAGE[chance.choice(["flip", "cut", "missing", "mixed", "special"])](chance, folder, older)
    ended = attempt(run)
    assert ended.code == 0
    assert re.search(
        r"000000000032.damaged; resuming from 000000000024|of 32 images is gone: .* from 24", ended.warnings
    )
    assert all(name.startswith(f"checkpoints/{folder.name}.damaged/") for name in difference(run, whole))
    FIGURES["runs resumed beside a damaged checkpoint, to the right end"] += 1


# --- pruning


def tiny(images: int) -> tuple[Position, dict[str, bytes]]:
    """A checkpoint of three small files."""
    content = safetensors.torch.save({"x": torch.full((5,), float(images))})
    return Position(images, images, 0.0, "c", "f", "t", "s"), dict.fromkeys(
        ("raw.safetensors", "ema.safetensors", "optim.safetensors"), content
    )


def meddle(chance: random.Random, run: Run) -> None:
    """Damage, copy, move or add something among the checkpoints."""
    folders = [run.checkpoint(images) for images in good(run)]
    if not folders:
        return
    folder, kind = chance.choice(folders), chance.randrange(7)
    if kind == 0:
        shutil.copytree(folder, run.checkpoints / f"{chance.randrange(10**12):012d}", dirs_exist_ok=True)
    elif kind == 1:
        (run.checkpoints / str(chance.choice([20261126, 999999999999, "notes"]))).mkdir(exist_ok=True)
    elif kind == 2:
        (folder / "raw.safetensors").unlink()
    elif kind == 3 and len(folders) > 1:
        DAMAGE[chance.choice(["flip", "cut", "special", "manifest of another kind"])](chance, *folders[:2])
    elif kind == 4 and len(folders) > 1:
        DAMAGE[chance.choice(["flip", "cut", "missing"])](chance, *reversed(folders[-2:]))
    elif kind == 5:
        with suppress(UserError):  # all are damaged
            newest(run, lambda _: None)
    elif kind == 6:
        (run.checkpoints / ".000000000008.9.part").mkdir(exist_ok=True)


def seen(run: Run) -> dict[str, str]:
    """Every folder of checkpoints/ that a user sees, with a digest of what is in it."""
    return {
        folder.name: hashlib.sha256(
            b"".join(p.name.encode() + (p.read_bytes() if p.is_file() else b"") for p in sorted(folder.iterdir()))
        ).hexdigest()
        for folder in run.checkpoints.iterdir()
        if not folder.name.startswith(".")
    }


@pytest.mark.parametrize(("seed", "sets"), [(0, 25), pytest.param(1, 500, marks=SLOW)])
def test_saving_never_deletes_the_newest_good_ones(tmp_path: Path, seed: int, sets: int) -> None:
    """Whatever else lies in the folder: a save leaves itself, the newest good one before it, all that are newer, and
    all that is not a checkpoint under its own name; of older good ones it leaves none."""
    for number in range(sets):
        chance, run = random.Random(f"{seed} {number}"), Run(tmp_path / str(number))
        run.path.mkdir()
        images = 8
        for _ in range(chance.randint(2, 9)):
            images = max(8, images + 8 * chance.choice([-2, -1, 0, 1, 1, 1, 1, 2, 3]))
            before, had = (seen(run), good(run)) if run.checkpoints.exists() else ({}, [])
            save(run, *tiny(images))
            after, has = seen(run), good(run)
            older = [n for n in had if n < images]
            assert set(has) == {n for n in had if n > images} | {images} | set(older[: KEPT - 1])
            own = {f"{n:012d}" for n in [*had, images]}
            lost = {name for name in before.keys() - own if before[name] != after.get(name)}
            assert all(_was_ours(name, images) for name in lost), lost
            for _ in range(chance.randrange(4)):
                meddle(chance, run)
            FIGURES["saves among other folders"] += 1
        shutil.rmtree(run.path)


def _was_ours(name: str, images: int) -> bool:
    """Whether a folder that is gone was a damaged checkpoint older than the one saved, under its own name."""
    return name.isdigit() and len(name) == 12 and int(name) <= images
