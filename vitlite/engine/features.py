"""Frozen features of the whole training set, computed once: in memory, or in a temporary file if they do not fit."""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vitlite.data import Sample
from vitlite.data.levels import used_levels
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.loading import Unread, pixel_batches
from vitlite.images.reading import FULL_RANGE
from vitlite.images.scale import MAX_PIXELS, Reading, differing, in_words, learn
from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig
from vitlite.progress import Progress

log = logging.getLogger(__name__)

MEMORY_LIMIT = 6 * 2**30  # bytes; beyond it the features go to a file


class FeatureCache:
    """``cache[index_tensor]`` gives the frozen outputs of those samples, float32.

    ``folder`` holds the temporary file, if one is needed; it is unlinked at once and vanishes with the process.
    With ``kept_as="uint8"`` values are kept as ``round(255 x)``: a quarter of the memory, exact for 8-bit images.
    """

    def __init__(
        self, count: int, shape: Sequence[int], folder: str | os.PathLike[str], kept_as: str = "float32"
    ) -> None:
        dtype = np.dtype(kept_as)
        self.kept_as = kept_as
        size = count * int(np.prod(shape)) * dtype.itemsize
        if size <= MEMORY_LIMIT:
            self.values = torch.empty(count, *shape, dtype=getattr(torch, kept_as))
            return
        try:
            with tempfile.TemporaryFile(dir=folder) as file:  # the mapping holds it open
                reserve(file, size)
                array = np.memmap(file, dtype=dtype, mode="r+", shape=(count, *shape))
        except OSError as error:
            raise UserError(f"{folder}: no room for {size / 2**30:.1f} GiB of cached features ({error})") from error
        log.debug("features: %.1f GiB, in a file", size / 2**30)
        self.values = torch.from_numpy(array)

    def put(self, start: int, features: Tensor) -> None:
        """Keep a batch of frozen outputs at positions ``start`` and on."""
        if self.kept_as == "uint8":
            features = features.mul(255).round_()
        self.values[start : start + len(features)] = features

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        values = self.values[indices]
        return values.float() / 255 if self.kept_as == "uint8" else values


class Part:
    """The rows of a cache that some images have: ``part[index_tensor]`` counts from 0 among them."""

    def __init__(self, cache: FeatureCache, rows: Sequence[int]) -> None:
        self.cache, self.rows = cache, torch.tensor(rows, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.cache[self.rows[indices]]


def reserve(file: BinaryIO, size: int) -> None:
    """Give a file its size and its room on the disk. A mapping that finds the disk full would kill the process."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def cache_features(
    method: Method,
    paths: Sequence[Path],
    folder: str | os.PathLike[str],
    device: torch.device,
    batch_size: int = 8,
    *,
    reading: Reading = FULL_RANGE,
) -> tuple[FeatureCache, list[int]]:
    """Run ``method.frozen`` over image files once; a file that cannot be read is logged and left out.

    ``reading`` holds the scale of the run.

    Returns ``(cache, indices)``: row i of the cache belongs to ``paths[indices[i]]``. ``UserError`` if no file can be
    read.
    """
    cache: FeatureCache | None = None
    indices: list[int] = []
    with Progress("features", len(paths)) as progress:
        for found in pixel_batches(paths, method.config.image_size, batch_size, reading=reading):
            if isinstance(found, Unread):
                log.warning("skipped %s", found.reason)
                continue
            features = method.frozen(to_images(found.pixels, device)).float().cpu()
            if cache is None:
                cache = FeatureCache(len(paths), features.shape[1:], folder, method.cache_as)
            cache.put(len(indices), features)
            indices += [loaded.index for loaded in found.images]
            progress.step(len(found.images))
    if cache is None:
        raise UserError(f"{shown(paths[0].parent)}: none of the {len(paths)} training images can be read")
    return cache, indices


def with_scale(config: TrainingConfig, samples: Sequence[Sample], max_pixels: int = MAX_PIXELS) -> TrainingConfig:
    """A config with the scale of its images, given or learned from ``samples``; a line of the log says which.

    ``UserError`` if integers of more than 8 bits and floats are mixed.
    """
    scale = config.image_scale
    if scale is not None:
        log.info("scale: %s, as the settings say", scale)
        return replace(config, black=scale.black, white=scale.white)
    found = used_levels(samples, max_pixels)
    if not found:
        log.info("scale: 0 to 255, as no image has more than 8 bits")
        return config
    used, scale = learn(found)
    some = "; 8-bit files keep 0 to 255" if sum(map(len, found.values())) < len(samples) else ""
    if scale is None:
        log.warning("scale: %s%s; give it with white and black", in_words(used, scale), some)
        return config
    log.info("scale: %s, as %s%s", scale, in_words(used, scale), some)
    if others := differing(found, scale):
        log.warning("scale: next to nothing is left of %s; train such categories apart", ", ".join(map(shown, others)))
    return replace(config, black=scale.black, white=scale.white)


def to_images(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 images (B, S, S, 3) as float images (B, 3, S, S) in [0, 1] on a device."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device).float() / 255
