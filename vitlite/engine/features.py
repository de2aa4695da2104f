"""Frozen features of the whole training set, computed once: in memory, or in a temporary file if they do not fit."""

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from vitlite.data import Sample
from vitlite.data.index import few
from vitlite.data.levels import used_levels
from vitlite.data.shapes import ratio, shapes
from vitlite.data.small import LARGE, is_large
from vitlite.data.small import in_words as small_in_words
from vitlite.engine.settings import RunSettings
from vitlite.errors import UserError
from vitlite.files import StrPath, counted, shown
from vitlite.images.known import Known
from vitlite.images.loading import Loaded, Unread, pixel_batches, skipping
from vitlite.images.reading import FULL_RANGE, ImageError, image_size
from vitlite.images.regions import Regions
from vitlite.images.resize import resize_image
from vitlite.images.scale import MAX_PIXELS, Reading, differing, fades, in_words, learn
from vitlite.images.tiles import Place, View
from vitlite.methods import method_class
from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig
from vitlite.progress import Progress

log = logging.getLogger(__name__)

MEMORY_LIMIT = 6 * 2**30  # bytes; beyond it the features go to a file
BATCH = 8  # images, or tiles, that go through the frozen part at a time
AT_ONCE = 64  # rows that are taken from a cache at a time
FINER = "quick512"  # a preset of some methods, for smaller defects, ...
SLIGHTLY = 1.5  # ... that is named from images of so many times the side on that quick sees
GPU_SHARE = 0.25  # of a GPU's free memory that training features may take


@dataclass
class Tiles:
    """What is known of images that come as tiles, in the order of the images."""

    shapes: list[tuple[int, int]] = field(default_factory=list)  # (h, w) of what is seen of each
    places: list[list[Place]] = field(default_factory=list)  # of the tiles of each
    rows: list[range] = field(default_factory=list)  # of the cache: the tiles of each that train
    coarse: list[Tensor] = field(default_factory=list)  # (1, d) of each as a whole, by which images are compared

    def of(self, images: Sequence[int]) -> "Tiles":
        """Those of some of the images."""
        return Tiles(
            shapes=[self.shapes[image] for image in images],
            places=[self.places[image] for image in images],
            rows=[self.rows[image] for image in images],
            coarse=[self.coarse[image] for image in images],
        )


class FeatureCache:
    """``cache[index_tensor]`` gives the frozen outputs of those samples, float32.

    ``folder`` holds the temporary file, if one is needed; it is unlinked at once and vanishes with the process.
    With ``kept_as="uint8"`` values are kept as ``round(255 x)``: a quarter of the memory, exact for 8-bit images; with
    "float16" in half precision, in half of it.
    """

    def __init__(self, count: int, shape: Sequence[int], folder: StrPath, kept_as: str = "float32") -> None:
        dtype = np.dtype(kept_as)
        self.kept_as = kept_as
        self.tiles: Tiles | None = None  # None: a row is an image
        self.known: list[Known] = []  # what each image is
        self.insides: list[np.ndarray | None] = []  # of each image in what is seen of it, packed; None: all counts
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
        """Keep a batch of frozen outputs at positions ``start`` and on. ``UserError`` for values too large to keep."""
        if self.kept_as == "uint8":
            features = features.mul(255).round_()
        kept = self.values[start : start + len(features)]
        kept.copy_(features)
        if self.kept_as == "float16" and kept.isinf().any():
            raise UserError("`weights`: features beyond what half precision holds; give other weights")

    def __getitem__(self, indices: Tensor | slice) -> Tensor:
        return as_floats(self.take(indices))

    def take(self, indices: Tensor | slice) -> Tensor:
        """The outputs in the dtype that they are kept in."""
        return self.values[indices]


class Part:
    """The rows of a cache that some images have: ``part[index_tensor]`` counts from 0 among them.

    Each tile that trains is a row.
    """

    def __init__(self, cache: FeatureCache, images: Sequence[int]) -> None:
        rows = images if cache.tiles is None else [row for image in images for row in cache.tiles.rows[image]]
        self.cache, self.rows = cache, torch.tensor(rows, dtype=torch.long)
        self.kept: Tensor | None = None  # all of them, on a GPU

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        return self.cache[self.rows[indices]]

    def keep_on(self, device: torch.device) -> None:
        """Copy all of them to a GPU, if they take a small share of what is free there: no step copies any then."""
        size = len(self) * self.cache.values[0].nbytes
        if device.type == "cuda" and size <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
            self.kept = torch.empty(
                len(self), *self.cache.values.shape[1:], dtype=self.cache.values.dtype, device=device
            )
            for place, rows in zip(self.kept.split(AT_ONCE), self.rows.split(AT_ONCE)):
                place.copy_(self.cache.take(rows))

    @property
    def place(self) -> torch.device:
        """Where the indices for ``fetch`` are best."""
        return self.rows.device if self.kept is None else self.kept.device

    def fetch(self, indices: Tensor, device: torch.device) -> Tensor:
        """``self[indices]`` on a device. What is kept as uint8 goes there as uint8."""
        if self.kept is not None:
            return as_floats(self.kept.index_select(0, indices.to(self.kept.device)))
        values = self.cache.take(self.rows[indices])
        if device.type == "cuda":
            values = values.pin_memory()  # or the copy would make the host wait
        return as_floats(values.to(device, non_blocking=True))

    def batches(self, size: int = AT_ONCE) -> Iterator[Tensor]:
        """The features of all of them, in order."""
        for first in range(0, len(self), size):
            yield self[torch.arange(first, min(first + size, len(self)))]


