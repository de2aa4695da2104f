"""Frozen features of the whole training set, computed once: in memory, or in a temporary file where they do not fit."""

import os
import tempfile
from collections.abc import Iterator

import numpy as np
import torch

from vitlite.errors import UserError
from vitlite.images.loading import Loaded, Unread, pixel_batches

MEMORY_LIMIT = 6 * 2**30  # bytes; beyond it the features go to a file


class FeatureCache:
    """``cache[index_tensor]`` gives the frozen outputs of those samples, float32.

    ``folder`` holds the temporary file, if one is needed; it is unlinked at once and vanishes with the process.
    With ``kept_as="uint8"`` values are kept as ``round(255 x)``: a quarter of the room, exact for 8-bit pictures.
    """

    def __init__(self, count, shape, folder, limit=MEMORY_LIMIT, kept_as="float32"):
        dtype = np.dtype(kept_as)
        self.kept_as = kept_as
        size = count * int(np.prod(shape)) * dtype.itemsize
        if size <= limit:
            self.values = torch.empty(count, *shape, dtype=getattr(torch, kept_as))
            return
        try:
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the mapping
            reserve(file, size)
            array = np.memmap(file, dtype=dtype, mode="r+", shape=(count, *shape))
        except OSError as error:
            raise UserError(f"{folder}: no room for {size / 2**30:.1f} GiB of cached features ({error})") from error
        self.values = torch.from_numpy(array)

    def put(self, start, features):
        """Keep a batch of frozen outputs at positions ``start`` and on."""
        if self.kept_as == "uint8":
            features = features.mul(255).round_()
        self.values[start : start + len(features)] = features

    def __getitem__(self, indices):
        values = self.values[indices]
        return values.float() / 255 if self.kept_as == "uint8" else values


def reserve(file, size):
    """Give a file its size, and its room on the disk: a mapping that finds the disk full kills the process."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def cache_features(method, paths, folder, device, *, progress=None, limit=MEMORY_LIMIT, batch_size=8):
    """Run ``method.frozen`` over picture files once.

    Returns ``(cache, indices, unread)``: row i of the cache belongs to ``paths[indices[i]]``; ``unread`` lists the
    files that could not be read, as ``vitlite.images.loading.Unread``.
    """
    cache, indices, unread = None, [], []
    for found in batches(paths, method.config.image_size, batch_size, device):
        if isinstance(found, Unread):
            unread.append(found)
            continue
        batch, images = found
        features = method.frozen(images).float().cpu()
        if cache is None:
            cache = FeatureCache(len(paths), features.shape[1:], folder, limit, method.cache_as)
        cache.put(len(indices), features)
        indices += [loaded.index for loaded in batch]
        if progress is not None:
            progress.step(len(batch))
    return cache, indices, unread


def batches(paths, size, batch_size, device) -> Iterator[tuple[list[Loaded], torch.Tensor] | Unread]:
    """``pixel_batches`` with float images (B, 3, S, S) in [0, 1] on a device in place of uint8 pixels."""
    for found in pixel_batches(paths, size, batch_size):
        yield found if isinstance(found, Unread) else (found.images, to_images(found.pixels, device))


def to_images(pixels, device):
    """A uint8 array of pictures (B, S, S, 3) to float images (B, 3, S, S) in [0, 1] on a device."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device).float() / 255
