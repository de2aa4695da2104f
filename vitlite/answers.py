"""From a scored image to its row and its files: what a call of predict wants, and how an image is answered."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from vitlite.data.parts import Parts
from vitlite.data.prediction_files import FILES, JUDGED, cells
from vitlite.errors import UserError
from vitlite.files import atomic, counted, remove, shown
from vitlite.images.heatmap import overlay
from vitlite.images.loading import Loaded
from vitlite.images.maps import write_map
from vitlite.images.panels import caption, panel, panel_size, span_of, strip
from vitlite.images.png import write_png
from vitlite.images.reading import NO_ROOM, ImageError
from vitlite.images.regions import dim, shrink
from vitlite.images.resize import map_at, resize_image
from vitlite.ledger import Ledger
from vitlite.limits import Limits, check_limits, group_count, limits_of, rate_of, values_of
from vitlite.metrics.thresholds import images_needed
from vitlite.verdict import NoVerdict, Prediction, judge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a call of predict wants besides its images; ``vitlite.engine.predict.predict`` describes each field.

    ``UserError`` as :func:`~vitlite.limits.check_limits` raises it.
    """

    overlays: bool = True
    maps: bool = False
    category: str | None = None
    batch_size: int = 8
    sensitivity: str | None = None
    threshold: float | None = None
    pixel_threshold: float | None = None
    min_area: int | None = None
    parts: bool = False

    def __post_init__(self) -> None:
        check_limits(self.sensitivity, self.threshold, self.pixel_threshold)

    @property
    def files(self) -> tuple[str, ...]:
        """The columns of the files that each image gets."""
        wanted = {"overlay": self.overlays, "map": self.maps, "parts": self.parts}
        return tuple(column for column in FILES if wanted[column])

    @property
    def changes(self) -> dict[str, Any]:
        """What takes the place of the calibrated limits, as ``limits_of`` takes it."""
        names = ("sensitivity", "threshold", "pixel_threshold", "min_area")
        return {name: getattr(self, name) for name in names}

    def check(self, calibration: dict[str, Any], without_parts: str) -> None:
        """Warn if the calibration has too few good images for the sensitivity.

        ``UserError`` for parts of a detector that is ``without_parts`` for this reason.
        """
        if self.parts and without_parts:
            raise UserError(f"`parts=True`: {without_parts}")
        if self.sensitivity is None:
            return
        needed = images_needed(rate_of(self.sensitivity))
        own = values_of(calibration, self.category)
        if (count := group_count(own)) < needed:
            grouped = count < len(own["good_scores"])
            log.warning(
                "sensitivity %s takes %d good images%s; with %s, the threshold is their highest score",
                self.sensitivity,
                needed,
                ", each of another group" * grouped,
                counted(count, "group") if grouped else count,
            )

    def facts(self, digest: str, calibration: dict[str, Any]) -> dict[str, Any]:
        """What all rows of a table depend on; ``digest`` is that of the detector. ``UserError`` as ``limits_of``."""
        whole = limits_of(calibration, self.category, **self.changes)
        return {
            "model": digest,
            "calibration": hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest(),
            "image_threshold": whole.image,
            "pixel_threshold": whole.pixel,
            "min_area": whole.min_area,
            "sensitivity": self.sensitivity,
            "category": self.category,
            "overlays": bool(self.overlays),
            "maps": bool(self.maps),
            "parts": bool(self.parts),
            "batch_size": int(self.batch_size),
        }


@dataclass
class Tally:
    """How many images there are, and how many of them are defective, could not be read, or have no verdict at all."""

    images: int = 0
    defects: int = 0
    unread: int = 0
    failed: int = 0
    first_error: str | None = None

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Self:
        """The tally of these rows."""
        tally = cls()
        for row in rows:
            tally.add(row)
        return tally

    def add(self, row: dict[str, Any]) -> None:
        """Count the row of an image."""
        self.images += 1
        self.defects += row.get("verdict") == "defect"
        self.unread += "score" not in row
        self.failed += "error" in row
        self.first_error = self.first_error or row.get("error")

    def __str__(self) -> str:
        text = f"{self.defects} of {self.images - self.failed} images defective, {self.unread} not read"
        other = self.failed - self.unread
        return f"{text}, {other} without a verdict" if other else text


