"""Checks what the caller passed and cuts it into blocks: flat float bits and the runs of their positive pixels.

Scores are ranked by their exact value: float32 and shorter types as float32, anything longer as float64, unless every
value of a longer type happens to be a float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vitlite.metrics.jit import run_all, thread_count
from vitlite.metrics.regions import find_regions, find_runs

Images = np.ndarray | Sequence[ArrayLike]  # (B, H, W), or (H, W) each

BLOCK = 1 << 20  # scores in a block: enough to make a call worth its overhead, few enough to share between cores


@dataclass
class Block:
    """Part of the scores: whole images of one size, or a slice of a one-dimensional array. Preparing fills the rest."""

    scores: np.ndarray  # as passed, any real dtype, perhaps not contiguous
    positive: Any  # same shape, as passed; dropped once the runs are known
    first: int | None  # index of the first image or score, for messages; None for a single image
    narrow: bool = True  # every value is a float32
    start: np.ndarray = field(init=False)  # runs of positive pixels, flat indices within the block
    stop: np.ndarray = field(init=False)
    region: np.ndarray = field(init=False)  # region of each run, numbered within the block
    area: np.ndarray = field(init=False)  # pixels of each region
    first_region: int = 0
    maxima: np.ndarray = field(init=False)  # largest score of each image


@dataclass
class Ranking:
    """Blocks ready to be sorted."""

    blocks: list[Block]
    precision: type[np.floating]  # numpy.float32 or numpy.float64
    size: int  # number of scores
    positives: int
    area: np.ndarray  # pixels of each region, all blocks
    threads: int

    @property
    def normals(self) -> int:
        return self.size - self.positives

    def bits(self, block: Block) -> np.ndarray:
        """The block's scores as flat, writable, native unsigned integers (writable: numba compiles read-only apart)."""
        flat = np.require(block.scores, self.precision, ["C", "A", "W"]).reshape(-1)
        return flat.view(np.uint32 if self.precision is np.float32 else np.uint64)


