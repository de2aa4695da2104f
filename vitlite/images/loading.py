"""Image files to arrays of one size, decoded by threads ahead of the model; unreadable files are named, not fatal."""

import collections
import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from vitlite.files import shown
from vitlite.images.modes import EIGHT
from vitlite.images.reading import FULL_RANGE, NO_ROOM, ImageError, Note, Notices, pixel_count, read_noted
from vitlite.images.regions import Box, Look, level_outside, paint, shrink
from vitlite.images.resize import map_at
from vitlite.images.scale import Reading
from vitlite.images.tiles import View
from vitlite.images.unusable import Unusable

PIXELS_AHEAD = 64_000_000  # of originals that are kept, 192 MB: fewer images wait if they are large
MOST_AHEAD = 32  # images that wait at a time
MOST_THREADS = 16  # that decode
NAMED = 3  # files that are left out for one reason and named
MOST_BEYOND = 0.05  # the share of a part outside of the box of ``auto`` that is not worth a word
BEYOND = "of its part lies outside of the box that this run sees, and counts for nothing; place parts as in training"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Loaded:
    """A decoded image."""

    index: int  # its place in the list of paths
    path: Path
    pixels: np.ndarray  # (S, S, 3) uint8, resized; with tiles (h, w, 3), what is seen of it
    height: int  # of the original
    width: int
    original: np.ndarray | None = None  # (height, width, 3) uint8, if it is kept
    inside: np.ndarray | None = None  # (height, width) bool, the region that counts; None: all of it
    box: Box | None = None  # the part of the original that ``pixels`` show; None: all of it
    notes: tuple[Note, ...] = ()  # what is odd about where its part lies
    depth: str = EIGHT  # what a channel of the original holds, as ``Stored.depth`` says

    @property
    def seen_inside(self) -> np.ndarray | None:
        """``inside``, as much as is seen of it, in the size of ``pixels``."""
        if self.inside is None:
            return None
        inside = self.inside if self.box is None else self.inside[self.box]
        return shrink(inside, (self.pixels.shape[0], self.pixels.shape[1]))

    def full(self, values: np.ndarray) -> np.ndarray:
        """A map of this image at the image's own size, float32; the region's lowest value lies outside of it."""
        values = map_at(values, self.height, self.width) if self.box is None else self.framed(values)
        return level_outside(values, self.inside)

    def framed(self, values: np.ndarray) -> np.ndarray:
        """A map (h, w) or an image (3, h, w) of what is seen, float32, as one of the whole image.

        Without a box it stays as it is. Otherwise it gets the image's own size, with its lowest value around the box.
        """
        if self.box is None:
            return values
        planes = values.reshape(-1, *values.shape[-2:])
        whole = np.full((len(planes), self.height, self.width), values.min(), np.float32)
        for plane, frame in zip(planes, whole):
            part = frame[self.box]
            part[:] = map_at(plane, *part.shape)
        return whole.reshape(*values.shape[:-2], self.height, self.width)


@dataclass(frozen=True)
class Unread:
    """A file that could not be read, in the place of its image."""

    index: int  # its place in the list of paths
    path: Path
    reason: str  # one line that names the file


class Batch(NamedTuple):
    """Images that go through a network together. With tiles it is one."""

    images: list[Loaded]
    pixels: np.ndarray  # (B, S, S, 3) uint8; with tiles (1, h, w, 3)


