"""What the images of a training were, and one warning of each kind about images that are clearly others.

Clearly other is, in comparison with all images of training together:

- size: a side is shorter than 2/3 of the shortest, or longer than 1.5 times the longest. Other cuts differ by less; a
  thumbnail, binning or another camera usually makes more: half or twice the size. It is the range of training that
  counts, and if that is wider than 1.5, its own width takes the place of this factor: where each file has a size of its
  own, a few images do not show the whole range.
- shape: the same of height over width, by 1.25, where images are squeezed into one shape. Tiles, and parts before a
  plain background, keep theirs.
- colour: all of training's had colours and the image is grey, or the other way round. The pixels decide, not the file:
  grey saved as RGB is grey. An image with next to no colour is neither, so noise and compression decide nothing.
- depth: training had files of more than 8 bits, or floats, and none of this image's kind. Nobody knows how one became
  the other, and the scale of the run was learned from the one. After training on 8 bits alone, other files have the
  full range of their type, so the same image has the same score; ``scale_notes`` names those that use little of it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitlite.files import StrPath, shown
from vitlite.images.loading import Loaded
from vitlite.images.modes import EIGHT

log = logging.getLogger(__name__)

KEY = "known_images"  # in calibration.json, and so in exported files: what images are compared with
TRAINED_KEY = "trained_images"  # likewise: what those of training were, if that is something else
SIZES, STRETCH = 1.5, 1.25
GREY, FAINT, COLOUR = "grey", "faint", "colour"
_FAINT, _COLOUR = 2, 8  # levels between the channels of a pixel, from which on an image is no more grey, or of colour
_THIN, _MOST = 8, 1 << 20  # one pixel in so many along both axes; the most values that are looked at
ADVICE = "scores of such images may not compare with the threshold; give images as in training, or train again"
RECALIBRATE = "scores of such images may not compare with the threshold; calibrate with good images like them"
CALIBRATED = "the threshold fits such images now, but the network has not learned from any; better train again"
TRAINING, CALIBRATION = "training", "the calibration"  # whose images others are compared with
TRAINED_TOO = "the new run learns from both; if such images alone will come, train a run with them alone"

Span = tuple[float, float]  # the least and the most


@dataclass(frozen=True)
class Known:
    """What an image is, or what many of them together are."""

    width: Span  # pixels
    height: Span
    shape: Span  # height over width
    colours: tuple[str, ...]  # GREY, FAINT or COLOUR
    depths: tuple[str, ...]  # as ``Stored.depth`` gives them

    @classmethod
    def of(cls, image: Loaded) -> "Known":
        """What one image is; its colour is that of what is seen of it."""
        width, height, shape = image.width, image.height, round(image.height / image.width, 4)
        colours, depths = (colour_of(image.pixels),), (image.depth,)
        return cls((width, width), (height, height), (shape, shape), colours, depths)

    @classmethod
    def of_training(cls, calibration: Mapping[str, Any] | None) -> "Known | None":
        """What a calibration says of training's images; None and errors as of ``in_calibration``."""
        known, trained = cls.both_in(calibration)
        return trained or known

    @classmethod
    def both_in(cls, calibration: Mapping[str, Any] | None) -> "tuple[Known | None, Known | None]":
        """(What others are compared with, training's if that is something else); None and errors likewise."""
        return cls.in_calibration(calibration), cls.in_calibration(calibration, TRAINED_KEY)

    @classmethod
    def in_calibration(cls, calibration: Mapping[str, Any] | None, key: str = KEY) -> "Known | None":
        """What a calibration says of the images that others are compared with; None if an older version wrote it.

        Also None if there is no calibration. ValueError, KeyError or TypeError if it cannot be read.
        """
        found = (calibration or {}).get(key)
        if found is None:
            return None
        width, height, shape = ((low + 0, high + 0) for low, high in map(found.get, ("width", "height", "shape")))
        colours, depths = (tuple(map(str, found[name])) for name in ("colours", "depths"))
        if not (colours and depths and all(0 < low <= high for low, high in (width, height, shape))):
            raise ValueError(key)
        return cls(width, height, shape, colours, depths)

    def as_json(self) -> dict[str, Any]:
        """Values of JSON, which ``in_calibration`` reads."""
        return {name: list(values) for name, values in asdict(self).items()}

    def __or__(self, other: "Known") -> "Known":
        return Known(
            _united(self.width, other.width),
            _united(self.height, other.height),
            _united(self.shape, other.shape),
            tuple(sorted({*self.colours, *other.colours})),
            tuple(sorted({*self.depths, *other.depths})),
        )

    def differing(self, image: "Known", squeezed: bool) -> Iterator[str]:
        """The kinds in which an image is clearly other than all of these. ``squeezed``: its shape is not kept."""
        if _beyond(self.width, image.width, SIZES) or _beyond(self.height, image.height, SIZES):
            yield "size"
        elif squeezed and _beyond(self.shape, image.shape, STRETCH):
            yield "shape"
        if {self.colours, image.colours} == {(GREY,), (COLOUR,)}:
            yield "colour"
        if self.depths != (EIGHT,) and not {*image.depths} <= {*self.depths}:
            yield "depth"

    def words(self, kind: str) -> str:
        """What these images are, as to a kind, in words."""
        return {
            "size": f"{_span(self.width)} x {_span(self.height)} pixels",
            "shape": f"{_span(self.shape)} times as high as wide",
            "colour": "in colour" if COLOUR in self.colours else "grey",
            "depth": f"of {' or '.join(self.depths)}",
        }[kind]


