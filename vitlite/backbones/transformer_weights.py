"""Published weights of vision transformers: where they come from, and putting them in.

Two families share timm's parameter names: timm's own ViT, and the encoder of MAE (facebookresearch/mae), whose
checkpoints may hold the decoder as well.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from vitlite.backbones import checkpoint, download
from vitlite.backbones.architecture import IMAGENET, SYMMETRIC
from vitlite.errors import UserError


@dataclass(frozen=True)
class Published:
    """One checkpoint: its address, the input normalisation it was trained with, and keys an encoder does not need."""

    address: str
    mean: tuple
    std: tuple
    ignored: tuple
    folder: str = ""  # within the cache, where the file's own name says nothing

    @property
    def file(self):
        return Path(self.folder) / self.address.rsplit("/", 1)[1]


_TIMM = "https://huggingface.co/timm/"
_MAE = "https://dl.fbaipublicfiles.com/mae/visualize/"
_MAE_DECODER = ("decoder_", "mask_token")

# No publisher here puts a checksum into the file's name, and we know of none: a download is checked for length, and by
# every name and shape it must hold.
# MAE: of the published files the "visualize" ones hold a decoder that gives plain pixels. mae_pretrain_*_full.pth (its
# decoder gives pixels normalised patch by patch) and mae_pretrain_*.pth (without a decoder) load by path.
PUBLISHED = {
    "vit_base_patch16_384": Published(
        _TIMM + "vit_base_patch16_384.augreg_in21k_ft_in1k/resolve/main/model.safetensors",
        *SYMMETRIC,
        ("head.",),
        "vit_base_patch16_384.augreg_in21k_ft_in1k",
    ),
    "mae_vit_base_patch16": Published(_MAE + "mae_visualize_vit_base.pth", *IMAGENET, _MAE_DECODER),
    "mae_vit_large_patch16": Published(_MAE + "mae_visualize_vit_large.pth", *IMAGENET, _MAE_DECODER),
}

# name -> (mean, std) per channel of an image in [0, 1]
NORMALIZATION = {name: (published.mean, published.std) for name, published in PUBLISHED.items()}

# Ours -> the publisher's, of what facebookresearch/mae calls otherwise than nn.mae.MaskedAutoencoder.
_MAE_NAMES = (
    ("encoder.", ""),
    ("decoder.mask_token", "mask_token"),
    ("decoder.", "decoder_"),
)


def load_vit(module, name: str, weights) -> None:
    """Put weights into a ``VisionTransformer``: of timm's ViT, or of MAE's encoder.

    name: a key of ``PUBLISHED``, which also says how its input is normalised (``NORMALIZATION[name]``).
    weights: "auto" (the cache folder, then the official address), "none" (the module keeps what it has), or a path.
    Position embeddings are interpolated to the module's size. Sets ``module.weights_source``, a text.
    Raises UserError: weights that cannot be had, or do not fit, with what does not.
    """
    tensors = _tensors(module, name, weights)
    if tensors is not None:
        _copy(module, name, {key: key for key in module.state_dict()}, *tensors, PUBLISHED[name].ignored)


def load_mae(module, name: str, weights) -> None:
    """Put weights of facebookresearch/mae into a ``MaskedAutoencoder``; arguments and errors as ``load_vit``.

    A file without decoder fills the encoder alone, and ``module.weights_source`` says so.
    """
    tensors = _tensors(module, name, weights)
    if tensors is None:
        return
    names = {key: _mae_name(key) for key in module.state_dict()}
    if not any(key.startswith(_MAE_DECODER) for key in tensors[0]):
        names = {ours: theirs for ours, theirs in names.items() if ours.startswith("encoder.")}
        module.weights_source += ", without decoder"
    _copy(module, name, names, *tensors, ())


def _mae_name(key):
    for ours, theirs in _MAE_NAMES:
        if key.startswith(ours):
            return theirs + key[len(ours) :]
    raise KeyError(key)


def _tensors(module, name, weights):
    """(tensors, path) of a checkpoint, or None for "none"; sets ``module.weights_source``."""
    if name not in PUBLISHED:
        raise UserError(f"unknown transformer {name!r}; choose one of {', '.join(PUBLISHED)}")
    if weights == "none":
        module.weights_source = "random"
        return None
    if weights == "auto":
        path, module.weights_source = _resolve(name)
    elif weights and isinstance(weights, (str, os.PathLike)):
        path = Path(weights).expanduser()
        module.weights_source = f"file {path}"
    else:
        raise UserError(f"weights {weights!r}: give 'auto', 'none' or the path of a checkpoint file")
    return checkpoint.read(path), path


def _resolve(name):
    """The checkpoint of "auto" and where it came from: cache folder, download."""
    published = PUBLISHED[name]
    cached = download.cache_folder() / published.file
    if cached.is_file():
        return cached, f"file {cached}"
    try:
        return download.fetch(published.address, cached.parent), f"download {published.address}"
    except UserError as error:
        raise UserError(f"no weights for {name}: {error}") from error


def whereabouts(name: str) -> str:
    """Where "auto" would take the weights of a transformer from, in words; nothing is read or downloaded."""
    cached = download.cache_folder() / PUBLISHED[name].file
    if cached.is_file():
        return f"file {cached}"
    return f"not here: download of {PUBLISHED[name].address} to {cached}"


def _copy(module, name, names, tensors, path, ignored):
    """Copy ``tensors`` into ``module``: ``names`` maps its keys to the file's. Raises UserError if anything is odd."""
    wanted = module.state_dict()
    found, missing, misshapen = {}, [], []
    for ours, theirs in names.items():
        if theirs not in tensors:
            missing.append(theirs)
            continue
        value, shape = tensors[theirs], wanted[ours].shape
        if ours.endswith("pos_embed"):
            value = resize_positions(value, shape)
        if value.shape != shape:
            misshapen.append(f"{theirs} {tuple(value.shape)} instead of {tuple(shape)}")
        found[ours] = value
    known = set(names.values())
    unknown = [key for key in tensors if key not in known and not key.startswith(ignored)]
    faults = _listing(missing, misshapen, unknown)
    if faults:
        raise UserError(f"weights {path} do not fit {name}: {faults}")
    with torch.no_grad():
        for key, value in found.items():
            wanted[key].copy_(value)


def resize_positions(table, shape):
    """A table (1, 1 + n^2, dim) as (1, 1 + m^2, dim): the grid interpolated (bicubic), the class token's row kept.

    ``shape`` is the shape that is wanted. Without a class token both lengths are squares. A table that cannot be
    brought to it, for its width or because its grid is no square, is returned as it is.
    """
    if table.shape == shape or table.ndim != 3 or table.shape[-1] != shape[-1]:
        return table
    for extra in (1, 0):
        old, new = (round((length - extra) ** 0.5) for length in (table.shape[1], shape[1]))
        if old**2 + extra == table.shape[1] and new**2 + extra == shape[1]:
            grid = table[:, extra:].float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
            return torch.cat([table[:, :extra].float(), grid.flatten(2).transpose(1, 2)], dim=1)
    return table


def _listing(missing, misshapen, unknown):
    """What does not fit, in words: how many of each kind and the first three; empty where everything fits."""
    kinds = (("missing", missing), ("of another shape", misshapen), ("unknown", unknown))
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in kinds
        if names
    )
