"""What an exported file says of itself, as JSON beside the graph. Never imports torch."""

import json
import math
from dataclasses import asdict

import vitlite
from vitlite.errors import UserError

FORMAT = 1
KEY = "vitlite"  # of ONNX's metadata_props
PT2_FILE = "vitlite.json"  # among pt2's extra files
INPUT, MAPS, SCORES = "images", "maps", "scores"


def describe(settings, calibration):
    """The metadata of a run: format and version, how pictures come in, what comes out, calibration and config.

    ``calibration`` is the contents of calibration.json, taken over as a whole: thresholds, display scale, good scores.
    """
    size = settings.config.image_size
    return {
        "format": FORMAT,
        "vitlite": vitlite.__version__,
        "method": settings.method,
        "preset": settings.preset,
        "seed": settings.seed,
        "categories": settings.category.split(","),
        "image_size": size,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", size, size, 3],
            "meaning": "upright RGB, 0 to 255; division by 255 and normalisation are inside",
            "resize": f"outside, before: to {size} x {size}, aspect ratio not kept, with the filter of resize_filter",
            "resize_filter": "PIL.Image.Resampling.BILINEAR of Image.resize (antialiased triangle)",
        },
        "outputs": {
            MAPS: {"dtype": "float32", "shape": ["batch", size, size], "meaning": "smoothed; larger is more anomalous"},
            SCORES: {"dtype": "float32", "shape": ["batch"], "meaning": "defective above calibration.image_threshold"},
        },
        "calibration": calibration,
        "config": asdict(settings.config),
    }


def dumps(metadata):
    """Metadata as strict JSON text."""
    return json.dumps(metadata, allow_nan=False, ensure_ascii=False)


def loads(text, path):
    """The metadata of the exported file ``path`` from its text (None where the file has none), checked.

    ``UserError``: not vitlite's, of a newer format, or with values that scoring cannot use.
    """
    if text is None:
        raise UserError(f"{path}: not exported by vitlite (no metadata of that name); vitlite export RUN makes one")
    try:
        found = json.loads(text)
        if found["format"] > FORMAT:
            raise UserError(f"{path}: exported by a newer vitlite ({found.get('vitlite')}); upgrade to read it")
        _check(found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its metadata are damaged ({error!r:.120}); export it again") from None
    return found


def _check(found):
    size, calibration = found["image_size"], found["calibration"]
    if not isinstance(size, int) or not 8 <= size <= 65536:
        raise ValueError(f"image_size {size}")
    thresholds = [c["image_threshold"] for c in (calibration, *calibration.get("categories", {}).values())]
    numbers = [*thresholds, calibration["pixel_threshold"], *(calibration["display"][k] for k in ("low", "high"))]
    good = calibration["good_scores"]
    if not isinstance(good, list) or not good or not all(math.isfinite(n) for n in [*numbers, *good]):
        raise ValueError("calibration")