def as_floats(values: Tensor) -> Tensor:
    """Features in the dtype of a cache as float32; uint8 stands for 255 times the value."""
    return values.float() / 255 if values.dtype == torch.uint8 else values.float()


def reserve(file: BinaryIO, size: int) -> None:
    """Give a file its size and its room on the disk. A mapping that finds the disk full would kill the process."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)


def cache_features(
    method: Method, paths: Sequence[Path], folder: StrPath, device: torch.device, *, reading: Reading = FULL_RANGE
) -> tuple[FeatureCache, list[int]]:
    """Run ``method.frozen`` over image files once; a file that cannot be read is logged and left out.

    ``reading`` holds the scale of the run.

    Returns ``(cache, indices)``: row i of the cache belongs to ``paths[indices[i]]``; with tiles, those rows that
    ``cache.tiles`` says. ``UserError`` if no file can be read.
    """
    if method.config.tile:
        return cache_tiles(method, paths, folder, device, reading)
    cache: FeatureCache | None = None
    indices: list[int] = []
    flat: list[Path] = []
    with Progress("features", len(paths)) as progress:
        for found in skipping(pixel_batches(paths, method.config.view, BATCH, reading=reading), log):
            features = method.frozen(to_images(found.pixels, device)).float().cpu()
            if cache is None:
                cache = FeatureCache(len(paths), features.shape[1:], folder, method.cache_as)
            cache.put(len(indices), features)
            cache.insides += [pack(loaded.seen_inside) for loaded in found.images]
            cache.known += map(Known.of, found.images)
            flat += [loaded.path for loaded in found.images if is_flat(loaded)]
            indices += [loaded.index for loaded in found.images]
            progress.step(len(found.images))
    warn_of_flat(flat)
    return readable(cache, paths), indices


def cache_tiles(
    method: Method, paths: Sequence[Path], folder: StrPath, device: torch.device, reading: Reading
) -> tuple[FeatureCache, list[int]]:
    """``cache_features`` of tiles. If not all tiles fit into memory, as many of each image are drawn at random."""
    view = method.config.view
    counts = [tile_count(path, view) for path in paths]
    cache: FeatureCache | None = None
    most, tiles, indices, flat = 0, Tiles(), list[int](), list[Path]()
    with Progress("features", len(paths)) as progress:
        for found in skipping(pixel_batches(paths, view, 1, reading=reading), log):
            seen, index = found.pixels[0], found.images[0].index
            whole = resize_image(seen, view.sides)[None]
            coarse = method.frozen(to_images(whole, device)).float().cpu()
            if cache is None:
                size = coarse.numel() * np.dtype(method.cache_as).itemsize
                most = max(1, MEMORY_LIMIT // size // len(paths))
                cache = FeatureCache(
                    sum(min(most, count) for count in counts), coarse.shape[1:], folder, method.cache_as
                )
            inside = found.images[0].seen_inside
            places = view.places(seen.shape[0], seen.shape[1], inside)
            drawn = np.random.default_rng(index).permutation(len(places))[: min(most, counts[index])]
            first = tiles.rows[-1].stop if tiles.rows else 0
            for start, pixels in zip(
                range(first, first + len(drawn), BATCH), view.batches(seen, [places[i] for i in sorted(drawn)], BATCH)
            ):
                cache.put(start, method.frozen(to_images(pixels, device)).float().cpu())
            tiles.rows.append(range(first, first + len(drawn)))
            tiles.shapes.append((seen.shape[0], seen.shape[1]))
            tiles.places.append(places)
            cache.insides.append(pack(inside))
            cache.known.append(Known.of(found.images[0]))
            tiles.coarse.append(method.coarse(coarse))
            indices.append(index)
            flat += [loaded.path for loaded in found.images if is_flat(loaded)]
            progress.step()
    warn_of_flat(flat)
    cache = readable(cache, paths)
    cache.tiles = tiles
    every, used = sum(map(len, tiles.places)), tiles.rows[-1].stop
    of_all = f" of {every}" if used < every else ""
    log.info("tiles: %d%s, with a side of %d pixels, of %s", used, of_all, view.tile, counted(len(indices), "image"))
    return cache, indices


def is_flat(image: Loaded) -> bool:
    """Whether an image has one colour all over, where it is looked at."""
    inside = image.seen_inside
    pixels = image.pixels.reshape(-1, 3) if inside is None or not inside.any() else image.pixels[inside]
    return bool((pixels == pixels[0]).all())


def warn_of_flat(paths: Sequence[Path]) -> None:
    """Say which good images have one colour all over; a run that learns from one calls others like it good."""
    if paths:
        what, them = ("1 good image has", "it") if len(paths) == 1 else (f"{len(paths)} good images have", "them")
        names = few([shown(path) for path in paths], 4)
        log.warning("%s one colour all over, as from a camera without light: %s; remove %s", what, names, them)


def pack(inside: np.ndarray | None) -> np.ndarray | None:
    """A region, bool (h, w), as bits."""
    return None if inside is None else np.packbits(inside)


def unpack(bits: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray | None:
    """What ``pack`` made, bool again."""
    return None if bits is None else np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def tile_count(path: Path, view: View) -> int:
    """The number of an image's tiles, by the header of its file; 0 if it cannot be read."""
    try:
        return len(view.places(*view.shape(*image_size(path))))
    except ImageError:
        return 0


