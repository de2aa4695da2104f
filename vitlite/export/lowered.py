"""A run as a model of OpenVINO in 8-bit integers, with the thresholds that belong to it."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from vitlite.calibration import good_image, moved
from vitlite.engine.detector import Detector
from vitlite.engine.predict import Predictor
from vitlite.export.exported import Contents
from vitlite.export.metadata import describe, dumps
from vitlite.export.openvino_detector import OpenVinoDetector, to_openvino
from vitlite.export.program import to_onnx, trace
from vitlite.images.loading import Unread
from vitlite.methods.bank import BankMethod
from vitlite.nn.transformer import Block, Mlp

# Whose linear layers are in int8: the first that keeps scores close enough is taken.
PARTS: tuple[tuple[str, type[nn.Module]], ...] = (("the blocks", Block), ("their MLPs", Mlp))
log = logging.getLogger(__name__)


def in_int8(detector: Detector, path: Path, good: Sequence[Path]) -> Iterator[tuple[str, Contents]]:
    """For each of ``PARTS`` its name, and the graph and the weights of a run with the products of these parts in int8.

    Those of a bank, if there is one, are in int8 too. The thresholds are those of the run times the usual ratio of the
    scores, or of the highest values of maps, of ``good`` images to those in float32. ``path`` only names the files.
    """
    regions = detector.reading.regions
    metadata = describe(detector.settings, detector.calibration, regions, "int8")
    onnx = to_onnx(trace(detector.method, detector.view.sides), metadata)
    before = levels(detector, good)
    for name, part in PARTS:
        parts = [module for module in detector.method.modules() if isinstance(module, part)]
        linear = [layer for module in parts for layer in module.modules() if isinstance(layer, nn.Linear)]
        layers = [layer.weight.detach().cpu().numpy() for layer in linear] + bank_of(detector.method)
        after = levels(OpenVinoDetector(path, data=to_openvino(onnx, dumps(metadata), layers)), good)
        ratios = np.divide(after, before, out=np.ones_like(after), where=before > 0)
        score, pixel = np.median(ratios, axis=0).tolist()
        log.info("thresholds moved by %+.1e for images and %+.1e for pixels, relative", score - 1, pixel - 1)
        calibration = moved(detector.calibration, score, pixel)
        yield name, to_openvino(onnx, dumps(describe(detector.settings, calibration, regions, "int8")), layers)


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
