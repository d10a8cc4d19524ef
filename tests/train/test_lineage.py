"""Branches of a run, and runs that begin with the weights of another model."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
import torch

from sfumato.conditions.attributes import Attribute
from sfumato.conditions.vocabulary import AttributeVocabulary
from sfumato.errors import UserError
from sfumato.model import load
from sfumato.nets import NETWORKS
from sfumato.run.events import Initialised, Stepped, Warned
from sfumato.run.folder import Run
from sfumato.run.summary import RunSummary
from sfumato.train import train
from sfumato.train.extend import More
from sfumato.train.lineage import branch, take_over, unlearning
from sfumato.train.trainer import Trainer
from sfumato.train.validation import Best

from .conftest import final, go, log_of, tiny


@pytest.fixture(scope="module")
def source(digits, tmp_path_factory) -> Run:
    """A finished run of 160 images that keeps 80 too."""
    run = Run(tmp_path_factory.mktemp("source") / "run")
    go(tiny(train__keep="80", train__held_outs="4"), run, digits)
    return run


# --- branches


def test_a_branch_goes_on_as_the_run_would_have(digits, source, run) -> None:
    branch(f"{source.path}@80", run)
    assert sorted(path.name for path in run.samples.iterdir()) == ["000000000008.png"]
    assert load(run).images == 80
    go(run.config(), run, digits)
    assert final(run) == final(source)
    assert log_of(run) == log_of(source)
    assert run.read(run.lineage_path)["from"] == f"{source.path}@80"
    assert RunSummary.read(run).lineage == f"a branch of {source.path}@80, from 80 images on"
    assert RunSummary.read(source).lineage == ""


def test_a_branch_may_have_other_values_and_the_source_stays(digits, source, run) -> None:
    before = final(source)
    branch(f"{source.path}@80", run)
    events = go(tiny(train__keep="80", train__held_outs="4", optim__lr="1e-4"), run, digits)
    assert next(event.lr for event in events if isinstance(event, Stepped)) == pytest.approx(1e-4)
    assert final(run) != before == final(source)
    branch(f"{source.path}@80", run)  # the same command again: it is there
    assert final(run) != before


def test_a_branch_of_a_finished_run_starts_at_its_end(digits, source, run) -> None:
    branch(str(source.path), run)
    assert go(run.config(), run, digits, more=More(images=40, added=True))[-1].images == 200


def test_what_came_after_the_checkpoint_is_no_part_of_a_branch(digits, source, run, tmp_path) -> None:
    """Neither an extension nor a changed value that came later."""
    longer = Run(tmp_path / "longer")
    shutil.copytree(source.path, longer.path)
    go(tiny(train__keep="80", train__held_outs="4", optim__lr="1e-4"), longer, digits, more=More(images=80, added=True))
    branch(f"{longer.path}@80", run)
    assert run.config() == source.config()
    assert go(run.config(), run, digits)[-1].images == 160
    assert final(run) == final(source)


def test_what_is_no_branch_is_refused(digits, source, run, tmp_path) -> None:
    with pytest.raises(UserError, match="is no run: give a run folder"):
        branch(str(tmp_path / "nowhere"), run)
    with pytest.raises(UserError, match="keeps no state of 100 images"):
        branch(f"{source.path}@100", run)
    young = Run(tmp_path / "young")
    shutil.copytree(source.path, young.path, ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(UserError, match="has no checkpoint yet"):
        branch(str(young.path), run)
    (run.path / "something").mkdir(parents=True)
    with pytest.raises(UserError, match="holds files, but no run"):
        branch(f"{source.path}@80", run)
    shutil.rmtree(run.path)
    go(tiny(), run, digits, 2)
    with pytest.raises(UserError, match="is another run than a branch of"):
        branch(f"{source.path}@80", run)
    rotten = Run(tmp_path / "rotten")
    shutil.copytree(source.path, rotten.path)
    (rotten.checkpoint(80) / "raw.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        branch(f"{rotten.path}@80", Run(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


# --- weights to begin with


def test_a_run_begins_with_the_weights_of_another(digits, source, run) -> None:
    events = train(tiny(train__seed="1"), run, digits, init=source.path)
    next(events)
    begun = next(events)
    assert isinstance(begun, Initialised)
    assert begun.source == str(source.path)
    tensors = len(load(source).net.state_dict())
    assert (
        begun.taken == f"{tensors - 1} of {tensors} tensors taken over; 11 of 11 rows of condition.parts.0.table.weight"
    )
    donor = load(source).net.state_dict()
    for kind in ("raw", "ema"):
        own = load(run, kind)
        assert own.images == 0
        assert all(torch.equal(tensor, donor[name]) for name, tensor in own.net.state_dict().items())
    assert RunSummary.read(run).lineage == f"begun with the ema weights of {source.path}"
    list(events)
    assert load(run).images == 160


def test_weights_that_get_worse_are_said_once(digits, source, run) -> None:
    events = list(train(tiny(train__held_outs="4", optim__lr="0.3"), run, digits, init=source.path))
    said = [event.message for event in events if isinstance(event, Warned) and "fit its images" in event.message]
    assert len(said) == 1
    assert "optim.lr=0.03 changes them less" in said[0]
    best = Best(torch.tensor([0.1, 0.1], dtype=torch.float64), 0.1, images=0)
    assert unlearning(run, best, 0.11, 0.006) is not None
    assert unlearning(run, best, 0.101, 0.006) is None, "chance"
    assert unlearning(run, replace(best, images=80), 0.11, 0.006) is None, "they had become better"
    assert unlearning(source, best, 0.11, 0.006) is None, "a run that began by itself"
    assert (RunSummary.read(run).begun_with, RunSummary.read(source).begun_with) == (160, 0)


def test_it_resumes_without_the_other_file_and_with_the_same_bits(digits, source, run, tmp_path) -> None:
    file, straight = tmp_path / "donor.safetensors", Run(tmp_path / "straight")
    shutil.copy(source.weights_file(), file)
    go(tiny(), straight, digits, init=file)
    events = train(tiny(), run, digits, init=file)
    next(events), next(events)
    events.close()
    file.unlink()
    go(tiny(), run, digits, 7)
    go(tiny(), run, digits)
    assert final(run) == final(straight)


def test_it_never_begins_with_other_weights_than_the_first_time(digits, source, run, tmp_path) -> None:
    file = tmp_path / "donor.safetensors"
    shutil.copy(source.weights_file(), file)
    events = train(tiny(), run, digits, init=file)
    next(events)  # started; nothing is taken over yet
    events.close()
    assert run.list_checkpoints() == []
    shutil.copy(source.weights_file("raw"), file)
    with pytest.raises(UserError, match="has changed since this run was begun with it"):
        go(tiny(), run, digits)
    with pytest.raises(UserError, match=r"was begun with .*donor\.safetensors: choose another --run"):
        go(tiny(), run, digits, init=source.path)
    with pytest.raises(UserError, match="was begun without weights"):
        go(tiny(), source, digits, init=file)


@pytest.mark.parametrize(("values", "new"), [({"data__size": "12,12"}, 0), ({"net__multipliers": "1,1"}, 10)])
def test_other_sizes_and_networks_take_what_fits(values, new, digits, source) -> None:
    trainer = Trainer(tiny(**values), digits)
    taken = take_over(trainer.net, digits.vocabulary, load(source))
    assert (len(taken.new) > new) == bool(new)
    assert len(taken.whole) > 10
    named = re.findall(r"[a-z_]+\w*(?:\.\w+)+", str(replace(taken, whole=(), rows=())))
    assert len(named) == len(set(named)), "no tensor is both new and left out"
    assert ("begun anew, since they differ" in str(taken)) == bool(set(taken.new) & set(taken.left))
    donor = load(source).net.state_dict()
    own = trainer.net.state_dict()
    assert all(torch.equal(own[name], donor[name]) for name in taken.whole)


def test_other_labels_take_the_rows_of_the_same_values(digits, source) -> None:
    """Values 3, 7 and one that is new, in another order."""
    vocabulary = AttributeVocabulary((Attribute("size", ("a", "b")), Attribute("class", ("7", "new", "3"))))
    config, donor = tiny(), load(source)
    net = config.net.build(config.interface(1, vocabulary))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    taken = take_over(net, vocabulary, donor)
    name = "condition.parts.1.table.weight"
    assert taken.rows == ((name, 3, 4),)
    assert taken.new == ("condition.parts.0.table.weight",)
    own, theirs = net.state_dict()[name], donor.net.state_dict()["condition.parts.0.table.weight"]
    values = donor.attributes[0].values
    for row, other in ((0, 0), (1, values.index("7") + 1), (3, values.index("3") + 1)):
        assert torch.equal(own[row], theirs[other])
    assert torch.equal(own[2], before[name][2])


def test_weights_of_another_kind_of_network_are_refused_before_anything_is_written(digits, source, run) -> None:
    other = replace(tiny(), net=NETWORKS["transformer"](width=16, depth=1, heads=2))
    with pytest.raises(UserError, match="has no tensor that fits this network"):
        go(other, run, digits, init=source.path)
    assert not run.exists()
