"""Groups of images that belong together, such as repeated files or neighbours in a time lapse.

Two images of a group are nearly the same to a detector. If one trains it, the other tells nothing about new images.
"""

import os
import re
from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from vitlite.errors import UserError

ALIKE = 0.5  # the mean correlation between images from which they are a group
MOST = 5000  # images whose likeness is computed; among more, only equal ones are found


def similar(features: np.ndarray) -> np.ndarray:
    """Number the groups of images that are alike: int (n,), from 0.

    The mean over all images is taken from each feature, the rest is divided by its deviation, and images are compared
    by their correlation: what all images share, such as the part itself, counts for nothing. Average linkage joins
    images while the mean correlation between two groups is at least :data:`ALIKE`.

    Args:
        features: float32 (n, d), a row for each image; changed in place.
    """
    if len(features) > MOST:
        return np.unique(features, axis=0, return_inverse=True)[1].reshape(-1)
    if len(features) < 2:
        return np.zeros(len(features), int)
    features -= features.mean(0)
    features /= features.std(0) + 1e-3 * (features.std() or 1.0)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    distance = 1 - np.clip(features @ features.T, -1, 1)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    return np.asarray(fcluster(linkage(squareform(distance, checks=False), "average"), 1 - ALIKE, "distance")) - 1


def named(names: Sequence[str], pattern: str) -> np.ndarray:
    """Number the groups of images by what a regular expression finds in their names: int (n,), from 0.

    Images whose names agree in its groups, or in the whole of what it finds if it has none, are one group. An image in
    whose name it finds nothing is a group by itself. ``UserError`` if it finds nothing in any name.
    """
    found = [re.search(pattern, name.replace(os.sep, "/")) for name in names]
    if not any(found):
        raise UserError(f"`groups={pattern}`: found in none of the {len(names)} names, such as {names[0]}")
    keys: dict[object, int] = {}
    return np.array(
        [
            keys.setdefault((match.groups() or match.group()) if match else ("", index), len(keys))
            for index, match in enumerate(found)
        ],
        dtype=int,
    )