class Asked(NamedTuple):
    """An image that is to be scored: its file, the names of the files that it gets by column, and its limits."""

    path: Path
    files: dict[str, str]
    limits: Limits


class Sender:
    """Where a row goes: into the table, if there is one, and to ``emit``, with what is known of its part."""

    def __init__(
        self, ledger: Ledger | None, parts: Parts | None, emit: Callable[[dict[str, Any]], None] | None
    ) -> None:
        self.ledger, self.parts, self.emit = ledger, parts, emit

    def __call__(self, row: dict[str, Any]) -> None:
        """Send a new row."""
        if self.ledger is not None:
            self.ledger.append(cells(row))
        of_part = self.count(row)
        if self.emit is not None:
            self.emit(row | of_part)

    def count(self, row: dict[str, Any]) -> dict[str, Any]:
        """Count a row for its part alone; what is known of the part then."""
        return {} if self.parts is None else self.parts.add(row)


def answer(
    loaded: Loaded,
    pixels: np.ndarray,
    score: float,
    out: Path | None,
    files: dict[str, str],
    limits: Limits,
    calibration: dict[str, Any],
    parts_of: Callable[[Loaded], dict[str, np.ndarray]],
) -> dict[str, Any]:
    """Judge an image and write its ``files``, by column, into ``out``; what its row says besides its file.

    Without ``out`` there are no files. ``parts_of`` gives what shows how the map comes about.
    """
    out = out or Path()
    try:
        values = loaded.full(pixels)
        prediction = judge(values, score, limits, shown(loaded.path), loaded.inside)
        if "overlay" in files and loaded.original is not None:
            save_overlay(out / files["overlay"], loaded.original, prediction, calibration["display"], loaded.inside)
        if "map" in files:
            write_map(out / files["map"], values)
        if "parts" in files and loaded.original is not None:
            save_parts(
                out / files["parts"],
                loaded.original,
                prediction,
                calibration["display"],
                parts_of(loaded),
                loaded.inside,
            )
        return {key: getattr(prediction, key) for key in JUDGED} | files
    except NoVerdict as error:
        row = {"score": score, "error": str(error)}
    except MemoryError:
        row = {"error": str(ImageError(loaded.path, NO_ROOM))}
        for name in files.values():  # no row would name them
            remove(out / name)
    return row


def save_overlay(
    path: Path, image: np.ndarray, found: Prediction, scale: dict[str, float], inside: np.ndarray | None = None
) -> None:
    """Write the image with its map over it, from ``low`` to ``high`` of the scale, and its defects outlined.

    Outside the region that counts it is dark.
    """
    drawn = overlay(dim(image, inside), found.map, low=scale["low"], high=scale["high"], marked=found.mask)
    with atomic(path, "wb") as file:
        write_png(file, drawn)


def save_parts(
    path: Path,
    image: np.ndarray,
    found: Prediction,
    scale: dict[str, float],
    parts: dict[str, np.ndarray],
    inside: np.ndarray | None = None,
) -> None:
    """Write a strip of panels: the image, its ``parts``, and its map as ``save_overlay`` draws it.

    Each map among the parts has colours from its lowest to its highest value, which stand above it.
    """
    height, width = panel_size(*image.shape[:2])
    image = resize_image(dim(image, inside), (height, width))
    spans = {name: span_of([part]) for name, part in parts.items()}
    heat = overlay(image, map_at(found.map, height, width), **scale, marked=shrink(found.mask, (height, width)))
    panels = [(caption(name, spans[name]), panel(part, height, width, spans[name])) for name, part in parts.items()]
    drawn = strip([("image", image), *panels, (caption("map", (scale["low"], scale["high"])), heat)])
    with atomic(path, "wb") as file:
        write_png(file, drawn)
