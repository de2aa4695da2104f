"""Scores and pictures for images that nobody has labelled."""

import csv
import io
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from vitlite.data import list_images
from vitlite.engine.progress import Progress
from vitlite.engine.results import MAPS_FOLDER
from vitlite.errors import UserError
from vitlite.files import atomic, make_folder, shown, write_text
from vitlite.images.heatmap import overlay
from vitlite.images.loading import Loaded, Unread, pixel_batches
from vitlite.images.maps import write_map
from vitlite.images.reading import convert_image, read_image
from vitlite.images.resize import map_at, resize_image

log = logging.getLogger(__name__)

COLUMNS = ("file", "score", "percentile", "verdict", "defect_pixels", "regions", "overlay", "map", "error")
CSV_FILE = "predictions.csv"
LONGEST_NAME = 240  # bytes


def predict(detector, inputs, out, *, overlays=True, maps=False, category=None, batch_size=8):
    """Score files, folders or patterns; write predictions.csv, overlays and (``maps``) float TIFFs into ``out``.

    Returns the rows, one dict per file in order. A file that cannot be read is a row with its reason. All overlays
    of all calls share one scale, fixed by the calibration. Pictures in ``out`` below a folder given are what an earlier
    call wrote there, and left out. Raises ``UserError`` for inputs that stand for no image, or for one in ``out``.
    """
    paths = not_written_here(list_images(inputs), inputs, out)
    limits = limits_of(detector.calibration, category)
    out = make_folder(out)
    if maps:
        make_folder(out / MAPS_FOLDER)
    names = overlay_names(paths)
    rows = {}
    with Progress("scoring", len(paths)) as progress:
        for found in detector.score_files(paths, batch_size=batch_size, keep_original=overlays):
            if isinstance(found, Unread):
                rows[found.index] = {"file": str(found.path), "error": found.reason}
                log.warning("not read: %s", found.reason)
                continue
            loaded, pixels, score = found
            values = map_at(pixels, loaded.height, loaded.width)
            row = {"file": str(loaded.path), **row_of(judge(values, score, limits))}
            if overlays:
                row["overlay"] = names[loaded.index]
                save_overlay(out / row["overlay"], loaded.original, values, detector.calibration, limits.pixel)
            if maps:
                row["map"] = f"{MAPS_FOLDER}/{Path(names[loaded.index]).with_suffix('.tiff')}"
                write_map(out / row["map"], values)
            rows[loaded.index] = row
            progress.step()
    ordered = [rows[i] for i in range(len(paths))]
    write_text(out / CSV_FILE, to_csv(ordered))
    return ordered


def not_written_here(paths, inputs, out):
    """The images that do not lie in ``out``. ``UserError`` for those that do by more than a folder above it: an overlay
    might take their place."""
    target = Path(os.path.realpath(out))
    folders = {parent: Path(os.path.realpath(parent)) for parent in {path.parent for path in paths}}
    inside = [path for path in paths if folders[path.parent].is_relative_to(target)]
    if not inside:
        return paths
    inputs = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    above = [given for given in inputs if os.path.isdir(given) and Path(os.path.realpath(given)) in target.parents]
    others = [given for given in inputs if given not in above]
    named = {os.path.abspath(path) for path in list_images(others)} if others else set()
    for path in inside:
        if os.path.abspath(path) in named:
            raise UserError(f"--out {shown(out)}: holds the image {shown(path)} that is to be scored; choose another")
    inside = set(inside)
    rest = [path for path in paths if path not in inside]
    if not rest:
        raise UserError(f"{shown(above[0])}: no image there but those of --out {shown(out)}")
    return rest


def row_of(prediction):
    """A :class:`Prediction` as the columns of its row; boxes are (x0, y0, x1, y1)."""
    return {
        "score": prediction.score,
        "percentile": prediction.percentile,
        "verdict": prediction.verdict,
        "defect_pixels": prediction.defect_pixels,
        "regions": list(prediction.regions),
    }


def overlay_names(paths):
    """A distinct PNG name per input: its stem, after the parent's name and before a number where that repeats."""
    paths = [Path(p) for p in paths]
    stems = Counter(p.stem for p in paths)
    names, taken = [], set()
    for path in paths:
        base = name = shortened(path.stem if stems[path.stem] == 1 else f"{path.parent.name}_{path.stem}")
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        names.append(f"{name}.png")
    return names


