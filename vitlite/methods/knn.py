"""Nearest neighbour in frozen features, the core of PatchCore (Roth et al., CVPR 2022) and AnomalyDINO (2024).

A bank holds feature vectors of places of good images, each the mean of a 3x3 neighbourhood. The anomaly of a place is
the distance of its vector to the nearest one in the bank. Nothing is trained: a run is finished as soon as the features
are computed. Section and equation numbers are PatchCore's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from vitlite.images.tiles import Size
from vitlite.methods.bank import BankMethod, neighbourhood_means, rows_of
from vitlite.methods.base import Stage
from vitlite.methods.frozen import QUICK_FEATURES, FeatureConfig
from vitlite.methods.kinds import ImageSize
from vitlite.nn.maps import SmoothUpsample


@dataclass(frozen=True)
class Config(FeatureConfig):
    """Defaults are PatchCore's; ``(ours)`` marks what it leaves open, or what is another here."""

    image_size: ImageSize = 224  # 4.1
    backbone: str = "resnet50"  # (ours): 4.1 has a ResNet of twice the width
    strides: tuple[int, ...] = (8, 16)  # 3.1, blocks 2 and 3
    feature_size: Size = 28  # 3.1, the larger of the two
    neighbourhood: int = 3  # Eq. 2, p
    bank: int = 20_000  # (ours): 4.1 keeps a share of all vectors
    sampling: str = "coreset"  # greedy, 3.2
    neighbours: int = 3  # Eq. 7, b; 1 does not weight
    sigma: float = 4.0  # 3.3
    score: str = "weighted"  # Eq. 7

    own_scores: ClassVar = ("weighted",)
    needs: ClassVar = FeatureConfig.needs | {"neighbours": "score=weighted|auto"}
    trains: ClassVar = False

    def check(self) -> None:
        super().check()
        self.at_least(1, "neighbourhood", "bank", "neighbours")
        self.at_least(0, "sigma")
        self.one_of("sampling", ("coreset", "random"))
        if self.neighbourhood % 2 == 0:
            self.refuse("neighbourhood", "must be odd")
        if self.neighbours > self.bank:
            self.refuse("neighbours", f"must be at most bank={self.bank}")


PAPER = Config()
QUICK = replace(PAPER, **QUICK_FEATURES, image_size="keep,256", strides=(), feature_size=32, sampling="random")
QUICK512 = replace(QUICK, image_size="keep,512", feature_size=64)  # details of half the size


class KNN(BankMethod):
    """A bank of feature vectors; the distance to the nearest one is the anomaly of a place."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK, "quick512": QUICK512}
    default_score = "max"

    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        self.smooth = SmoothUpsample(config.grid, config.image_shape, config.sigma, config.edge)

    @property
    def image_score(self) -> str:
        """How the score of an image comes about, in words."""
        if self.score_name != "weighted":
            return super().image_score
        return f"max of the map at {self.seen_size} pixels, weighted by how dense the bank is there"

    def stages(self) -> tuple[Stage, ...]:
        """None: nothing is trained."""
        return ()

    def prepared(self, feature: Tensor) -> Tensor:
        """Means of neighbourhoods."""
        return neighbourhood_means(feature, self.config.neighbourhood)

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fill the bank with vectors of the training images."""
        self.fill(batches, self.config.bank, self.config.sampling)

    def values(self, features: Tensor) -> Tensor:
        """Distances to the nearest vectors, at the input size and smoothed."""
        return self.measure(features)[0]

    def measure(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``values``, and the weight of each image's score (B,), Eq. 7.

        The weight is low if the vector that is furthest from its nearest row is nearly as far from the rows around
        that one: there the bank is dense, and a distance says more where it is sparse.
        """
        vectors = rows_of(self.normalized(features))
        distances, indices = self.nearest(vectors)
        batch, _, height, width = features.shape
        of_image, rows = distances.view(batch, -1), indices.view(batch, -1)
        furthest = of_image.argmax(1, keepdim=True)
        _, around = self.nearest(self.rows[rows.gather(1, furthest)[:, 0]], self.config.neighbours)
        own = vectors.view(batch, height * width, -1).gather(1, furthest[:, :, None].expand(-1, -1, vectors.shape[1]))
        to_around = torch.linalg.vector_norm(own - self.rows[around], dim=2)
        weight = 1 - torch.softmax(to_around, 1)[:, 0] if around.shape[1] > 1 else torch.ones_like(to_around[:, 0])
        return self.smooth(of_image.view(batch, height, width)), weight

    def own_score(self, how: str, values: Tensor, errors: Tensor | None) -> Tensor:
        """The largest value of the map, weighted."""
        assert errors is not None
        return values.amax((1, 2)) * errors
