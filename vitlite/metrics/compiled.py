"""Every compiled function of the exact metrics.

They share one file because numba's cache notices changes to the file of a compiled function, but not to the files of
the functions it calls: kept apart, an update could leave old code running.
"""

from typing import Any

import numpy as np

from vitlite.metrics.jit import jit

Array = np.ndarray
Key = Any  # numpy.uint64, which numba computes with as with a number of C


@jit
def key_of(bits: Key, top: Key, last: Key) -> Key:
    """Unsigned integer that orders like the float with these bits; both zeros give the same key.

    Negative floats have all their bits flipped, others the sign. Without a branch, because signs come in random order.
    """
    bits = np.uint64(bits)
    negative = bits >> last
    key = bits ^ ((np.uint64(0) - negative) & (top - np.uint64(1)) | top)
    return key + np.uint64(key == top - np.uint64(1))


@jit
def _constants(array: Array) -> tuple[Key, Key]:
    """The sign bit of the array's elements, and its position."""
    last = np.uint64(8 * array.itemsize - 1)
    return np.uint64(1) << last, last


@jit
def keys_of(bits: Array, keys: Array) -> None:
    """Order-preserving keys of float bits: ``keys`` is filled from ``bits``, both (n,) of one dtype."""
    top, sign = _constants(bits)
    for i in range(bits.size):
        keys[i] = key_of(bits[i], top, sign)


@jit
def _cell(key: Key, low: Key, shift: Key, last: Key) -> Key:
    return min((max(key, low) - low) >> shift, last)


@jit
def _count_class(bits: Array, low: Key, shift: Key, cells: Array) -> None:
    """Add scores of one class to its histogram."""
    top, sign = _constants(bits)
    last = np.uint64(cells.size - 1)
    for i in range(bits.size):
        cells[_cell(key_of(bits[i], top, sign), low, shift, last)] += 1


@jit
def count(
    bits: Array, start: Array, stop: Array, low: Key, shift: Key, normal_cells: Array, positive_cells: Array
) -> None:
    """Add a block's scores to the histograms of its two classes."""
    at = 0
    for run in range(start.size):
        _count_class(bits[at : start[run]], low, shift, normal_cells)
        _count_class(bits[start[run] : stop[run]], low, shift, positive_cells)
        at = stop[run]
    _count_class(bits[at:], low, shift, normal_cells)


@jit
def deal(
    bits: Array,
    start: Array,
    stop: Array,
    region: Array,
    first_region: int,
    low: Key,
    shift: Key,
    bucket_of: Array,
    normal_to: Array,
    positive_to: Array,
    normals: Array,
    positives: Array,
    of: Array,
) -> None:
    """Write a block's keys into their buckets; ``normal_to`` and ``positive_to`` hold the next place in each."""
    top, sign = _constants(bits)
    last = np.uint64(bucket_of.size - 1)
    i = 0
    for run in range(start.size + 1):
        begin = start[run] if run < start.size else bits.size
        while i < begin:
            key = key_of(bits[i], top, sign)
            bucket = bucket_of[_cell(key, low, shift, last)]
            normals[normal_to[bucket]] = key
            normal_to[bucket] += 1
            i += 1
        if run == start.size:
            return
        mine = first_region + region[run]
        end = stop[run]
        while i < end:
            key = key_of(bits[i], top, sign)
            bucket = bucket_of[_cell(key, low, shift, last)]
            to = positive_to[bucket]
            positives[to] = key
            of[to] = mine
            positive_to[bucket] = to + 1
            i += 1


@jit
def _digits(keys: Array) -> tuple[Key, int, int]:
    """Smallest key, number of radix passes, and bits in a pass."""
    low, high = keys[0], keys[0]
    for key in keys:
        low = min(low, key)
        high = max(high, key)
    width, span = 0, np.uint64(high) - np.uint64(low)
    while span:
        span >>= np.uint64(1)
        width += 1
    most = 11 if keys.size > 2048 else 8
    passes = (width + most - 1) // most
    return np.uint64(low), passes, (width + passes - 1) // passes if passes else 0


