"""The sort behind every metric: scores become order-preserving integers, are dealt into buckets, and each is sorted.

Buckets are dealt by value so that every one of them fits a core's cache, however the scores are distributed: a sample
finds their range, and a fine histogram over that range finds borders between buckets of even sizes. Normal scores are
kept as keys alone, positive ones with the region that they belong to.
"""

from dataclasses import dataclass

import numpy as np

from vitlite.metrics import compiled
from vitlite.metrics.inputs import Ranking
from vitlite.metrics.jit import run_all

CELLS = 1 << 16  # cells of the fine histogram: with the table of borders they fit a core's second-level cache
BUCKET = 1 << 15  # scores in a bucket: two copies fit the same cache
MAX_BUCKETS = 1 << 11  # more would miss the cache on every write while dealing
SAMPLE = 1 << 14


@dataclass
class Buckets:
    """Keys grouped by bucket, in ascending order of buckets. Within a bucket they are sorted only on request."""

    normals: np.ndarray  # keys, uint32 or uint64
    positives: np.ndarray  # keys
    regions: np.ndarray  # uint32, beside positives
    normal_at: np.ndarray  # (buckets + 1,) int64, where each bucket begins
    positive_at: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All of it, for compiled functions."""
        return self.normals, self.positives, self.regions, self.normal_at, self.positive_at

    def spans(self, pieces: int) -> list[tuple[int, int]]:
        """About ``pieces`` ranges of buckets that hold similar numbers of scores."""
        at = self.normal_at + self.positive_at
        cuts = np.searchsorted(at, np.linspace(0, at[-1], pieces + 1)[1:-1])
        return [(int(a), int(b)) for a, b in zip(np.r_[0, cuts], np.r_[cuts, at.size - 1]) if a < b]


def value_of(key: int, precision: type[np.floating]) -> float:
    """The score that has this key, as a Python float."""
    width = 8 * np.dtype(precision).itemsize
    top = 1 << (width - 1)
    bits = key ^ top if key & top else key ^ ((1 << width) - 1)
    return float(np.array(bits, f"u{width // 8}").view(precision)[()])


def _cell_range(ranking: Ranking, cells: int) -> tuple[np.uint64, np.uint64]:
    """Lowest key and shift under which a sample of the scores, its extremes left aside, spreads over the cells."""
    if cells == 1:
        return np.uint64(0), np.uint64(63)
    step = max(1, ranking.size // SAMPLE) | 1  # odd, so that it does not keep to one column of an image
    sample = np.concatenate([b.scores.reshape(-1)[::step] for b in ranking.blocks]).astype(ranking.precision)
    bits = sample.view(np.uint32 if ranking.precision is np.float32 else np.uint64)
    keys = np.empty_like(bits)
    compiled.keys_of(bits, keys)
    keys.sort()
    margin = keys.size // 1024
    low, high = int(keys[margin]), int(keys[-1 - margin])
    shift = max(0, (high - low).bit_length() - (cells - 1).bit_length())
    return np.uint64(low), np.uint64(shift)


def _borders(cells: np.ndarray, size: int) -> np.ndarray:
    """Bucket of each cell, (cells,) uint16, so that buckets hold similar numbers of scores."""
    target = max(BUCKET, -(-size // MAX_BUCKETS))
    before = np.cumsum(cells) - cells
    bucket = before // target
    return (np.cumsum(np.diff(bucket, prepend=0) > 0)).astype(np.uint16)


def deal(ranking: Ranking) -> Buckets:
    """Group the ranking's keys into buckets of ascending value."""
    cells = 1 if ranking.size <= BUCKET else CELLS
    low, shift = _cell_range(ranking, cells)
    groups = np.array_split(np.arange(len(ranking.blocks)), min(ranking.threads, len(ranking.blocks)))
    histograms = np.zeros((len(groups), 2, cells), np.uint32 if ranking.size < 2**32 else np.uint64)

    def count(group: int) -> None:
        for b in groups[group]:
            block = ranking.blocks[b]
            compiled.count(ranking.bits(block), block.start, block.stop, low, shift, *histograms[group])

    run_all(count, range(len(groups)), ranking.threads)
    bucket_of = _borders(histograms.sum(axis=(0, 1), dtype=np.int64), ranking.size)
    edges = np.flatnonzero(np.diff(bucket_of, prepend=np.uint16(65535)))
    held = np.add.reduceat(histograms, edges, axis=2, dtype=np.int64)  # (groups, classes, buckets)
    at = np.zeros((2, edges.size + 1), np.int64)
    np.cumsum(held.sum(axis=0), axis=1, out=at[:, 1:])
    to = at[:, :-1] + np.cumsum(held, axis=0) - held

    dtype = np.uint32 if ranking.precision is np.float32 else np.uint64
    out = Buckets(
        np.empty(ranking.normals, dtype),
        np.empty(ranking.positives, dtype),
        np.empty(ranking.positives, np.uint32),
        *at,
    )

    def write(group: int) -> None:
        for b in groups[group]:
            k = ranking.blocks[b]
            runs = (k.start, k.stop, k.region, k.first_region)
            compiled.deal(
                ranking.bits(k), *runs, low, shift, bucket_of, *to[group], out.normals, out.positives, out.regions
            )

    run_all(write, range(len(groups)), ranking.threads)
    return out


def sort_all(buckets: Buckets, threads: int) -> None:
    """Sort every bucket, and with that the whole."""

    def task(span: tuple[int, int]) -> None:
        compiled.sort_buckets(buckets.arrays, *span)

    run_all(task, buckets.spans(8 * threads if threads > 1 else 1), threads)