def shortened(name):
    """A name with room for a number and a suffix in the 255 bytes that file systems take."""
    encoded = os.fsencode(name)
    # A letter that the cut goes through is left out.
    return name if len(encoded) <= LONGEST_NAME else encoded[:LONGEST_NAME].decode("utf-8", errors="ignore")


def save_overlay(path, image, values, calibration, threshold):
    """Write the picture with its map over it, on the calibration's scale, outlined where above ``threshold``."""
    scale = calibration["display"]
    picture = overlay(image, values, low=scale["low"], high=scale["high"], threshold=threshold)
    with atomic(path, "wb") as file:
        Image.fromarray(picture).save(file, format="PNG", compress_level=3)


def to_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {key: shown(value) if isinstance(value, str) else value for key, value in row.items()}
        if "score" in row:
            cells["score"] = f"{row['score']:.6g}"
            cells["percentile"] = f"{row['percentile']:.1f}"
            cells["regions"] = ";".join(" ".join(map(str, box)) for box in row["regions"])
        writer.writerow(cells)
    return text.getvalue()


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one picture of H x W pixels.

    score: float, larger is more anomalous.
    is_defect: whether the score is above the calibrated threshold.
    percentile: 0 to 100, the share of the calibration's good images that score lower.
    regions: boxes (x0, y0, x1, y1) in pixels, x1 and y1 past the end, of the connected parts of the map that are above
        the pixel threshold; empty where there are none.
    defect_pixels: how many pixels are above it.
    map: (H, W) float32 at the picture's own size.
    """

    score: float
    is_defect: bool
    percentile: float
    regions: tuple
    defect_pixels: int
    map: np.ndarray = field(repr=False)

    @property
    def verdict(self):
        """``"defect"`` or ``"good"``."""
        return "defect" if self.is_defect else "good"


@dataclass(frozen=True)
class Limits:
    """What scores and pixels are compared with."""

    image: float
    pixel: float
    good_scores: np.ndarray  # ascending


def limits_of(calibration, category=None):
    """The limits of the whole model, or of one of its categories. ``UserError`` names the categories there are."""
    if category is None:
        own = calibration
    else:
        known = calibration.get("categories", {})
        if not isinstance(category, str):
            raise UserError(f"category={category!r}: must be the name of one category")
        if category not in known:
            raise UserError(f"--category {category}: calibrated for {', '.join(known) or 'no category by itself'}")
        # A calibration by an older version has one pixel threshold, and one list of scores, for all categories.
        own = {**calibration, **known[category]}
    return Limits(own["image_threshold"], own["pixel_threshold"], np.asarray(own["good_scores"], dtype=np.float64))


def judge(values, score, limits):
    """The :class:`Prediction` for a map (H, W) float32 at the original size and its image score."""
    above = values > limits.pixel
    labels, _ = ndimage.label(above, structure=np.ones((3, 3)))
    boxes = tuple((s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(labels))
    return Prediction(
        score=score,
        is_defect=score > limits.image,
        percentile=100.0 * float(np.searchsorted(limits.good_scores, score)) / limits.good_scores.size,
        regions=boxes,
        defect_pixels=int(above.sum()),
        map=values,
    )


def as_list(images):
    """``(list of pictures, whether one was given)``: lists, tuples and arrays (B, H, W, 3) hold several."""
    if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4):
        return list(images), False
    return [images], True


def as_rgb(image, name):
    """A path, a Pillow picture or a uint8 array (H, W, 3) or (H, W) as a uint8 array (H, W, 3).

    ``name`` stands for what has no path of its own in the ``UserError`` about what is none of these.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return convert_image(image, name)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name}: is a {type(image).__name__}; give a path, a uint8 array or a PIL image")
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise UserError(f"{name}: is {image.dtype} of shape {image.shape}; give uint8 (H, W, 3) RGB or (H, W) grey")
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


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
            A :class:`~vitlite.engine.predict.Prediction`, or a list of them in order for several pictures.

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

    def score_files(
        self, paths, *, batch_size=8, keep_original=True
    ) -> Iterator[tuple[Loaded, np.ndarray, float] | Unread]:
        """Yield ``(loaded, map, score)`` per readable file in order: the map (S, S) float32 array, the score a float.

        In the place of a file that cannot be read comes an ``Unread``, as ``pixel_batches`` gives it. ``UserError``
        for a batch size below 1.
        """
        check_batch_size(batch_size)
        for found in pixel_batches(paths, self.image_size, batch_size, keep_original=keep_original):
            if isinstance(found, Unread):
                yield found
                continue
            maps, scores = self.score_pixels(found.pixels)
            yield from zip(found.images, maps, scores.tolist())

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
