"""The result of an evaluation: metrics per category and their mean, as JSON and CSV."""

import csv
import io
from pathlib import Path

import numpy as np

from vitlite.errors import UserError
from vitlite.files import make_folder, remove, shown, write_json, write_text
from vitlite.images.maps import MAP_EXTENSIONS, write_map

KEYS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "aupro_30",
    "aupro_05",
)
THRESHOLDS = ("image_f1_threshold", "pixel_f1_threshold")  # of a category; their mean over categories means nothing
COUNTS = ("images", "defective")


def collect(categories: dict, **about) -> dict:
    """``about``, the mean of the metrics over categories, and the categories; only the keys named above are kept."""
    kept = {name: {key: row[key] for key in (*COUNTS, *KEYS, *THRESHOLDS)} for name, row in categories.items()}
    mean = {key: sum(row[key] for row in kept.values()) for key in COUNTS}
    mean |= {key: float(np.mean([row[key] for row in kept.values()])) for key in KEYS}
    return {**about, "mean": mean, "categories": kept}


def write(folder, results: dict):
    """Write ``results.json`` and ``results.csv`` (a row per category and one for the mean) into a folder, atomically.

    Raises UserError where the folder cannot be made or written.
    """
    folder = make_folder(Path(folder))
    columns = (*COUNTS, *KEYS, *THRESHOLDS)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("category", *columns))
    for name, row in (*results["categories"].items(), ("mean", results["mean"])):
        rows.writerow((shown(name), *(row.get(key, "") for key in columns)))
    write_json(folder / "results.json", results)
    write_text(folder / "results.csv", text.getvalue())


def table(results: dict) -> str:
    """The metrics in percent, a line per category and one for the mean."""
    rows = [(shown(name), row) for name, row in (*results["categories"].items(), ("mean", results["mean"]))]
    width = max(8, *(len(name) for name, _ in rows))
    lines = [" ".join([" " * width, "images", *(f"{key:>12}" for key in KEYS)])]
    for name, row in rows:
        lines.append(" ".join([f"{name:{width}}", f"{row['images']:6}", *(f"{100 * row[k]:12.2f}" for k in KEYS)]))
    return "\n".join(lines)


MAPS_FOLDER = "maps"  # in the run


def map_file(folder, sample):
    """Where the map of a test sample lies: ``folder/<category>/test/<defect>/<stem>.tiff``."""
    return Path(folder) / sample.category / "test" / sample.defect / f"{sample.path.stem}.tiff"


def refuse_shared_maps(samples):
    """Pictures that differ in their extension alone would share a map; better said before hours of scoring."""
    taken = {}
    for sample in samples:
        other = taken.setdefault(map_file("", sample), sample)
        if other is not sample:
            raise UserError(
                f"--maps: {shown(other.path)} and {sample.path.name} would share one map file; rename one of them"
            )


def earlier_maps(folder, samples):
    """The maps of these samples, all of a category's, that an earlier evaluation left in ``folder``.

    ``UserError`` where a category's folder holds maps of other pictures: they are not ours to remove, and ``vitlite
    eval-maps`` would stumble over them. Also where two samples would share a map.
    """
    refuse_shared_maps(samples)
    own = {map_file(folder, sample) for sample in samples}
    there = {
        path
        for category in {sample.category for sample in samples}
        for path in (Path(folder) / category).rglob("*")
        if path.suffix.lower() in MAP_EXTENSIONS
    }
    strange = sorted(there - own)
    if strange:
        name = strange[0].relative_to(folder)
        raise UserError(
            f"--maps: {shown(folder)} holds {len(strange)} maps of other pictures ({shown(name)}); "
            f"move {shown(Path(folder) / name.parts[0])} away first"
        )
    return there


def save_maps(scored, folder, samples):
    """Write the maps of one category's test pictures, (H, W) at original size, as 32-bit float TIFFs.

    ``scored`` is of ``score_category(full_maps=True)``; ``samples`` are all of the category: earlier maps are removed
    first, also of pictures that were not read this time, so that maps of two evaluations never lie side by side.
    """
    for path in earlier_maps(folder, samples):
        remove(path)
    for sample, values in zip(scored.samples, scored.maps):
        path = map_file(folder, sample)
        make_folder(path.parent)
        write_map(path, values)
