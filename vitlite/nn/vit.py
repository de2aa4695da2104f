"""The plain vision transformer encoder (Dosovitskiy et al., 2021) under timm's parameter names."""

from typing import cast

import torch
from torch import Tensor, nn

from vitlite.images.tiles import Size, sides
from vitlite.nn.transformer import Block, init_transformer, sincos_positions

EPS = 1e-6  # of the layer norms in the published ViT and MAE checkpoints


class PatchEmbedding(nn.Module):
    """Images (B, 3, H, W) to tokens (B, H/P * W/P, dim), row by row."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """ViT encoder: normalised images (B, 3, H, W) to tokens (B, L, dim) without the class token, after the last norm.

    L is H / patch * W / patch, in row order. ``class_token`` says whether one takes part in attention (published
    checkpoints have one). ``embed`` and ``encode`` are the two halves, for a caller that drops tokens between them.
    Raises ValueError if the patches do not fill the image.
    """

    def __init__(
        self,
        image_size: Size,
        patch: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        class_token: bool = True,
    ) -> None:
        super().__init__()
        height, width = sides(image_size)
        if height % patch or width % patch:
            raise ValueError(f"patch={patch}: does not divide image_size={image_size}")
        self.grid = height // patch, width // patch  # rows and columns of patches
        self.patch_embed = PatchEmbedding(patch, dim)
        self.cls_token: nn.Parameter | None = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        table = sincos_positions(*self.grid, dim)
        if class_token:
            table = torch.cat([torch.zeros(1, dim), table])
        self.pos_embed = nn.Parameter(table[None])
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, EPS) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        init_transformer(self)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(dim, -1))
        nn.init.zeros_(cast(Tensor, self.patch_embed.proj.bias))
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def embed(self, images: Tensor) -> Tensor:
        """Patch tokens (B, L, dim) with their positions added."""
        positions = self.pos_embed if self.cls_token is None else self.pos_embed[:, 1:]
        return self.patch_embed(images) + positions

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, M, dim) of any subset of positions, through the blocks and the norm; same shape."""
        tokens = self.encode_all(tokens)
        return tokens if self.cls_token is None else tokens[:, 1:]

    def encode_all(self, tokens: Tensor) -> Tensor:
        """As ``encode``, with the class token, if there is one, in front: (B, 1 + M, dim)."""
        if self.cls_token is not None:
            first = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def forward(self, images: Tensor) -> Tensor:
        return self.encode(self.embed(images))
