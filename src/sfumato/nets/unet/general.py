"""The U-Net with the options in which the networks of other libraries differ from the DDPM's.

diffusers' UNet2DModel, the networks of improved- and guided-diffusion, and EDM's DDPM++, NCSN++ and ADM are one U-Net:
levels of residual blocks, some with attention, a stack of skips. They differ in details, each an option of
`GeneralUNetConfig`:

    the time        cosines before sines, another last frequency, another unit, random frequencies (Tancik et al. 2020,
                    2006.10739), the label and the alteration added before the dense layers
    a block         scale and shift of the normalised features in place of a sum (Dhariwal and Nichol 2021, 2105.05233,
                    Sec. 3), its output scaled by sqrt(1/2) (Song et al. 2021, 2011.13456, App. H.1)
    halving         a convolution padded on both sides, a mean, or a residual block around a mean (BigGAN's)
    doubling        nearest neighbour with or without a convolution, or a residual block around it
    both            means and nearest neighbours smoothed by a filter (Zhang 2019, 1904.11486)
    ways            the image, halved with it, is added to every level of the way down, and every level of the way up
                    adds to the output (2011.13456, App. H.1)
    attention       width of a head in place of their number, in other places
    normalisation   eps, at least so many channels a group
    first weights   the DDPM's, or those of 2011.13456

So an imported network has the modules and the names of `UNet`, and computes exactly what it did where it came from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.nets.base import require
from sfumato.nets.dropout import dropout
from sfumato.nets.embedding import AlterationEmbedding
from sfumato.nets.protocol import Interface
from sfumato.nets.unet.blocks import Downsample, ResidualBlock, SelfAttention, Upsample, norm_silu, normalised
from sfumato.nets.unet.filters import Double, Exit, Filter, Halve, ResidualPath, SkipPath
from sfumato.nets.unet.unet import UNet, UNetConfig

HALVINGS = ("low", "conv", "mean", "block")
"""A 3x3 convolution of stride 2 padded below and to the right, one padded on all sides, the mean of 2x2 pixels, or a
residual block around that mean."""
DOUBLINGS = ("conv", "nearest", "block")
"""Nearest neighbour with a 3x3 convolution, without, or inside a residual block."""
LAST = ("all", "last")
WAVES = ("powers", "random")
ENCODERS, DECODERS = ("plain", "residual", "skip"), ("plain", "skip")
FIRST_WEIGHTS = ("ddpm", "song")
_SONG_LAST, _SONG_ATTENTION = 1e-5, 0.1**0.5
"""Factors of the last layer of every branch, and of queries, keys and values."""
LARGEST = 65_536
"""A longer row or vector is a mistake."""


@dataclass(frozen=True)
class GeneralUNetConfig(UNetConfig):
    """The configuration; the options of `UNetConfig`, and these. Their defaults are the DDPM's.

    Attributes:
        entrance: channels after the first convolution; 0 is `base`.
        time_width: length of the time's row; 0 is `base`.
        embedding: length of the vector that the blocks read; 0 is 4 `base`.
        time_scale: the time is multiplied by it.
        cosine_first: the row has its cosines before its sines.
        frequency_shift: the exponents of the row run to h / (h - shift), h half its length.
        early_condition: the condition is added to the time's row, before its dense layers.
        early_augment: the vector of the alteration too.
        eps: of every normalisation.
        least_group: least channels a group; a narrow normalisation has fewer groups than `groups`.
        scale_shift: the vector scales and shifts the normalised features.
        output_scale: factor of the output of every block and attention.
        halving: one of `HALVINGS`.
        doubling: one of `DOUBLINGS`.
        resample_shortcut: a block that resamples has a 1x1 convolution beside it, though it keeps the width.
        head_width: channels of a head; 0 where `heads` says how many.
        up_attention: which blocks of a level with attention have it on the way up: `all`, or the `last`.
        attend_middle: whether there is attention in the middle.
        waves: frequencies of the time's row: `powers` of 10000, or `random` ones, normal with deviation 16, kept with
            the weights; the angle is then 2 pi frequency time.
        taps: of the filter along each side that smooths where a mean or a block halves or doubles; (1, 1) is none.
        encoder: `plain`; `residual`: at every halving the image, halved by a 3x3 convolution and `taps`, is added,
            their sum scaled by sqrt(1/2), and the sum is halved so at the next; or `skip`: the image, halved by `taps`
            alone, is added by a 1x1 convolution.
        decoder: `plain`, or `skip`: each level has an exit of its own, and the output is their sum, doubled by `taps`.
        first_weights: `ddpm`: the last layer of every branch starts at zero; `song`: at 1e-5 of the usual, and queries,
            keys and values at sqrt(0.1) of it, as in the code of 2011.13456 and of EDM.
    """

    dropout: float = 0.0
    entrance: int = 0
    time_width: int = 0
    embedding: int = 0
    time_scale: float = 1.0
    cosine_first: bool = False
    frequency_shift: int = 1
    early_condition: bool = False
    early_augment: bool = False
    eps: float = 1e-6
    least_group: int = 1
    scale_shift: bool = False
    output_scale: float = 1.0
    halving: str = "low"
    doubling: str = "conv"
    resample_shortcut: bool = False
    head_width: int = 0
    up_attention: str = "all"
    attend_middle: bool = True
    waves: str = "powers"
    taps: tuple[int, ...] = (1, 1)
    encoder: str = "plain"
    decoder: str = "plain"
    first_weights: str = "ddpm"

    def __post_init__(self) -> None:
        for name, default in (("entrance", self.base), ("time_width", self.base), ("embedding", 4 * self.base)):
            value = getattr(self, name) or default
            require(4 <= value <= LARGEST, f"net.{name} is {value}: give a number from 4 to {LARGEST}")
            object.__setattr__(self, name, value)
        choices_of = {"halving": HALVINGS, "doubling": DOUBLINGS, "up_attention": LAST}
        choices_of |= {"waves": WAVES, "encoder": ENCODERS, "decoder": DECODERS, "first_weights": FIRST_WEIGHTS}
        for name, choices in choices_of.items():
            value = getattr(self, name)
            require(value in choices, f"net.{name} is '{value}': choose from {', '.join(choices)}")
        require(self.time_width % 2 == 0, f"net.time_width is {self.time_width}: give an even number")
        most = self.time_width // 2 - 1
        require(
            0 <= self.frequency_shift <= most,
            f"net.frequency_shift is {self.frequency_shift}: give 0 to {most}, less than half of net.time_width",
        )
        require(
            len(self.taps) % 2 == 0 and 2 <= len(self.taps) <= 16 and min(self.taps) > 0,
            f"net.taps is {self.taps}: give an even number of positive whole numbers, such as 1,3,3,1",
        )
        require(self.least_group >= 1, f"net.least_group is {self.least_group}: give 1 or more")
        require(self.head_width >= 0, f"net.head_width is {self.head_width}: give 0 or more")
        for name in ("eps", "output_scale", "time_scale"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"net.{name} is {value}: give a number above 0")
        super().__post_init__()

    def _check_widths(self) -> None:
        for width in {self.entrance, *self.widths}:
            groups = self._groups(width)
            require(
                groups > 0 and width % groups == 0, f"net.groups is {self.groups}: it doesn't divide {width} channels"
            )
        for level in {*self.attention, *([len(self.widths) - 1] if self.attend_middle else [])}:
            width, unit = self.widths[level], self.head_width or self.heads
            require(width % unit == 0, f"the heads of attention don't divide the {width} channels of level {level}")

    def _groups(self, width: int) -> int:
        return min(self.groups, width // self.least_group)

    def build(self, interface: Interface) -> UNet:
        """Return a new network."""
        return GeneralUNet(self, interface)

    def norm(self, width: int) -> nn.GroupNorm:
        """Return a normalisation."""
        return nn.GroupNorm(self._groups(width), width, eps=self.eps)

    def block(self, inputs: int, outputs: int) -> nn.Module:
        """Return a residual block."""
        return GeneralBlock(self, inputs, outputs)

    def attend(self, width: int) -> nn.Module:
        """Return a self-attention."""
        return GeneralAttention(self, width)

    def attends(self, level: int, up: bool, last: bool) -> bool:
        """Whether attention follows a block."""
        return level in self.attention and (last or not up or self.up_attention == "all")

    def middle_attention(self) -> nn.Module:
        """Return the attention in the middle, or nothing."""
        return self.attend(self.widths[-1]) if self.attend_middle else nn.Identity()

    def halve(self, width: int) -> nn.Module:
        """Return what halves."""
        if self.halving == "block":
            return GeneralBlock(self, width, width, "halve")
        if self.halving == "low":
            return Downsample(width)
        return Halve(width) if self.halving == "conv" else Halve(taps=self.taps)

    def double(self, width: int) -> nn.Module:
        """Return what doubles."""
        if self.doubling == "block":
            return GeneralBlock(self, width, width, "double")
        return Upsample(width) if self.doubling == "conv" else Double(self.taps)


class GeneralTime(nn.Module):
    """The time as a vector: W_2 silu(W_1 (row + added) + b_1) + b_2, the row with the configuration's waves."""

    def __init__(self, config: GeneralUNetConfig) -> None:
        super().__init__()
        self.config = config
        if config.waves == "random":
            self.register_buffer("waves", torch.randn(config.time_width // 2) * 16)
        self.first = nn.Linear(config.time_width, config.embedding)
        self.second = nn.Linear(config.embedding, config.embedding)

    def forward(self, time: Tensor, added: Tensor | None = None) -> Tensor:
        """Map (B,) times, and what is added to their rows, to (B, embedding), in the dtype of the weights."""
        config, half = self.config, self.config.time_width // 2
        if config.waves == "random":
            waves = 2 * math.pi * self.get_buffer("waves").to(time.dtype)
        else:
            index = torch.arange(half, dtype=time.dtype, device=time.device)
            waves = torch.exp(-math.log(10000) * index / (half - config.frequency_shift))
        angle = config.time_scale * time[:, None] * waves
        parts = (angle.cos(), angle.sin()) if config.cosine_first else (angle.sin(), angle.cos())
        row = torch.cat(parts, dim=1).to(self.first.weight.dtype)
        row = row if added is None else row + added
        out: Tensor = self.second(F.silu(self.first(row)))
        return out


class GeneralBlock(ResidualBlock):
    """c (r(x) + f(x, emb)), r the resampling of a block that halves or doubles, c the output's scale.

    h = conv_1(r(silu(norm_1(x)))); with (scale, shift) = W emb, f = conv_2(dropout(silu(norm_2(h) (1 + scale) +
    shift))), or f as the DDPM's. Where the number of channels changes, r(x) goes through a 1x1 convolution.
    """

    def __init__(self, config: GeneralUNetConfig, inputs: int, outputs: int, resample: str = "") -> None:
        super().__init__(inputs, outputs, config.embedding, config.dropout, 1)
        self.norm_1, self.norm_2 = config.norm(inputs), config.norm(outputs)
        self.scale_shift, self.output_scale = config.scale_shift, config.output_scale
        self.resample = {"": nn.Identity(), "halve": Halve(taps=config.taps), "double": Double(config.taps)}[resample]
        if config.scale_shift:
            self.project = nn.Linear(config.embedding, 2 * outputs)
        if resample and config.resample_shortcut:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x (B, inputs, H, W) and emb (B, embedding), already through its silu."""
        h: Tensor = self.conv_1(self.resample(norm_silu(self.norm_1, x)))
        told: Tensor = self.project(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = normalised(self.norm_2, h)
            h = F.silu(torch.addcmul(shift.to(h.dtype), h, scale.to(h.dtype) + 1))
        else:
            h = norm_silu(self.norm_2, h + told)
        h = self.conv_2(dropout(h, self.dropout, self.training)) + self.shortcut(self.resample(x))
        return h if self.output_scale == 1 else h * self.output_scale


class GeneralAttention(SelfAttention):
    """c (x + attention): `SelfAttention` with the configuration's heads, normalisation and output scale c."""

    def __init__(self, config: GeneralUNetConfig, width: int) -> None:
        super().__init__(width, width // config.head_width if config.head_width else config.heads, 1)
        self.norm, self.output_scale = config.norm(width), config.output_scale

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to the same shape."""
        x = super().forward(x)
        return x if self.output_scale == 1 else x * self.output_scale


class GeneralUNet(UNet):
    """The network of a `GeneralUNetConfig`."""

    config: GeneralUNetConfig
    edges = (*UNet.edges, "beside", "exits")

    def __init__(self, config: GeneralUNetConfig, interface: Interface = Interface()) -> None:
        super().__init__(config, interface)
        self.time = GeneralTime(config)  # type: ignore[assignment]
        if config.early_condition and interface.vocabulary is not None:
            self.condition = interface.vocabulary.embedding(config.time_width)
        if config.early_augment and interface.augment:
            self.augment = AlterationEmbedding(interface.augment, config.time_width)
        image, inner = interface.channels * config.patch**2, config.widths[:-1]
        if config.encoder == "residual":
            paths = zip((image, *inner), inner, strict=False)
            self.beside = nn.ModuleList(ResidualPath(*path, config.taps) for path in paths)
        else:
            skip = inner if config.encoder == "skip" else ()
            self.beside = nn.ModuleList(SkipPath(image, width, config.taps) for width in skip)
        outputs, ends = interface.outputs * config.patch**2, config.widths[:0:-1] if config.decoder == "skip" else ()
        self.exits = nn.ModuleList(Exit(config.norm(width), outputs) for width in ends)
        self._initialise()
        for own in self.exits:
            nn.init.zeros_(own.conv.weight)  # type: ignore[arg-type, union-attr]
        if config.first_weights == "song":
            self._draw_as_song()

    def _draw_as_song(self) -> None:
        """Draw the weights that start otherwise in the code of Song et al. and of EDM."""
        last: list[Tensor] = [self.exit.weight, *(own.conv.weight for own in self.exits)]  # type: ignore[list-item, misc, union-attr]
        for module in self.modules():
            if isinstance(module, SelfAttention):
                last.append(module.out.weight)
                for part in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(part, gain=_SONG_ATTENTION)
            elif isinstance(module, ResidualBlock):
                last.append(module.conv_2.weight)
            elif isinstance(module, nn.Embedding):  # a layer whose input is one-hot, times the root of its length
                nn.init.xavier_uniform_(module.weight, gain=module.num_embeddings**0.5)
        for weight in last:
            nn.init.xavier_uniform_(weight, gain=_SONG_LAST)
        if self.augment is not None:
            nn.init.xavier_uniform_(self.augment.weight)

    def with_time(self, time: Tensor, altered: Tensor | None, given: Tensor | None) -> Tensor:
        """Return the sum of the vectors, (B, embedding); see `Conditioned.with_time`."""
        early, late = list[Tensor](), list[Tensor]()
        for vector, first in ((altered, self.config.early_augment), (given, self.config.early_condition)):
            if vector is not None:
                (early if first else late).append(vector)
        emb: Tensor = self.time(time, sum(early[1:], early[0]) if early else None)
        return sum(late, emb)

    def way_down(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the result of the way down and its skips; see `UNet.way_down`."""
        if not self.beside:
            return super().way_down(x, emb)
        image, x = x, self.entrance(x)
        skips = [x]
        for level, stage in enumerate(self.down):
            x = stage(x, emb, skips)
            if level < len(self.beside):
                x, image = self.beside[level](x, image)
                skips[-1] = x
        return x, skips

    def way_up(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Return the output of the way up; see `UNet.way_up`."""
        if not self.exits:
            return super().way_up(x, emb, skips)
        double = Filter(self.config.taps).up
        out: Tensor | None = None
        for level, stage in enumerate(self.up):
            x = stage.across(x, emb, skips)  # type: ignore[operator]
            last = level == len(self.exits)
            own = self.exit(norm_silu(self.norm, x)) if last else self.exits[level](x)
            out = own if out is None else double(out) + own
            x = x if last else stage.resample(x, emb)  # type: ignore[operator]
        assert out is not None
        return out
