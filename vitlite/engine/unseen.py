"""Good images scored without themselves, and a network tested with drawn defects while it trains.

The anomaly of a good image comes from a network that did not train on it: the final one if the image was held out, or
one of the further networks that each train without a part of the images (cross-fitting). Where a place is compared
with good images, neither the image itself nor its near-copies are among them. So good images score as new ones do.
"""

import itertools
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from vitlite.calibration import good_image
from vitlite.data import DRAWN, Sample, draw_defect
from vitlite.data.groups import leaving
from vitlite.engine.features import BATCH, FeatureCache, Part, tile_features, to_images, unpack
from vitlite.files import atomic
from vitlite.good_scores import Good
from vitlite.images.loading import pixel_batches, readable_batches, skipping
from vitlite.images.regions import level_outside
from vitlite.images.scale import Reading
from vitlite.images.tiles import Blend
from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig
from vitlite.nn.score import WITHOUT_PLACES, PlaceStatistics, compare

log = logging.getLogger(__name__)

DRAWN_ON = 48  # good images that get drawn defects, at most
TESTED, TESTED_TO_DECIDE = 8, 24  # good images with which a network is tested while it trains


class Measured:
    """The anomaly of good images at every place, before places are compared, and of defects drawn onto some of them.

    ``samples`` are the images, in order, and ``images`` their places in the ``cache``, which knows tiles and regions.
    ``groups`` has the number of the group of each image, such as of near-copies, or None; by default all are alone. A
    row is an image or, of images that come as tiles, one of all their tiles. A drawn defect lies on row ``source[i]``.
    """

    def __init__(
        self,
        method: Method,
        samples: Sequence[Sample],
        folder: Path,
        cache: FeatureCache | None = None,
        images: Sequence[int] = (),
        groups: Sequence[int | None] = (),
    ) -> None:
        self.groups = list(groups) or [None] * len(samples)
        self.samples, self.folder, self.shape = list(samples), folder, method.places_shape
        self.view = method.config.view
        self.tiles = tiles = cache.tiles.of(images) if cache and cache.tiles else None
        self.packed: list[np.ndarray | None] = [None] * len(samples)  # the region that counts of each image
        if cache and cache.insides:
            self.packed = [cache.insides[image] for image in images]
        places = tiles.places if tiles else [[(0, 0)]] * len(samples)
        ends = np.cumsum([0, *map(len, places)]).tolist()
        self.places = places  # of the rows of each image
        self.rows = [range(*pair) for pair in zip(ends, ends[1:])]
        self.count = ends[-1]
        self.values = FeatureCache(self.count, self.shape, folder)
        self.errors = torch.zeros(self.count)
        self.drawn = FeatureCache(0, self.shape, folder)
        self.drawn_errors = torch.zeros(0)
        self.masks = np.zeros((0, 0), np.uint8)  # of the drawn defects, packed
        self.source: list[int] = []
        self._statistics: PlaceStatistics | None = None
        self._sums = lru_cache(2 * BATCH)(self._statistics_of)  # a group's images are mostly neighbours
        self._least = method.least_deviation

    def features(self, frozen: Method, images: Sequence[int], cached: Part, reading: Reading) -> Iterable[Tensor]:
        """The features of all rows of some images, in order: those that are ``cached``, or of all tiles, read again."""
        if self.tiles is None:
            return cached.batches(BATCH)
        paths = [self.samples[image].path for image in images]
        return tile_features(frozen, paths, next(frozen.parameters()).device, reading=reading)

    @torch.no_grad()
    def add(self, network: Method, images: Sequence[int], features: Iterable[Tensor]) -> None:
        """Measure some images with a network; ``features`` are those of their rows, in order."""
        network.eval()
        device = next(network.parameters()).device
        left = iter([row for image in images for row in self.rows[image]])
        for batch in features:
            values, errors = network.measure(batch.to(device))
            rows = list(itertools.islice(left, len(values)))
            for row, value in zip(rows, values.float().cpu()):
                self.values.put(row, value[None])
            if errors is not None:
                self.errors[rows] = errors.float().cpu()

    @torch.no_grad()
    def add_drawn(self, network: Method, frozen: Method, places: Sequence[int], reading: Reading, seed: int) -> None:
        """Draw a defect of each kind onto the images at ``places`` and measure them with a network.

        With tiles it is drawn onto one tile of the image. ``frozen`` gives the features that do not depend on training.
        """
        network.eval()
        device = next(network.parameters()).device
        paths = [self.samples[place].path for place in places]
        found_values, found_errors, masks, source = [], [], [], []
        for found in skipping(pixel_batches(paths, self.view, BATCH, reading=reading), log):
            for loaded, pixels in zip(found.images, found.pixels):
                place = places[loaded.index]
                row, inside = self.rows[place].start, loaded.seen_inside
                if self.tiles is not None:
                    own = np.random.default_rng((seed, place)).integers(len(self.places[place]))
                    row, pixels = row + int(own), self.view.cut(pixels, self.places[place][own])
                    inside = None if inside is None else self.view.cut(inside, self.places[place][own])
                drawn = [
                    draw_defect(pixels, kind, np.random.default_rng((seed, place, number)), part=inside)
                    for number, kind in enumerate(DRAWN)
                ]
                damaged = np.stack([image for image, _ in drawn])
                values, errors = network.measure(frozen.frozen(to_images(damaged, device)))
                masks += [np.packbits(mask) for _, mask in drawn]
                found_values.append(values.float().cpu())
                found_errors.append(torch.zeros(len(DRAWN)) if errors is None else errors.float().cpu())
                source += [row] * len(DRAWN)
        if source:
            before = self.drawn
            self.drawn = FeatureCache(len(self.source) + len(source), self.shape, self.folder)
            self.drawn.put(0, before[:])
            self.drawn.put(len(self.source), torch.cat(found_values))
            self.drawn_errors = torch.cat([self.drawn_errors, *found_errors])
            self.masks = np.stack([*self.masks, *masks])
            self.source += source

    def save(self, path: Path, key: str) -> None:
        """Keep what was measured in a file; ``key`` says of what."""
        with atomic(path, "wb") as file:
            parts = [self.values[:], self.errors, self.drawn[:], self.drawn_errors, torch.tensor(self.source)]
            parts.append(torch.from_numpy(self.masks))
            torch.save({"key": key, "parts": parts}, cast(BinaryIO, file))

    def load(self, path: Path, key: str) -> bool:
        """Take what a file holds, and say whether it could be done: it has to be there and of the same ``key``."""
        try:
            kept = torch.load(path, weights_only=True)
            if kept["key"] != key:
                return False
            values, self.errors, drawn, self.drawn_errors, source, masks = kept["parts"]
        except Exception:  # none, or one that is damaged: it is measured anew
            return False
        self.values.put(0, values)
        self.drawn = FeatureCache(len(drawn), self.shape, self.folder)
        self.drawn.put(0, drawn)
        self.source, self.masks = source.tolist(), masks.numpy()
        return True

    @property
    def statistics(self) -> PlaceStatistics:
        """Those of all images at every place."""
        if self._statistics is None:
            self._statistics = self._statistics_of(tuple(range(self.count)))
        return self._statistics

    def _statistics_of(self, rows: tuple[int, ...]) -> PlaceStatistics:
        found = PlaceStatistics(self.shape, self._least)
        for first in range(0, len(rows), BATCH):
            found.add(self.values[torch.tensor(rows[first : first + BATCH])])
        return found

    @cached_property
    def together(self) -> dict[int, tuple[int, ...]]:
        """By row, all rows that leave with it, as :func:`leaving` says; one that is not there leaves alone."""
        groups = [tuple(row for image in own for row in self.rows[image]) for own in leaving(self.groups)]
        return {row: rows for rows in groups for row in rows}

    def compared(self, rows: slice, how: str, drawn: bool = False) -> Tensor:
        """Values (B, h, w) of some rows, or of drawn defects, compared with all good images but those of its group."""
        values = (self.drawn if drawn else self.values)[rows]
        if how == "none":
            return values
        own = self.source[rows] if drawn else range(*rows.indices(self.count))
        if self.together.keys().isdisjoint(own):
            return compare(values, how, *self.statistics.without(self.values[torch.tensor(own)] if drawn else values))
        parts = [self._sums(self.together.get(row, (row,))) for row in own]
        return compare(values, how, *self.statistics.without_parts(parts))

    def good(self, method: Method, *, itself: bool) -> list[Good]:
        """The images, scored: without themselves, or (``itself``) with the places that the method has learned."""
        found = []
        scored = self._scored(method, range(self.count), itself=itself)
        for image, (sample, (pixels, score)) in enumerate(zip(self.samples, scored)):
            inside = unpack(self.packed[image], pixels.shape)
            found.append(good_image(sample.category, score, pixels, sample.path, inside, self.groups[image]))
        return found

    def maps(self, method: Method, index: int, *, itself: bool) -> np.ndarray:
        """The map (h, w) of one image, made as :meth:`good` makes it."""
        return next(self._scored(method, self.rows[index], itself=itself, first=index))[0]

    @torch.no_grad()
    def _scored(
        self, method: Method, rows: range, *, itself: bool, first: int = 0
    ) -> Iterator[tuple[np.ndarray, float]]:
        """Map (h, w) and score of each of the images, from the ``first``, that have these ``rows``."""
        device = next(method.parameters()).device
        parts: list[tuple[np.ndarray, float]] = []
        image = first
        for start in range(rows.start, rows.stop, BATCH):
            own = slice(start, min(start + BATCH, rows.stop))
            values = self.values[own].to(device)
            compared = method.places(values) if itself else self.compared(own, method.places.how).to(device)
            maps, scores = method.maps_and_scores(values, compared, self.errors[own].to(device))
            for part in zip(maps.cpu().numpy(), scores.tolist()):
                parts.append(part)
                if len(parts) == len(self.rows[image]):
                    yield self._whole(image, parts)
                    parts, image = [], image + 1

    def _whole(self, image: int, parts: Sequence[tuple[np.ndarray, float]]) -> tuple[np.ndarray, float]:
        """Map and score of an image from those of its rows, as :meth:`View.score` makes them."""
        values, score = parts[0]
        if self.tiles is not None:
            blend = Blend(self.view, *self.tiles.shapes[image], self.places[image])
            for tile, _ in parts:
                blend.add(tile)
            values, score = blend.map, float(np.max([score for _, score in parts]))
        return level_outside(values, unpack(self.packed[image], values.shape)), score


