"""Groups of images that belong together, such as repeated files or neighbours in a time lapse.

Two images of a group are nearly the same to a detector. If one trains it, the other tells nothing about new images.
"""

import logging
import os
import re
from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components

from vitlite.errors import UserError
from vitlite.files import counted

log = logging.getLogger(__name__)

ALIKE = 0.3  # the correlation from which two images that follow one another are taken for a time lapse ...
EQUAL = 0.9  # ... and any two for copies
MOST = 5000  # images whose likeness is computed
LEFT = 3  # good images that have to be left to compare an image with


def similar(features: np.ndarray) -> np.ndarray:
    """Number the groups of images that are nearly the same: int (n,), from 0.

    The mean over all images is taken from each feature, the rest is divided by its deviation, and images are compared
    by their correlation: what all images share, such as the part itself, counts for nothing. A group is what is
    connected by a correlation of at least :data:`ALIKE` between neighbours, or :data:`EQUAL` between any two. Images
    that are merely alike, such as parts that happen to lie the same way, are no group: new ones will be alike as well.

    Args:
        features: float32 (n, d), a row for each image in the order of their names; changed in place.
    """
    features -= features.mean(0)
    features /= features.std(0) + 1e-3 * (features.std() or 1.0)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    alike = features @ features.T
    place = np.arange(len(features))
    following = np.abs(place[:, None] - place) == 1
    # Images without any difference from the mean are all the same.
    flat = np.logical_not(np.any(features, axis=1)).reshape(-1)
    joined = (alike >= EQUAL) | (following & (alike >= ALIKE)) | (flat[:, None] & flat)
    return np.asarray(connected_components(joined, directed=False)[1])


def leaving(numbers: Sequence[int | None]) -> list[list[int]]:
    """The images, by place, that leave together when one of them is compared with all others: groups of several.

    Beside near-copies of itself an image would seem better than a new one. A group that leaves fewer than :data:`LEFT`
    images is not among them, so that its images leave one at a time: the mean and the deviation of one or two images
    say nothing, and without any there is no score. A warning says so.

    Args:
        numbers: of the group of each image; None: it is alone.
    """
    groups: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        if number is not None:
            groups.setdefault(number, []).append(place)
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
