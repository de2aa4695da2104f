"""How well each ``score`` with each ``places`` of a run tells test images apart, and columns of text for tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitlite.files import shown
from vitlite.metrics import auroc

Entry = dict[str, Any]


def entries(
    labels: Sequence[int], found: Mapping[tuple[str, str], Sequence[float]], used: tuple[str, str]
) -> list[Entry]:
    """The field ``scores`` of a category in results.json.

    ``labels`` are 0 and 1, one an image; ``found`` has the scores of the images by (score, places); ``used`` is what
    the run uses. ``image_auroc`` is None if a score is not finite.
    """
    own = np.array(labels)
    return [
        {
            "score": score,
            "places": places,
            "image_auroc": float(auroc(own, np.array(values))) if np.isfinite(values).all() else None,
            "used": (score, places) == used,
        }
        for (score, places), values in found.items()
    ]


def score_table(categories: Mapping[str, Mapping[str, Any]]) -> str:
    """The ``scores`` of all categories of results.json in lines, with those of their mean if there are several."""
    parts = [(shown(name), own["scores"]) for name, own in categories.items()]
    several = len(parts) > 1
    if several:
        parts.append(("mean over categories", [_mean(same) for same in zip(*(own for _, own in parts))]))
    columns, rows = (list(dict.fromkeys(entry[key] for entry in parts[0][1])) for key in ("score", "places"))
    lines = [("places", *(f"{score} " for score in columns))]
    for name, own in parts:
        if several:
            lines.append((name, *("" for _ in columns)))
        lines += [("  " * several + how, *(_cell(entry) for entry in own if entry["places"] == how)) for how in rows]
    notes = ["these are figures on test images, for those who ask: nothing is ever chosen by them"]
    if rows == ["none"]:
        notes.insert(0, "the run has never learned its places, so there are no rows for places mean and scaled")
    return "\n".join(
        ["image AUROC by score and places (* is what the run uses)", *(s.rstrip() for s in aligned(lines)), *notes]
    )


def _mean(same: Sequence[Entry]) -> Entry:
    values = [entry["image_auroc"] for entry in same]
    return {**same[0], "image_auroc": None if None in values else float(np.mean(values))}


def _cell(entry: Entry) -> str:
    value = entry["image_auroc"]
    return ("-" if value is None else f"{value:.4f}") + ("*" if entry["used"] else " ")


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in lines
    ]
