"""Picture files to arrays of one size, decoded by threads ahead of the model; unreadable files are named, not fatal."""

import collections
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vitlite.images.reading import ImageError, pixel_count, read_image
from vitlite.images.resize import resize_image

PIXELS_AHEAD = 64_000_000  # of originals that are kept, 192 MB: fewer pictures wait where they are large


class Loaded:
    """One decoded picture: its place in the list, the resized pixels (S, S, 3) uint8 and the original array."""

    def __init__(self, index, path, size, keep_original):
        self.index, self.path, self.pixels, self.original, self.error = index, path, None, None, None
        try:
            image = read_image(path)
        except ImageError as error:
            self.error = str(error)
            return
        self.height, self.width = image.shape[:2]
        self.pixels = resize_image(image, (size, size))
        if keep_original:
            self.original = image


def load_ahead(paths, size, *, workers=None, ahead=32, least=1, keep_original=False):
    """Decode ``paths`` in order on threads, at most ``ahead`` pictures in memory; yields :class:`Loaded`.

    Kept originals that wait have at most ``PIXELS_AHEAD`` pixels together, or are at most ``least``.
    """
    coming = ((index, path, pixel_count(path) if keep_original else 0) for index, path in enumerate(paths))
    following = next(coming, None)
    waiting, held = collections.deque(), 0  # (future, its pixels), the pixels of all

    def has_room(pixels):
        return len(waiting) < ahead and (len(waiting) < least or held + pixels <= PIXELS_AHEAD)

    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        while waiting or following is not None:
            while following is not None and has_room(following[2]):
                index, path, pixels = following
                waiting.append((pool.submit(Loaded, index, path, size, keep_original), pixels))
                held += pixels
                following = next(coming, None)
            future, pixels = waiting.popleft()
            held -= pixels
            yield future.result()


def pixel_batches(paths, size, batch_size, *, bad=None, keep_original=False, workers=None):
    """Readable pictures of ``paths`` in order, as ``(list of Loaded, uint8 array (B, S, S, 3))``.

    Unreadable ones are appended to ``bad`` as ``(index, path, reason)``.
    """
    batch = []
    for loaded in load_ahead(paths, size, workers=workers, least=batch_size, keep_original=keep_original):
        if loaded.error is not None:
            if bad is not None:
                bad.append((loaded.index, loaded.path, loaded.error))
            continue
        batch.append(loaded)
        if len(batch) == batch_size:
            yield batch, np.stack([b.pixels for b in batch])
            batch = []
    if batch:
        yield batch, np.stack([b.pixels for b in batch])


def each(function, items) -> Iterator:
    """``map`` on threads, in order. Decoding gains by it: Pillow releases the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)
