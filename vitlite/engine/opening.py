"""A detector from whatever holds one: a run directory or an exported ONNX file. Imports torch only for the former."""

from pathlib import Path

from vitlite.errors import UserError


def open_detector(source, device="auto"):
    """The detector of a run directory, or of an ``.onnx`` file that ``vitlite export`` wrote.

    Both are a :class:`~vitlite.engine.predictor.Predictor`. ``UserError`` says what is wrong with the source.
    """
    suffix = Path(source).suffix.lower()
    if suffix == ".onnx":
        from vitlite.export.onnx_detector import OnnxDetector

        return OnnxDetector(source, device)
    if suffix == ".pt2" and Path(source).is_file():
        raise UserError(f"{source}: a pt2 file is for torch.export.load; give the run's folder or an .onnx file")
    from vitlite.engine.detector import Detector

    return Detector(source, device)
