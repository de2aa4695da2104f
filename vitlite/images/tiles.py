"""How an image comes to a network: whole, resized to one size, or in overlapping tiles of one size at one scale.

Tiles keep what is small: a whole photograph of 4000 x 3000 pixels in a square of 256 has 16 of its columns in one.
Their maps are blended to one map of the image. The weight of a tile falls evenly from its middle to its edges, and all
weights at a pixel add up to 1, so there are no seams. A weight is the product of one for the row and one for the
column, so only the map itself and a few tiles are in memory, however large the image is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vitlite.images.resize import resize_image

Size = int | tuple[int, int]  # of a square, or (height, width)
Place = tuple[int, int]  # (top, left) of a tile, in pixels of what is seen
PartsOf = Callable[[np.ndarray], dict[str, np.ndarray]]  # tiles (B, H, W, 3) to what is (B, H, W) or (B, C, H, W)
ScorePixels = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # tiles (B, H, W, 3) to maps (B, H, W), scores (B,)


def sides(size: Size) -> tuple[int, int]:
    """(height, width) of a size."""
    return size if isinstance(size, tuple) else (size, size)


def fitted(side: float, ratio: float, multiple: int) -> tuple[int, int]:
    """(height, width): multiples with about as many pixels as a square, the height ``ratio`` times the width."""
    stretch = math.sqrt(ratio)
    height, width = (max(1, round(length / multiple)) * multiple for length in (side * stretch, side / stretch))
    return height, width


def as_size(shape: tuple[int, int]) -> Size:
    """The size of (height, width): one number of a square."""
    return shape[0] if shape[0] == shape[1] else shape


@dataclass(frozen=True)
class View:
    """What a network sees of an image: all of it, resized to one size, or tiles that cover it."""

    size: Size  # of the network's input, H x W
    tile: int = 0  # height of a tile in pixels of the original image; 0: no tiles
    overlap: float = 0.25  # share of a tile that the next one covers too, at least

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return sides(self.size)

    @property
    def scale(self) -> float:
        """Pixels that tiles have for one of the original image."""
        return self.sides[0] / self.tile

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is seen of an image; tiles of a smaller one go beyond it."""
        if not self.tile:
            return self.sides
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def see(self, image: np.ndarray) -> np.ndarray:
        """What is seen of an image (H, W, 3), uint8: an array (h, w, 3) of the ``shape``."""
        shape = self.shape(*image.shape[:2])
        return image if self.tile and shape == image.shape[:2] else resize_image(image, shape)

    def places(self, height: int, width: int, inside: np.ndarray | None = None) -> list[Place]:
        """Where the tiles of something (height, width) that is seen begin, row by row; without tiles one place.

        Of a region ``inside``, bool (height, width), only those with a part of it, and at least one.
        """
        tops, lefts = (starts(*axis, self.overlap) for axis in zip((height, width), self.sides))
        places = [(top, left) for top in tops for left in lefts]
        if inside is None:
            return places
        return [place for place in places if inside[self._window(place)].any()] or places[:1]

    def _window(self, place: Place) -> tuple[slice, slice]:
        """The part of what is seen that a tile covers."""
        (top, left), (height, width) = place, self.sides
        return slice(top, top + height), slice(left, left + width)

    def cut(self, seen: np.ndarray, place: Place) -> np.ndarray:
        """The tile (H, W, 3), or (H, W) of a region, at a place. Where it goes beyond the image, that is mirrored."""
        part = seen[self._window(place)]
        beyond = [(0, side - length) for side, length in zip(self.sides, part.shape)]
        whole = [*beyond, *[(0, 0)] * (seen.ndim - 2)]
        return np.pad(part, whole, mode="symmetric") if any(b for _, b in beyond) else part

    def batches(self, seen: np.ndarray, places: Sequence[Place], size: int) -> Iterator[np.ndarray]:
        """The tiles at some places, (B, H, W, 3), in order, ``size`` at a time."""
        for first in range(0, len(places), size):
            yield np.stack([self.cut(seen, place) for place in places[first : first + size]])

    def score(
        self, seen: np.ndarray, score_pixels: ScorePixels, batch_size: int, inside: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """The map (h, w) of what is seen of an image (h, w, 3), and its score: the highest of its tiles."""
        height, width = seen.shape[:2]
        places = self.places(height, width, inside)
        blend = Blend(self, height, width, places)
        scores = []
        for tiles in self.batches(seen, places, batch_size):
            maps, found = score_pixels(tiles)
            for values in maps:
                blend.add(values)
            scores.append(found)
        return blend.map, float(np.concatenate(scores).max())

    def stitch(
        self, seen: np.ndarray, parts_of: PartsOf, batch_size: int, inside: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Maps (h, w) and images (C, h, w), by name, of what is seen of an image, from those of its tiles."""
        height, width = seen.shape[:2]
        places = self.places(height, width, inside)
        blends: dict[str, Blend] = {}
        for tiles in self.batches(seen, places, batch_size):
            for name, values in parts_of(tiles).items():
                if name not in blends:
                    blends[name] = Blend(self, height, width, places, values.shape[1:-2])
                for own in values:
                    blends[name].add(own)
        return {name: blend.map for name, blend in blends.items()}


class Blend:
    """The maps of an image's tiles as one map (height, width), float32; ``leading`` axes precede these two."""

    def __init__(
        self, view: View, height: int, width: int, places: Sequence[Place], leading: tuple[int, ...] = ()
    ) -> None:
        self.map = np.zeros((*leading, height, width), np.float32)
        self._places = iter(places)
        axes = zip((height, width), view.sides)
        self._rows, self._columns = (_weights(*axis, view.overlap) for axis in axes)

    def add(self, values: np.ndarray) -> None:
        """Add the map (H, W) of the next tile, in the order of the places."""
        top, left = next(self._places)
        rows, columns = self._rows[top][:, None], self._columns[left]
        inside = values[..., : len(rows), : len(columns)]
        self.map[..., top : top + len(rows), left : left + len(columns)] += rows * (columns * inside)


def starts(length: int, side: int, overlap: float) -> list[int]:
    """The first pixels of the tiles with a ``side`` along an axis, evenly spaced from end to end."""
    free = max(0, length - side)
    step = max(1, int(side * (1 - overlap)))
    count = -(-free // step)
    return [round(free * i / count) for i in range(count + 1)] if count else [0]


def _weights(length: int, side: int, overlap: float) -> dict[int, np.ndarray]:
    """The weights of the tiles along an axis, float32, by the first pixel of each; they end with the axis."""
    ramp = np.arange(side) + 0.5
    ramp = np.minimum(ramp, ramp[::-1])
    firsts, total = starts(length, side, overlap), np.zeros(max(length, side))
    for first in firsts:
        total[first : first + side] += ramp
    return {first: (ramp / total[first : first + side]).astype(np.float32)[: length - first] for first in firsts}
