"""A trained run, loaded: the method with its weights, its settings and its calibration."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitlite.engine.calibrate import load_calibration
from vitlite.engine.checkpoint import CHECKPOINT_FILE, load_checkpoint, restore_model
from vitlite.engine.distributed import pick_device
from vitlite.engine.features import to_images
from vitlite.engine.predict import Predictor
from vitlite.engine.settings import build_method, load_settings


class Detector(Predictor):
    """``Detector(run)`` loads a run directory; needs no weights but those in its checkpoint.

    Several threads may predict with one detector at a time; the numbers are those of one thread.
    ``calibrated=False`` leaves calibration.json unread, to be written anew.
    """

    def __init__(self, run: str | os.PathLike[str], device: str = "auto", *, calibrated: bool = True) -> None:
        self.run, self.device = Path(run), pick_device(device)
        self.settings = load_settings(run)
        state = load_checkpoint(run, self.settings.method)
        self.fingerprint = state["fingerprint"]  # of the images that were trained on
        self.weights_source = state.get("weights")  # where training found the weights of the frozen part; None: unknown
        self.method = build_method(self.settings, weights="none")
        restore_model(self.method, state, self.run / CHECKPOINT_FILE)
        self.method.to(self.device).eval()
        self.calibration: dict[str, Any] = load_calibration(run) if calibrated else {}
        self._one_at_a_time = threading.Lock()

    def __repr__(self) -> str:
        return f"Detector({str(self.run)!r}, method={self.settings.method!r}, device={str(self.device)!r})"

    @property
    def image_size(self) -> int:
        """Side of the images that the method takes, in pixels."""
        return self.settings.config.image_size

    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (B, S, S, 3), RGB, to maps (B, S, S) and scores (B,), float32 arrays."""
        maps, scores = self.anomaly(to_images(pixels, self.device))
        return maps.cpu().numpy(), scores.cpu().numpy()

    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) float in [0, 1] on the device to maps (B, S, S) and scores (B,).

        One forward pass at a time: each uses the whole device already, and a method may keep buffers between layers
        or make its inference copy on the first call. Decoding, resizing and what follows the map run beside it.
        """
        with self._one_at_a_time:
            return self.method.anomaly(images)
