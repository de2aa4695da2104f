"""The library in three functions: train, evaluate, load. ``import vitlite`` has them and stays cheap."""

import os
from pathlib import Path

from vitlite.errors import UserError

_PATH = (str, os.PathLike)


def train(data, out, *, method="sivt", category=None, preset="quick", seed=0, device="auto", **settings):
    """Train a detector on good images and calibrate it on those that training leaves aside.

    Args:
        data: a data set in a layout of docs/data.md, or a plain folder of good images; None: a synthetic set.
        out: folder for the run; must not hold one yet. ``vitlite train --resume --out OUT`` finishes one
            that was interrupted.
        method: its name, a key of ``vitlite.methods.REGISTRY``.
        category: a name, or several as a list or with commas between, or ``"all"``, in one model.
        preset: ``"quick"``, for two CPU cores, or ``"paper"``.
        seed: of everything random, 0 to 2^63 - 1.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        settings: settings of the preset to change, such as ``epochs=50, holdout=0.2``.

    Returns:
        Detector: the trained run, loaded.

    Raises:
        UserError: one line that says what is wrong with the data, a setting, the folder or the type of an argument.
    """
    from vitlite.engine.detector import Detector
    from vitlite.engine.settings import SYNTHETIC, RunSettings, preset_config
    from vitlite.engine.train import train as train_run
    from vitlite.errors import UserError
    from vitlite.methods.config import change

    if data is not None:
        _check("data", data, _PATH, "the folder of a data set, or None for a synthetic one")
    _check("out", out, _PATH, "the folder for the run")
    _check("method", method, str, "the name of a method")
    _check("preset", preset, str, "the name of a preset")
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError(f"seed={seed!r}: must be a whole number from 0 to 2^63 - 1")
    config = change(preset_config(method, preset), settings)
    source = SYNTHETIC if data is None else os.path.realpath(data)
    if category is None:
        category = "all" if data is None else ""
    chosen = RunSettings(method, source, _plain(category), preset, seed, config)
    train_run(chosen, out, device=device)
    return Detector(out, device)


def evaluate(run, data=None, category=None):
    """Score a detector on labelled test images, at their original resolution.

    Args:
        run: a run's folder, or a detector.
        data: a data set with labelled test images; default: the data of training.
        category: a name, or several as a list or with commas between, or ``"all"``.

    Returns:
        dict: ``mean`` and ``categories``, by name, of ``image_auroc``, ``image_ap``, ``image_f1_max``, ``pixel_auroc``,
        ``pixel_ap``, ``pixel_f1_max``, ``aupro_30``, ``aupro_05`` (0 to 1; None where there are no masks), and
        ``about``: the contents of ``vitlite eval``'s results.json. Nothing is written.

    Raises:
        UserError: no such run or data, something of another type in their place, or a category without both good and
            defective test images.
    """
    from vitlite.engine.evaluate import evaluate as evaluate_run
    from vitlite.engine.predict import Predictor
    from vitlite.errors import UserError

    if data is not None:
        _check("data", data, _PATH, "the folder of a data set, or None for the data of training")
    detector = run if isinstance(run, Predictor) else load(run)  # which refuses what is neither
    if not hasattr(detector, "settings"):
        raise UserError(f"{detector.path}: an exported file knows no data set; give the run that it was exported from")
    category = None if category is None else _plain(category)
    return evaluate_run(detector, data=data, category=category)


def load(path, device="auto"):
    """Load what ``train`` or ``vitlite export`` wrote.

    Args:
        path: a run's folder, or an exported .onnx file, which needs onnxruntime and no torch.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; an .onnx file runs on the CPU.

    Returns:
        Predictor: ``detector.predict(image)`` gives a ``Prediction`` with ``score``, ``is_defect``, ``percentile``,
        ``map`` and ``regions``, and a list of them for several images; safe to call from several threads.

    Raises:
        UserError: nothing of the kind there, or a damaged one.
    """
    from vitlite.api import open_detector

    return open_detector(path, device)


def _check(name, value, kind, what):
    """``UserError`` unless the argument is of a type, which ``what`` describes."""
    from vitlite.errors import UserError

    if not isinstance(value, kind):
        raise UserError(f"{name}={value!r}: must be {what}")


def _plain(value):
    """A setting's value as the command line writes it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def is_exported(source):
    """Whether the name is that of an exported ONNX file."""
    return Path(source).suffix.lower() == ".onnx"


def open_detector(source, device="auto"):
    """The detector of a run directory, or of an ``.onnx`` file that ``vitlite export`` wrote.

    Both are a :class:`~vitlite.engine.predict.Predictor`. ``UserError`` says what is wrong with the source.
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
