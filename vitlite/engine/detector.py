"""A trained run, loaded: the method with its weights, its settings and its calibration."""

import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vitlite.engine.checkpoint import CHECKPOINT_FILE, load_checkpoint, restore_model
from vitlite.engine.distributed import pick_device
from vitlite.engine.features import to_images
from vitlite.engine.predict import Predictor
from vitlite.engine.settings import build_method, load_settings
from vitlite.errors import UserError
from vitlite.files import StrPath

CALIBRATION_FILE = "calibration.json"
CALIBRATION_SCHEMA = 2  # version 0.1.0 wrote the file without a number


class Detector(Predictor):
    """``Detector(run)`` loads a run directory; needs no weights but those in its checkpoint.

    Several threads may predict with one detector at a time; the numbers are those of one thread.
    ``calibrated=False`` leaves calibration.json unread, to be written anew.
    """

    def __init__(self, run: StrPath, device: str = "auto", *, calibrated: bool = True) -> None:
        self.run, self.device = Path(run), pick_device(device)
        self.settings = load_settings(run)
        self.image_size = self.settings.config.image_size
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


def load_calibration(run: StrPath) -> dict[str, Any]:
    """Read the calibration.json of a run. ``UserError`` if it is missing or damaged, or a newer version wrote it."""
    path = Path(run) / CALIBRATION_FILE
    again = f"vitlite calibrate {run} writes it anew"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("schema", 1) > CALIBRATION_SCHEMA:
            raise UserError(f"{path}: written by a newer vitlite (schema {result['schema']}); upgrade, or {again}")
        check_numbers([result["image_threshold"], result["pixel_threshold"]])
        check_numbers([result["display"]["low"], result["display"]["high"]])
        check_numbers(result["good_scores"])
        for own in result.get("categories", {}).values():
            check_numbers([own["image_threshold"], own.get("pixel_threshold", 0.0), *own.get("good_scores", ())])
        return result
    except FileNotFoundError:
        raise UserError(f"{path}: not there; training did not finish; resume it with `vitlite train`") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); {again}") from None


def check_numbers(values: Sequence[float]) -> None:
    """ValueError unless ``values`` are finite numbers, and at least one."""
    if not values or not all(map(math.isfinite, values)):
        raise ValueError("expected finite numbers")
