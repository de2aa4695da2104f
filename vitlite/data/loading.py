"""Picture files to arrays of one size, decoded by threads ahead of the model; unreadable files are named, not fatal."""

import collections
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vitlite.data.reading import ImageError, read_image, resize_image


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


def load_ahead(paths, size, *, workers=None, ahead=32, keep_original=False):
    """Decode ``paths`` in order on threads, at most ``ahead`` pictures in memory; yields :class:`Loaded`."""
    paths = iter(enumerate(paths))
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        waiting = collections.deque()
        submit = lambda index, path: pool.submit(Loaded, index, path, size, keep_original)  # noqa: E731
        for index, path in itertools.islice(paths, ahead):
            waiting.append(submit(index, path))
        while waiting:
            loaded = waiting.popleft().result()
            for index, path in itertools.islice(paths, 1):
                waiting.append(submit(index, path))
            yield loaded


def pixel_batches(paths, size, batch_size, *, bad=None, keep_original=False, workers=None):
    """Readable pictures of ``paths`` in order, as ``(list of Loaded, uint8 array (B, S, S, 3))``.

    Unreadable ones are appended to ``bad`` as ``(index, path, reason)``.
    """
    batch = []
    for loaded in load_ahead(paths, size, workers=workers, keep_original=keep_original):
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
