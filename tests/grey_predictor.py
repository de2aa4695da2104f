"""A detector that loads at once: the score of an image is its brightness."""

import numpy as np

from vitlite.predictor import Predictor


def calibration_of(good_scores):
    return {
        "image_threshold": 100.0,
        "pixel_threshold": 100.0,
        "good_scores": good_scores,
        "display": {"low": 0.0, "high": 255.0},
        "categories": {},
    }


class Grey(Predictor):
    """The score of an image is its brightness and, as in a network, ``share`` of what else is in its batch."""

    image_size, share = 8, 1e-2
    calibration = calibration_of([10.0, 200.0])

    def digest(self):
        return "grey"

    def score_pixels(self, pixels):
        maps = pixels.mean(axis=3).astype(np.float32)
        return maps, maps.mean(axis=(1, 2)) + np.float32(self.share) * maps.mean()
