"""An uploaded file to its verdict and its drawings. This is the only part of the server that decodes uploads."""

import base64
import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitlite.images.heatmap import blend, overlay, scale_map
from vitlite.images.loading import as_seen
from vitlite.images.pillow import open_image
from vitlite.images.png import write_png
from vitlite.images.reading import ImageError, read_noted
from vitlite.images.regions import EVERY, dim
from vitlite.images.resize import resize_image
from vitlite.limits import Limits, limits_of
from vitlite.predictor import Predictor
from vitlite.serve.settings import Settings
from vitlite.serve.wire import Message
from vitlite.verdict import NoVerdict, Prediction, judge

VIEW_SIDE = 1024  # pixels, of the heat map that a page shows
# What a file of a format is called; those that are not here end in ".png", and are told from their contents anyway.
ENDINGS = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "DIB": ".dib",
    "WEBP": ".webp",
    "GIF": ".gif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
    "AVIF": ".avif",
}


class Scorer:
    """A detector and the limits that a server judges by. ``folder`` takes one upload at a time."""

    def __init__(self, detector: Predictor, settings: Settings, folder: Path) -> None:
        self.detector, self.category, self.folder = detector, settings.category, folder
        # Those of a request without a category, then those of each category.
        self.limits: dict[str | None, Limits] = {
            None: limits_of(detector.calibration, settings.category, **settings.judging())
        }
        for name in detector.calibration.get("categories", {}):
            self.limits[name] = limits_of(detector.calibration, name, **settings.judging())
        # A category with a region of its own, and without thresholds, has those of all, as in `predict`.
        regions = detector.reading.regions
        for name in () if regions is None else regions.masks:
            if name != EVERY and name not in self.limits:
                self.limits[name] = limits_of(detector.calibration, **settings.judging())

    def facts(self) -> dict[str, Any]:
        """What the server has to know: the digest, the limits of every category, and whether an image needs one."""
        limits = {
            name or "": vars(own) | {"good_scores": own.good_scores.tolist()} for name, own in self.limits.items()
        }
        regions = self.detector.reading.of(self.category).regions
        several = regions is not None and len(regions.masks) > 1
        return {"digest": self.detector.digest(), "limits": limits, "needs_category": several}

    def warm_up(self) -> None:
        """Score a grey image, so that no request pays for what happens once. ``UserError`` if nothing can be scored."""
        regions = self.detector.reading.regions
        masks = dict(regions.masks) if regions is not None else {}
        category = self.category if self.category in masks else next(iter(masks), None)
        size = masks[category].shape if category is not None else self.detector.view.sides
        with suppress(NoVerdict):
            known = category if category in self.limits else None
            self.answer(as_png(np.full((*size, 3), 128, np.uint8)), "view", known, None)

    def check(self, body: bytes) -> Message:
        """``{"ending"}``, how a file with these bytes has to be named. ``ImageError`` if it is no image."""
        with self._file(body) as path:
            read_noted(path, self.detector.reading)
            with open_image(path, max_pixels=self.detector.reading.max_pixels) as image:
                return {"ending": ENDINGS.get(image.format or "", ".png")}, b""

    def answer(self, body: bytes, want: str, category: str | None, threshold: float | None) -> Message:
        """The verdict on an uploaded file, and the bytes of its overlay as PNG if ``want`` is "overlay".

        With "view" the verdict also has ``map``, a smaller PNG of the heat map in base64, and ``candidates``: the boxes
        that the image would have at a lower threshold, and ``looked_at``: the share of its pixels inside its region.
        ``strange`` is for the server: those of the notes, by kind, that say how the image is unlike training's.
        ``ImageError`` and ``NoVerdict`` as everywhere.
        """
        start = time.perf_counter()
        limits = self.limits[category]
        reading = self.detector.reading.of(category or self.category)
        if threshold is not None:
            limits = replace(limits, image=threshold)
        with self._file(body) as path:
            pixels, notes, depth = read_noted(path, reading)
            seen = as_seen(0, pixels, self.detector.view, reading, path, depth)
            said = [note.text.removeprefix(f"{path}: ") for note in (*notes, *seen.notes)]
        strange = self.detector.strange()
        strange.see(seen)
        unlike = strange.lines()
        maps, (score,) = self.detector.score_seen([seen])
        values = seen.full(maps[0])
        found = judge(values, score, limits, "the upload", seen.inside)
        pixels = dim(pixels, seen.inside)
        verdict: dict[str, Any] = {
            "score": found.score,
            "threshold": limits.image,
            "verdict": found.verdict,
            "percentile": found.percentile,
            "boxes": found.regions,
            "defect_pixels": found.defect_pixels,
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "notes": [*said, *unlike.values()],
            "strange": unlike,
        }
        if want == "view":
            anyway = replace(limits, image=-math.inf)
            verdict["candidates"] = found.regions or judge(values, score, anyway, inside=seen.inside).regions
            verdict["looked_at"] = 1.0 if seen.inside is None else float(seen.inside.mean())
            verdict["map"] = base64.b64encode(self._small_map(pixels, found.map)).decode()
        drawn = self._overlay(pixels, found) if want == "overlay" else b""
        verdict["milliseconds"] = round(1e3 * (time.perf_counter() - start), 3)
        return verdict, drawn

    def _overlay(self, pixels: np.ndarray, found: Prediction) -> bytes:
        scale = self.detector.calibration["display"]
        return as_png(overlay(pixels, found.map, low=scale["low"], high=scale["high"], marked=found.mask))

    def _small_map(self, pixels: np.ndarray, values: np.ndarray) -> bytes:
        """The image with its map over it and no outline, at most VIEW_SIDE pixels high and wide."""
        scale = self.detector.calibration["display"]
        height, width = pixels.shape[:2]
        share = min(1.0, VIEW_SIDE / max(height, width))
        size = max(1, round(share * height)), max(1, round(share * width))
        smaller = np.array(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))
        return as_png(blend(resize_image(pixels, size), scale_map(smaller, scale["low"], scale["high"])))

    @contextmanager
    def _file(self, body: bytes) -> Iterator[Path]:
        """An upload as a file, whose name never comes from outside. An ``ImageError`` does not name it."""
        path = self.folder / "upload"
        path.write_bytes(body)
        try:
            yield path
        except ImageError as error:
            raise ImageError("the upload", error.reason) from error
        finally:
            path.unlink()


def limits_from(facts: dict[str, Any]) -> dict[str | None, Limits]:
    """The limits of every category, and under None those of the rest, from what ``facts`` gave."""
    return {
        name or None: Limits(**own | {"good_scores": np.array(own["good_scores"])})
        for name, own in facts["limits"].items()
    }


def as_png(pixels: np.ndarray) -> bytes:
    """The PNG file of an array (H, W, 3), uint8."""
    file = io.BytesIO()
    write_png(file, pixels)
    return file.getvalue()
