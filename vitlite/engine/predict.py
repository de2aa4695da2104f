"""Scores and pictures for images that nobody has labelled."""

import csv
import io
import os
from collections import Counter
from pathlib import Path

from PIL import Image

from vitlite.data import list_images
from vitlite.data.reading import shown
from vitlite.engine.maps import MAPS_FOLDER
from vitlite.engine.prediction import judge, limits_of
from vitlite.engine.progress import Progress
from vitlite.errors import UserError
from vitlite.files import atomic, make_folder, write_text
from vitlite.metrics.maps_io import write_map
from vitlite.report.heatmap import overlay
from vitlite.report.resize import map_at

COLUMNS = ("file", "score", "percentile", "verdict", "defect_pixels", "regions", "overlay", "map", "error")
CSV_FILE = "predictions.csv"
LONGEST_NAME = 240  # bytes


def predict(detector, inputs, out, *, overlays=True, maps=False, category=None, batch_size=8, quiet=False):
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
    rows, bad = {}, []
    with Progress("scoring", len(paths), quiet=quiet) as progress:
        for loaded, pixels, score in detector.score_files(
            paths, bad=bad, batch_size=batch_size, keep_original=overlays
        ):
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
    for index, path, reason in bad:
        rows[index] = {"file": str(path), "error": reason}
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
