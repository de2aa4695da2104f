"""Regions from and to files: masks, polygons in JSON, and folders of either by category."""

import contextlib
import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vitlite.errors import UserError
from vitlite.files import StrPath, category_of, make_folder, remove, shown
from vitlite.images.foreground import region_of_part
from vitlite.images.heatmap import overlay
from vitlite.images.mask_evidence import Undecided, decide, evidence_of
from vitlite.images.masks import read_mask
from vitlite.images.reading import ImageError, image_size, read_noted, size_text
from vitlite.images.regions import EVERY, Regions, box_of, dim, own
from vitlite.images.scale import MAX_PIXELS, Reading
from vitlite.images.unusable import Unusable

log = logging.getLogger(__name__)

LOOKED_AT = 64  # images on which parts are looked for, at most
MARGIN = 0.05  # on each side of the box around these parts, as a share of its length: others may lie further out
LARGEST = 0.8  # share of an image that a box has at most: otherwise nothing is gained
AUTO = "auto"  # in the place of a file: what is not plain background, in each image by itself
FOLDER = "roi"  # of a run
POLYGONS = '{"size": [width, height], "polygons": [[[x, y], ...], ...]}'  # in pixels; of a JSON file


def read_regions(roi: StrPath | None, ignore: StrPath | None, categories: Sequence[str]) -> Regions | None:
    """The regions that two arguments stand for, as ``vitlite.train`` takes them; None if neither is given.

    ``UserError`` names a file that cannot be read, that marks nothing, or that leaves nothing to look at.
    """
    if not roi and not ignore:
        return None
    auto = roi == AUTO
    looked = {} if auto or not roi else _files(roi, categories, "roi")
    ignored = _files(ignore, categories, "ignore", needed=not looked) if ignore else {}
    names = (EVERY,) if set(looked) | set(ignored) <= {EVERY} else categories
    if not (looked or ignored):
        return Regions(auto=auto)
    return Regions({name: _joined(own(looked, name), own(ignored, name), shown(name)) for name in names}, auto)


def file_of(source: str, category: str) -> str:
    """Which file of a folder is a category's: the one named after it, or that of all; empty: none.

    What is no folder (a file, ``auto``, or empty) stays as it is.
    """
    if not os.path.isdir(source):
        return source
    named = {path.stem: path for path in sorted(Path(source).iterdir()) if path.is_file()}
    return str(named.get(category, named.get(EVERY, "")))


def save_regions(regions: Regions, folder: Path) -> None:
    """Write each region as a PNG of 0 and 255, named after its category."""
    make_folder(folder)
    for path in folder.glob("*.png"):  # of a run that failed
        remove(path)
    for name, mask in regions.masks.items():
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}.png")


def load_regions(folder: Path, categories: Sequence[str], auto: bool) -> Regions:
    """The regions that ``save_regions`` wrote, of the categories of a run; of none: only ``auto`` is expected.

    ``UserError`` names what is missing or damaged.
    """
    regions = Regions({path.stem: _read(path) for path in sorted(folder.glob("*.png"))}, auto)
    if missing := regions.lacks(categories):
        raise UserError(f"{folder}: has no region for {missing}, which this run was trained with; restore it")
    return regions


def refuse_others(regions: Regions, paths: Iterable[Path], roi: str = "", ignore: str = "") -> None:
    """``UserError`` if an image has not the size of its region, by the header of its file.

    ``roi`` and ``ignore`` are what the regions were read from, which the error names.
    """
    argument, source = ("roi", roi) if roi not in ("", AUTO) else ("ignore", ignore)
    for path in paths if regions.masks else ():
        with contextlib.suppress(ImageError):  # is skipped later, with the reason
            size = image_size(path)
            category = category_of(path, list(regions.masks))
            mask = regions.masks.get(category)
            if source and mask is not None and mask.shape != size:
                file = shown(file_of(source, category) or source)
                raise UserError(
                    f"`{argument}={file}`: is {size_text(mask)}, but "
                    f"{shown(path)} is {size[1]}x{size[0]}; give a mask of the size of the images"
                )
            try:
                regions.fitting(path, size)
            except Unusable as error:
                raise UserError(f"{shown(path)}: {error}") from error


