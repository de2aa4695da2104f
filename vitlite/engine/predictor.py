"""``predict(images)`` for whatever can score pictures of one size. Never imports torch."""

from numbers import Integral

import numpy as np

from vitlite.data.loading import pixel_batches
from vitlite.data.reading import resize_image
from vitlite.engine.prediction import as_list, as_rgb, judge, limits_of
from vitlite.errors import UserError
from vitlite.report.resize import map_at


class Predictor:
    """Base of the detectors.

    They have ``calibration``, ``image_size`` and ``score_pixels``: uint8 pictures (B, S, S, 3) to maps (B, S, S) and
    scores (B,), float32 arrays.
    """

    def predict(self, images, *, category=None, batch_size=8):
        """Say of pictures whether and where they are defective.

        Args:
            images: one picture, or a list or tuple of them, or a uint8 array (B, H, W, 3). A picture is a path, a
                uint8 array (H, W, 3) RGB or (H, W) grey, or a PIL image, of any size.
            category: use the thresholds of this category of the run instead of those of all.
            batch_size: pictures that go through the network at a time.

        Returns:
            A :class:`~vitlite.engine.prediction.Prediction`, or a list of them in order for several pictures.

        Raises:
            UserError: a file that cannot be read, an array of another type or shape, an unknown category, a batch size
                below 1.
        """
        check_batch_size(batch_size)
        pictures, single = as_list(images)
        limits = limits_of(self.calibration, category)
        found = []
        for start in range(0, len(pictures), batch_size):
            chunk = enumerate(pictures[start : start + batch_size], start)
            found += self._predict_batch([as_rgb(picture, f"image {i}") for i, picture in chunk], limits)
        return found[0] if single else found

    def score_files(self, paths, *, batch_size=8, bad=None, keep_original=True):
        """Yield ``(loaded, map, score)`` per readable file in order: the map (S, S) float32 array, the score a float.

        Unreadable files are appended to ``bad`` as ``(index, path, reason)``. ``UserError`` for a batch size
        below 1.
        """
        check_batch_size(batch_size)
        for batch, pixels in pixel_batches(paths, self.image_size, batch_size, bad=bad, keep_original=keep_original):
            maps, scores = self.score_pixels(pixels)
            yield from zip(batch, maps, scores.tolist())

    def _predict_batch(self, arrays, limits):
        size = (self.image_size, self.image_size)
        maps, scores = self.score_pixels(np.stack([resize_image(array, size) for array in arrays]))
        return [
            judge(map_at(values, *array.shape[:2]), score, limits)
            for values, array, score in zip(maps, arrays, scores.tolist())
        ]


def check_batch_size(batch_size):
    """``UserError`` unless it is a whole number from 1."""
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise UserError(f"batch_size={batch_size!r}: must be a whole number of at least 1")