@jit
def _find_places(keys: Array, low: Key, shift: Key, place: Array) -> None:
    """Fill ``place``, (digits,): where the keys with each value of a digit begin when they are sorted by it."""
    mask = np.uint64(place.size - 1)
    for d in range(place.size):
        place[d] = 0
    for key in keys:
        place[((np.uint64(key) - low) >> shift) & mask] += 1
    total = 0
    for d in range(place.size):
        count = place[d]
        place[d] = total
        total += count


@jit
def _radix(keys: Array) -> Any:
    """What ``_digits`` gives, the mask of one digit, and room for the places of its values."""
    low, passes, width = _digits(keys)
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    return low, passes, width, mask, np.zeros(1 << width, np.int64)


@jit
def sort_keys(keys: Array, spare: Array) -> None:
    """Sort ``keys`` ascending in place; ``spare`` is scratch of at least their size."""
    if keys.size < 2:
        return
    low, passes, width, mask, place = _radix(keys)
    source, target = keys, spare[: keys.size]
    for step in range(passes):
        shift = np.uint64(step * width)
        _find_places(source, low, shift, place)
        for key in source:
            d = ((np.uint64(key) - low) >> shift) & mask
            target[place[d]] = key
            place[d] += 1
        source, target = target, source
    if passes & 1:
        for i in range(keys.size):
            keys[i] = source[i]


@jit
def sort_pairs(keys: Array, payload: Array, spare: Array, spare_payload: Array) -> None:
    """Sort ``keys`` ascending in place and carry ``payload`` along; the other two are scratch."""
    if keys.size < 2:
        return
    low, passes, width, mask, place = _radix(keys)
    source, target = keys, spare[: keys.size]
    carried, carried_to = payload, spare_payload[: keys.size]
    for step in range(passes):
        shift = np.uint64(step * width)
        _find_places(source, low, shift, place)
        for i in range(source.size):
            d = ((np.uint64(source[i]) - low) >> shift) & mask
            to = place[d]
            target[to] = source[i]
            carried_to[to] = carried[i]
            place[d] = to + 1
        source, target = target, source
        carried, carried_to = carried_to, carried
    if passes & 1:
        for i in range(keys.size):
            keys[i], payload[i] = source[i], carried[i]


@jit
def _largest(at: Array, first: int, last: int) -> int:
    """The size of the largest of the buckets ``first`` to ``last``."""
    size = 0
    for b in range(first, last):
        size = max(size, at[b + 1] - at[b])
    return size


@jit
def sort_buckets(buckets: tuple[Array, ...], first: int, last: int) -> None:
    """Sort each of the buckets ``first`` to ``last``; ``buckets`` is ``Buckets.arrays``."""
    normals, positives, regions, normal_at, positive_at = buckets
    spare = np.empty(_largest(normal_at, first, last), normals.dtype)
    most = _largest(positive_at, first, last)
    spare_keys, spare_regions = np.empty(most, positives.dtype), np.empty(most, regions.dtype)
    for b in range(first, last):
        sort_keys(normals[normal_at[b] : normal_at[b + 1]], spare)
        mine = slice(positive_at[b], positive_at[b + 1])
        sort_pairs(positives[mine], regions[mine], spare_keys, spare_regions)


@jit
def _area(areas: Array, limits: Array, before: float, after: float, high: float, rise: float) -> None:
    """Add the area under a segment of the curve, from false positives ``before`` to ``after``, cut at each limit."""
    width = after - before
    for k in range(limits.size):
        if after <= limits[k]:
            areas[k] += width * (high + 0.5 * rise)
        elif before < limits[k]:
            part = limits[k] - before
            areas[k] += part * (high + 0.5 * rise * (part / width))


