"""SIVT: self-induction vision transformer (Yao and Yu, 2022).

Frozen CNN features are reconstructed by a transformer whose encoder never sees a token's own value: in each of N
sequences one subset of the tokens is replaced by learned induction tokens, only those are kept after the encoder, and
together they are decoded to the features (Algorithm 1). What cannot be induced from its surroundings is anomalous.
"""

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vitlite.images.tiles import Size
from vitlite.methods.ablations import ALL_PLOTTED, AUROC, MVTEC_ALL, Row, Table, sweep
from vitlite.methods.bank import BankMethod, neighbourhood_means, rows_of
from vitlite.methods.config import AUTO
from vitlite.methods.frozen import QUICK_FEATURES, FeatureConfig
from vitlite.methods.induction import SelfInduction, draw_split
from vitlite.methods.start import load_start
from vitlite.nn.maps import SmoothUpsample


@dataclass(frozen=True)
class Config(FeatureConfig):
    """Defaults are the paper's; section numbers are the paper's. ``(ours)`` marks what it leaves open."""

    epochs: int = 400  # IV.A
    batch_size: int = 8  # IV.A
    lr: float = 1e-4  # IV.A, AdamW
    backbone: str = "efficientnet_b4"  # IV.A; Fig. 4 compares others
    feature_size: Size = 32  # IV.A
    patch: int = 2  # IV.A, P; Fig. 5b: 1, 2, 4, 8
    dim: int = 240  # IV.A
    encoder_depth: int = 12  # "the design of MAE-base", IV.A
    decoder_depth: int = 8
    heads: int = 8  # (ours): of width 30; MAE-base's 12 would do as well
    mlp_ratio: float = 4.0
    induction: bool = True  # False: the vanilla transformer of Fig. 6
    subsets: int = 4  # IV.A, N; Fig. 5a: 2 to 8
    cosine_weight: float = 5.0  # lambda of Eq. 2 (ours)
    map: str = "product"  # Eq. 3; or l2 | cosine, its factors alone
    bank: int = 0  # (ours)
    sigma: float = 4.0  # (ours)
    score: str = "std"  # III.E
    split_block: int = 1  # (ours)
    split_seed: int = 0  # (ours)
    start: str = "none"  # (ours)

    needs: ClassVar = FeatureConfig.needs | dict.fromkeys(("subsets", "split_block", "split_seed"), "induction")

    def check(self) -> None:
        super().check()
        self.one_of("map", ("product", "l2", "cosine"))
        self.at_least(1, "patch", "dim", "encoder_depth", "decoder_depth", "heads", "split_block")
        self.at_least(0, "sigma", "bank", "cosine_weight")
        self.above(0, "mlp_ratio")
        if isinstance(self.feature_size, tuple) or len(set(self.image_shape)) == 1:
            self.divides("patch", "feature_size")
        self.divides("heads", "dim")
        length = math.prod(self.tokens)
        if self.induction and not 2 <= self.subsets <= length:
            self.refuse("subsets", f"must be from 2 to the number of tokens, {length}")
        if self.backbone == "image" and self.image_shape != tuple(8 * number for number in self.grid):
            self.refuse("image_size", "backbone=image needs 8 * feature_size")

    @property
    def grid_multiple(self) -> int:
        return self.patch

    @property
    def tokens(self) -> tuple[int, int]:
        """(rows, columns) of patches of the feature map."""
        rows, columns = self.grid
        return rows // self.patch, columns // self.patch


PAPER = Config()
NEIGHBOURHOOD = 3  # whose mean a vector of the bank is
# Small enough for two CPU cores; chosen on held-out good images with synthetic defects, never on a test split.
# rms is III.E's deviation for what is anomalous everywhere too: that does not deviate from its own mean.
QUICK = replace(
    PAPER,
    **QUICK_FEATURES | {"score": "rms"},
    image_size="keep,256",
    dim=192,
    encoder_depth=4,
    decoder_depth=2,
    heads=3,  # of width 64: fewer score matrices than 8 of 24, which is what attention costs on a CPU
    subsets=2,  # half the tokens of 4, hence twice the speed
    steps=150,
    max_epochs=40,
    optimizer="muon",  # goes further than AdamW in as many steps
    lr=3e-3,
    warmup_epochs=1.0,
    average=0.99,
    clip_norm=1.0,
    precision="auto",
    bank=4000,
    start="auto",
)

