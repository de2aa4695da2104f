"""Vision transformers: DINO, DINOv2 with and without registers, DINOv3, the encoder of MAE, and the plain ViT.

A map is the patch tokens after one of the blocks, through the last norm of the network, in rows and columns. An image
whose sides are not whole numbers of patches is resized to the nearest ones.

Position embeddings are interpolated to the size of the image, bicubic, as each publisher does:
- DINO and DINOv2 without registers: by the factor (n + 0.1) / m from m to n patches;
- DINOv2 with registers: to n patches, with a filter that widens where n is below m (``antialias``);
- MAE and ViT: to n patches.

DINOv3 has none: attention turns queries and keys by angles, which come from the places of the patches.
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.backbones import checkpoint
from vitlite.backbones.architecture import IMAGENET, SYMMETRIC
from vitlite.backbones.base import Backbone, check_images, random_source
from vitlite.backbones.published import Published, locate
from vitlite.backbones.transformer_weights import common_names
from vitlite.errors import UserError
from vitlite.nn.transformer import Block
from vitlite.nn.vit import EPS, PatchEmbedding

Normalization = tuple[tuple[float, float, float], tuple[float, float, float]]

SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}  # width, blocks, heads


@dataclass(frozen=True)
class OnRequest(Published):
    """A file that its publisher gives to those alone who accept a licence: it is never downloaded."""

    def find(self, name: str) -> tuple[Path, str]:
        """Refuse: UserError."""
        raise UserError(
            f"`weights=auto`: {name} is not downloaded, for its licence is to be accepted first, at {self.address}; "
            "then give the path of the file"
        )

    def whereabouts(self) -> str:
        """In words."""
        return f"only by path: from {self.address}, after accepting the licence"


@dataclass(frozen=True)
class Network:
    """A vision transformer before anything is built.

    side: patches along each side of the images it was trained on, which its position embeddings are for.
    registers: tokens beside the class token that stand for no place.
    offset, antialias: of the interpolation of position embeddings.
    eps: of the layer norms.
    rotary: angles instead of position embeddings, and keys without a bias.
    normalization: mean and deviation of the colours, for images in [0, 1].
    """

    dim: int
    depth: int
    heads: int
    patch: int
    side: int
    published: Published
    registers: int = 0
    layer_scale: bool = False
    offset: float = 0.0
    antialias: bool = False
    eps: float = EPS
    rotary: bool = False
    normalization: Normalization = IMAGENET


_META = "https://dl.fbaipublicfiles.com/"
_TIMM = "https://huggingface.co/timm/"
_PLAIN = "vit_base_patch16_224.augreg_in21k_ft_in1k"

_DINOV2 = {
    "s": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "b": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "l": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
}
_DINOV2_REGISTERS = {
    "s": "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    "b": "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    "l": "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
}
_DINO_BASE = "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e"


def _dinov2(size: str) -> Network:
    file = f"{_META}dinov2/dinov2_vit{size}14/dinov2_vit{size}14_pretrain.pth"
    return Network(*SIZES[size], 14, 37, Published(file, sha256=_DINOV2[size]), layer_scale=True, offset=0.1)


def _dinov2_registers(size: str) -> Network:
    file = f"{_META}dinov2/dinov2_vit{size}14/dinov2_vit{size}14_reg4_pretrain.pth"
    published = Published(file, sha256=_DINOV2_REGISTERS[size])
    return Network(*SIZES[size], 14, 37, published, registers=4, layer_scale=True, antialias=True)


def _dinov3(size: str) -> Network:
    published = OnRequest("https://github.com/facebookresearch/dinov3")
    return Network(*SIZES[size], 16, 14, published, registers=4, layer_scale=True, eps=1e-5, rotary=True)


def _dino(size: str, patch: int, file: str, sha256: str = "") -> Network:
    published = Published(f"{_META}dino/{file}/{file}.pth", sha256=sha256)
    return Network(*SIZES[size], patch, 224 // patch, published, offset=0.1)


# Names are those of torch.hub (DINO, DINOv2, DINOv3) and of timm. Without a checksum here, none is known: such a
# download is checked for length, and by every name and shape it must hold.
NETWORKS: dict[str, Network] = {
    **{f"dinov2_vit{size}14": _dinov2(size) for size in SIZES},
    **{f"dinov2_vit{size}14_reg": _dinov2_registers(size) for size in SIZES},
    **{f"dinov3_vit{size}16": _dinov3(size) for size in SIZES},
    "dino_vits8": _dino("s", 8, "dino_deitsmall8_pretrain"),
    "dino_vitb16": _dino("b", 16, "dino_vitbase16_pretrain", _DINO_BASE),
    "mae_vit_base_patch16": Network(*SIZES["b"], 16, 14, Published(_META + "mae/pretrain/mae_pretrain_vit_base.pth")),
    "vit_base_patch16_224": Network(
        *SIZES["b"], 16, 14, Published(f"{_TIMM}{_PLAIN}/resolve/main/model.safetensors", _PLAIN),
        normalization=SYMMETRIC,
    ),
}  # fmt: skip


class VisionBackbone(Backbone):
    """A frozen vision transformer; parameters have the names of DINOv2's publisher, which are timm's as well.

    layers: the blocks whose outputs are the maps, counted from 1, ascending; blocks beyond the last are not built.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, network: Network, layers: Sequence[int]) -> None:
        super().__init__()
        self.name, self.network, self.layers = name, network, tuple(layers)
        self.strides = (network.patch,) * len(self.layers)
        self.channels = (network.dim,) * len(self.layers)
        self.weights_source = "not loaded"
        # By rows and columns: position embeddings, or cosine and sine of the angles.
        self._places: dict[tuple[int, int], Tensor] = {}
        # Built without memory and without drawing from the global generator; the weights are filled in afterwards.
        with torch.device("meta"):
            self._build(network)
        self.to_empty(device="cpu").requires_grad_(False)
        for key, values in zip(("mean", "std"), network.normalization):
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def _build(self, network: Network) -> None:
        dim = network.dim
        self.patch_embed = PatchEmbedding(network.patch, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = None if network.rotary else nn.Parameter(torch.empty(1, 1 + network.side**2, dim))
        self.register_tokens = nn.Parameter(torch.empty(1, network.registers, dim)) if network.registers else None
        self.blocks = nn.ModuleList(
            Block(dim, network.heads, eps=network.eps, layer_scale=network.layer_scale) for _ in range(self.layers[-1])
        )
        self.norm = nn.LayerNorm(dim, eps=network.eps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """As `Backbone.forward`. Raises ValueError for another shape or dtype."""
        rows, columns = self.grid(images)
        first = 1 + self.network.registers
        return tuple(
            self.norm(tokens)[:, first:].transpose(1, 2).unflatten(2, (rows, columns)) for tokens in self.tokens(images)
        )

    def tokens(self, images: Tensor) -> list[Tensor]:
        """Tokens (B, 1 + registers + rows * columns, dim) after each of ``layers``, before the last norm."""
        check_images(images)
        places = self.places(*self.grid(images))
        tokens, outputs = self._embed(images, places), []
        rotation = places if self.network.rotary else ()
        for number, block in enumerate(self.blocks, 1):
            tokens = block(tokens, *rotation)
            if number in self.layers:
                outputs.append(tokens)
        return outputs

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (B, 3, H, W)."""
        rows, columns = (max(1, round(size / self.network.patch)) for size in images.shape[-2:])
        return rows, columns

    def _embed(self, images: Tensor, places: Tensor) -> Tensor:
        patch = self.network.patch
        size = tuple(patch * number for number in self.grid(images))
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        patches: Tensor = self.patch_embed((images - self.mean) / self.std)
        first: Tensor = self.cls_token
        if not self.network.rotary:
            patches, first = patches + places[:, 1:], first + places[:, :1]
        heads = [first] if self.register_tokens is None else [first, self.register_tokens]
        return torch.cat([*(head.expand(patches.shape[0], -1, -1) for head in heads), patches], dim=1)

    def places(self, rows: int, columns: int) -> Tensor:
        """Position embeddings (1, 1 + rows * columns, dim), the class token's first.

        With angles: cosine and sine (2, 1 + registers + rows * columns, dim / heads).
        """
        if self.pos_embed is not None and (rows, columns) == (self.network.side,) * 2:
            return self.pos_embed
        # Kept, so that a traced graph holds them as numbers: not every format can interpolate as it is done here.
        found: Tensor | None = self._places.get((rows, columns))
        if found is None:
            found = self._angles(rows, columns) if self.pos_embed is None else self._between(rows, columns)
            self._places.clear()
            self._places[rows, columns] = found
        return found

    @torch.no_grad()
    def _between(self, rows: int, columns: int) -> Tensor:
        side, offset = self.network.side, self.network.offset
        size: dict[str, Any] = {"size": (rows, columns)}
        if offset:
            size = {"scale_factor": ((rows + offset) / side, (columns + offset) / side)}
        table = cast(Tensor, self.pos_embed)
        grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid = grid.to(torch.promote_types(grid.dtype, torch.float32))
        grid = F.interpolate(grid, mode="bicubic", align_corners=False, antialias=self.network.antialias, **size)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table)], dim=1)

    @torch.no_grad()
    def _angles(self, rows: int, columns: int) -> Tensor:
        """Of DINOv3: centres of the patches in [-1, 1], by periods from 1 to 100; other tokens are not turned."""
        width = self.network.dim // self.network.heads
        axes = [(torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 - 1 for count in (rows, columns)]
        centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
        periods = 100.0 ** torch.arange(0, 1, 4 / width, dtype=torch.float64)
        angles = (2 * math.pi * centres[:, :, None] / periods).flatten(1).tile(2)
        angles = F.pad(angles, (0, 0, 1 + self.network.registers, 0))
        return torch.stack([angles.cos(), angles.sin()]).to(self.cls_token)

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        self._places.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._places.clear()
        super()._load_from_state_dict(*args)

    def extra_repr(self) -> str:
        return f"{self.name}, blocks {','.join(map(str, self.layers))}, weights: {self.weights_source}"


def create(
    name: str, weights: str | os.PathLike, strides: Sequence[int] | None, seed: int, layers: Sequence[int] | None = None
) -> VisionBackbone:
    """A vision transformer. All its maps have one stride; layers are four by default, evenly spaced."""
    network = NETWORKS[name]
    if strides is not None and set(strides) != {network.patch}:
        given = ",".join(map(str, strides))
        raise UserError(
            f"`strides={given}`: every map of {name} has stride {network.patch}; leave strides empty and choose blocks"
            " by `layers`"
        )
    backbone = VisionBackbone(name, network, _checked(name, network, layers))
    found = locate(weights, network.published, name)
    if found is None:
        randomise(backbone, seed)
        backbone.weights_source = random_source(seed)
    else:
        load(backbone, found[0])
        backbone.weights_source = found[1]
    return backbone


def whereabouts(name: str) -> str:
    """Where its weights are, in words."""
    return NETWORKS[name].published.whereabouts()


def _checked(name: str, network: Network, layers: Sequence[int] | None) -> Sequence[int]:
    if layers is None:
        return [network.depth * quarter // 4 for quarter in (1, 2, 3, 4)]
    if not layers or list(layers) != sorted(set(layers)) or not 1 <= layers[0] <= layers[-1] <= network.depth:
        given = ",".join(map(str, layers))
        raise UserError(f"`layers={given}`: {name} has blocks 1 to {network.depth}; give some, ascending")
    return layers


# Beginnings of keys, in common names, that a backbone does not need: heads, what pretraining alone needs, decoders.
_IGNORED = ("head.", "pre_logits.", "pooler.", "classifier.", "mask_token", "decoder_", "decoder.", "rope_embed.")


def load(backbone: VisionBackbone, path: Path) -> None:
    """Put the weights of a file into a backbone. Raises UserError if they do not fit."""
    network = backbone.network
    tensors = common_names(checkpoint.read(path), key_bias=not network.rotary)
    table = tensors.get("pos_embed")
    if table is not None and table.shape[:2] == (1, network.side**2):  # the class token holds its own already
        tensors["pos_embed"] = F.pad(table, (0, 0, 1, 0))
    wanted = backbone.state_dict()
    whole = {re.sub(r"^blocks\.0\.", f"blocks.{block}.", key) for key in wanted for block in range(network.depth)}
    tensors = {key: value for key, value in tensors.items() if not key.endswith(".qkv.bias_mask")}
    found = checkpoint.match(backbone.name, path, {key: key for key in whole}, wanted, tensors, _IGNORED)
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(found[key])


def randomise(backbone: VisionBackbone, seed: int) -> None:
    """Random weights from a generator of their own, at the scale of their inputs; norms and factors are 1."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in backbone.named_parameters():
        if key.endswith(("_token", "_tokens", "pos_embed")):
            nn.init.normal_(value, std=0.02, generator=generator)
        elif value.ndim > 1:
            nn.init.normal_(value, std=value[0].numel() ** -0.5, generator=generator)
        else:
            nn.init.constant_(value, 0.0 if key.endswith("bias") else 1.0)
