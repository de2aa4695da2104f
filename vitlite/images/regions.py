"""Where a detector looks: a region of interest for all images, or for those of each category.

What lies outside a region is painted in one colour before anything sees it, and the map there gets its lowest value
inside. So no pixel outside has any effect: on training, statistics, thresholds, maps, scores or boxes. A plain
background has its own median colour, because an edge of another colour would be as odd as a defect. Of an image with a
mask the network sees the box around the mask, at its full size.
"""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vitlite.files import category_of, shown
from vitlite.images.foreground import region_of_part
from vitlite.images.unusable import Unusable

EVERY = "all"  # the name of the region of all categories
PAINT = 128  # grey, outside a mask

SAMPLED = 20_000  # pixels that a median is taken of, about

Size = tuple[int, int]
Box = tuple[slice, slice]  # of rows and columns


class Look(NamedTuple):
    """Where to look in an image."""

    inside: np.ndarray | None  # bool (H, W); None: everywhere
    box: Box | None  # the part of the image that is seen; None: all of it
    beyond: float = 0.0  # share of the part on a plain background that lies outside of this box


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a run: one mask for all images, or one for each category; without any, ``auto`` alone."""

    masks: Mapping[str, np.ndarray] = field(default_factory=dict)  # bool (H, W) by category, or of EVERY; True: inside
    auto: bool = False  # also leave out each image's plain background

    def of(self, category: str | None) -> "Regions":
        """Those of the images of one category, wherever these lie."""
        return self if category not in self.masks else Regions({str(category): self.masks[str(category)]}, self.auto)

    def lacks(self, categories: Sequence[str]) -> str:
        """The names of those that have no region, as text; empty: all have one."""
        return ", ".join(shown(name) for name in categories if own(self.masks, name) is None)

    def inside(self, image: np.ndarray, name: object) -> np.ndarray:
        """Where to look in an image (H, W, 3), bool (H, W), at least one pixel. ``name`` is its path, or stands for it.

        ``Unusable`` as for :meth:`fitting`.
        """
        inside = self.seen(image, name).inside
        assert inside is not None  # that is said of runs without regions alone
        return inside

    def seen(self, image: np.ndarray, name: object) -> Look:
        """:meth:`inside`, and the box around the mask; without masks there is none."""
        if not self.masks:
            return Look(region_of_part(image), None)
        mask = self.fitting(name, (image.shape[0], image.shape[1]))
        box = box_of(mask)
        if not self.auto:
            return Look(mask, box)
        part = region_of_part(image)
        inside = mask & part
        beyond = 0.0 if part.all() else float(1 - part[box].sum() / part.sum())
        return Look(inside if inside.any() else mask, box, beyond)

    def fitting(self, name: object, size: Size) -> np.ndarray:
        """The mask of an image (height, width).

        ``Unusable`` if the image is of another size, or it is not known which mask is its own.
        """
        category = category_of(Path(str(name)), list(self.masks))
        if not category:
            names = ", ".join(map(shown, self.masks))
            raise Unusable(f"its category, and so its region (roi, ignore), is not known ({names}); name it")
        mask = self.masks[category]
        if mask.shape != size:
            sizes = f"is {size[1]}x{size[0]}, but its region (roi, ignore) is {mask.shape[1]}x{mask.shape[0]}"
            raise Unusable(f"{sizes}; give images of the size of the region")
        return mask

    def digest(self) -> str:
        """Text that differs if anything in the regions does."""
        whole = hashlib.sha256(str(self.auto).encode())
        for name, mask in sorted(self.masks.items()):
            whole.update(f"{name} {mask.shape}".encode())
            whole.update(np.packbits(mask).tobytes())
        return whole.hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The regions as values of JSON, which ``from_json`` reads."""
        masks = {}
        for name, mask in self.masks.items():
            file = io.BytesIO()
            Image.fromarray(mask).save(file, format="PNG")
            masks[name] = base64.b64encode(file.getvalue()).decode("ascii")
        return {"auto": self.auto, "masks": masks}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Regions":
        """What ``as_json`` gave. ValueError, KeyError or TypeError if it cannot be read."""
        masks = {}
        for name, text in dict(found["masks"]).items():
            try:
                image = Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",))
                masks[name] = np.asarray(image.convert("1"))
            except (OSError, Image.DecompressionBombError) as error:
                raise ValueError(f"region {name}: {error}") from None
        if not masks and found["auto"] is not True:
            raise ValueError("no region")
        return cls(masks, bool(found["auto"]))


def box_of(mask: np.ndarray) -> Box:
    """The smallest box around the pixels that a mask (H, W), bool, marks; all of it if it marks none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def paint(image: np.ndarray, inside: np.ndarray, *, plain: bool = False) -> np.ndarray:
    """A copy of an image (H, W, 3), uint8, with one colour outside the region: grey, or what is there in the median.

    The median is for a ``plain`` background.
    """
    outside = image[~inside]
    if not len(outside):
        return image
    colour = np.median(outside[:: 1 + len(outside) // SAMPLED], axis=0).astype(np.uint8) if plain else np.uint8(PAINT)
    return np.where(inside[..., None], image, colour)


def level_outside(values: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """A map (H, W), changed in place: outside it gets the lowest value inside. None: nothing is outside."""
    if inside is not None and inside.any():
        values[~inside] = values[inside].min()
    return values


def shrink(mask: np.ndarray, size: Size) -> np.ndarray:
    """A mask (H, W), bool or of 0 and 1, at another size, bool; a pixel is set if any of what it covers is."""
    if mask.shape == size:
        return mask.astype(bool)
    # In whole numbers the share of one pixel of a large image would be rounded to 0.
    shares = Image.fromarray(np.asarray(mask, np.uint8)).convert("F")
    return np.asarray(shares.resize(size[::-1], Image.Resampling.BOX)) > 0


def dim(image: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    """An image (H, W, 3), uint8, for people: a copy that is half as bright outside the region, if there is one."""
    return image if inside is None else np.where(inside[..., None], image, image // 2)


def own(masks: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """The mask of a category, or else that of all; None: there is neither."""
    return masks.get(name, masks.get(EVERY))