def tile_features(
    method: Method, paths: Sequence[Path], device: torch.device, *, reading: Reading = FULL_RANGE
) -> Iterator[Tensor]:
    """``method.frozen`` of all tiles of some images, in order. ``UserError`` for an image that cannot be read."""
    view = method.config.view
    for found in pixel_batches(paths, view, 1, reading=reading):
        if isinstance(found, Unread):
            raise UserError(found.reason)
        seen = found.pixels[0]
        places = view.places(seen.shape[0], seen.shape[1], found.images[0].seen_inside)
        for pixels in view.batches(seen, places, BATCH):
            yield method.frozen(to_images(pixels, device)).float()


def readable(cache: FeatureCache | None, paths: Sequence[Path]) -> FeatureCache:
    """The cache. ``UserError`` if there is none, because no file can be read."""
    if cache is None:
        raise UserError(f"{shown(paths[0].parent)}: none of the {len(paths)} training images can be read")
    return cache


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
    elif faded := [levels for own in found.values() for levels in own if fades(levels, scale)]:
        which = f"{len(faded)} of {counted(len(samples), 'image')}, which use levels such as {faded[0]} alone"
        log.warning("scale: next to nothing is left of %s; train images of one bit depth", which)
    return replace(config, black=scale.black, white=scale.white)


def with_shape(config: TrainingConfig, samples: Sequence[Sample], regions: Regions | None) -> TrainingConfig:
    """A config whose ``image_size=keep`` has become the shape of what is seen of the images."""
    if not config.keeps:
        return config
    found = shapes(samples, regions)
    chosen = config.shaped(ratio(found))
    several = f", between the shapes of {len(found)} categories" if len(found) > 1 else ""
    if len(set(chosen.image_shape)) > 1 or several:
        log.info("shape: images come to the network as %d x %d pixels%s", *reversed(chosen.image_shape), several)
    return chosen


def log_size(settings: RunSettings, samples: Sequence[Sample], regions: Regions | None = None) -> None:
    """Log how small a defect can be and still be seen, if the images are larger than what the network sees."""
    config = settings.config
    found = shapes(samples, None if config.tile else regions)
    sizes = [size for own in found.values() for size in own] or [(0, 0)]
    seen = small_in_words(config.view, config.cell, sizes)
    if config.tile:
        log.info("size: %s", seen)
        return
    finer = finer_preset(settings)
    if any(is_large(size, config.view, SLIGHTLY if finer else LARGE) for size in sizes):
        multiple = config.side_multiple * math.ceil(16 / config.side_multiple)
        side = max(1, round(config.image_side / multiple)) * multiple
        log.warning("size: %s; %stile=%d sees smaller ones", seen, finer, side)


def finer_preset(settings: RunSettings) -> str:
    """What to say of the preset that sees defects of half the size; empty if there is none, or the run is not alike."""
    presets = method_class(settings.method).presets
    side = settings.config.image_side
    if FINER not in presets or not 0.9 * side < presets["quick"].image_side < 1.1 * side:
        return ""
    return f"preset={FINER} sees half of that{' in twice the time' if settings.preset == 'quick' else ''}; "


def to_images(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 images (B, S, S, 3) as float images (B, 3, S, S) in [0, 1] on a device."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device).float() / 255