def around_parts(regions: Regions, paths: Sequence[Path], reading: Reading) -> Regions:
    """With ``auto``: the same regions within one box that holds the part of every image, so that the network sees it.

    Nothing changes if images differ in size, if some background is not plain, or if the box is nearly all of an image.
    Parts are looked for on ``LOOKED_AT`` images, evenly spaced.
    """
    if not regions.auto or len(_sizes(paths)) != 1:
        return regions
    union: np.ndarray | None = None
    for path in paths[:: -(-len(paths) // LOOKED_AT)]:
        with contextlib.suppress(ImageError):
            part = region_of_part(read_noted(path, reading)[0])
            union = part if union is None else union | part
    if union is None or union.all():
        return regions
    box = tuple(
        slice(max(0, side.start - margin), min(length, side.stop + margin))
        for side, length in zip(box_of(union), union.shape)
        for margin in [math.ceil(MARGIN * (side.stop - side.start))]
    )
    mask = np.zeros(union.shape, bool)
    mask[box] = True
    if mask.mean() > LARGEST:
        return regions
    rows, columns = box
    log.info(
        "regions: all parts lie in a box of %d x %d pixels: this is seen", *(s.stop - s.start for s in (columns, rows))
    )
    masks = {name: found & mask for name, found in regions.masks.items()} or {EVERY: mask}
    return regions if not all(found.any() for found in masks.values()) else Regions(masks, auto=True)


def _sizes(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """The sizes of images, from the headers of their files; of those that can be read."""
    found = set()
    for path in paths:
        with contextlib.suppress(ImageError):
            found.add(image_size(path))
    return found


def draw_regions(regions: Regions, paths: Iterable[Path], folder: Path, reading: Reading) -> None:
    """Write some images with their regions outlined into ``folder``; those that can be read."""
    make_folder(folder)
    for number, path in enumerate(paths, 1):
        with contextlib.suppress(ImageError, Unusable):
            image = read_noted(path, reading)[0]
            inside = regions.inside(image, path)
            drawn = overlay(dim(image, inside), np.zeros(inside.shape), low=0, high=1, marked=inside)
            Image.fromarray(drawn).save(folder / f"{number}.png")


def _joined(looked: np.ndarray | None, ignored: np.ndarray | None, name: str) -> np.ndarray:
    """What to look at and not to ignore; one of both is given."""
    if looked is None or ignored is None:
        mask = looked if ignored is None else ~ignored
    elif looked.shape == ignored.shape:
        mask = looked & ~ignored
    else:
        sizes = f"{size_text(ignored)}, but `roi` is {size_text(looked)}"
        raise UserError(f"`ignore`: is {sizes}; give both at the size of the images")
    assert mask is not None
    if not mask.any():
        raise UserError("`ignore`: leaves nothing to look at" + (f" for {name}" if name != EVERY else ""))
    return mask


def _files(source: StrPath, categories: Sequence[str], argument: str, *, needed: bool = True) -> dict[str, np.ndarray]:
    """The marked pixels, bool (H, W), by category, that a file or folder holds; if ``needed``, those of every one."""
    path = Path(source)
    if not path.is_dir():
        return {EVERY: _read(path, argument)}
    found: dict[str, np.ndarray] = {}
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or file.is_dir():
            continue
        if file.stem not in (*categories, EVERY):
            names = ", ".join(shown(name) for name in categories)
            raise UserError(f"`{argument}={shown(file)}`: not named after a category of the run ({names})")
        if file.stem in found:
            raise UserError(f"`{argument}={shown(file)}`: the second file of that name; keep one")
        found[file.stem] = _read(file, argument)
    missing = [shown(name) for name in categories if own(found, name) is None]
    if missing and (needed or not found):
        hint = f"give one for each category, or {EVERY}.png for the others"
        raise UserError(f"`{argument}={shown(path)}`: has no file for {', '.join(missing)}; {hint}")
    return found


def _read(path: Path, argument: str = "") -> np.ndarray:
    name = f"`{argument}={shown(path)}`" if argument else shown(path)
    try:
        mask = _read_polygons(path) if path.suffix.lower() == ".json" else _read_mask(path)
        if not mask.any():
            raise ValueError("marks nothing")
    except ImageError as error:
        raise UserError(f"{name}: {error.reason}") from error
    except OSError as error:
        raise UserError(f"{name}: {(error.strerror or str(error)).lower()}") from None
    except Undecided as error:
        raise UserError(f"{name}: {error}; give a mask of 0 and 255") from None
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    return mask


def _read_mask(path: Path) -> np.ndarray:
    """The marked pixels, bool (H, W). ``ImageError``, or ``ValueError`` if the file is a photograph or the like."""
    rule = decide(evidence_of(path), upright=True)
    return read_mask(path, rule=rule).astype(bool)


def _read_polygons(path: Path) -> np.ndarray:
    """What the polygons of a JSON file cover, bool (H, W). ``OSError``, or ``ValueError`` if they are none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        width, height = (_whole(number) for number in found["size"])
        polygons = [[(_number(x), _number(y)) for x, y in polygon] for polygon in found["polygons"]]
        if width * height > MAX_PIXELS or min(map(len, polygons), default=0) < 3:
            raise ValueError("a smaller size, and polygons of at least 3 points, are needed")
        if polygons and max(width, height) > 1 >= max(max(point) for polygon in polygons for point in polygon):
            raise ValueError("points are in pixels, not in parts of the size")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = f": {error}" if isinstance(error, ValueError) else ""
        raise ValueError(f"not of the form {POLYGONS}{why}") from None
    mask = Image.new("1", (width, height))
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        draw.polygon(polygon, fill=1)
    return np.asarray(mask)


def _whole(number: Any) -> int:
    if type(number) is not int or number < 1:
        raise ValueError(f"{number!r} is no size in pixels")
    return number


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no coordinate")
    return float(value)
