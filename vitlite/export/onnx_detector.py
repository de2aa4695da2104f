"""Scoring with an exported ONNX file: numpy, pillow and onnxruntime. Never imports torch."""

import ctypes
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitlite.engine.predict import Predictor
from vitlite.errors import UserError
from vitlite.export.metadata import INPUT, KEY, MAPS, SCORES, known_regions, loads, scale_of, view_of
from vitlite.files import MAX_MEGAPIXELS
from vitlite.images.scale import Reading, as_pixels

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class OnnxDetector(Predictor):
    """Scores images as :class:`vitlite.engine.detector.Detector` does, from the file that ``vitlite export`` wrote.

    ``metadata`` is all that the file says about itself, ``calibration`` its thresholds and display scale,
    ``image_size`` the side of its input, or its (height, width). ``data`` is the contents of a file that is not
    written yet; ``path`` then only names it. ``threads`` of the processor score an image; None: all. Several threads of
    Python may score with one detector. ``predict`` and ``score_files`` are those of every detector.

    The detector keeps the bytes of the file. A pickle holds them, so the copy scores the same if the file has gone or
    changed; and a process that was forked after loading opens a session of its own from them.

    Raises ``UserError``: onnxruntime is missing, the file is missing, damaged or not written by vitlite, or ``device``
    is not the CPU.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        *,
        data: bytes | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        threads: int | None = None,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise UserError(f"`device={device}`: an ONNX file is scored on the CPU; leave it out, or give a run")
        self.path = Path(path)
        self._data = read_model(self.path) if data is None else data
        self.threads = threads
        session = open_session(self.path, self._data, threads)
        self._opened = os.getpid(), session
        self.metadata = loads(session.get_modelmeta().custom_metadata_map.get(KEY), path)
        self.calibration, view = self.metadata["calibration"], view_of(self.metadata)
        self.image_size = view.size
        self.tiles = view if view.tile else None
        self.reading = Reading(scale_of(self.metadata), as_pixels(max_megapixels), known_regions(self.metadata))
        inputs = [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()]
        outputs = {o.name for o in session.get_outputs()}
        if inputs != [(INPUT, "tensor(uint8)", [*view.sides, 3])] or not {MAPS, SCORES} <= outputs:
            raise UserError(f"{self.path}: its inputs and outputs are not what its metadata say; export it again")

    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (B, S, S, 3), RGB, to maps (B, S, S) and scores (B,), float32."""
        session = self._session()
        try:
            maps, scores = session.run([MAPS, SCORES], {INPUT: np.ascontiguousarray(pixels)})
        except Exception as error:  # onnxruntime's errors have no common base of their own
            raise UserError(f"{self.path}: onnxruntime cannot run it ({first_line(error)}); export it again") from error
        if maps.shape != pixels.shape[:3] or scores.shape != pixels.shape[:1]:
            raise UserError(f"{self.path}: gives maps {maps.shape} and scores {scores.shape}; export it again")
        return maps, scores

    def __repr__(self) -> str:
        return f"OnnxDetector({str(self.path)!r}, method={self.metadata['method']!r})"

    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self._data).hexdigest()

    def _session(self) -> "InferenceSession":
        """This process's session: the threads and locks of one that was opened before a fork are not usable."""
        process, session = self._opened
        if process != os.getpid():
            # Never destroyed here: its destructor would wait for threads that are gone.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
            session = open_session(self.path, self._data, self.threads)
            self._opened = os.getpid(), session
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._opened = os.getpid(), open_session(self.path, self._data, self.threads)


def read_model(path: Path) -> bytes:
    """The contents of a file. ``UserError`` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}); vitlite export RUN makes such a file") from None


def open_session(path: Path, data: bytes, threads: int | None = None) -> "InferenceSession":
    """An onnxruntime session on so many threads of the CPU for the contents of a file, which errors name."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: needs onnxruntime ({error}): pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well, and need to be said once
    options.intra_op_num_threads = threads or 0  # 0: all
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above: Fail, InvalidProtobuf, InvalidGraph, NotImplemented ...
        raise UserError(f"{path}: damaged, or not an ONNX model ({first_line(error)}); export it again") from None


def first_line(error: Exception) -> str:
    """The first line of an error's message, shortened."""
    return "".join(str(error).strip().splitlines()[:1])[:160] or type(error).__name__
