"""The gallery of the report: which test images it shows, and each as two small JPEGs inside the page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from PIL import Image
from scipy import ndimage

from vitlite.images.heatmap import overlay
from vitlite.images.loading import as_seen, inside_of
from vitlite.images.panels import caption, coloured, pixels_of, span_of
from vitlite.images.reading import FULL_RANGE, ImageError, read_image, read_noted
from vitlite.images.regions import dim, shrink
from vitlite.images.resize import map_at, resize_image
from vitlite.images.scale import Reading
from vitlite.limits import Limits
from vitlite.verdict import defects_in

if TYPE_CHECKING:
    from vitlite.predictor import Predictor
    from vitlite.results import Scored

LIMIT = 60  # images in a report: about 2 MB
LEAST = 4  # images of a category, however many categories there are
SIDE = 256  # an image is shown with about SIDE * SIDE pixels, whatever its shape
PART_SIDE = 144  # likewise a part of its map
MARK = np.array([40, 255, 60], dtype=np.uint8)  # in no part of the heat map's scale, and not its outline


class Figure(NamedTuple):
    """A small JPEG and what stands below it."""

    caption: str
    source: str  # data URI
    size: tuple[int, int]  # (width, height)


@dataclass(frozen=True)
class Card:
    """One image of the gallery."""

    index: int  # among all test images of the report
    file: str  # below the data set's folder
    marked: bool  # a defect is outlined
    size: tuple[int, int]  # (width, height) as shown
    image: str  # data URI
    heat: str  # data URI: the image with its heat map
    parts: tuple["Figure", ...] = ()  # what its map is made of


def share(categories: int) -> int:
    """How many images each of so many categories may show."""
    return max(LEAST, LIMIT // categories)


def choose(labels: Sequence[int], scores: Sequence[float], limit: int) -> list[int]:
    """Places of at most ``limit`` images: the defective ones with the lowest and the good ones with the highest scores.

    Half of each, or more of one if there are few of the other. These are the worst mistakes at every threshold, so the
    choice needs none.
    """
    order = np.argsort(scores, kind="stable")
    defective = np.take(labels, order) == 1
    defective, good = order[defective], order[~defective][::-1]
    half = limit // 2
    from_good = min(good.size, max(half, limit - defective.size))
    return sorted([*defective[: limit - from_good].tolist(), *good[:from_good].tolist()])


def make_card(
    index: int,
    file: str,
    path: Path,
    values: np.ndarray,
    mask: np.ndarray | None,
    limits: Limits,
    scale: dict[str, float],
    reading: Reading = FULL_RANGE,
    *,
    outlined: bool = True,
) -> Card:
    """Read an image again and draw it with its mask outlined, and with its map on the calibration's scale.

    If ``outlined``, what counts as the defect if the image is called defective, by ``limits``, has an outline over the
    map. The map ``values`` may have any size. ``scale`` has ``low`` and ``high`` of the colours. ``ImageError`` if the
    image can no longer be read.
    """
    image = read_noted(path, reading)[0]  # scoring has named what is odd about it
    height, width = thumbnail_size(*image.shape[:2])
    inside = inside_of(image, reading, path).inside
    small = resize_image(dim(image, inside), (height, width))
    defects = np.zeros((height, width), bool)
    if outlined:
        defects = shrink(defects_in(map_at(values, *image.shape[:2]), limits, inside), (height, width))
    heat = overlay(small, map_at(values, height, width), low=scale["low"], high=scale["high"], marked=defects)
    marked = mask is not None and bool(mask.any())
    if mask is not None and marked:
        small = mark(small, shrink(mask, (height, width)))
    return Card(index, file, marked, (width, height), jpeg_uri(small), jpeg_uri(heat))


def card_of(index: int, file: str, scored: "Scored", i: int, detector: "Predictor", *, outlined: bool = True) -> Card:
    """The card of the image at place ``i`` of those that a detector of a run has scored."""
    limits = cast(Limits, scored.limits)  # a run has a calibration
    scale, path, mask = detector.calibration["display"], scored.samples[i].path, scored.masks[i]
    return make_card(index, file, path, scored.maps[i], mask, limits, scale, detector.reading, outlined=outlined)


def part_figures(paths: Sequence[Path], detector: "Predictor") -> list[tuple[Figure, ...]]:
    """The parts of each image's map; the colours of a part mean the same in all of these images."""
    found = [small_parts(path, detector) for path in paths]
    spans = {name: span_of([parts[name] for parts in found]) for name in (found[0] if found else ())}
    return [
        tuple(
            Figure(
                caption(name, span), jpeg_uri(values if span is None else coloured(values, span)), values.shape[1::-1]
            )
            for (name, values), span in zip(parts.items(), spans.values())
        )
        for parts in found
    ]


def small_parts(path: Path, detector: "Predictor") -> dict[str, np.ndarray]:
    """The parts of an image's map: images as uint8 (h, w, 3), maps as float32 (h, w), in a small size."""
    image = as_seen(0, read_noted(path, detector.reading)[0], detector.view, detector.reading, path)
    size = thumbnail_size(image.height, image.width, PART_SIDE)
    return {
        name: pixels_of(values, *size) if values.ndim == 3 else map_at(values, *size)
        for name, values in detector.parts_of(image).items()
    }


def small_overlay(path: Path) -> tuple[str, tuple[int, int]] | None:
    """An overlay of a run as (data URI, (width, height)); None if it is no longer there or cannot be read."""
    try:
        image = read_image(path)
    except ImageError:
        return None
    height, width = thumbnail_size(*image.shape[:2])
    return jpeg_uri(resize_image(image, (height, width))), (width, height)


def thumbnail_size(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """(height, width) in the same proportion with about side * side pixels; small images keep their size."""
    factor = min(1.0, side / (height * width) ** 0.5)
    return max(1, round(height * factor)), max(1, round(width * factor))


def mark(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A copy of the image (H, W, 3) with a line around the region (H, W): outside it, so that thin defects show."""
    width = max(1, round(min(image.shape[:2]) / 128))
    near, far = (ndimage.binary_dilation(region, iterations=n) for n in (1, 1 + width))
    result = image.copy()
    result[far & ~near] = MARK
    result[ndimage.binary_dilation(far) & ~far] = 0  # a dark edge, for bright surfaces
    return result


def jpeg_uri(image: np.ndarray) -> str:
    """A uint8 (H, W, 3) image as a data URI; colour at full resolution, for the thin lines."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=82, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
