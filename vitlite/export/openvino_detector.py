"""Scoring with an exported OpenVINO model, in the file's precision: numpy, pillow and openvino. Never imports torch.

Such a model is two files of one name: .xml is the graph, with the metadata, and .bin are the weights.
"""

import hashlib
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vitlite.export.exported import Contents, ExportedDetector, Session, read_model
from vitlite.export.int8 import Product, lower
from vitlite.export.metadata import INPUT, KEY, MAPS, SCORES

WEIGHTS_KEY = f"{KEY}_weights"  # SHA-256 of the .bin file, in the .xml file


class OpenVinoDetector(ExportedDetector):
    """Scores with OpenVINO."""

    kind = "an OpenVINO model"
    package = "openvino"

    @classmethod
    def contents(cls, path: Path) -> Contents:
        """The graph and the weights, which lie beside it."""
        return read_model(path), read_model(weights_file(path))

    def open(self) -> Session:
        """A session of both files."""
        return OpenVinoSession(self._data, self.threads)


class OpenVinoSession(Session):
    """A model, compiled by OpenVINO for so many threads of the CPU; None: all.

    It is compiled for one image at a time: with a size that it knows OpenVINO takes less time for each image, in a
    batch too. OpenVINO would compute in bfloat16 by itself, where the processor can, and scores would be other ones.
    """

    def __init__(self, data: Contents, threads: int | None) -> None:
        import openvino

        graph, weights = data
        core = openvino.Core()
        model = core.read_model(graph, weights)
        self.metadata = str(model.get_rt_info(KEY).value) if model.has_rt_info(KEY) else None
        if self.metadata is not None and model.get_rt_info(WEIGHTS_KEY).value != digest(weights):
            raise ValueError("its .bin file belongs to another .xml file")
        self._sides = [(i.any_name, i.element_type.to_string(), str(i.partial_shape)) for i in model.inputs]
        self._outputs = {name for output in model.outputs for name in output.names}
        if len(model.inputs) == 1 and not model.input(0).partial_shape.rank.is_dynamic:
            model.reshape([1, *list(model.input(0).partial_shape)[1:]])
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(model, "CPU", hints | {"INFERENCE_NUM_THREADS": threads or 0})
        self._one_at_a_time = threading.Lock()  # one stream has all threads of the network

    def fits(self, sides: tuple[int, int]) -> bool:
        """As for every session."""
        height, width = sides
        return self._sides == [(INPUT, "u8", f"[?,{height},{width},3]")] and {MAPS, SCORES} <= self._outputs

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As for every session."""
        found = []
        with self._one_at_a_time:
            for place in range(len(pixels)):
                one = self._compiled([pixels[place : place + 1]])
                found.append((one[MAPS].copy(), one[SCORES].copy()))  # the next call writes over what it has given
        maps, scores = (np.concatenate(own) for own in zip(*found))
        return maps, scores


def to_openvino(onnx: bytes, metadata: str, changed: Mapping[str, Product] | None = None) -> Contents:
    """The graph and the weights of an ONNX file, as OpenVINO writes them.

    In float32, but the products in ``changed``, by name, in 8-bit integers: see :func:`lower`.
    """
    import openvino

    model = openvino.Core().read_model(onnx)
    if changed:
        lower(model, changed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, str(path), compress_to_fp16=False)
        model.set_rt_info(metadata, [KEY])
        model.set_rt_info(digest(weights_file(path).read_bytes()), [WEIGHTS_KEY])
        openvino.save_model(model, str(path), compress_to_fp16=False)
        return path.read_bytes(), weights_file(path).read_bytes()


def weights_file(path: Path) -> Path:
    """The file of the weights beside that of the graph."""
    return path.with_suffix(".bin")


def digest(weights: bytes) -> str:
    """What the graph knows its weights by."""
    return hashlib.sha256(weights).hexdigest()