def load_ahead(
    paths: Iterable[Path],
    size: int | View,
    *,
    reading: Reading = FULL_RANGE,
    workers: int | None = None,
    least: int = 1,
    keep_original: bool = False,
) -> Iterator[Loaded | Unread]:
    """Decode ``paths`` in order on threads; what each of them gives, with images resized to (size, size).

    A :class:`~vitlite.images.tiles.View` in the place of a size says what is seen of an image.

    Of what is odd about images, such as numbers that lie outside the scale, a warning names the first of each kind.

    At most ``MOST_AHEAD`` images wait in memory. Those that wait with all their pixels, for tiles or because
    originals are kept, have at most ``PIXELS_AHEAD`` pixels together, or are at most ``least``.
    """
    view = size if isinstance(size, View) else View(size)
    large = keep_original or view.tile > 0
    coming = ((index, path, pixel_count(path) if large else 0) for index, path in enumerate(paths))
    following = next(coming, None)
    waiting: collections.deque[tuple[Future[tuple[Loaded | Unread, list[Note]]], int]] = (
        collections.deque()
    )  # and its pixels
    held = 0  # the pixels of all that wait
    notices = Notices()

    def has_room(pixels: int) -> bool:
        return len(waiting) < MOST_AHEAD and (len(waiting) < least or held + pixels <= PIXELS_AHEAD)

    with decoders(workers or min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        while waiting or following is not None:
            while following is not None and has_room(following[2]):
                index, path, pixels = following
                waiting.append((pool.submit(_load, index, path, view, reading, keep_original), pixels))
                held += pixels
                following = next(coming, None)
            future, pixels = waiting.popleft()
            held -= pixels
            found, notes = future.result()
            notices.say(notes)
            yield found


@contextlib.contextmanager
def decoders(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that decode. A block that is left early drops what has not begun, and waits for no thread.

    A generator that is given up may end anywhere in the garbage collector, also while this thread holds a lock that the
    threads need to end (that of ``Thread.start``, for example). To wait for them there would be to wait for ever.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _load(
    index: int, path: Path, view: View, reading: Reading, keep_original: bool
) -> tuple[Loaded | Unread, list[Note]]:
    try:
        image, notes, depth = read_noted(path, reading)
        found = as_seen(index, image, view, reading, path, depth)
    except ImageError as error:
        return Unread(index, path, str(error)), []
    except MemoryError:
        return Unread(index, path, str(ImageError(path, NO_ROOM))), []
    return found if keep_original else replace(found, original=None), [*notes, *found.notes]


def inside_of(image: np.ndarray, reading: Reading, path: Path) -> Look:
    """Where to look in an image (H, W, 3). ``ImageError`` if its region does not fit."""
    try:
        return Look(None, None) if reading.regions is None else reading.regions.seen(image, path)
    except Unusable as error:
        raise ImageError(path, str(error)) from error


def as_seen(index: int, image: np.ndarray, view: View, reading: Reading, path: Path, depth: str = EIGHT) -> Loaded:
    """An image (H, W, 3), uint8, as it comes to a network. ``ImageError`` if it does not fit its region.

    If a mask says where to look, that is the box around it, unless the network sees tiles.
    """
    regions, (height, width) = reading.regions, image.shape[:2]
    inside, box, beyond = inside_of(image, reading, path)
    if regions is None or inside is None:
        return Loaded(index, path, view.see(image), height, width, image, depth=depth)
    painted = paint(image, inside, plain=regions.auto)
    notes = (Note("beyond the box", f"{path}: {beyond:.0%} {BEYOND}"),) if beyond > MOST_BEYOND else ()
    box = None if view.tile else box
    seen = view.see(painted if box is None else painted[box])
    return Loaded(index, path, seen, height, width, image, inside, box, notes, depth)


def pixel_batches(
    paths: Sequence[Path],
    size: int | View,
    batch_size: int,
    *,
    reading: Reading = FULL_RANGE,
    keep_original: bool = False,
) -> Iterator[Batch | Unread]:
    """The images of ``paths`` in order, resized to (size, size), in batches of ``batch_size`` paths.

    With the tiles of a :class:`~vitlite.images.tiles.View` each image is a batch of its own, as it is seen.

    Which images are in a batch depends on nothing but their places in ``paths``: one that cannot be read leaves its
    batch smaller. ``reading`` is the run's, whose scale all its images share.

    Among the batches comes an ``Unread`` for each file that cannot be read, as soon as it is met: it may precede the
    batch that holds images before it.
    """
    waiting: list[Loaded] = []
    if isinstance(size, View) and size.tile:
        batch_size = 1
    for found in load_ahead(paths, size, reading=reading, least=batch_size, keep_original=keep_original):
        if isinstance(found, Unread):
            yield found
        else:
            waiting.append(found)
        if waiting and (found.index + 1) % batch_size == 0:
            yield _batch(waiting)
            waiting = []
    if waiting:
        yield _batch(waiting)


def _batch(images: list[Loaded]) -> Batch:
    return Batch(images, np.stack([image.pixels for image in images]))


def readable_batches(
    paths: Sequence[Path], size: int | View, batch_size: int, reading: Reading = FULL_RANGE
) -> Iterator[Batch]:
    """The batches of ``pixel_batches`` alone; files that cannot be read are passed over."""
    return (found for found in pixel_batches(paths, size, batch_size, reading=reading) if isinstance(found, Batch))


class LeftOut:
    """Says of which files nothing comes, and why: the first few with each reason by name, how many others at the end.

    ``say`` takes the lines, which begin with ``what``, such as "skipped". Reasons that differ in numbers alone are one.
    """

    def __init__(self, say: Callable[[str], object], what: str) -> None:
        self._say, self._what = say, what
        self._found: dict[str, list[Path]] = {}

    def add(self, path: Path, reason: str) -> None:
        """One more file; ``reason`` is a line that names it."""
        files = self._found.setdefault(re.sub(r"\d+", "", reason.replace(shown(path), "")), [])
        files.append(path)
        if len(files) <= NAMED:
            self._say(f"{self._what} {reason}")

    def all(self, found: Iterable[tuple[Path, str]]) -> None:
        """Files with their reasons, after which no more come."""
        for path, reason in found:
            self.add(path, reason)
        self.end()

    def end(self) -> None:
        """Say how many there were beside those that are named."""
        for files in self._found.values():
            if len(files) > NAMED:
                self._say(f"{self._what} {len(files) - NAMED} more, for the same reason as {shown(files[0])}")
        self._found = {}


def skipping(found: Iterable[T | Unread], log: logging.Logger) -> Iterator[T]:
    """What could be read of what ``pixel_batches``, or a detector, gives; the log names the other files."""
    skipped = LeftOut(log.warning, "skipped")
    for one in found:
        if isinstance(one, Unread):
            skipped.add(one.path, one.reason)
        else:
            yield one
    skipped.end()


def each(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map`` on threads, in order. Decoding gains by it: Pillow releases the interpreter lock.

    A few results at a time wait in memory, however many items there are.
    """
    workers = min(8, os.cpu_count() or 1)
    waiting: collections.deque[Future[R]] = collections.deque()
    with decoders(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
