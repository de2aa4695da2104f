"""The sizes of training images as they come to a network, and the shape that images of one size have best."""

import contextlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from vitlite.data.index import Sample, grouped
from vitlite.files import shown
from vitlite.images.reading import ImageError, image_size
from vitlite.images.regions import Regions, box_of

LOOKED_AT = 64  # images of a category whose size is looked at, about
NO_SQUARE = 1.25  # from this ratio of the sides on, something is said
SHOWN = 4  # categories that are named

Shape = tuple[int, int]  # (height, width), pixels


def shapes(samples: Sequence[Sample], regions: Regions | None = None) -> dict[str, list[Shape]]:
    """The sizes of what is seen of some images of each category, from the headers of their files.

    With regions these are the boxes around them. A file that cannot be read, and a category of such files, is left out.
    """
    if regions is not None and regions.masks:
        boxes = {name: mask[box_of(mask)].shape for name, mask in regions.masks.items()}
        return {name: [(height, width)] for name, (height, width) in boxes.items()}
    found: dict[str, list[Shape]] = {}
    for name, paths in grouped((sample.category, sample.path) for sample in samples).items():
        for path in paths[:: -(-len(paths) // LOOKED_AT)]:
            with contextlib.suppress(ImageError):
                found.setdefault(name, []).append(image_size(path))
    return found


def ratio(found: Mapping[str, Iterable[Shape]]) -> float:
    """Height over width: of a category the median of its images, of several the geometric mean of theirs.

    1 of no image at all.
    """
    own = [statistics.median(math.log(height / width) for height, width in images) for images in found.values()]
    return math.exp(statistics.fmean(own)) if own else 1.0


def in_words(largest: Mapping[str, Shape]) -> list[str]:
    """What to say about the size of each category's images; nothing of those that are nearly squares."""
    far = {name: size for name, size in largest.items() if max(size) >= NO_SQUARE * min(size)}
    if not far:
        return []
    some = ", ".join(f"{width} x {height} ({shown(name)})" for name, (height, width) in list(far.items())[:SHOWN])
    more = f" and {len(far) - SHOWN} more" if len(far) > SHOWN else ""
    return [
        f"shape: images of {some}{more} are no squares; the presets paper and small, and dinomaly, squeeze them "
        "unless image_size=keep is set; all others keep their shape"
    ]
