"""Groups of images that belong together, such as repeated files or neighbours in a time lapse.

Two images of a group are nearly the same to a detector. If one trains it, the other tells nothing about new images.
"""

import logging
import os
import re
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from vitlite.data.copies import equal_files
from vitlite.data.index import Sample, grouped
from vitlite.errors import UserError
from vitlite.files import below, counted

log = logging.getLogger(__name__)

ALIKE = 0.3  # the least correlation from which two images that follow one another are taken for a time lapse ...
EQUAL = 0.9  # ... and that from which any two are taken for copies
MOST = 5000  # images whose likeness is computed
LARGEST = 4  # the most that one principal component counts, in multiples of the mean one
LEFT = 3  # good images that have to be left to compare an image with


def similar(features: np.ndarray) -> np.ndarray:
    """Number the groups of images that are nearly the same: int (n,), from 0.

    The mean over all images is taken from each feature, the rest is divided by its deviation, and images are compared
    by their correlation: what all images share, such as the part itself, counts for nothing. A group is what is
    connected as neighbours in a time lapse (:func:`in_sequence`), or by a correlation of at least :data:`EQUAL`
    between any two, in which no component counts too much (:func:`tempered`). Images that are merely alike, such as
    parts that happen to lie the same way, are no group: new ones will be alike as well. ``features``, float32 (n, d),
    have a row for each image in the order of their names; they are changed in place.
    """
    features -= features.mean(0)
    features /= features.std(0) + 1e-3 * (features.std() or 1.0)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    alike = features @ features.T
    # Images without any difference from the mean are all the same.
    flat = np.logical_not(np.any(features, axis=1)).reshape(-1)
    joined = (tempered(alike) >= EQUAL) | (flat[:, None] & flat)
    before = np.flatnonzero(in_sequence(alike))
    joined[before, before + 1] = True
    return np.asarray(connected_components(joined, directed=False)[1])


def tempered(alike: np.ndarray) -> np.ndarray:
    """Correlations (n, n) of the same images with no principal component above :data:`LARGEST` mean ones.

    If a few components make up most of the differences, such as the angle or the brightness, the plain correlation of
    many pairs is near 1 by chance.
    """
    most = LARGEST * np.trace(alike) / len(alike)
    if not most:
        return alike
    values, vectors = scipy.linalg.eigh(alike, subset_by_value=(most, np.inf))
    products = alike - (vectors * (values - most)) @ vectors.T
    lengths = np.sqrt(np.maximum(products.diagonal(), 1e-12))
    return products / lengths[:, None] / lengths


def in_sequence(alike: np.ndarray) -> np.ndarray:
    """Whether each image and the next one by name belong together: bool (n - 1,), from correlations (n, n).

    They do from a correlation of :data:`ALIKE`, or from the lowest higher one that clearly more neighbours reach than
    pairs drawn at random would: twice as many, and two standard deviations more. So names that say nothing of the
    order, such as those of parts whose angle varies, join nothing.
    """
    found = alike.diagonal(1)
    levels = np.sort(found[found >= ALIKE])[::-1]
    pairs = np.sort(alike[~np.tri(len(alike), dtype=bool)])
    by_chance = len(found) * (1 - np.searchsorted(pairs, levels) / max(len(pairs), 1))
    enough = np.flatnonzero(np.arange(1, len(levels) + 1) >= 2 * by_chance + 2 * np.sqrt(by_chance))
    return found >= levels[enough[-1]] if len(enough) else np.zeros(len(found), bool)


def united(*numbers: Sequence[int]) -> list[int]:
    """Number the groups of images that one numbering or another, of the same images, puts into one group, from 0."""
    count, nodes = len(numbers[0]), [np.unique(own, return_inverse=True)[1] for own in numbers]
    ends = np.cumsum([count, *(own.max(initial=-1) + 1 for own in nodes)])
    edges = [(np.arange(count), first + own) for first, own in zip(ends, nodes)]
    rows, columns = (np.concatenate(parts) for parts in zip(*edges))
    joined = scipy.sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(ends[-1], ends[-1]))
    return np.unique(connected_components(joined, directed=False)[1][:count], return_inverse=True)[1].tolist()


def groups_of(samples: Sequence[Sample], features: np.ndarray | None, pattern: str) -> list[int]:
    """Number the groups of images: by a ``pattern`` that is found in a name, or else of near-copies in a category.

    Files with the same bytes are one group in any case. ``features`` are for :func:`similar`; None: there are too many
    images for that, which is logged.
    """
    if not samples:
        return []
    equal = equal_files([sample.path for sample in samples])
    root = os.path.commonpath([sample.path.absolute().parent for sample in samples])
    names = [below(sample.path, root).replace(os.sep, "/") for sample in samples]
    if pattern and any(re.search(pattern, name) for name in names):
        return united(equal, named(names, pattern).tolist())
    if features is None:
        log.info("%d images are too many to be compared: copies alone are taken for near to another", len(samples))
        return united(equal)
    alike = np.zeros(len(samples), int)
    for category in dict.fromkeys(sample.category for sample in samples):
        own = [place for place, sample in enumerate(samples) if sample.category == category]
        alike[own] = alike.max() + 1 + similar(features[own])
    return united(equal, alike.tolist())


def leaving(numbers: Sequence[int | None]) -> list[list[int]]:
    """The images, by place, that leave together when one of them is compared with all others: groups of several.

    Beside near-copies of itself an image would seem better than a new one. A group that leaves fewer than :data:`LEFT`
    images is not among them, so that its images leave one at a time: the mean and the deviation of one or two images
    say nothing, and without any there is no score. A warning says so. An image whose number is None is alone.
    """
    groups = grouped((number, place) for place, number in enumerate(numbers) if number is not None)
    found = []
    for group in (group for group in groups.values() if len(group) > 1):
        if len(numbers) - len(group) >= LEFT:
            found.append(group)
            continue
        log.warning(
            "groups: %d of the %d good images that set the threshold are one group, so each is compared with its "
            "near-copies too; scores, and thresholds, may be too low for new images; give good images that differ more",
            len(group),
            len(numbers),
        )
    return found


def named(names: Sequence[str], pattern: str) -> np.ndarray:
    """Number the groups of images by what a regular expression finds in their names: int (n,), from 0.

    Images whose names agree in its groups, or in the whole of what it finds if it has none, are one group. An image in
    whose name it finds nothing is a group by itself, which a warning says. ``UserError`` if it finds nothing in any
    name.
    """
    found = [re.search(pattern, name.replace(os.sep, "/")) for name in names]
    if not any(found):
        raise UserError(f"`groups={pattern}`: found in none of the {len(names)} names, such as {names[0]}")
    without = [name for name, match in zip(names, found) if not match]
    if without:
        what = f"{counted(len(without), 'name')} of {len(names)}"
        log.warning(
            "groups=%s: not found in %s, such as %s; each such image is its own group", pattern, what, without[0]
        )
    keys: dict[object, int] = {}
    return np.array(
        [
            keys.setdefault((match.groups() or match.group()) if match else ("", index), len(keys))
            for index, match in enumerate(found)
        ],
        dtype=int,
    )