def draw_sources(config: TrainingConfig, seed: int, rows: list[int]) -> set[int]:
    """The images onto which defects are drawn; none if there is nothing to choose with them."""
    if not config.drawn_decide:
        return set()
    return set(random.Random(seed).sample(rows, min(DRAWN_ON, len(rows))))


class DrawnTest:
    """How well a network tells some good images that it does not train on from the same with drawn defects.

    A call gives the AUROC, by the method's usual score before places are compared; None if no image can be read. It
    changes neither the network nor any random state. With tiles, one of each image is taken. ``frozen`` gives the
    features that do not depend on training. A test that ``decides`` when training ends takes more images, and draws
    every kind of defect onto each.
    """

    def __init__(
        self, frozen: Method, paths: Sequence[Path], reading: Reading, seed: int, *, decides: bool = False
    ) -> None:
        self.decides = decides and frozen.config.patience > 0
        count = min(TESTED_TO_DECIDE if self.decides else TESTED, len(paths))
        step = len(paths) / count if self.decides else 1.0  # neighbours by name may be alike
        self.paths = [paths[int(index * step)] for index in range(count)]
        self.frozen, self.reading, self.seed = frozen, reading, seed
        self.features: list[tuple[Tensor, Tensor]] | None = None  # of batches: good images, and the same with defects

    def __bool__(self) -> bool:
        """Whether there are images to test with."""
        return bool(self.paths)

    def _read(self) -> list[tuple[Tensor, Tensor]]:
        device = next(self.frozen.parameters()).device
        view, features = self.frozen.config.view, []
        for found in readable_batches(self.paths, view, BATCH, self.reading):
            good, drawn = [], []
            for loaded, pixels in zip(found.images, found.pixels):
                inside = loaded.seen_inside
                places = view.places(pixels.shape[0], pixels.shape[1], inside)
                place = places[len(places) // 2]
                pixels, inside = view.cut(pixels, place), None if inside is None else view.cut(inside, place)
                good.append(pixels)
                for number in range(len(DRAWN)) if self.decides else (loaded.index % len(DRAWN),):
                    rng = np.random.default_rng((self.seed, loaded.index, number))
                    drawn.append(draw_defect(pixels, DRAWN[number], rng, part=inside)[0])
            of_good, of_drawn = (self.frozen.frozen(to_images(np.stack(part), device)) for part in (good, drawn))
            features.append((of_good, of_drawn))
        return features

    def __call__(self, network: Method) -> float | None:
        ranks = self.ranks(network)
        return float(ranks.mean()) if len(ranks) else None

    @torch.no_grad()
    def ranks(self, network: Method) -> Tensor:
        """For each image that is drawn on (N,), the share of good images that its defects score above, on average."""
        network.eval()
        good: list[Tensor] = []
        drawn: list[Tensor] = []
        with torch.random.fork_rng(devices=[]):
            self.features = self._read() if self.features is None else self.features
            for features in self.features:
                for found, part in zip((good, drawn), features):
                    found.append(usual_scores(network, part).double().cpu())
        return ranks_of(torch.cat(good), torch.cat(drawn)) if good else torch.zeros(0)


def usual_scores(network: Method, features: Tensor) -> Tensor:
    """Scores (B,) from ``frozen`` features as the method usually makes them, but of maps that are not compared."""
    values, errors = network.measure(features)
    name = network.score_name
    return network.scores(network.maps(values), values, errors, WITHOUT_PLACES.get(name, name))


def ranks_of(good: Tensor, drawn: Tensor) -> Tensor:
    """The mean share (N,) of good scores (N,) that the drawn ones (N * kinds,) of each image exceed; equal count half.

    The mean of it is the AUROC.
    """
    above, same = drawn[:, None] > good, drawn[:, None] == good
    return (above.double() + 0.5 * same.double()).mean(1).reshape(len(good), -1).mean(1)
