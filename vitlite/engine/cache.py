"""Frozen features of the whole training set, computed once: in memory, or in a temporary file where they do not fit."""

import tempfile

import numpy as np
import torch

from vitlite.engine.images import batches
from vitlite.errors import UserError

MEMORY_LIMIT = 6 * 2**30  # bytes; beyond it the features go to a file


class FeatureCache:
    """``cache[index_tensor]`` gives the frozen outputs of those samples, float32.

    ``folder`` holds the temporary file, if one is needed; it is unlinked at once and vanishes with the process.
    """

    def __init__(self, count, shape, folder, limit=MEMORY_LIMIT):
        size = count * int(np.prod(shape)) * 4
        if size <= limit:
            self.values = torch.empty(count, *shape)
            return
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the mapping
            file.truncate(size)
            array = np.memmap(file, dtype=np.float32, mode="r+", shape=(count, *shape))
        except OSError as error:
            raise UserError(f"{folder}: no room for {size / 2**30:.1f} GiB of cached features ({error})") from error
        self.values = torch.from_numpy(array)

    def __getitem__(self, indices):
        return self.values[indices]


def cache_features(method, paths, folder, device, *, progress=None, limit=MEMORY_LIMIT, batch_size=8):
    """Run ``method.frozen`` over picture files once.

    Returns ``(cache, indices, bad)``: row i of the cache belongs to ``paths[indices[i]]``; ``bad`` lists
    ``(index, path, reason)`` of files that could not be read.
    """
    cache, indices, bad = None, [], []
    for batch, images in batches(paths, method.config.image_size, batch_size, device, bad=bad):
        features = method.frozen(images).float().cpu()
        if cache is None:
            cache = FeatureCache(len(paths), features.shape[1:], folder, limit)
        cache.values[len(indices) : len(indices) + len(batch)] = features
        indices += [loaded.index for loaded in batch]
        if progress is not None:
            progress.step(len(batch))
    return cache, indices, bad
