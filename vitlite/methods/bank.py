"""What methods with a bank of good features share: which rows they keep, and the distance to the nearest of them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitlite.kernels import Bank, nearest
from vitlite.methods.frozen import ChannelStatistics, FeatureConfig, FeatureMethod
from vitlite.nn.portable import nearest_rows
from vitlite.progress import Progress

CANDIDATES = 5  # for each row of a coreset, at most
PROJECTED = 128  # numbers by which candidates are compared; PatchCore, 3.2
POOL = 1024  # of the furthest candidates, from which the next ones come


class BankMethod(FeatureMethod):
    """A method that keeps feature vectors of good images, and compares those of other images with them."""

    bank: nn.Parameter | None

    def __init__(self, config: FeatureConfig, weights: str | None = None, *, banked: bool = True) -> None:
        """``banked``: whether there is a bank."""
        super().__init__(config, weights)
        # A parameter, so that a method on any backbone has one; of one row until it is filled.
        empty = nn.Parameter(torch.zeros(1, sum(self.backbone.channels)), requires_grad=False)
        self.register_parameter("bank", empty if banked else None)
        self._kept: list[Bank] = []  # the bank as the operator lays it out: a list, so that it is not in the checkpoint

    @property
    def rows(self) -> Tensor:
        """The vectors of the bank (N, C)."""
        assert self.bank is not None
        return self.bank

    def load_state_dict(self, state_dict: Any, *args: Any, **options: Any) -> Any:
        """As the base class's; the bank takes the size of the one in ``state_dict``."""
        if self.bank is not None and "bank" in state_dict:
            self.keep(torch.empty_like(state_dict["bank"], device=self.bank.device))
        return super().load_state_dict(state_dict, *args, **options)

    def fill(self, batches: Iterable[Tensor], size: int, sampling: str, side: int = 1) -> None:
        """Keep ``size`` vectors of the batches of features: random ones, or a ``coreset``.

        Each is the mean of a neighbourhood of ``side`` places. The statistics of channels are learned on the way.
        """
        statistics = ChannelStatistics()
        sample = RandomRows(size * (CANDIDATES if sampling == "coreset" else 1))
        for features in batches:
            statistics.add(features)
            sample.add(rows_of(neighbourhood_means(features, side)))
        if self.config.normalize == "channel":
            self.learn(statistics)
            sample.rows = (sample.rows - self.feature_mean) / self.feature_std
        self.keep(sample.rows if len(sample.rows) <= size else coreset(sample.rows, size))

    def keep(self, rows: Tensor) -> None:
        """Take other rows as the bank."""
        assert self.bank is not None
        self.bank.data = rows.float()
        self._kept.clear()

    def nearest(self, q: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Distances and indices (T, k) of the nearest rows of the bank for vectors (T, C)."""
        k = min(k, len(self.rows))
        if torch.compiler.is_exporting():
            return nearest_rows(q, self.rows, k)
        if not self._kept or self._kept[0].rows.device != q.device:
            self._kept[:] = [Bank(self.rows)]
        return nearest(q, self._kept[0], k=k)


def neighbourhood_means(features: Tensor, side: int) -> Tensor:
    """Means of squares of ``side`` places, in maps (B, C, h, w); beyond an edge, its values go on."""
    if side == 1:
        return features
    for axis in (-2, -1):  # not F.pad, for which torch has no deterministic kernel on a GPU
        first, last = features.narrow(axis, 0, 1), features.narrow(axis, features.shape[axis] - 1, 1)
        features = torch.cat([*[first] * (side // 2), features, *[last] * (side // 2)], axis)
    return F.avg_pool2d(features, side, stride=1)


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
    """``count`` of the rows (T, C) that lie far apart: each next one is the furthest from those before.

    Distances are those of a random projection, as in PatchCore's Section 3.2; torch's global generator draws it and the
    first row. It is the greedy choice, made in rounds: distances only get smaller, so that the next rows come from the
    furthest ones of now, until the furthest of these is no further than one of the others may be.
    """
    projected = rows
    if rows.shape[1] > PROJECTED:
        projected = rows @ torch.randn(rows.shape[1], PROJECTED).to(rows)
    chosen = torch.randint(len(rows), (1,)).to(rows.device)
    least = torch.full((len(rows),), torch.inf, device=rows.device)
    done = 0  # so many of the chosen ones are in ``least``
    with Progress("coreset", count, start=1) as progress:
        while len(chosen) < count:
            for new in chosen[done:].split(POOL):
                least = torch.minimum(least, squared_distances(projected, projected[new]).amin(1))
            least[chosen] = -torch.inf
            done = len(chosen)
            values, pool = least.topk(min(POOL, len(rows)))
            others = values[-1] if len(pool) < len(rows) else -torch.inf
            chosen = torch.cat([chosen, pool[furthest_of(projected[pool], values, others, count - done)]])
            progress.step(len(chosen) - done)
    return rows[chosen]


def furthest_of(rows: Tensor, least: Tensor, others: Tensor | float, count: int) -> Tensor:
    """Indices of at most ``count`` rows (T, C), each the furthest at its turn; at least one.

    ``least`` (T,) are their squared distances from the nearest row chosen before. Ends once the largest is below
    ``others``.
    """
    found = [int(least.argmax())]
    while len(found) < count:
        least = torch.minimum(least, squared_distances(rows, rows[found[-1:]])[:, 0])
        least[found] = -torch.inf
        furthest = int(least.argmax())
        if least[furthest] < others or least[furthest] == -torch.inf:
            break
        found.append(furthest)
    return torch.tensor(found, device=rows.device)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between the rows of (T, C) and of (N, C): (T, N)."""
    return (a.square().sum(1)[:, None] + b.square().sum(1)).addmm_(a, b.T, alpha=-2)
