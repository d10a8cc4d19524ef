"""The hub as the real huggingface_hub speaks to it, with a server on this machine in its place."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sfumato
from sfumato.config.config import from_dict
from sfumato.errors import UserError
from sfumato.exchange.export import export
from sfumato.exchange.hub.card import Licence
from sfumato.exchange.hub.push import push
from sfumato.exchange.imports import read_model, write_model
from sfumato.model import Model
from sfumato.run.locate import hub_files

from .hub_server import TOKEN, Hub, commit
from .models import NET, random_model

constants = pytest.importorskip("huggingface_hub.constants")
CHAIN = {"schedule": {"kind": "cosine", "num_steps": 5}}
FILE = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    for name, value in {
        "ENDPOINT": hub.address, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": str(tmp_path / "no-token"), "HF_HUB_ETAG_TIMEOUT": 2, "HF_HUB_DOWNLOAD_TIMEOUT": 5,
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + FILE)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.stop()


def model_of(path: Path, seed: int = 0) -> Model:
    model = random_model(path, from_dict({"net": NET, "diffusion": CHAIN}), (1, 8, 8))
    if seed:
        with torch.no_grad():
            next(model.net.parameters()).add_(seed)
    return model


def first(model: Model) -> torch.Tensor:
    return next(model.net.parameters()).detach()


def test_a_model_goes_up_in_one_commit_and_comes_down_by_revision(hub: Hub, tmp_path: Path) -> None:
    one, two = model_of(tmp_path / "1.safetensors"), model_of(tmp_path / "2.safetensors", seed=1)
    written = push(one, "ada/faces", Licence("mit"), private=False)
    assert written.facts["address"].startswith(hub.address)
    (files,) = hub.repositories["ada/faces"]
    assert {"README.md", "config.json", "model.safetensors", "samples.png", "sfumato.json"} <= files.keys()
    assert b"hf:ada/faces" in files["README.md"]
    push(two, "ada/faces", Licence("mit"), private=False)  # the repository is there already
    assert len(hub.repositories["ada/faces"]) == 2
    torch.testing.assert_close(first(sfumato.load("hf:ada/faces")), first(two), atol=0, rtol=0)
    for revision in ("v1", commit(1)):
        torch.testing.assert_close(first(sfumato.load(f"hf:ada/faces@{revision}")), first(one), atol=0, rtol=0)
    pipe = sfumato.Pipeline.from_pretrained("hf:ada/faces@main")
    assert pipe(1, steps=1)[0].size == (8, 8)


def test_what_was_downloaded_is_there_without_a_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(model_of(tmp_path / "1.safetensors"), "ada/faces", Licence("mit"), private=False)
    expected = first(sfumato.load("hf:ada/faces"))
    hub.asked.clear()
    torch.testing.assert_close(first(sfumato.load(f"hf:ada/faces@{commit(1)}")), expected, atol=0, rtol=0)
    assert not [line for line in hub.asked if line.startswith("GET")], "downloaded once"
    with socket.socket() as closed:  # a port that no one listens at
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", gone)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", gone + FILE)
    torch.testing.assert_close(first(sfumato.load("hf:ada/faces")), expected, atol=0, rtol=0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    torch.testing.assert_close(first(sfumato.load("hf:ada/faces")), expected, atol=0, rtol=0)
    with pytest.raises(UserError, match="hf:ada/dogs can't be downloaded: it is not among those downloaded before"):
        sfumato.load("hf:ada/dogs")


def test_what_is_missing_or_closed_is_said_in_a_line(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path / "1.safetensors")
    push(model, "ada/closed", Licence("mit"), private=True)
    assert hub.private["ada/closed"]
    for name, message in {
        "hf:ada/dogs": "there is no model of this name", "hf:ada/closed@v9": "no revision 'v9'",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=message) as caught:
            sfumato.load(name)
        assert "\n" not in str(caught.value)
    hub.repositories["ada/closed"][-1].pop("model.safetensors")
    with pytest.raises(UserError, match=r"it holds no model\.safetensors"):
        sfumato.load("hf:ada/closed")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="hf auth login"):
        push(model, "ada/other", Licence("mit"), private=False)
    assert "ada/other" not in hub.repositories
    with pytest.raises(UserError, match=r"hf:ada/closed .*hf auth login"):
        sfumato.load("hf:ada/closed")


def test_models_of_other_libraries_are_imported_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    model, folder = model_of(tmp_path / "1.safetensors"), tmp_path / "theirs"
    export(model, "diffusers", folder)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.repositories["ada/theirs"] = [files | {"picture.png": b"not asked for"}]
    hub.repositories["ada/alone"] = [{"unet.pt": (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes()}]
    found = hub_files("hf:ada/theirs@main")
    assert not (found / "picture.png").exists()
    again = write_model(read_model(found), tmp_path / "again.safetensors")
    torch.testing.assert_close(first(again), first(model), atol=0, rtol=0)
    assert hub_files("hf:ada/alone").name == "unet.pt"
    with pytest.raises(UserError, match="there is no model of this name"):
        hub_files("hf:ada/nothing")
