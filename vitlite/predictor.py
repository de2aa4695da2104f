"""What every detector has in common: it judges images of any size by what scores those of one size. Needs no torch."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from vitlite.errors import UserError
from vitlite.files import StrPath, shown
from vitlite.images.known import Strange
from vitlite.images.loading import Loaded, Unread, as_seen, pixel_batches
from vitlite.images.reading import FULL_RANGE, Notices, as_rgb
from vitlite.images.regions import level_outside
from vitlite.images.scale import Reading
from vitlite.images.tiles import Size, View
from vitlite.limits import limits_of
from vitlite.verdict import Prediction, judge


class Predictor(ABC):
    """Base of the detectors: what scores images of one size becomes what judges images of any size."""

    calibration: Any  # the contents of calibration.json; None before there is one
    image_size: Size  # of the images that it scores, in pixels: the side of squares, or (height, width)
    reading: Reading = FULL_RANGE  # the scale of the run's images, and the most pixels of one
    without_parts = "an exported file gives maps and scores alone; give the run"  # why there are no parts; empty: some
    tiles: View | None = None  # what is seen of an image, if that is tiles; None: the whole image, resized

    @abstractmethod
    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (B, S, S, 3), RGB, to maps (B, S, S) and scores (B,), float32 arrays."""

    @property
    def view(self) -> View:
        """What is seen of an image."""
        return self.tiles or View(self.image_size)

    def strange(self, **options: Any) -> Strange:
        """What counts images that are clearly others than the known ones, with more ``options`` of a ``Strange``."""
        squeezed = self.tiles is None and self.reading.regions is None
        return Strange.than(self.calibration, squeezed=squeezed, **options)

    def score_seen(self, images: Sequence[Loaded], batch_size: int = 8) -> tuple[list[np.ndarray], list[float]]:
        """What is seen of images to their maps, each in that size, float32, and their scores.

        If that is tiles, ``batch_size`` of them go through the network at a time, and the score of an image is the
        highest of its tiles.
        """
        insides = [image.seen_inside for image in images]
        if self.tiles is None:
            found, numbers = self.score_pixels(np.stack([image.pixels for image in images]))
            maps, scores = list(found), numbers.tolist()
        else:
            tiles, score = self.tiles, self.score_pixels
            pairs = [tiles.score(image.pixels, score, batch_size, inside) for image, inside in zip(images, insides)]
            maps, scores = [values for values, _ in pairs], [number for _, number in pairs]
        return [level_outside(values, inside) for values, inside in zip(maps, insides)], scores

    def parts_of(self, image: Loaded, batch_size: int = 8) -> dict[str, np.ndarray]:
        """What shows how the map of an image comes about, by name, in the size of what is seen of it.

        Images (3, h, w) in [0, 1], such as a reconstruction, and maps (h, w), float32.
        """
        return {}

    @abstractmethod
    def digest(self) -> str:
        """Text that differs if the scores may: detectors with the same digest give every image the same score."""

    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        *,
        category: str | None = None,
        batch_size: int = 8,
        min_area: int | None = None,
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        images: StrPath | Image.Image,
        *,
        category: str | None = None,
        batch_size: int = 8,
        min_area: int | None = None,
    ) -> Prediction: ...
    @overload
    def predict(
        self, images: np.ndarray, *, category: str | None = None, batch_size: int = 8, min_area: int | None = None
    ) -> Any: ...
    def predict(
        self, images: object, *, category: str | None = None, batch_size: int = 8, min_area: int | None = None
    ) -> Any:
        """Say whether and where images are defective. A warning of each kind says which are unlike those of training.

        Args:
            images: one image, or a list or tuple of them, or an array (B, H, W, 3). An image is a path, a
                uint8 array (H, W, 3) RGB or (H, W) grey, or a PIL image, of any size. A uint16 array has the run's
                scale for files of more than 8 bits.
            category: use the thresholds of this category of the run instead of those of all, and its region.
            batch_size: images, or tiles of one, that go through the network at a time.
            min_area: regions of fewer pixels of the image are no defect; None: as the run is calibrated.

        Returns:
            A :class:`~vitlite.verdict.Prediction`, or a list of them in order for several images.

        Raises:
            UserError: a file that cannot be read, an array of another type or shape, an unknown category, a batch size
                below 1, an area below 0.
            NoVerdict: a UserError, for an image whose score or map is not finite.
        """
        check_batch_size(batch_size)
        several, single = as_list(images)
        limits = limits_of(self.calibration, category, min_area=min_area)
        names = [_name(image, i) for i, image in enumerate(several)]
        found: list[Prediction] = []
        notices, strange = Notices(), self.strange()
        reading, together = self.reading.of(category), 1 if self.tiles else batch_size
        for start in range(0, len(several), together):
            seen: list[Loaded] = []
            for index in range(start, min(start + together, len(several))):
                array, notes, depth = as_rgb(several[index], names[index], self.reading)
                seen.append(as_seen(index, array, self.view, reading, Path(names[index]), depth))
                strange.see(seen[-1])
                notices.say((*notes, *seen[-1].notes))
            for image, values, score in zip(seen, *self.score_seen(seen, batch_size)):
                found.append(judge(image.full(values), score, limits, names[image.index], image.inside))
        strange.say()
        return found[0] if single else found

    def score_files(
        self,
        paths: Sequence[Path],
        *,
        batch_size: int = 8,
        keep_original: bool = True,
        category: str | None = None,
        strange: Strange | None = None,
    ) -> Iterator[tuple[Loaded, np.ndarray, float] | Unread]:
        """Yield ``(loaded, map, score)`` per readable file in order: the map (S, S) float32 array, the score a float.

        With tiles a map has the size of what is seen of its image. ``category`` is theirs; None: as their folders say.

        In the place of a file that cannot be read comes an ``Unread``, as ``pixel_batches`` gives it. ``UserError``
        for a batch size below 1. Of images that are clearly others than training's a warning of each kind comes at the
        end; if ``strange`` counts them, its owner says so.
        """
        check_batch_size(batch_size)
        reading, counts = self.reading.of(category), self.strange() if strange is None else strange
        for found in pixel_batches(paths, self.view, batch_size, reading=reading, keep_original=keep_original):
            if isinstance(found, Unread):
                yield found
                continue
            for image in found.images:
                counts.see(image)
            yield from zip(found.images, *self.score_seen(found.images, batch_size))
        if strange is None:
            counts.say()


def check_batch_size(batch_size: int) -> None:
    """``UserError`` unless it is a whole number from 1."""
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise UserError(f"`batch_size={batch_size!r}`: must be a whole number of at least 1")


def as_list(images: object) -> tuple[list[Any], bool]:
    """(list of images, whether one was given): lists, tuples and arrays (B, H, W, 3) hold several."""
    if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4):
        return list(images), False
    return [images], True


def _name(image: object, index: int) -> str:
    """What an error calls an image of a list."""
    return shown(image) if isinstance(image, (str, os.PathLike)) else f"image {index}"
