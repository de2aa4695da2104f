"""How well the maps of trained runs find defects that are drawn onto good images: what presets are chosen by.

Each run's good images that its network did not train on get a defect of each kind of ``vitlite.data.DRAWN``, drawn at
the network's size. Every choice of the map, of the filter's width and of what places are compared with is measured with
the same weights. A good image is compared with the others, never with itself. No test image is read.

Example: vitlite bench drawn --runs runs/anovit runs/memca
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitlite.data import DRAWN, draw_defect
from vitlite.engine.detector import Detector
from vitlite.engine.features import to_images
from vitlite.engine.split import held_out_share
from vitlite.errors import UserError
from vitlite.images.loading import pixel_batches
from vitlite.methods.base import Method
from vitlite.methods.config import PLACES
from vitlite.methods.reconstruction import ReconstructionConfig
from vitlite.metrics import evaluate_maps
from vitlite.nn.score import PlaceStatistics, compare
from vitlite.results import aligned

from ._machine import described, machine, parser_of
from ._runs import Changed

MAPS = ("l2", "ssim", "loss")  # of the methods that reconstruct images
OWN = "own"  # map of the others
SIGMAS = (1.0, 2.0, 4.0)
FIGURES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "aupro_30": "AUPRO@0.3"}
BATCH = 8


class Drawn(NamedTuple):
    """Held-out good images and the same with defects: pixels, and for each defect its mask and the image below it."""

    good: np.ndarray  # uint8 (N, H, W, 3)
    bad: np.ndarray  # uint8 (N * kinds, H, W, 3)
    masks: np.ndarray  # bool (N * kinds, H, W)
    source: Tensor  # int64 (N * kinds,)


def main(args: Sequence[str] | None = None) -> int:
    parser = parser_of("drawn", __doc__)
    parser.add_argument("--runs", nargs="+", required=True, help="folders that vitlite train wrote")
    parser.add_argument("--images", type=int, default=60, help="held-out good images of each run, at most; default: 60")
    parser.add_argument("--kinds", default=",".join(DRAWN), help="kinds of defects, with commas; default: all")
    options = parser.parse_args(args)
    kinds = [kind.strip() for kind in options.kinds.split(",")]
    if not set(kinds) <= set(DRAWN):
        parser.error(f"--kinds: some of {', '.join(DRAWN)}")
    if options.images < 3:
        parser.error("--images must be at least 3")
    print(described(machine()))
    rows: list[tuple[str, ...]] = [("run", "images", "map", "sigma", "places", *FIGURES.values())]
    for detector in [Detector(run) for run in options.runs]:  # a folder that is none is refused before the work
        rows += measure(detector, options.images, kinds)
    print("\n".join(aligned(rows)))
    return 0


def measure(detector: Detector, most: int, kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """The lines of one run. ``UserError``: it has tiles, or fewer than 3 held-out images."""
    run = detector.run
    if detector.tiles is not None:
        raise UserError(f"{run}: tiles cannot be measured here; give a run without `tile`")
    images = draw(detector, most, kinds)
    rows = []
    for map_name, sigma, changed in variants(detector):
        for places, figures in by_places(changed.method, images):
            rows.append((run.name, str(len(images.good)), map_name, sigma, places, *figures))
    return rows


def draw(detector: Detector, most: int, kinds: Sequence[str]) -> Drawn:
    """Read at most ``most`` of the run's held-out good images, and draw a defect of each of ``kinds`` onto each."""
    paths = [sample.path for sample in held_out_share(detector)][:most]
    if len(paths) < 3:
        raise UserError(
            f"{detector.run}: {len(paths)} good images are held out, 3 are needed; train with a larger `holdout`"
        )
    good: list[np.ndarray] = []
    bad: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    source: list[int] = []
    for found in pixel_batches(paths, detector.view, BATCH, reading=detector.reading):
        for loaded in getattr(found, "images", ()):  # a file that cannot be read has none
            source += [len(good)] * len(kinds)
            good.append(loaded.pixels)
            for kind in kinds:
                rng = np.random.default_rng((loaded.index, DRAWN.index(kind)))
                damaged, mask = draw_defect(loaded.pixels, kind, rng, part=loaded.seen_inside)
                bad.append(damaged)
                masks.append(mask)
    return Drawn(np.stack(good), np.stack(bad), np.stack(masks), torch.tensor(source))


def variants(detector: Detector) -> Iterator[tuple[str, str, Detector]]:
    """``(map, sigma, detector)`` of each choice, with the run's weights."""
    maps = MAPS if isinstance(detector.settings.config, ReconstructionConfig) else (OWN,)
    for name, sigma in itertools.product(maps, SIGMAS):
        changes = {} if name == OWN else {"map": name}
        yield name, str(sigma), Changed(detector.run, sigma=sigma, **changes)


def by_places(method: Method, images: Drawn) -> Iterator[tuple[str, list[str]]]:
    """``(places, figures)``: the maps compared in each way; the score of an image is the highest value of its map."""
    good, bad = values(method, images.good), values(method, images.bad)
    statistics = PlaceStatistics(good.shape[1:], method.least_deviation)
    statistics.add(good)
    masks = [np.zeros(images.masks.shape[1:], bool)] * len(good) + list(images.masks)
    others, others_of_bad = statistics.without(good), statistics.without(good[images.source])
    for how in PLACES:
        maps = [
            *method.maps(compare(good, how, *others)).numpy(),
            *method.maps(compare(bad, how, *others_of_bad)).numpy(),
        ]
        found = evaluate_maps(masks, maps)
        yield how, [f"{found[key]:.3f}" for key in FIGURES]


@torch.no_grad()
def values(method: Method, pixels: np.ndarray) -> Tensor:
    """uint8 images (N, H, W, 3) to the values (N, h, w) or (N, n, h, w), float32, before places are compared."""
    device = next(method.parameters()).device
    parts = [pixels[first : first + BATCH] for first in range(0, len(pixels), BATCH)]
    return torch.cat([method.measure(method.frozen(to_images(part, device)))[0].float().cpu() for part in parts])
