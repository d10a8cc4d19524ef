"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193) from its published weights: the class token of a vision transformer.

Frechet distances in this space follow human judgement better than in Inception's, which saw photographs of a thousand
classes only (Stein et al. 2023, arXiv 2306.04675).

An image is cut into 14x14 patches, each projected to a token; a class token is put before them and a learned embedding
of the place added. Each block then is

    x <- x + g_1 attention(norm(x)),    x <- x + g_2 mlp(norm(x))

with learned scales g (LayerScale), and the feature is the class token after a last norm. Embeddings are published for a
grid of 37x37 patches; for the 16x16 of a 224x224 image they are interpolated bicubically as in the published code
(whose step is 37 / (16 + 0.1)).

The sizes S, B and L are read off the tensors; "giant" (another mlp) and the variants with registers are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UserError
from sfumato.evaluate.extractors.weights import fill, fingerprint, read_state, resized

__all__ = ["DINOv2", "DINOv2Features", "open_dinov2"]

PATCH, SIDE, HEAD = 14, 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPE = "bicubic to 224x224 (antialiased where it shrinks), 3 channels, ImageNet's mean and deviation"


class Scale(nn.Module):
    """LayerScale: one learned factor a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))


class Attention(nn.Module):
    """Self-attention over tokens, with heads of 64 channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, -1, HEAD).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and mlp, each normalised before, scaled and added."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim), MLP(dim)
        self.ls1, self.ls2 = Scale(dim), Scale(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.ls1.gamma * self.attn(self.norm1(x))
        out: Tensor = x + self.ls2.gamma * self.mlp(self.norm2(x))
        return out


class DINOv2(nn.Module):
    """The transformer, its tensors named as in the published files.

    Args:
        dim: channels of a token.
        depth: blocks.
        places: patches that there are embeddings for, and one for the class token.
    """

    def __init__(self, dim: int, depth: int, places: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.mask_token = nn.Parameter(torch.empty(1, dim))  # of its training; in the files, not used here
        self.pos_embed = nn.Parameter(torch.empty(1, places, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class token (B, D) of normalised images (B, 3, H, W), H and W multiples of 14."""
        x = self.patch_embed["proj"](x)
        places = self.places(*x.shape[2:])
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)), 1) + places
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x[:, 0])
        return out

    def places(self, height: int, width: int) -> Tensor:
        """Return the embeddings, (1, 1 + height width, D), of a grid of patches."""
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if (height, width) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = ((height + 0.1) / side, (width + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        assert grid.shape[2:] == (height, width), grid.shape
        return torch.cat((self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)), 1)


@dataclass(frozen=True, eq=False)
class DINOv2Features:
    """The class token after the last norm.

    Attributes:
        sha256: of the file and the recipe.
        net: the network, in evaluation mode.
        dim: channels: 384 (S), 768 (B), 1024 (L).
        device: where it works.
    """

    sha256: str
    net: DINOv2
    dim: int
    device: str = "cpu"
    name: str = "dinov2"
    recipe: str = RECIPE

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return (B, dim) float32."""
        x = resized(images.to(self.device), SIDE, "bicubic")
        mean, std = (x.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        features: Tensor = self.net((x - mean) / std)
        return features


def open_dinov2(path: Path, device: str = "cpu") -> DINOv2Features:
    """Open the network with the weights in a file.

    Args:
        path: the published file, or its tensors as safetensors.
        device: where the network works.

    Raises:
        UserError: no such file, or not such weights.
    """
    state, digest = read_state(path)
    net = fill(_plan(state, path), state, path, "DINOv2").to(device)
    return DINOv2Features(fingerprint(RECIPE, digest), net, net.pos_embed.shape[2], device)


def _plan(state: Mapping[str, Tensor], path: Path) -> DINOv2:
    """Return a network of the size that the tensors have, on the meta device."""
    embedding = state.get("pos_embed")
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if embedding is None or embedding.ndim != 3 or not depth or embedding.shape[2] % HEAD:
        raise UserError(f"'{path}' does not hold the weights of DINOv2: give dinov2_vits14_pretrain.pth or its like")
    with torch.device("meta"):
        return DINOv2(embedding.shape[2], depth, embedding.shape[1])