# Details of half the size: as many tokens as quick has, each of twice as many places along either side. With its patch
# of 2 there would be four times as many tokens, and attention among 16 times as many pairs.
QUICK512 = replace(QUICK, image_size="keep,512", feature_size=64, patch=4, steps=250, start="none")

# For those who can wait: some parts gain from ten times the steps of QUICK, others lose. Drawn defects decide.
LONG = replace(QUICK, steps=1500, max_epochs=400, patience=100)

# Fig. 4 to 6; numbers from Table I and the margins that Section IV.C.2 states for the vanilla transformer.
FULL = {"image_auroc": 96.4, "pixel_auroc": 96.9, "image_ap": 98.6, "pixel_ap": 50.9}
VANILLA = {"image_auroc": 84.4, "pixel_auroc": 90.1, "image_ap": 92.4, "pixel_ap": 30.4}
EXTRACTORS = {"image": "image reconstruction", "mobilenet_v2": "MobileNet", "vgg19": "VGG19", "resnet34": "ResNet34"}
EXTRACTORS |= {"efficientnet_b4": "EfficientNet-B4"}
# Up to 500, where both parts of the loss weigh about alike: the squared distance is a sum over channels.
LAMBDAS = {w: f"lambda = {w}" for w in (0, 5, 50, 500)}
SUBSETS, PATCHES = {n: f"N = {n}" for n in range(2, 9)}, {p: f"P = {p}" for p in (1, 2, 4, 8)}
INDUCTION = {"false": "vanilla transformer", "true": "self-induction"}
FIG6 = MVTEC_ALL + "; vanilla: Table I less the margins of Section IV.C.2"
BOTH = (*AUROC, "image_ap", "pixel_ap")
MODES = (Row("SIVT", (), FULL, {"image_auroc": 96.6, "pixel_auroc": 97.0}),)
ABLATIONS = {
    "modes": Table("one model for each category, and one for all", "Table II", MVTEC_ALL, AUROC, MODES),
    "extractor": Table(
        "feature extraction", "Fig. 4", ALL_PLOTTED, AUROC, sweep("backbone", EXTRACTORS, {"efficientnet_b4": FULL})
    ),
    "induction": Table(
        "self-induction", "Fig. 6", FIG6, BOTH, sweep("induction", INDUCTION, {"false": VANILLA, "true": FULL})
    ),
    "subsets": Table("number of subsets N", "Fig. 5a", ALL_PLOTTED, AUROC, sweep("subsets", SUBSETS, {4: FULL})),
    "cosine": Table(
        "weight of the cosine distance", "ours: the paper gives none", "none", BOTH, sweep("cosine_weight", LAMBDAS)
    ),
    "patch": Table("patch size P", "Fig. 5b", ALL_PLOTTED, AUROC, sweep("patch", PATCHES, {2: FULL})),
}


