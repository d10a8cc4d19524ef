"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193) from its published weights: the class token of a vision transformer.

Frechet distances in this space follow human judgement better than in Inception's (Stein et al. 2023, arXiv 2306.04675).

Each 14x14 patch of an image is projected to a token; a class token is put before them and a learned embedding of the
position added. Blocks with learned scales g (LayerScale) follow, and the feature is the class token after a last norm:

    x <- x + g_1 attention(norm(x)),    x <- x + g_2 mlp(norm(x))

Embeddings are published for 37x37 patches; for the 16x16 of a 224x224 image they are interpolated bicubically as in the
published code (whose step is 37 / (16 + 0.1)). The sizes S, B and L are read off the tensors; "giant" (another mlp) and
the variants with registers are refused.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.codec.format import PixelFormat
from sfumato.errors import UserError
from sfumato.evaluate.extractors.weights import fill, fingerprint, read_state, resized
from sfumato.evaluate.features import Extractor, Shape

PATCH, SIDE, HEAD = 14, 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPE = "bicubic to 224x224 (antialiased where it shrinks), 3 channels, ImageNet's mean and deviation"


class Block(nn.Module):
    """Attention with heads of 64 channels and an mlp, each normalised before, scaled and added."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.empty(dim)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.ls1["gamma"] * self.attn["proj"](attention)
        out: Tensor = x + self.ls2["gamma"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return out


class DINOv2(nn.Module):
    """The transformer, its tensors named as in the published files; `positions` counts the class token too."""

    def __init__(self, dim: int, depth: int, positions: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.mask_token = nn.Parameter(torch.empty(1, dim))  # of its training; in the files, not used here
        self.pos_embed = nn.Parameter(torch.empty(1, positions, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, PATCH, stride=PATCH)})
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class token (B, D) of normalised images (B, 3, H, W), H and W multiples of 14."""
        x = self.patch_embed["proj"](x)
        positions = self.positions(*x.shape[2:])
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)), 1) + positions
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x[:, 0])
        return out

    def positions(self, height: int, width: int) -> Tensor:
        """Return the embeddings, (1, 1 + height width, D), of a grid of patches."""
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if (height, width) == (side, side):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = ((height + 0.1) / side, (width + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        assert grid.shape[2:] == (height, width), grid.shape
        return torch.cat((self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)), 1)


def open_features(path: Path, shape: Shape, device: str, format: PixelFormat) -> Extractor:
    """Open the network with the weights in a file: a published one, or its tensors as safetensors."""
    state, digest = read_state(path)
    embedding = state.get("pos_embed")
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    if embedding is None or embedding.ndim != 3 or not depth or embedding.shape[2] % HEAD:
        raise UserError(f"'{path}' does not hold the weights of DINOv2: give dinov2_vits14_pretrain.pth or its like")
    with torch.device("meta"):
        net = DINOv2(embedding.shape[2], depth, embedding.shape[1])
    net = fill(net, state, path, "DINOv2").to(device)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))

    def features(images: Tensor) -> Tensor:
        out: Tensor = net((resized(images, SIDE, "bicubic") - mean) / std)
        return out

    return Extractor("dinov2", fingerprint(RECIPE, digest), embedding.shape[2], RECIPE, features, device=device)
