"""Published weights of vision transformers: where they come from, and putting them in.

Two families share timm's parameter names: timm's own ViT, and the encoder of MAE (facebookresearch/mae), whose
checkpoints may hold the decoder as well.
"""

import math
import os
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.backbones import checkpoint
from vitlite.backbones.architecture import IMAGENET, SYMMETRIC
from vitlite.backbones.published import Published, locate
from vitlite.errors import UserError


@dataclass(frozen=True)
class Encoder:
    """One checkpoint: where it is, the input normalisation it was trained with, and keys an encoder does not need."""

    published: Published
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    ignored: tuple[str, ...]


_TIMM = "https://huggingface.co/timm/"
_MAE = "https://dl.fbaipublicfiles.com/mae/visualize/"
_MAE_DECODER = ("decoder_", "mask_token")

# No publisher here puts a checksum into the file's name, and we know of none: a download is checked for length, and by
# every name and shape it must hold.
# MAE: of the published files the "visualize" ones hold a decoder that gives plain pixels. mae_pretrain_*_full.pth (its
# decoder gives pixels normalised patch by patch) and mae_pretrain_*.pth (without a decoder) load by path.
PUBLISHED = {
    "vit_base_patch16_384": Encoder(
        Published(
            _TIMM + "vit_base_patch16_384.augreg_in21k_ft_in1k/resolve/main/model.safetensors",
            folder="vit_base_patch16_384.augreg_in21k_ft_in1k",
        ),
        *SYMMETRIC,
        ("head.",),
    ),
    "mae_vit_base_patch16": Encoder(Published(_MAE + "mae_visualize_vit_base.pth"), *IMAGENET, _MAE_DECODER),
    "mae_vit_large_patch16": Encoder(Published(_MAE + "mae_visualize_vit_large.pth"), *IMAGENET, _MAE_DECODER),
}

# name -> (mean, std) per channel of an image in [0, 1]
NORMALIZATION = {name: (published.mean, published.std) for name, published in PUBLISHED.items()}

# Ours -> the publisher's, of what facebookresearch/mae calls otherwise than nn.mae.MaskedAutoencoder.
_MAE_NAMES = (("encoder.", ""), ("decoder.mask_token", "mask_token"), ("decoder.", "decoder_"))


def load_vit(module: nn.Module, name: str, weights: str | os.PathLike) -> None:
    """Put weights into a ``VisionTransformer``: those of timm's ViT, or of MAE's encoder.

    name: a key of ``PUBLISHED``, which also says how its input is normalised (``NORMALIZATION[name]``).
    weights: "auto" (the cache folder, then the official address), "none" (the module keeps what it has), or a path.
    Position embeddings are interpolated to the module's size. Sets ``module.weights_source``, a text.
    Raises UserError: weights that cannot be had, or do not fit.
    """
    tensors = _tensors(module, name, weights)
    if tensors is not None:
        _copy(module, name, {key: key for key in module.state_dict()}, *tensors, PUBLISHED[name].ignored)


def load_mae(module: Any, name: str, weights: str | os.PathLike) -> None:
    """Put weights of facebookresearch/mae into a ``MaskedAutoencoder``; arguments and errors as ``load_vit``.

    A file without a decoder fills the encoder alone, and ``module.weights_source`` says so.
    """
    tensors = _tensors(module, name, weights)
    if tensors is None:
        return
    names = {key: _mae_name(key) for key in module.state_dict()}
    if not any(key.startswith(_MAE_DECODER) for key in tensors[0]):
        names = {ours: theirs for ours, theirs in names.items() if ours.startswith("encoder.")}
        module.weights_source += ", without decoder"
    _copy(module, name, names, *tensors, ())


