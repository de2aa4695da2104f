"""The result of an evaluation: metrics per category and their mean, as JSON and CSV."""

import csv
import io
from pathlib import Path

import numpy as np

from vitlite.data.reading import shown
from vitlite.files import make_folder, write_json, write_text

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
