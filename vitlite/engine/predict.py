"""Scores and pictures for images that nobody has labelled."""

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from vitlite.data import list_images
from vitlite.engine.detector import map_at
from vitlite.engine.progress import Progress
from vitlite.errors import UserError
from vitlite.files import atomic, make_folder, write_text
from vitlite.report.heatmap import overlay

COLUMNS = ("file", "score", "percentile", "verdict", "defect_pixels", "regions", "overlay", "error")
CSV_FILE = "predictions.csv"


def predict(detector, inputs, out, *, overlays=True, category=None, batch_size=8, quiet=False):
    """Score files, folders or patterns; write predictions.csv and overlays into ``out``.

    Returns the rows, one dict per file in order. A file that cannot be read is a row with its reason. All overlays
    of all calls share one scale, fixed by the calibration.
    """
    paths = list_images(inputs)
    out = make_folder(out)
    names = overlay_names(paths)
    threshold = image_threshold(detector.calibration, category)
    good = np.asarray(detector.calibration["good_scores"])
    rows, bad = {}, []
    with Progress("scoring", len(paths), quiet=quiet) as progress:
        for loaded, pixels, score in detector.score_files(paths, bad=bad, batch_size=batch_size):
            values = map_at(pixels, loaded.height, loaded.width)
            row = describe(values, score, threshold, good, detector.calibration["pixel_threshold"])
            row["file"] = str(loaded.path)
            if overlays:
                row["overlay"] = names[loaded.index]
                save_overlay(out / names[loaded.index], loaded.original, values, detector.calibration)
            rows[loaded.index] = row
            progress.step()
    for index, path, reason in bad:
        rows[index] = {"file": str(path), "error": reason}
    ordered = [rows[i] for i in range(len(paths))]
    write_text(out / CSV_FILE, to_csv(ordered))
    return ordered


def image_threshold(calibration, category):
    """The threshold of the whole model, or of one of its categories."""
    if category is None:
        return calibration["image_threshold"]
    own = calibration["categories"].get(category)
    if own is None:
        raise UserError(f"--category {category}: calibrated for {', '.join(calibration['categories'])}")
    return own["image_threshold"]


def describe(values, score, threshold, good, pixel_threshold):
    """One row: score, its percentile among good images, verdict, area and boxes (x0 y0 x1 y1) above the threshold."""
    above = values > pixel_threshold
    labels, _ = ndimage.label(above, structure=np.ones((3, 3)))
    boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(labels)]
    return {
        "score": score,
        "percentile": 100.0 * float(np.searchsorted(good, score)) / good.size,
        "verdict": "defect" if score > threshold else "good",
        "defect_pixels": int(above.sum()),
        "regions": boxes,
    }


def overlay_names(paths):
    """A distinct PNG name per input: its stem, after the parent's name and before a number where that repeats."""
    paths = [Path(p) for p in paths]
    stems = Counter(p.stem for p in paths)
    names, taken = [], set()
    for path in paths:
        base = name = path.stem if stems[path.stem] == 1 else f"{path.parent.name}_{path.stem}"
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        names.append(f"{name}.png")
    return names


def save_overlay(path, image, values, calibration):
    scale = calibration["display"]
    picture = overlay(image, values, low=scale["low"], high=scale["high"], threshold=calibration["pixel_threshold"])
    with atomic(path, "wb") as file:
        Image.fromarray(picture).save(file, format="PNG", compress_level=3)


def to_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = dict(row)
        if "score" in row:
            shown["score"] = f"{row['score']:.6g}"
            shown["percentile"] = f"{row['percentile']:.1f}"
            shown["regions"] = ";".join(" ".join(map(str, box)) for box in row["regions"])
        writer.writerow(shown)
    return text.getvalue()