# What timm (registers alone), DINOv3 (registers too) and `transformers` call otherwise than the other publishers.
# `transformers` has two sets of names: those in its files and, from version 5 on, those of its modules.
_RENAMED = (
    (r"^(vit|dinov2|dinov2_with_registers)\.", ""),
    (r"^(reg_token|storage_tokens)$", "register_tokens"),
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^(encoder\.layer|layers|(model\.)?layer)\.", "blocks."),
    (r"\.attention\.(attention\.)?(q|k|v)(uery|ey|alue|_proj)\.", r".attn.\2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.up_proj)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.down_proj)\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)


def common_names(tensors: dict[str, Tensor], key_bias: bool = True) -> dict[str, Tensor]:
    """The tensors of a vision transformer's encoder under the names that DINO, DINOv2, MAE and timm give them.

    tensors: of a checkpoint with these names or with those of `transformers`, whose queries, keys and values are
        three tensors. What else there is keeps its name.
    key_bias: False: keys have no bias, so theirs is 0, whatever the checkpoint holds.
    """
    named = {}
    for key, value in tensors.items():
        for pattern, replacement in _RENAMED:
            key = re.sub(pattern, replacement, key)
        named[key] = value
    for key in [key for key in named if re.fullmatch(r"blocks\.\d+\.attn\.q\.(weight|bias)", key)]:
        parts = [key.replace(".q.", f".{part}.") for part in "qkv"]
        if not key_bias and key.endswith("bias"):
            named.setdefault(parts[1], named[key])  # becomes 0 below
        if all(part in named for part in parts):
            named[key.replace(".q.", ".qkv.")] = torch.cat([named.pop(part) for part in parts])
    if not key_bias:
        for key in [key for key in named if key.endswith(".attn.qkv.bias")]:
            query, _, value = named[key].chunk(3)
            named[key] = torch.cat([query, torch.zeros_like(query), value])
    return named


def whereabouts(name: str) -> str:
    """Where "auto" would take the weights of a transformer from, in words; nothing is read or downloaded."""
    return PUBLISHED[name].published.whereabouts()


def _mae_name(key: str) -> str:
    ours, theirs = next(pair for pair in _MAE_NAMES if key.startswith(pair[0]))
    return theirs + key[len(ours) :]


def _tensors(module: Any, name: str, weights: str | os.PathLike) -> tuple[dict[str, Tensor], os.PathLike] | None:
    """(tensors, path) of a checkpoint, or None for "none"; sets ``module.weights_source``."""
    if name not in PUBLISHED:
        raise UserError(f"unknown transformer {name!r}; choose one of {', '.join(PUBLISHED)}")
    found = locate(weights, PUBLISHED[name].published, name)
    module.weights_source = "random" if found is None else found[1]
    return None if found is None else (checkpoint.read(found[0]), found[0])


def _copy(
    module: Any,
    name: str,
    names: dict[str, str],
    tensors: dict[str, Tensor],
    path: os.PathLike,
    ignored: tuple[str, ...],
) -> None:
    """Copy ``tensors`` into ``module``: ``names`` maps its keys to the file's. Raises UserError if anything is odd."""
    wanted = module.state_dict()
    for ours, theirs in names.items():
        if ours.endswith("pos_embed") and theirs in tensors:
            tensors = {**tensors, theirs: resize_positions(tensors[theirs], wanted[ours].shape, module.grid)}
    with torch.no_grad():
        for key, value in checkpoint.match(name, path, names, wanted, tensors, ignored).items():
            wanted[key].copy_(value)


def resize_positions(table: Tensor, shape: torch.Size | tuple[int, ...], grid: tuple[int, int] | None = None) -> Tensor:
    """A table (1, 1 + n^2, dim) as (1, 1 + m, dim): the grid interpolated (bicubic), the class token's row kept.

    ``shape`` is the shape that is wanted, and ``grid`` its rows and columns; None: of a square. Without a class token
    the lengths are n^2 and m. A table of another width, or whose grid is no square, is returned as it is.
    """
    if table.shape == shape or table.ndim != 3 or table.shape[-1] != shape[-1]:
        return table
    for extra in (1, 0):
        old, side = (round((length - extra) ** 0.5) for length in (table.shape[1], shape[1]))
        new = grid or (side, side)
        if old**2 + extra == table.shape[1] and math.prod(new) + extra == shape[1]:
            return torch.cat([table[:, :extra].float(), resize_grid(table[:, extra:].float(), (old, old), new)], dim=1)
    return table


def resize_grid(table: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """What belongs to the places of a grid, (1, L, dim), for a grid of other rows and columns: bicubic."""
    if before == after:
        return table
    known = table.unflatten(1, before).permute(0, 3, 1, 2)
    return F.interpolate(known, size=after, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
