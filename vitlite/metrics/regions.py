"""Connected regions of masks, as runs of pixels.

A mask is mostly zeros, so its regions are kept as runs (first pixel, one past the last, region) in raster order, found
in one pass with union-find. That is a few bytes for each run; a label image takes four bytes for each pixel.
"""

import numpy as np

from vitlite.metrics.jit import jit

Array = np.ndarray


@jit
def _count_runs(mask: Array, width: int) -> int:
    runs = 0
    for row in range(0, mask.size, width):
        before = np.uint8(0)
        for i in range(row, row + width):
            runs += mask[i] & (before ^ np.uint8(1))
            before = mask[i]
    return runs


@jit
def _root(parent: Array, run: int) -> int:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@jit
def _fill_runs(mask: Array, height: int, width: int, start: Array, stop: Array, parent: Array) -> None:
    """Write every run and join it with the runs it touches, corners included, in the row above."""
    run = 0
    above, above_end = 0, 0
    for row in range(mask.size // width):
        first = run
        if row % height == 0:  # a new image: nothing lies above its first row
            above = above_end = run
        left = row * width
        i, end = left, left + width
        while i < end:
            if mask[i] == 0:
                i += 1
                continue
            begin = i
            while i < end and mask[i] != 0:
                i += 1
            start[run], stop[run], parent[run] = begin, i, run
            # In the row above a run [s, e) touches [begin, i) when s <= i and e >= begin, columns compared.
            while above < above_end and stop[above] + width < begin:
                above += 1
            other = above
            while other < above_end and start[other] + width <= i:
                a, b = _root(parent, other), _root(parent, run)
                if a < b:
                    parent[b] = a
                else:
                    parent[a] = b
                other += 1
            run += 1
        above, above_end = first, run


@jit
def _number(start: Array, stop: Array, parent: Array, region: Array, area: Array) -> int:
    """Number the regions in raster order of their first pixel; return how many there are."""
    regions = 0
    for run in range(parent.size):
        root = _root(parent, run)
        if root == run:  # the root of a region is its first run, because the smaller index always wins
            region[run] = regions
            area[regions] = 0
            regions += 1
        else:
            region[run] = region[root]
        area[region[run]] += stop[run] - start[run]
    return regions


def find_regions(mask: Array, height: int, width: int) -> tuple[Array, Array, Array, Array]:
    """8-connected regions of images laid one after the other, (images * height * width,) uint8 of 0 and 1, contiguous.

    Returns start, stop, region, area: runs ``[start, stop)`` in raster order with the region each belongs to, (runs,)
    int32 or int64; the pixels of each region, (regions,) int64. No region reaches from one image into the next.
    """
    start, stop, parent = _runs(mask, height, width)
    region, area = np.empty_like(parent), np.empty(parent.size, np.int64)
    regions = _number(start, stop, parent, region, area)
    return start, stop, region, area[:regions].copy()


def find_runs(mask: Array) -> tuple[Array, Array, Array, Array]:
    """Like ``find_regions`` for labels that form one single region: (n,) uint8 -> start, stop, region, area."""
    start, stop, parent = _runs(mask, 1, mask.size)
    return start, stop, np.zeros_like(parent), np.array([np.sum(stop - start, dtype=np.int64)])


def _runs(mask: Array, height: int, width: int) -> tuple[Array, Array, Array]:
    """The runs of masks and their parents in the union-find forest, each (runs,)."""
    count = _count_runs(mask, width)
    start, stop, parent = (np.empty(count, np.int32 if mask.size < 2**31 else np.int64) for _ in range(3))
    _fill_runs(mask, height, width, start, stop, parent)
    return start, stop, parent
