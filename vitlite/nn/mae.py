"""The masked autoencoder (He et al., 2022): a ViT encoder of the visible patches and a light decoder of all."""

import math

import torch
from torch import Tensor, nn

from vitlite.images.tiles import Size
from vitlite.nn.transformer import Block, init_transformer, sincos_positions
from vitlite.nn.vit import EPS, VisionTransformer


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) to patches (B, H/P * W/P, P * P * C), rows first, channels last within a patch."""
    blocks = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, C, h, P, w, P)
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify` for images of a ``grid`` (rows, columns) of patches."""
    blocks = patches.unflatten(2, (patch, patch, -1)).unflatten(1, grid)  # (B, h, w, P, P, C)
    return blocks.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """The tokens (B, L, dim) at ``indices`` (B, M): (B, M, dim)."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))


class Decoder(nn.Module):
    """Encoder tokens with their class token, (B, 1 + L, encoder_dim), to the tokens after each block."""

    def __init__(
        self, grid: tuple[int, int], encoder_dim: int, dim: int, depth: int, heads: int, mlp_ratio: float, outputs: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        table = torch.cat([torch.zeros(1, dim), sincos_positions(*grid, dim)])
        self.pos_embed = nn.Parameter(table[None], requires_grad=False)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, EPS) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.pred = nn.Linear(dim, outputs)
        init_transformer(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, restore: Tensor | None = None) -> list[Tensor]:
        """Tokens (B, 1 + L, dim) after each block.

        ``restore`` (B, L) is the place of each position's token in the sequence of visible tokens, which hidden ones
        follow; None: every position is there and in order.
        """
        tokens = self.embed(latent)
        if restore is not None:
            hidden = self.mask_token.to(tokens.dtype).expand(
                tokens.shape[0], restore.shape[1] + 1 - tokens.shape[1], -1
            )
            tokens = torch.cat([tokens[:, :1], take(torch.cat([tokens[:, 1:], hidden], dim=1), restore)], dim=1)
        tokens = tokens + self.pos_embed
        levels = []
        for block in self.blocks:
            tokens = block(tokens)
            levels.append(tokens)
        return levels

    def reconstruct(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + L, dim) of the last block to patches (B, L, outputs)."""
        return self.pred(self.norm(tokens))[:, 1:]


class MaskedAutoencoder(nn.Module):
    """Normalised images (B, 3, H, W) to tokens and patches; position tables are fixed, as in the original."""

    weights_source = "random"

    def __init__(
        self,
        image_size: Size,
        patch: int = 16,
        dim: int = 1024,
        depth: int = 24,
        heads: int = 16,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.encoder = VisionTransformer(image_size, patch, dim, depth, heads, mlp_ratio)
        self.encoder.pos_embed.requires_grad_(False)
        self.grid = self.encoder.grid
        self.patches = math.prod(self.grid)
        self.decoder = Decoder(self.grid, dim, decoder_dim, decoder_depth, decoder_heads, mlp_ratio, 3 * patch**2)

    def levels(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, 1 + L, decoder_dim) after every decoder block, from the whole image."""
        return self.decoder(self.encoder.encode_all(self.encoder.embed(images)))

    def reconstruct_hidden(self, images: Tensor, order: Tensor, visible: int) -> Tensor:
        """All patches (B, L, 3 P^2) from the first ``visible`` positions of the permutations ``order`` (B, L)."""
        latent = self.encoder.encode_all(take(self.encoder.embed(images), order[:, :visible]))
        levels = self.decoder(latent, order.argsort(dim=1))
        return self.decoder.reconstruct(levels[-1])

    def to_images(self, patches: Tensor) -> Tensor:
        """Patches (B, L, P * P * C) to images (B, C, H, W)."""
        return unpatchify(patches, self.patch, self.grid)

    def visible(self, mask_ratio: float) -> int:
        """Number of patches that stay visible."""
        return int(self.patches * (1 - mask_ratio))

    def loss(
        self, images: Tensor, mask_ratio: float = 0.75, normalize_patches: bool = False, noise: Tensor | None = None
    ) -> Tensor:
        """Mean squared error over the hidden patches (He et al., 2022; ISSTAD Eq. 3), a float32 scalar.

        ``noise`` (B, L) decides what is hidden: the patches with the largest values; None: drawn from torch's global
        random state. With ``normalize_patches`` each target patch is brought to mean 0 and deviation 1.
        """
        if noise is None:
            noise = torch.rand(images.shape[0], self.patches, device=images.device)
        order, visible = noise.argsort(dim=1), self.visible(mask_ratio)
        output = self.reconstruct_hidden(images, order, visible).float()
        target = patchify(images, self.patch)
        if normalize_patches:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        hidden = order[:, visible:]
        return (take(output, hidden) - take(target, hidden)).square().mean()
