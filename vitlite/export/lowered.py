"""A run as a model of OpenVINO in 8-bit integers: what is in them, and the thresholds that belong to it."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from vitlite.backbones import Backbone
from vitlite.calibration import good_image, moved
from vitlite.engine.detector import Detector
from vitlite.export.exported import Contents
from vitlite.export.int8 import fitted, plain
from vitlite.export.metadata import describe, dumps
from vitlite.export.openvino_detector import OpenVinoDetector, to_openvino
from vitlite.export.program import to_onnx, trace
from vitlite.images.loading import Unread
from vitlite.methods.bank import BankMethod
from vitlite.nn.transformer import Block
from vitlite.predictor import Predictor

log = logging.getLogger(__name__)


class Lowering:
    """A run whose bank is in 8-bit integers, and as many parts of its transformer as are asked for.

    A part is the attention or the MLP of a block. ``path`` only names the files; ``seen`` are batches of good images
    as the network sees them, uint8 (B, height, width, 3), to which the rounding is fitted.
    """

    def __init__(self, detector: Detector, path: Path, seen: Iterable[np.ndarray]) -> None:
        self.detector, self.path = detector, path
        self.onnx = to_onnx(trace(detector.method, detector.view.sides), self.metadata(detector.calibration))
        found = fitted(self.onnx, parts_of(detector.method), seen)
        self.parts = {name: products for name, products in found.items() if products}
        self.bank = plain(self.onnx, bank_of(detector.method))
        if not self.parts or (bank_of(detector.method) and not self.bank):
            raise ValueError("the exported graph has other products than the transformer and the bank")

    def metadata(self, calibration: Any) -> dict[str, Any]:
        """What the file says of itself, with these thresholds."""
        return describe(self.detector.settings, calibration, self.detector.reading.regions, "int8")

    def contents(self, parts: Iterable[str], bank: bool = True, calibration: Any = None) -> Contents:
        """The graph and the weights with these parts in 8-bit integers. Without thresholds: those of the run."""
        changed = {name: product for part in parts for name, product in self.parts[part].items()}
        metadata = self.metadata(calibration or self.detector.calibration)
        return to_openvino(self.onnx, dumps(metadata), changed | (self.bank if bank else {}))

    def steadiest(self, images: np.ndarray) -> list[str]:
        """The parts in the order of what they change in the maps of images (B, height, width, 3): the least first."""

        def maps(*parts: str) -> np.ndarray:
            score_pixels = OpenVinoDetector(self.path, data=self.contents(parts, bank=False)).score_pixels
            return score_pixels(images)[0].astype(np.float64)

        exact = maps()
        errors = {part: np.square(maps(part) - exact).mean() for part in self.parts}
        return sorted(errors, key=errors.__getitem__)

    def calibrated(self, parts: Iterable[str], good: Sequence[Path]) -> Contents:
        """As ``contents``, with thresholds of its own.

        They are those of the run times the usual ratio of the scores, or of the highest values of maps, of ``good``
        images to those in float32.
        """
        before = levels(self.detector, good)
        after = levels(OpenVinoDetector(self.path, data=self.contents(parts)), good)
        ratios = np.divide(after, before, out=np.ones_like(after), where=before > 0)
        score, pixel = np.median(ratios, axis=0).tolist()
        log.info("thresholds moved by %+.1e for images and %+.1e for pixels, relative", score - 1, pixel - 1)
        return self.contents(parts, calibration=moved(self.detector.calibration, score, pixel))


def parts_of(method: nn.Module) -> dict[str, list[np.ndarray]]:
    """The weights of the linear layers of each part, by the part's name, without those of backbones."""
    frozen = {id(inner) for module in method.modules() if isinstance(module, Backbone) for inner in module.modules()}
    found: dict[str, list[np.ndarray]] = {}
    for name, block in method.named_modules():
        if isinstance(block, Block) and id(block) not in frozen:
            for part in ("attn", "mlp"):
                linear = [one for one in getattr(block, part).modules() if isinstance(one, nn.Linear)]
                found[f"{name}.{part}"] = [one.weight.detach().cpu().numpy() for one in linear]
    return found


def bank_of(method: nn.Module) -> list[np.ndarray]:
    """The rows of a bank as :func:`vitlite.nn.portable.nearest_rows` multiplies with them; nothing if there is none."""
    if not isinstance(method, BankMethod) or method.bank is None:
        return []
    return [-method.bank.detach().cpu().numpy()]


def levels(detector: Predictor, paths: Sequence[Path]) -> np.ndarray:
    """Score and highest values of the map, as calibration takes them, of the images that can be read: (n, 2)."""
    found = []
    for one in detector.score_files(paths, keep_original=False):
        if not isinstance(one, Unread):
            loaded, values, score = one
            found.append((score, good_image("", score, values, loaded.path, loaded.seen_inside).pixel_tail))
    return np.array(found, dtype=np.float64).reshape(-1, 2)