def _real(array: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, but its dtype is {array.dtype}")
    return array


def _exact(scores: np.ndarray, name: str) -> np.ndarray:
    """Scores in a dtype that ranks like the original: float16 or more, at most float64."""
    if scores.dtype.kind == "f" and scores.dtype.itemsize <= 8:
        return scores
    if scores.dtype.itemsize <= 2:
        return scores.astype(np.float32)
    exact = scores.astype(np.float64)
    if scores.dtype.itemsize >= 8 and not np.array_equal(exact.astype(scores.dtype), scores, equal_nan=False):
        # NaN in an extended float also arrives here; say so, and do not speak of precision.
        if scores.dtype.kind == "f" and np.isnan(scores).any():
            raise ValueError(f"{name} holds NaN")
        raise ValueError(f"{name} of dtype {scores.dtype} cannot be held in float64 exactly; pass ranks instead")
    return exact


def _is_narrow(scores: np.ndarray) -> bool:
    if scores.dtype.itemsize <= 4:
        return True
    with np.errstate(over="ignore"):
        # A few values settle most cases without reading the rest.
        return all(np.array_equal(part.astype(np.float32), part) for part in (scores.reshape(-1)[:64], scores))


def _binary(positive: np.ndarray, name: str, hint: str) -> np.ndarray:
    """Labels or a mask as flat contiguous writable uint8 of 0 and 1."""
    if positive.dtype == np.bool_:
        return np.require(positive, None, ["C", "W"]).reshape(-1).view(np.uint8)
    flat = np.require(positive, None, ["C", "A"]).reshape(-1)
    with np.errstate(invalid="ignore"):  # NaN becomes something that differs from it
        values = flat if flat.dtype == np.uint8 else flat.astype(np.uint8)
    if (values > 1).any() or (values is not flat and not np.array_equal(values, flat)):
        raise ValueError(f"{name} must hold only 0 and 1{hint}")
    return np.require(values, np.uint8, ["C", "W"])


def _maxima(scores: np.ndarray, name_of: Callable[[int], str]) -> np.ndarray:
    """Largest score of each image (first axis); numpy's maximum is NaN if any score is."""
    maxima = scores.reshape(len(scores), -1).max(axis=1)
    bad = np.flatnonzero(np.isnan(maxima))
    if bad.size:
        raise ValueError(f"{name_of(int(bad[0]))} holds NaN")
    return maxima


def _prepare_images(block: Block) -> None:
    count, height, width = block.scores.shape
    one = isinstance(block.first, int)
    name = (lambda i: f"maps[{block.first + i}]") if one else (lambda i: "map")
    block.scores = _exact(block.scores, name(0))
    block.maxima = _maxima(block.scores, name)
    block.narrow = _is_narrow(block.scores)
    mask_name = f"masks[{block.first}]" if count == 1 else f"masks[{block.first}:{block.first + count}]"
    mask = _binary(block.positive, mask_name if one else "mask", "; apply the data set's mask rule first")
    block.start, block.stop, block.region, block.area = find_regions(mask, height, width)
    block.positive = None


def _prepare_slice(block: Block) -> None:
    block.scores = _exact(block.scores, "scores")
    _maxima(block.scores[None], lambda i: "scores")
    block.narrow = _is_narrow(block.scores)
    block.start, block.stop, block.region, block.area = find_runs(_binary(block.positive, "labels", ""))
    block.positive = None


def rank_labels(labels: ArrayLike, scores: ArrayLike) -> Ranking:
    """Ranking of labels and scores of one shape; all positive scores form one region.

    Raises:
        ValueError: shapes differ, nothing there, NaN, labels other than 0 and 1, or a class is missing.
    """
    labels, scores = _real(labels, "labels"), _real(scores, "scores")
    if labels.shape != scores.shape:
        raise ValueError(f"labels has shape {labels.shape} but scores has shape {scores.shape}")
    if scores.size == 0:
        raise ValueError("labels and scores are empty")
    labels, scores = labels.reshape(-1), scores.reshape(-1)
    blocks = [Block(scores[i : i + BLOCK], labels[i : i + BLOCK], i) for i in range(0, scores.size, BLOCK)]
    threads = thread_count(scores.size)
    run_all(_prepare_slice, blocks, threads)
    positives = sum(int(b.area[0]) for b in blocks)
    if positives == 0 or positives == scores.size:
        value = int(positives > 0)
        raise ValueError(f"labels holds only {value}: both classes are needed, so at least one {1 - value} as well")
    return _ranking(blocks, np.array([positives]), scores.size, threads)


def _pairs(masks: Images, maps: Images) -> list[Block]:
    """(masks, maps) of equal shape (k, H, W), k whole images at a time."""
    if isinstance(maps, np.ndarray) and isinstance(masks, np.ndarray) and maps.dtype != object != masks.dtype:
        if maps.ndim != 3:
            raise ValueError(f"maps has shape {maps.shape}; it must be (B, H, W), or a list of (H, W) arrays")
        _require_pair(masks, maps, "masks", "maps")
        masks, maps = _real(masks, "masks"), _real(maps, "maps")
        step = max(1, BLOCK // (maps.shape[1] * maps.shape[2]))
        return [Block(maps[i : i + step], masks[i : i + step], i) for i in range(0, len(maps), step)]
    masks, maps = _sequence(masks, "masks"), _sequence(maps, "maps")
    if len(masks) != len(maps):
        raise ValueError(f"masks has {len(masks)} images but maps has {len(maps)}")
    if not maps:
        raise ValueError("maps is empty")
    return [_one_image(mask, map_, i) for i, (mask, map_) in enumerate(zip(masks, maps))]


def _sequence(images: Images, name: str) -> list[ArrayLike]:
    if not hasattr(images, "__iter__") or (isinstance(images, np.ndarray) and images.ndim == 0):
        raise ValueError(f"{name} must be a (B, H, W) array or a list of (H, W) arrays, not {type(images).__name__}")
    return list(images)


def _one_image(mask: ArrayLike, map_: ArrayLike, index: int | None) -> Block:
    names = (f"masks[{index}]", f"maps[{index}]") if index is not None else ("mask", "map")
    mask, map_ = _real(mask, names[0]), _real(map_, names[1])
    if map_.ndim != 2:
        raise ValueError(f"{names[1]} has shape {map_.shape}; a map must be (H, W)")
    _require_pair(mask, map_, *names)
    return Block(map_[None], mask[None], index)


def _require_pair(mask: np.ndarray, map_: np.ndarray, mask_name: str, map_name: str) -> None:
    if mask.shape != map_.shape:
        raise ValueError(f"{mask_name} has shape {mask.shape} but {map_name} has shape {map_.shape}")
    if map_.size == 0:
        raise ValueError(f"{map_name} is empty: its shape is {map_.shape}")


def rank_maps(masks: Images, maps: Images) -> Ranking:
    """Ranking of the pixels of maps, positive if the mask is 1, with 8-connected regions.

    Whether both classes are there is left to the caller.

    Raises:
        ValueError: shapes differ, nothing there, NaN, or masks with values other than 0 and 1.
    """
    blocks = _pairs(masks, maps)
    size = sum(b.scores.size for b in blocks)
    threads = thread_count(size)
    run_all(_prepare_images, blocks, threads)
    regions = 0
    for block in blocks:
        block.first_region = regions
        regions += block.area.size
    return _ranking(blocks, np.concatenate([b.area for b in blocks]), size, threads)


def rank_image(mask: ArrayLike, map_: ArrayLike) -> Ranking:
    """Ranking of a single image: mask and map (H, W). Raises as ``rank_maps``."""
    block = _one_image(mask, map_, None)
    _prepare_images(block)
    return _ranking([block], block.area, block.scores.size, thread_count(block.scores.size))


def _ranking(blocks: list[Block], area: np.ndarray, size: int, threads: int) -> Ranking:
    precision = np.float32 if all(b.narrow for b in blocks) else np.float64
    return Ranking(blocks, precision, size, int(area.sum()), area, threads)