class SIVT(BankMethod):
    """Frozen features, self-induction reconstruction, product map, standard-deviation score.

    With a ``bank`` the map has one factor more: how far features are from the nearest ones of good images, as in
    :mod:`vitlite.methods.knn`. A defect that its neighbours give away can be induced, and is unlike anything good; what
    is good and rare has no near neighbour, and can be induced.
    """

    presets: ClassVar = {"paper": PAPER, "quick": QUICK, "quick512": QUICK512, "long": LONG}
    ablations: ClassVar = ABLATIONS
    draws_for_batch = True  # the split into subsets
    default_score = "std"  # III.E
    precisions = ("float32", "bfloat16")
    exports = ("float32", "int8")

    config: Config
    split: Tensor

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights, banked=config.bank > 0)
        channels = sum(self.backbone.channels)
        self.transformer = SelfInduction(config, channels * config.patch**2)
        self.start_source = None if weights == "none" else load_start(self.transformer, config)
        self.block = 1  # of the splits of training
        self.register_buffer("split", self.scoring_split())
        self.smooth = SmoothUpsample(config.grid, config.image_shape, config.sigma, config.edge)

    @property
    def score_name(self) -> str:
        """As the base class's; with a bank, ``auto`` stands for rms.

        The map then is a product of distances, whose deviation says little of an image that is anomalous everywhere.
        """
        return "rms" if self.config.score == AUTO and self.bank is not None else super().score_name

    def fit(self, batches: Iterable[Tensor]) -> None:
        """As the base class's; fills the bank too."""
        if self.bank is None:
            super().fit(batches)
        else:
            self.fill(batches, self.config.bank, "coreset", NEIGHBOURHOOD)

    def reconstruct(self, target: Tensor, order: Tensor) -> Tensor:
        """Normalised features (B, C, H, W) to their reconstruction, in the same shape and in float32."""
        patch = self.config.patch
        patches = F.pixel_unshuffle(target, patch).flatten(2).transpose(1, 2)
        output = self.transformer(patches, order).float()
        return F.pixel_shuffle(output.transpose(1, 2).unflatten(2, self.config.tokens), patch)

    def scoring_split(self) -> Tensor:
        """The order (L,) that scoring takes."""
        generator = torch.Generator().manual_seed(self.config.split_seed)
        return draw_split(self.config.tokens, self.config.split_block, torch.device("cpu"), generator)

    def loss(self, features: Tensor) -> dict[str, Tensor]:
        """Equation 2 over a batch of features; the split into subsets is drawn anew (Algorithm 1, line 3)."""
        target = self.normalized(features)
        order = draw_split(self.config.tokens, self.block, self.split.device)
        l2, cosine = residuals(target, self.reconstruct(target, order))
        l2, cosine = l2.mean(), cosine.mean()
        return {"loss": l2 + self.config.cosine_weight * cosine, "l2": l2, "cosine": cosine}

    def values(self, features: Tensor) -> Tensor:
        """Equation 3 per position, at the input size and smoothed.

        With a bank: the root of Equation 3 that is a distance, times the distance to the nearest row of the bank.
        """
        target, output = self.feature_maps(features)
        l2, cosine = residuals(target, output)
        values = {"product": l2 * cosine, "l2": l2, "cosine": cosine}[self.config.map]
        if self.bank is not None:
            root = 1 / 4 if self.config.map == "product" else 1 / 2
            values = values.clamp_min(0) ** root * self.from_bank(target)
        return self.smooth(values)

    def from_bank(self, target: Tensor) -> Tensor:
        """Normalised features (B, C, h, w) to their distances (B, h, w) from the nearest rows of the bank."""
        batch, _, rows, columns = target.shape  # not len(): exporters would fix the size of a batch
        distances, _ = self.nearest(rows_of(neighbourhood_means(target, NEIGHBOURHOOD)))
        return distances.view(batch, rows, columns)

    def feature_maps(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised features and their reconstruction, with the split that scoring uses."""
        target = self.normalized(features)
        lower: Any = contextlib.nullcontext()  # not a disabled autocast, which exporters would keep
        if self.scoring == "bfloat16":
            lower = torch.autocast(target.device.type, torch.bfloat16)
        with lower:
            return target, self.reconstruct(target, self.split)

    def parts(self, features: Tensor) -> dict[str, Tensor]:
        """The factors of the map, smoothed."""
        target, output = self.feature_maps(features)
        found = dict(zip(("squared distance", "cosine distance"), residuals(target, output)))
        if self.bank is not None:
            found["distance from good features"] = self.from_bank(target)
        return {name: self.smooth(values) for name, values in found.items()}


def residuals(target: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Squared L2 distance and 1 - cosine over channels: (B, C, H, W) twice to (B, H, W) twice."""
    l2 = (target - output).square().sum(1)
    return l2, 1 - F.cosine_similarity(target, output, dim=1)