class Strange:
    """Counts images that are clearly others than the ``known`` ones, which are ``whose``, and warns of each kind once.

    If none are known, nothing is said. ``squeezed``: the shape of an image is not kept. ``named`` gives what the file
    of an image is called in a warning. With it a kind is said when its first image comes, for images that keep coming;
    without it ``say`` says all at the end. ``advice`` is what follows from it.
    """

    def __init__(
        self,
        known: Known | None,
        squeezed: bool,
        named: Callable[[Path], StrPath] | None = None,
        advice: str = ADVICE,
        whose: str = TRAINING,
    ) -> None:
        self.known, self.squeezed, self.named, self.advice, self.whose = known, squeezed, named, advice, whose
        self.images = self.others = 0  # and how many of them are others in any kind
        self.seen: Known | None = None  # what all images here are
        self.found: dict[str, tuple[int, Path, Known]] = {}  # by kind: how many, the first, and what they are

    @classmethod
    def than(cls, calibration: Mapping[str, Any] | None, **options: Any) -> "Strange":
        """Compares with the images that a calibration knows; more ``options`` as for the class."""
        known, trained = Known.both_in(calibration)
        apart = known is not None and trained is not None and known | trained != known
        words = {"advice": RECALIBRATE, "whose": CALIBRATION} if apart else {}
        return cls(**({"known": known} | words | options))

    @property
    def together(self) -> Known | None:
        """What images are that fit a threshold from those here: these alone if all are others, or known ones too."""
        if self.known is None or self.seen is None:
            return self.known
        return self.seen if self.others == self.images else self.known | self.seen

    def see(self, image: Loaded) -> None:
        """Count an image that is being scored."""
        if self.known is not None:
            self.add(Known.of(image), image.path)

    def add(self, image: Known, path: Path) -> None:
        """Count an image."""
        if self.known is None:
            return
        self.images += 1
        self.seen = image if self.seen is None else self.seen | image
        kinds = list(self.known.differing(image, self.squeezed))
        self.others += bool(kinds)
        for kind in kinds:
            count, first, others = self.found.get(kind, (0, path, image))
            self.found[kind] = count + 1, first, others | image
            if self.named is not None and not count:
                log.warning(f"{shown(self.named(path))}: {self._line(kind, alone=True)}; this is said once")

    def lines(self) -> dict[str, str]:
        """A line for each kind that there is; that of the only image does not name it."""
        return {kind: self._line(kind, alone=self.images == 1) for kind in self.found}

    def say(self) -> None:
        """Warn of each kind, unless that was done when its first image came."""
        for kind, line in {} if self.named is not None else self.lines().items():
            log.warning(f"{shown(self.found[kind][1])}: {line}" if self.images == 1 else line)

    def _line(self, kind: str, *, alone: bool) -> str:
        count, first, others = self.found[kind]
        which = f"{count} of {self.images} images {'is' if count == 1 else 'are'}"
        name = f" ({'first: ' * (count > 1)}{shown(first)})"
        head = f"is {others.words(kind)}" if alone else f"{which} {others.words(kind)}{name}"
        return f"{head}, those of {self.whose} are {self.known.words(kind) if self.known else ''}: {self.advice}"


def colour_of(pixels: np.ndarray) -> str:
    """GREY, FAINT or COLOUR, by how far the channels of an image (H, W, 3), uint8, are apart."""
    spread = 0
    # Most images of colour show it in a few pixels. If not, whole rows are looked at, all of them unless it is large.
    for some in (pixels[::_THIN, ::_THIN], pixels[:: 1 + pixels.size // _MOST]):
        red, green, blue = (some[..., channel] for channel in range(3))
        largest, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        spread = int((largest - least).max())
        if spread >= _COLOUR:
            return COLOUR
    return FAINT if spread >= _FAINT else GREY


def _united(one: Span, two: Span) -> Span:
    return min(one[0], two[0]), max(one[1], two[1])


def _beyond(known: Span, image: Span, factor: float) -> bool:
    factor = max(factor, known[1] / known[0])
    return factor * image[0] < known[0] or image[1] > factor * known[1]


def _span(ends: Span) -> str:
    low, high = (f"{round(end, 2):g}" for end in ends)
    return low if low == high else f"{low} to {high}"
