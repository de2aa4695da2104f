"""What the values of masks say about their meaning: one rule for all masks of a category, or the reason why not.

Two kinds of masks would be read wrongly by each other's rule: grey ones, whose edges are cut in the middle, and those
that number the kinds of defects, such as 1, 2, 3. A low value of a grey mask lies beside a higher one, on the way to
it. A class has an area, or a line, of its own value.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from scipy import ndimage

from vitlite.files import StrPath
from vitlite.images.mask_values import ALPHA, COLOUR, INDEX, MIDDLE, PACKED, MaskRule, values
from vitlite.images.reading import MAX_PIXELS, ImageError, decode
from vitlite.images.unusable import Unusable

_LOSSY = frozenset(("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF"))
_NOISE = 8  # a lossy format puts values up to this beside 0, and as far below 255
_VOID, _VOID_LEVELS = 31, 4  # so few values, low ones up to this and 255: 255 may mean that pixels are to be ignored
_SOLID, _GREY = 0.9, 0.5  # shares of the low values without a higher neighbour: of classes at least, of grey at most
_MOSTLY = 0.9  # of the pixels are marked, in masks that are inverted
_FEWEST = 3  # masks that may say so
_PHOTOGRAPH = 0.25  # of the pixels have values in the middle, so that this is no mask
_MOST_LEVELS = 256
_FEW_LEVELS = 32  # no photograph has so few
_NAMED = 8

BLACK_ON_WHITE = "if black is the defect in it, invert it"


class Undecided(Unusable):
    """Values that fit no rule: ``example`` is a file that shows it, ``other`` a fix besides a threshold."""

    def __init__(self, reason: str, example: Path, other: str = "") -> None:
        super().__init__(reason)
        self.example, self.other = example, other


class Sums:
    """Base of what is counted over masks: numbers, sets, the first file that shows something, and more of these."""

    def add(self, other: Self) -> None:
        """Count what another one holds as well."""
        for own in fields(self):  # type: ignore[arg-type] # each is a dataclass
            mine, theirs = getattr(self, own.name), getattr(other, own.name)
            if isinstance(mine, Sums):
                mine.add(theirs)
            elif isinstance(mine, dict):
                for name, plane in theirs.items():
                    mine.setdefault(name, type(plane)()).add(plane)
            elif isinstance(mine, set):
                mine |= set(sorted(theirs - mine)[: _MOST_LEVELS - len(mine)])
            else:
                setattr(self, own.name, mine + theirs if isinstance(mine, int) else mine or theirs)


@dataclass
class Cut(Sums):
    """What some masks mark, cut at one place."""

    masks: int = 0  # those that are neither empty nor full
    over_half: int = 0  # those of them that mark more than half of their pixels
    pixels: int = 0
    marked: int = 0
    mostly: Path | None = None  # marks nearly everything

    @classmethod
    def of(cls, marked: int, pixels: int, path: Path) -> "Cut":
        """One mask."""
        if not 0 < marked < pixels:
            return cls()
        return cls(1, int(2 * marked > pixels), pixels, marked, path if marked >= _MOSTLY * pixels else None)


@dataclass
class Plane(Sums):
    """What one plane holds, of one mask or of many: sums, and the first file that shows something."""

    levels: set[int] = field(default_factory=set)  # stored values but 0, the first ones
    masks: int = 0
    pixels: int = 0
    marked: int = 0  # pixels with any value but 0
    centre: int = 0  # those of neither end
    low: int = 0  # from 1 to the middle, in masks without noise
    solid: int = 0  # those of the low ones that no higher value touches
    nonzero: Cut = field(default_factory=Cut)  # by any value but 0
    upper: Cut = field(default_factory=Cut)  # by values above the middle
    first: Path | None = None  # that is not empty
    noisy: Path | None = None  # holds the noise of a lossy format
    coloured: Path | None = None
    high: Path | None = None  # has a value above the middle
    faint: Path | None = None  # its values are low, and not noise
    classes: Path | None = None  # its low values are solid
    void: Path | None = None  # holds a class number and 255


@dataclass
class Evidence(Sums):
    """What the masks of a category hold, in memory that does not grow with their number."""

    planes: dict[str, Plane] = field(default_factory=dict)
    masks: int = 0
    drawn: int = 0  # masks that are transparent somewhere, and of one colour elsewhere
    clear: Path | None = None  # is transparent somewhere, and black where it is not


def evidence_of(path: StrPath, max_pixels: int = MAX_PIXELS) -> Evidence:
    """What one mask holds. Raises ImageError."""
    found = Evidence()

    def look(image: Image.Image) -> np.ndarray:
        found.add(_look(image, Path(path)))
        return np.zeros((1, 1))  # how the mask is turned does not matter

    decode(path, look, max_pixels)
    return found


def rule_of_file(path: StrPath, max_pixels: int = MAX_PIXELS) -> MaskRule:
    """The rule that the values of one file alone say; never an inverted one. Raises ImageError."""
    try:
        return decide(evidence_of(path, max_pixels), upright=True)
    except Undecided as error:
        raise ImageError(path, f"{error}; give a `threshold`") from error


def decide(found: Evidence, *, upright: bool | None = None) -> MaskRule:
    """The rule of a category's masks.

    ``upright`` tells whether a set pixel is a defect, if that is known: False if masks of good images are set all over.
    Raises Undecided.
    """
    name = _plane(found)
    plane = found.planes.get(name, Plane())
    if plane.first is None:
        return MaskRule("0/255")
    grey = _is_grey(plane)
    inverted = _is_inverted(plane, grey, upright)
    said = {ALPHA: "alpha", INDEX: "palette indices"}.get(name, "")
    if grey:
        text, threshold = f"{said or 'grey'}, above {MIDDLE}", MIDDLE
    else:
        text, threshold = f"{said}{', ' if name == ALPHA else ' '}{_named(plane.levels)}".strip(), 0
        if name == ALPHA and plane.levels == {255}:
            text = said
    return MaskRule(text + ", inverted: the lowest value is a defect" * inverted, threshold, name, inverted)


def listed(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """The values of a file in words, for a message about it."""
    found: list[int] = [0]

    def look(image: Image.Image) -> np.ndarray:
        found[:] = np.unique(values(image, COLOUR)[0]).tolist()
        return np.zeros((1, 1))

    decode(path, look, max_pixels)
    few = ", ".join(map(_name, found[:_NAMED]))
    return f"values {few}" + (f", ... {_name(found[-1])}" if len(found) > _NAMED else "")


def _look(image: Image.Image, path: Path) -> Evidence:
    stored, grey = values(image, COLOUR)
    lossy = image.format in _LOSSY
    found = Evidence({COLOUR: _measure(stored, grey, path, lossy)}, masks=1)
    if image.mode == "P":
        found.planes[INDEX] = _measure(*values(image, INDEX), path, lossy)
    if image.has_transparency_data:
        alpha = values(image, ALPHA)[0]
        if alpha.min() < 255:
            found.planes[ALPHA] = _measure(alpha, alpha, path, lossy)
            black = np.asarray(image.convert("RGB")).max(axis=2)[alpha > 0] == 0
            found.drawn = int(black.all() or not black.any())
            found.clear = path if black.size and black.all() else None
    return found


def _measure(stored: np.ndarray, grey: np.ndarray, path: Path, lossy: bool) -> Plane:
    """What a plane of one mask holds."""
    if stored.dtype == np.uint8:
        levels = np.flatnonzero(np.bincount(stored.ravel(), minlength=256))
    else:
        levels = np.unique(stored)
    marked = stored != 0
    counts = np.bincount(grey.ravel(), minlength=256)
    plane = Plane(set(levels[levels != 0][:_MOST_LEVELS].tolist()), masks=1, pixels=stored.size)
    plane.marked, plane.centre = int(marked.sum()), int(counts[32:224].sum())
    plane.nonzero = Cut.of(plane.marked, plane.pixels, path)
    plane.upper = Cut.of(int(counts[MIDDLE + 1 :].sum()), plane.pixels, path)
    if not plane.marked:
        return plane
    plane.first = path
    plane.coloured = path if levels[-1] >= PACKED else None
    noisy = lossy or bool(counts[1 : _NOISE + 1].any() and counts[255 - _NOISE : 255].any())
    if noisy:
        plane.noisy = path
    else:
        low = marked & (grey <= MIDDLE)
        plane.low = int(low.sum())
        if plane.low:
            order = grey if plane.coloured else stored
            solid = low & (ndimage.maximum_filter(order, 3) == order)
            plane.solid = int(solid.sum())
            if plane.solid >= _SOLID * plane.low:
                plane.classes = path
            few = len(plane.levels) <= _VOID_LEVELS and not counts[_VOID + 1 : MIDDLE + 1].any()
            plane.void = path if few and counts[255] else None
    top = int(grey.max())
    plane.high = path if top > MIDDLE else None
    plane.faint = path if top <= MIDDLE and not (lossy and top <= _NOISE) else None
    return plane


def _plane(found: Evidence) -> str:
    """The plane that holds the mask: colours unless they say nothing."""
    colour, alpha, index = (found.planes.get(name, Plane()) for name in (COLOUR, ALPHA, INDEX))
    if alpha.masks == found.drawn == found.masks and alpha.marked:
        return ALPHA
    if found.clear:
        raise Undecided("it is black on a transparent ground, and other masks are not", found.clear)
    # One colour for every index, or none that is black: the numbers are what counts.
    if index.masks == found.masks and 0 < index.marked < index.pixels and colour.marked in (0, colour.pixels):
        return INDEX
    return COLOUR


def _is_grey(plane: Plane) -> bool:
    """Whether the masks are cut in the middle; otherwise every value but 0 is a defect."""
    if plane.void:
        raise Undecided("its 255 may be a defect, or pixels to ignore", plane.void)
    share = plane.solid / plane.low if plane.low else None
    if share is not None and _GREY < share < _SOLID:
        raise Undecided("its values are neither classes nor the edges of grey masks", plane.classes or _some(plane))
    if plane.noisy is None and (share is None or share >= _SOLID):
        return share is None and len(plane.levels) > _NAMED  # both rules mark the same
    if share is not None and share >= _SOLID:
        raise Undecided("it has classes and other masks are grey", plane.classes or _some(plane))
    if plane.faint or not plane.high:
        raise Undecided(f"nothing in it is above {MIDDLE}", plane.faint or _some(plane))
    if plane.centre > _PHOTOGRAPH * plane.pixels and len(plane.levels) > _FEW_LEVELS:
        raise Undecided("most of its values are neither low nor high, as in a photograph", _some(plane))
    return True


def _is_inverted(plane: Plane, grey: bool, upright: bool | None) -> bool:
    """Whether the defect is what is not set, judged by how much is set; ``upright`` as in ``decide``."""
    cut = plane.upper if grey else plane.nonzero
    if not cut.masks and (grey or len(plane.levels) > 1):
        raise Undecided("no pixel of it is 0, which must mean good", _some(plane))
    if upright is not None:
        return not upright
    if cut.mostly and cut.over_half < cut.masks:
        raise Undecided("it marks nearly all of its image, unlike others", cut.mostly, BLACK_ON_WHITE)
    if not cut.masks or cut.over_half < cut.masks:
        return False
    share = cut.marked / cut.pixels
    if share >= _MOSTLY and cut.masks >= _FEWEST and not plane.coloured and (grey or len(plane.levels) == 1):
        return True
    raise Undecided(
        f"every mask marks more than half of its image, {100 * share:.0f} % on average", _some(plane), BLACK_ON_WHITE
    )


def _some(plane: Plane) -> Path:
    assert plane.first is not None  # decide has asked
    return plane.first


def _named(levels: Iterable[int]) -> str:
    """The values of masks without grey ones."""
    known = sorted(levels)
    if len(known) == 1:
        return f"0/{_name(known[0])}"
    names = ", ".join(map(_name, known[:_NAMED]))
    more = f" and {'more than ' * (len(known) == _MOST_LEVELS)}{len(known) - _NAMED} more"
    return f"{'classes' if known[0] < PACKED else 'colours'} {names}" + more * (len(known) > _NAMED)


def _name(level: int) -> str:
    return str(level) if level < PACKED else f"#{level - PACKED:06x}"
