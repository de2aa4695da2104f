"""A detector from whatever holds one: a run directory or an exported ONNX file. Imports torch only for the former."""

import os
from pathlib import Path

from vitlite.errors import UserError


def is_exported(source):
    """Whether the name is that of an exported ONNX file."""
    return Path(source).suffix.lower() == ".onnx"


def open_detector(source, device="auto"):
    """The detector of a run directory, or of an ``.onnx`` file that ``vitlite export`` wrote.

    Both are a :class:`~vitlite.engine.predictor.Predictor`. ``UserError`` says what is wrong with the source.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(f"{source!r}: give the folder of a run, or an exported .onnx file")
    if is_exported(source):
        from vitlite.export.onnx_detector import OnnxDetector

        return OnnxDetector(source, device)
    if Path(source).suffix.lower() == ".pt2" and Path(source).is_file():
        raise UserError(f"{source}: a pt2 file is for torch.export.load; give the run's folder or an .onnx file")
    from vitlite.engine.detector import Detector

    return Detector(source, device)
