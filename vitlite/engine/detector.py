"""A trained run, loaded: the method with its weights, its settings and its calibration."""

from pathlib import Path

import torch

from vitlite.engine.calibrate import load_calibration
from vitlite.engine.checkpoint import CHECKPOINT_FILE, load_checkpoint, restore_model
from vitlite.engine.device import pick_device
from vitlite.engine.images import batches
from vitlite.engine.settings import build_method, load_settings


class Detector:
    """``Detector(run)`` loads a run directory; needs no weights but those in its checkpoint."""

    def __init__(self, run, device="auto"):
        self.run, self.device = Path(run), pick_device(device)
        self.settings = load_settings(run)
        state = load_checkpoint(run, self.settings.method)
        self.method = build_method(self.settings, weights="none")
        restore_model(self.method, state, self.run / CHECKPOINT_FILE)
        self.method.to(self.device).eval()
        self.calibration = load_calibration(run)

    def score_files(self, paths, *, batch_size=8, bad=None, keep_original=True):
        """Yield ``(loaded, map, score)`` per readable file in order: the map (S, S) float32 array, the score a float.

        Unreadable files are appended to ``bad`` as ``(index, path, reason)``.
        """
        size = self.settings.config.image_size
        for batch, images in batches(paths, size, batch_size, self.device, bad=bad, keep_original=keep_original):
            maps, scores = self.method.anomaly(images)
            maps = maps.cpu()
            for loaded, pixels, score in zip(batch, maps, scores.tolist()):
                yield loaded, pixels.numpy(), score


def map_at(pixels, height, width):
    """A (S, S) map bilinearly resized to the original (height, width), float32; half-pixel centres."""
    tensor = torch.from_numpy(pixels)[None, None]
    resized = torch.nn.functional.interpolate(tensor, size=(height, width), mode="bilinear", align_corners=False)
    return resized[0, 0].numpy()
