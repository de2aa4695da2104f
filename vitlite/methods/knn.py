"""Nearest neighbour in frozen features, the core of PatchCore (Roth et al., CVPR 2022) and AnomalyDINO (2024).

A bank holds feature vectors of places of good images, each the mean of a 3x3 neighbourhood. The anomaly of a place is
the distance of its vector to the nearest one in the bank. Nothing is trained: a run is finished as soon as the features
are computed. Section and equation numbers are PatchCore's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.images.tiles import Size
from vitlite.kernels import Bank, nearest
from vitlite.methods.base import Stage
from vitlite.methods.frozen import QUICK_FEATURES, ChannelStatistics, FeatureConfig, FeatureMethod
from vitlite.methods.kinds import ImageSize
from vitlite.nn.maps import SmoothUpsample
from vitlite.nn.portable import nearest_rows
from vitlite.progress import Progress

CANDIDATES = 5  # for each row of a coreset, at most
PROJECTED = 128  # numbers by which candidates are compared; 3.2


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


class KNN(FeatureMethod):
    """A bank of feature vectors; the distance to the nearest one is the anomaly of a place."""

    presets: ClassVar = {"paper": PAPER, "quick": QUICK, "quick512": QUICK512}
    default_score = "max"

    config: Config

    def __init__(self, config: Config, weights: str | None = None) -> None:
        super().__init__(config, weights)
        # A parameter, so that a method on any backbone has one; of one row until ``fit``.
        self.bank = nn.Parameter(torch.zeros(1, sum(self.backbone.channels)), requires_grad=False)
        self._kept: list[Bank] = []  # the bank as the operator lays it out: a list, so that it is not in the checkpoint
        self.smooth = SmoothUpsample(config.grid, config.image_shape, config.sigma, config.edge)

    @property
    def image_score(self) -> str:
        """How the score of an image comes about, in words."""
        if self.score_name != "weighted":
            return super().image_score
        return f"max of the map at {self.seen_size} pixels, weighted by how dense the bank is there"

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        """As the base class's; the bank takes the size of the one in ``state_dict``."""
        if "bank" in state_dict:
            self.keep(torch.empty_like(state_dict["bank"], device=self.bank.device))
        return super().load_state_dict(state_dict, *args, **options)

    def stages(self) -> tuple[Stage, ...]:
        """None: nothing is trained."""
        return ()

    def prepared(self, feature: Tensor) -> Tensor:
        """Means of neighbourhoods; beyond an edge, its values go on."""
        side = self.config.neighbourhood
        return F.avg_pool2d(F.pad(feature, [side // 2] * 4, mode="replicate"), side, stride=1)

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fill the bank with vectors of the training images."""
        config, statistics = self.config, ChannelStatistics()
        sample = RandomRows(config.bank * (CANDIDATES if config.sampling == "coreset" else 1))
        for features in batches:
            statistics.add(features)
            sample.add(rows_of(features))
        if config.normalize == "channel":
            self.learn(statistics)
            sample.rows = (sample.rows - self.feature_mean) / self.feature_std
        self.keep(sample.rows if len(sample.rows) <= config.bank else coreset(sample.rows, config.bank))

    def keep(self, rows: Tensor) -> None:
        """Take other rows as the bank."""
        self.bank.data = rows.float()
        self._kept.clear()

    def nearest(self, q: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Distances and indices (T, k) of the nearest rows of the bank for vectors (T, C)."""
        k = min(k, len(self.bank))
        if torch.compiler.is_exporting():
            return nearest_rows(q, self.bank, k)
        if not self._kept or self._kept[0].rows.device != q.device:
            self._kept[:] = [Bank(self.bank)]
        return nearest(q, self._kept[0], k=k)

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
        _, around = self.nearest(self.bank[rows.gather(1, furthest)[:, 0]], self.config.neighbours)
        own = vectors.view(batch, height * width, -1).gather(1, furthest[:, :, None].expand(-1, -1, vectors.shape[1]))
        to_around = torch.linalg.vector_norm(own - self.bank[around], dim=2)
        weight = 1 - torch.softmax(to_around, 1)[:, 0] if around.shape[1] > 1 else torch.ones_like(to_around[:, 0])
        return self.smooth(of_image.view(batch, height, width)), weight

    def own_score(self, how: str, values: Tensor, errors: Tensor | None) -> Tensor:
        """The largest value of the map, weighted."""
        assert errors is not None
        return values.amax((1, 2)) * errors


def rows_of(features: Tensor) -> Tensor:
    """Maps (B, C, h, w) as vectors (B h w, C)."""
    return features.flatten(2).transpose(1, 2).flatten(0, 1)


class RandomRows:
    """At most ``count`` of the rows that are added, each as likely as any other; torch's global generator decides."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.rows, self.keys = torch.zeros(0, 0), torch.zeros(0)

    def add(self, rows: Tensor) -> None:
        """Take rows (T, C) into account: those with the lowest random numbers stay."""
        keys = torch.rand(len(rows)).to(rows.device)
        if len(self.keys):
            below = keys < self.keys.max() if len(self.keys) == self.count else torch.ones_like(keys, dtype=torch.bool)
            rows, keys = torch.cat([self.rows, rows[below]]), torch.cat([self.keys, keys[below]])
        if len(keys) > self.count:
            keys, kept = keys.topk(self.count, largest=False)
            rows = rows[kept]
        self.rows, self.keys = rows, keys


def coreset(rows: Tensor, count: int) -> Tensor:
    """``count`` of the rows (T, C) that lie far apart: each next one is the furthest from those before (3.2).

    Distances are those of a random projection, as in Section 3.2; torch's global generator draws it and the first row.
    """
    projected = rows
    if rows.shape[1] > PROJECTED:
        projected = rows @ torch.randn(rows.shape[1], PROJECTED).to(rows)
    chosen = torch.zeros(count, dtype=torch.long, device=rows.device)  # read there alone: a GPU is not waited for
    chosen[0] = torch.randint(len(rows), ())
    squares = projected.square().sum(1)
    least = torch.full_like(squares, torch.inf)
    with Progress("coreset", count, start=1) as progress:
        for i in range(1, count):
            last = chosen[i - 1 : i]
            own = projected.index_select(0, last)[0]
            least = torch.minimum(least, squares - 2 * projected @ own + squares.index_select(0, last))
            least.index_fill_(0, last, -torch.inf)
            chosen[i] = least.argmax()
            progress.step(1)
    return rows[chosen]