@jit
def _scan(
    normals: Array,
    positives: Array,
    regions: Array,
    weights: Array,
    fp: int,
    tp: int,
    all_normals: int,
    all_positives: int,
    limits: Array,
    areas: Array,
) -> tuple[int, float, float, Key, float]:
    """Walk one sorted bucket downwards, from ``fp`` and ``tp`` scores above it.

    Returns twice the pairs ranked right (a tie is one), the sum of precisions, best F1, its key, and the overlap
    gained. Areas are those of the overlap gained within the bucket.
    """
    pairs, precision, best, best_key = 0, 0.0, -1.0, np.uint64(0)
    overlap, lost = 0.0, 0.0  # compensated sum: millions of small fractions must come out to the last digits
    j = normals.size - 1
    i = positives.size - 1
    while i >= 0:
        key = positives[i]
        above = j
        while j >= 0 and normals[j] > key:
            j -= 1
        if j != above:
            _area(areas, limits, fp, fp + (above - j), overlap, 0.0)
            fp += above - j
        level = j
        while j >= 0 and normals[j] == key:
            j -= 1
        equal = level - j
        old_overlap, old_tp = overlap, tp
        while i >= 0 and positives[i] == key:
            term = weights[regions[i]] - lost
            total = overlap + term
            lost = (total - overlap) - term
            overlap = total
            tp += 1
            i -= 1
        if equal:
            _area(areas, limits, fp, fp + equal, old_overlap, overlap - old_overlap)
        hits = tp - old_tp
        pairs += hits * (2 * (all_normals - fp) - equal)
        fp += equal
        precision += hits * (tp / (tp + fp))
        f1 = 2 * tp / (tp + fp + all_positives)
        if f1 > best:
            best, best_key = f1, np.uint64(key)
    if j >= 0:
        _area(areas, limits, fp, fp + j + 1, overlap, 0.0)
    return pairs, precision, best, best_key, overlap


@jit
def scan_buckets(
    buckets: tuple[Array, ...],
    weights: Array,
    limits: Array,
    first: int,
    last: int,
    pairs: Array,
    floats: Array,
    keys: Array,
    areas: Array,
) -> None:
    """Sort and walk buckets ``first`` to ``last``; each bucket writes its own row of the results."""
    normals, positives, regions, normal_at, positive_at = buckets
    spare = np.empty(_largest(normal_at, first, last), normals.dtype)
    most = _largest(positive_at, first, last)
    spare_keys, spare_regions = np.empty(most, positives.dtype), np.empty(most, regions.dtype)
    for b in range(first, last):
        if positive_at[b] == positive_at[b + 1]:
            continue
        mine = normals[normal_at[b] : normal_at[b + 1]]
        hits = positives[positive_at[b] : positive_at[b + 1]]
        of = regions[positive_at[b] : positive_at[b + 1]]
        sort_keys(mine, spare)
        sort_pairs(hits, of, spare_keys, spare_regions)
        fp, tp = normals.size - normal_at[b + 1], positives.size - positive_at[b + 1]
        found = _scan(mine, hits, of, weights, fp, tp, normals.size, positives.size, limits, areas[b])
        pairs[b], floats[b, 0], floats[b, 1], keys[b], floats[b, 2] = found


@jit
def distinct(normals: Array, positives: Array) -> int:
    """The number of distinct keys in two sorted arrays."""
    i, j, steps = positives.size - 1, normals.size - 1, 0
    while i >= 0 or j >= 0:
        key = positives[i] if j < 0 or (i >= 0 and positives[i] >= normals[j]) else normals[j]
        while i >= 0 and positives[i] == key:
            i -= 1
        while j >= 0 and normals[j] == key:
            j -= 1
        steps += 1
    return steps


@jit
def walk(normals: Array, positives: Array, regions: Array, weights: Array, fpr: Array, pro: Array) -> None:
    """Fill the curve from its second point; sums of fractions are compensated."""
    i, j, step = positives.size - 1, normals.size - 1, 0
    overlap, lost = 0.0, 0.0
    while i >= 0 or j >= 0:
        key = positives[i] if j < 0 or (i >= 0 and positives[i] >= normals[j]) else normals[j]
        while i >= 0 and positives[i] == key:
            term = weights[regions[i]] - lost
            total = overlap + term
            lost = (total - overlap) - term
            overlap = total
            i -= 1
        while j >= 0 and normals[j] == key:
            j -= 1
        step += 1
        fpr[step] = (normals.size - 1 - j) / normals.size
        pro[step] = overlap
