"""How small a defect can be and still be seen, and how small the defects of a data set are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from vitlite.files import counted
from vitlite.images.tiles import View, as_size, fitted

# Of sivt: image_size=keep,256, what its sides are multiples of, and the side of a feature.
SEEN, MULTIPLE, CELL = 256, 16, 8
LARGE = 2  # times what is seen: from this side on, something is said about images without masks too

Size = tuple[int, int]


class Region(NamedTuple):
    """The largest connected part of a mask."""

    area: int  # pixels
    width: float  # pixels: the area over the longer side of its box


def largest_region(mask: np.ndarray) -> Region | None:
    """Of a mask (H, W), bool; None if it marks nothing."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return None
    areas = np.bincount(labels.ravel())[1:]
    number = int(areas.argmax())
    box = ndimage.find_objects(labels)[number]
    return Region(int(areas[number]), areas[number] / max(side.stop - side.start for side in box))


def smallest_seen(view: View, cell: float, size: Size) -> tuple[float, float]:
    """(height, width), in pixels of an image of a ``size``, of what a network with such cells tells apart."""
    if view.tile:
        return cell / view.scale, cell / view.scale
    return cell * size[0] / view.sides[0], cell * size[1] / view.sides[1]


def whole(size: Size) -> View:
    """How an image of a ``size`` comes to sivt: in its shape."""
    return View(as_size(fitted(SEEN, size[0] / size[1], MULTIPLE)))


def is_large(size: Size, view: View, times: float = LARGE) -> bool:
    """Whether an image of a ``size`` is much larger, by default, than what a network sees of it."""
    return any(length >= times * seen for length, seen in zip(size, view.sides))


def in_words(view: View, cell: float, sizes: Sequence[Size]) -> str:
    """What a network sees of images of these sizes, one or more, in a line."""
    heights, widths = map(_span, zip(*sizes))
    several = len(set(sizes)) > 1
    images = f"that are {widths} pixels wide and {heights} high" if several else f"of {widths} x {heights} pixels"
    comes = f"tiles of {view.tile} pixels" if view.tile else f"{view.sides[1]} x {view.sides[0]}"
    height, width = map(_span, zip(*(smallest_seen(view, cell, size) for size in sizes)))
    seen = f"a defect smaller than {width} x {height} pixels is hardly seen"
    return f"images {images} come to the network as {comes}: {seen}"


def _span(lengths: Sequence[float]) -> str:
    """The shortest and the longest of some lengths, in whole pixels, at least 1."""
    low, high = (f"{max(1, length):.0f}" for length in (min(lengths), max(lengths)))
    return low if low == high else f"{low} to {high}"


@dataclass
class Defects:
    """The defects of a data set."""

    sizes: list[Size] = field(default_factory=list)  # (H, W) of the image of each
    regions: list[Region] = field(default_factory=list)

    def add(self, region: Region | None, size: Size) -> None:
        """One more mask, of an image of a ``size``."""
        if region is not None:
            self.sizes.append(size)
            self.regions.append(region)

    def lines(self, images: Sequence[Size]) -> list[str]:
        """What to say about the masks, and about ``images`` of such sizes; nothing if no image is large."""
        size = max(images, key=lambda one: one[0] * one[1], default=(1, 1))
        view = whole(size)
        below = [
            region
            for region, own in zip(self.regions, self.sizes)
            if region.area < np.prod(smallest_seen(whole(own), CELL, own))
        ]
        if not below and not is_large(size, view):
            return []
        line = f"small defects: without tiles, {in_words(view, CELL, [size])} (sivt)"
        if self.regions:
            verb = "is" if len(below) == 1 else "are"
            line += f"; {len(below)} of {counted(len(self.regions), 'mask')} {verb} smaller"
        if below or not self.regions:
            line += f"; tile={self.tile(below)} sees smaller ones"
        return [line]

    def tile(self, below: Sequence[Region]) -> int:
        """The side of a tile in which the thinnest tenth of some defects is as wide as a cell, or the least."""
        width = float(np.quantile([region.width for region in below], 0.1)) if below else 0.0
        return max(SEEN, int(width * SEEN / CELL) // 32 * 32)
