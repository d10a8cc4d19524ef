"""Checkpoints of denoising-diffusion-pytorch, `model-N.pt`, from version 1.0 on.

    step, model, ema, opt, scaler, version        `ema` holds the average as ema_model.*, `model` the weights as trained

Its diffusion is a part of the network, so the checkpoint has the chain (`betas`) and, by `loss_weight`, what the
network predicts. The architecture follows from the shapes, most of what the versions differ in from names (learned keys
and values from 1.9, GroupNorm before 2.0), the rest from `version`: standardised weights until 1.7.1, LayerNorm
before attention until 1.6, linear attention divided by the number of pixels until 1.7. It does not have
the size of the images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.config.config import Config
from sfumato.config.diffusion import DiffusionConfig
from sfumato.data.formats.plain_pickle import NotPlain
from sfumato.data.formats.torch_file import Stored
from sfumato.errors import UserError
from sfumato.exchange.imports import Contents, Imported, Reference
from sfumato.exchange.schedules import chain_of
from sfumato.nets.lucid import LucidConfig

_NAMES = (
    (r"^init_conv\.", "entrance."), (r"^final_conv\.", "exit."), (r"^final_res_block\.", "last."),
    (r"^time_mlp\.1\.", "time.first."), (r"^time_mlp\.3\.", "time.second."), (r"\.mlp\.1\.", ".project."),
    (r"\.fn\.fn\.", "."), (r"\.fn\.norm\.", ".norm."),
)  # fmt: skip
"""Their names and ours; before 1.8 attention was wrapped twice."""
_PREDICTS = ("eps", "x0", "v")


@dataclass(frozen=True)
class Reader:
    """The reader of its checkpoints.

    Attributes:
        size: side of the images, or height and width; the checkpoint does not say it.
        weights: `ema`, or `raw`, the weights as trained.
        version: of the library that wrote it, such as 1.7.0, where the checkpoint does not say it.
        predicts: `eps`, `x0` or `v`, where the checkpoint does not tell.
        heads: of attention, where there are no learned keys (before version 1.9).
        theta: of the time's waves, if it was not 10,000.
        batch: images a step; the checkpoint counts steps, and 16 is what its Trainer takes if it is not told.
    """

    size: tuple[int, ...] = ()
    weights: str = "ema"
    version: str | None = None
    predicts: str | None = None
    heads: int = 4
    theta: float = 10000.0
    batch: int = 16

    @staticmethod
    def recognises(contents: Contents) -> bool:
        """A table with the diffusion's buffers and the network's first convolution."""
        tree = contents.tree
        if not isinstance(tree, dict):
            return False
        states = [tree, *(value for value in tree.values() if isinstance(value, dict))]
        return any("init_conv.weight" in str(key) for state in states for key in list(state)[:2000])

    def read(self, contents: Contents) -> Imported:
        """Read it; see `imports.Reader`."""
        if self.batch < 1:
            raise UserError(f"batch = {self.batch}: give the images of a step, 1 or more")
        tree = contents.tree
        state, kind = self._state(tree)
        version = self.version or tree.get("version")
        if any(name.startswith(("classes_emb", "null_classes_emb")) for name in state):
            raise UserError("it is a class-conditional model of classifier_free_guidance.py, which is not read")
        if "time_mlp.0.weights" in state:
            raise UserError("it is a ContinuousTimeGaussianDiffusion, whose time is a noise level, which is not read")
        betas = state.pop("betas", None)
        loss_weight = state.pop("loss_weight", None)
        net, state, notes = self._network(state, _version(version))
        channels = state["entrance.weight"].shape[1]
        out = state["exit.weight"].shape[0]
        if out not in (channels, 2 * channels):
            raise UserError(f"its network takes {channels} channels and returns {out}, which is not read")
        if betas is None:
            raise UserError("it holds a network without its diffusion: give the whole checkpoint model-N.pt")
        learned = out == 2 * channels
        predicts = self._predicts(betas, loss_weight)
        if predicts == "eps":  # an unclipped cosine chain ends at beta = 1 in float32, where eps says nothing about x_0
            betas = betas.double().clamp(max=1 - 2**-24)
        diffusion = DiffusionConfig(
            schedule=chain_of(betas.tolist()),
            parameterization=predicts,
            variance="learned" if learned else "small",
            objective="hybrid" if learned else "simple",
        )
        step = tree.get("step")
        step = int(step.tensor()) if isinstance(step, Stored) else int(step or 0)
        return Imported(
            Config(net=net, diffusion=diffusion),
            (channels, *self._size(net)),
            state,
            images=max(step, 0) * self.batch,
            kind=kind,
            notes=(
                f"written by version {version or 'unknown'}; {step:,} steps of training, of {self.batch} images each "
                "if that is its batch (--set batch=N)",
                *notes,
            ),
            reference=lambda: _reference(net, channels, state, learned),
            library="denoising-diffusion-pytorch",
        )

    def _state(self, tree: Any) -> tuple[dict[str, Tensor], str]:
        """The network's weights and the diffusion's betas and loss_weight by their names, and which weights."""
        if self.weights not in ("ema", "raw"):
            raise UserError(f"weights = {self.weights}: choose ema or raw")
        tables = [("ema", tree.get("ema"), "ema_model.model."), ("raw", tree.get("model"), "model.")]
        tables = [t for t in tables if isinstance(t[1], Mapping) and (self.weights == t[0] or t[0] == "raw")]
        for kind, table, prefix in [*tables, ("raw", tree, "model."), ("raw", tree, "")]:
            outer = prefix.removesuffix("model.")
            inner = {name.removeprefix(prefix): value for name, value in table.items() if str(name).startswith(prefix)}
            if "init_conv.weight" not in inner:
                continue
            inner |= {name: table[outer + name] for name in ("betas", "loss_weight") if outer + name in table}
            if not all(isinstance(value, Stored | Tensor) for value in inner.values()):
                raise NotPlain("more than tensors in its weights")
            return {n: v.tensor() if isinstance(v, Stored) else v for n, v in inner.items()}, kind
        raise UserError("it has no weights of a Unet")

    def _network(
        self, state: dict[str, Tensor], version: tuple[int, ...] | None
    ) -> tuple[LucidConfig, dict[str, Tensor], list[str]]:
        """The configuration that the weights' shapes tell, and the weights by our names."""
        wrapped = any(".fn.fn." in name for name in state)
        grouped = "downs.0.0.block1.norm.weight" in state
        if any(name.endswith(".3.weight") and value.shape[-1] == 4 for name, value in state.items()):
            raise UserError("it was written by a version before 1.0, which is not read")
        if grouped and wrapped and version is None:
            raise UserError("its names fit versions 1.0 to 1.7, which compute differently: give --set version=1.5.4")
        # Between 1.8 and 2.0 nothing but names that are there tells them apart.
        old = version or (1, 8)
        for pattern, name in _NAMES:
            state = {re.sub(pattern, name, key): value for key, value in state.items()}
        notes = []
        levels = len({name.split(".")[1] for name in state if name.startswith("downs.")})
        widths = [
            state[f"downs.{k}.3.1.weight" if k < levels - 1 else f"downs.{k}.3.weight"].shape[0] for k in range(levels)
        ]
        base = state["time.first.weight"].shape[1]
        entrance, channels = state["entrance.weight"].shape[:2]
        own = self._image_channels(state, channels)
        if own < channels:
            state["entrance.weight"] = state["entrance.weight"][:, channels - own :]
            notes.append("it conditions on its own prediction; that input is left out, which it takes as zero, and "
                         "its samples differ from those of its own library")  # fmt: skip
        full = [k for k in range(levels) if f"downs.{k}.2.to_out.weight" in state]
        memories = [state.get(f"downs.{k}.2.mem_kv") for k in range(levels)]
        inner = [state[f"downs.{k}.2.to_qkv.weight"].shape[0] // 3 for k in range(levels)]
        heads = [self.heads if memory is None else memory.shape[1] for memory in memories]
        memory = next((m.shape[2 if k in full else 3] for k, m in enumerate(memories) if m is not None), 0)
        if any(width % base for width in widths):
            raise UserError(f"its widths {widths} are not multiples of {base}")
        standard = ("clamped" if old >= (1, 7, 1) else "added") if grouped and wrapped and old < (1, 7, 2) else "none"
        config = LucidConfig(
            base=base, entrance=entrance, multipliers=tuple(width // base for width in widths),
            full_attention=tuple(full), heads=tuple(heads),
            head_width=tuple(n // h for n, h in zip(inner, heads, strict=True)), memory=memory,
            norm="group" if grouped else "rms", prenorm="layer" if wrapped and old < (1, 7) else "rms",
            standardised=standard, averaged=wrapped, theta=self.theta,
        )  # fmt: skip
        return config, state, notes

    @staticmethod
    def _image_channels(state: dict[str, Tensor], channels: int) -> int:
        """Channels of an image: half of the input's where the network also takes its own prediction.

        An odd number can't be two images; of an even one the output's, the same or with a variance, tells which.
        """
        out = state["exit.weight"].shape[0]
        return channels // 2 if channels % 2 == 0 and out == channels // 2 else channels

    def _predicts(self, betas: Tensor, loss_weight: Tensor | None) -> str:
        """What the network predicts: the loss is weighted by 1, SNR or SNR / (SNR + 1), SNR clipped at gamma >= 1."""
        if self.predicts is not None:
            if self.predicts not in _PREDICTS:
                raise UserError(f"predicts = {self.predicts}: choose eps, x0 or v")
            return self.predicts
        if loss_weight is None:
            raise UserError("it does not tell what its network predicts: give --set predicts=eps, x0 or v")
        abar = (1 - betas.double()).cumprod(0)
        snr = abar / (1 - abar)
        some = (snr > 0.05) & (snr < 0.9)
        weights = {"eps": torch.ones_like(snr), "x0": snr, "v": snr / (snr + 1)}
        errors = {name: float((weight - loss_weight)[some].abs().max()) for name, weight in weights.items()}
        best = min(errors, key=lambda name: errors[name])
        if not errors[best] < 1e-3:
            raise UserError("its loss has unknown weights: give --set predicts=eps, x0 or v")
        return best

    def _size(self, net: LucidConfig) -> tuple[int, int]:
        if len(self.size) not in (1, 2):
            raise UserError("the file does not say how large its images are: give --set size=PIXELS or HEIGHT,WIDTH")
        height, width = self.size[0], self.size[-1]
        if net.inside(height, width) != (height, width):
            raise UserError(f"size = {height}x{width}: its network takes multiples of {net.multiple}")
        return height, width


READER = Reader


def _version(text: Any) -> tuple[int, ...] | None:
    """A version as numbers; None where there is none."""
    if text is None:
        return None
    match = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", str(text))
    if not match:
        raise UserError(f"version = {str(text)[:20]!r} is not a version such as 1.7.0")
    return tuple(int(number or 0) for number in match.groups())


def _reference(net: LucidConfig, channels: int, state: dict[str, Tensor], learned: bool) -> Reference:
    """The installed library's network with the same weights."""
    from denoising_diffusion_pytorch import Unet  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if net.norm != "rms" or not net.memory:
        raise UserError("the installed version has another network than the one that wrote this file")
    levels = range(len(net.multipliers))
    theirs: Any = Unet(
        net.base, init_dim=net.entrance, dim_mults=net.multipliers, channels=channels, learned_variance=learned,
        sinusoidal_pos_emb_theta=net.theta, attn_dim_head=net.head_width, attn_heads=net.heads,
        full_attn=tuple(level in net.full_attention for level in levels),
    )  # fmt: skip
    back = (
        (r"^entrance\.", "init_conv."), (r"^exit\.", "final_conv."), (r"^last\.", "final_res_block."),
        (r"^time\.first\.", "time_mlp.1."), (r"^time\.second\.", "time_mlp.3."), (r"\.project\.", ".mlp.1."),
    )  # fmt: skip
    renamed = dict(state)
    for pattern, name in back:
        renamed = {re.sub(pattern, name, key): value for key, value in renamed.items()}
    theirs.load_state_dict(renamed)
    theirs.eval()
    return lambda x, steps, rows: theirs(x, steps)
