"""What an exported file says about itself, as JSON beside the graph. Never imports torch."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import vitlite
from vitlite.errors import UserError
from vitlite.files import StrPath
from vitlite.good_scores import SCORED_BY
from vitlite.images.known import Known
from vitlite.images.regions import PAINT, Regions
from vitlite.images.scale import Scale, as_scale
from vitlite.images.tiles import View, as_size
from vitlite.limits import check_calibration

if TYPE_CHECKING:
    from vitlite.engine.settings import RunSettings

FORMAT = 1
KEY = "vitlite"  # in ONNX's metadata_props
PT2_FILE = "vitlite.json"  # among pt2's extra files
OUTSIDE = (
    f"before resize: a pixel that is not set in its region (a base64 PNG of the image's size, by category, or `all`) "
    f"becomes {PAINT} in each channel; auto: nor one outside the convex hull of what differs from a plain background, "
    "and the colour is the median of all of these pixels; there the map counts for nothing; without tiles, what is "
    "resized is the box around the region, and the map is of this box"
)
LEFT_OUT = ("good_images", "odd_images", SCORED_BY)  # of calibration.json: names of files, and what made the scores
INPUT, MAPS, SCORES = "images", "maps", "scores"
DEFECTIVE = (
    "defective above calibration.image_threshold, unless all regions of the map above calibration.pixel_threshold have "
    "fewer than calibration.min_area pixels at the image's own size"
)

TILED = (
    "by the factor image_size / tile (of the height of either), and then in tiles of image_size that overlap by at "
    "least the share `overlap`, "
    "evenly spaced from edge to edge; the score of an image is the highest of its tiles, and its map their maps, "
    "blended with weights that fall evenly from the middle of a tile to its edges"
)


def describe(
    settings: "RunSettings", calibration: dict[str, Any], regions: Regions | None = None, precision: str = "float32"
) -> dict[str, Any]:
    """The metadata of a run: format and version, precision, input, outputs, calibration and config.

    ``calibration`` is the contents of calibration.json, without the names of files and what made the scores.
    """
    view = settings.config.view
    height, width = view.sides
    resize = f"to {width} x {height} (width x height), aspect ratio not kept"
    return {
        "format": FORMAT,
        "vitlite": vitlite.__version__,
        "method": settings.method,
        "preset": settings.preset,
        "precision": precision,
        "seed": settings.seed,
        "categories": settings.category.split(","),
        "image_size": view.size,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", height, width, 3],
            "meaning": "upright RGB, 0 to 255; division by 255 and normalisation are inside",
            "scale": "outside, before resize: in files of more than 8 bits, (number - black) * 255 / (white - black), "
            "rounded, and clipped to 0 to 255; black and white null: the full range of the file's type",
            "black": settings.config.black,
            "white": settings.config.white,
            "resize": f"outside, before: {TILED if view.tile else resize}, with the filter of resize_filter",
            "resize_filter": "PIL.Image.Resampling.BILINEAR of Image.resize (antialiased triangle)",
            "tile": view.tile,
            "overlap": view.overlap,
            "regions": None if regions is None else regions.as_json(),
            "outside": None if regions is None else OUTSIDE,
        },
        "outputs": {
            MAPS: {
                "dtype": "float32",
                "shape": ["batch", height, width],
                "meaning": "smoothed; larger is more anomalous",
            },
            SCORES: {"dtype": "float32", "shape": ["batch"], "meaning": DEFECTIVE},
        },
        "calibration": {"min_area": 0, **{key: own for key, own in calibration.items() if key not in LEFT_OUT}},
        "config": asdict(settings.config),
    }


def dumps(metadata: dict[str, Any]) -> str:
    """Metadata as strict JSON text."""
    return json.dumps(metadata, allow_nan=False, ensure_ascii=False)


def loads(text: str | None, path: StrPath) -> dict[str, Any]:
    """The metadata of the exported file ``path``, from its text; None if it has none.

    ``UserError``: vitlite did not write them, their format is newer, or scoring cannot use their values.
    """
    if text is None:
        raise UserError(f"{path}: not exported by vitlite (no metadata of that name); vitlite export RUN makes one")
    try:
        found = json.loads(text)
        if found["format"] > FORMAT:
            raise UserError(f"{path}: exported by a newer vitlite ({found.get('vitlite')}); upgrade to read it")
        check_calibration(found["calibration"])
        Known.both_in(found["calibration"])  # that it can be read
        scale_of(found)
        view_of(found)
        known_regions(found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its metadata are damaged ({error!r:.120}); export it again") from None
    return found


def view_of(metadata: dict[str, Any]) -> View:
    """What the network sees of an image: all of it in a file of an older version. ValueError for an impossible size."""
    about = metadata.get("input", {})
    tile, overlap = about.get("tile", 0), about.get("overlap", 0.25)
    if not isinstance(tile, int) or tile < 0 or not 0 <= overlap <= 0.75:
        raise ValueError(f"tile {tile}, overlap {overlap}")
    size = metadata["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    if not all(isinstance(side, int) and 8 <= side <= 65536 for side in (height, width)):
        raise ValueError(f"image_size {size}")
    return View(as_size((height, width)), tile, float(overlap))


def known_regions(metadata: dict[str, Any]) -> Regions | None:
    """Where the run looks; None: everywhere. ValueError, KeyError or TypeError if it cannot be read."""
    found = metadata.get("input", {}).get("regions")
    return None if found is None else Regions.from_json(found)


def scale_of(metadata: dict[str, Any]) -> Scale | None:
    """The scale of the run's images; None without one, as in a file of an older version. ValueError if it is none."""
    black, white = (metadata.get("input", {}).get(end) for end in ("black", "white"))
    try:
        return as_scale(black, white)
    except (UserError, TypeError, ValueError):
        raise ValueError(f"scale from {black} to {white}") from None
