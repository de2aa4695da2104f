"""The library in three functions: train, evaluate, load. ``import vitlite`` has them and stays cheap."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vitlite.errors import UserError
from vitlite.files import MAX_MEGAPIXELS, MAX_THREADS, StrPath

if TYPE_CHECKING:
    from vitlite.engine.detector import Detector
    from vitlite.predictor import Predictor

Source = StrPath
_PATH = (str, os.PathLike)


def train(
    data: Source | None,
    out: Source,
    *,
    method: str | None = None,
    category: str | Sequence[str] | None = None,
    preset: str | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    init_from: Source | None = None,
    roi: Source | None = None,
    ignore: Source | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    **settings: Any,
) -> "Detector":
    """Train a detector on good images and calibrate it on those that training leaves aside.

    Args:
        data: a data set in a layout of docs/data.md, or a plain folder of good images; None: a synthetic set.
        out: folder for the run; must not hold one yet, unless it failed, has no checkpoint or ``resume`` is given.
        method: its name, a key of ``vitlite.methods.REGISTRY``; default: sivt, or that of ``init_from``.
        category: a name, or several as a list or with commas between, or ``"all"``, in one model.
        preset: ``"quick"``, for two CPU cores, ``"paper"``, or another of the method; default: quick, or the settings
            of ``init_from``.
        seed: of everything random, 0 to 2^63 - 1.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        resume: go on with the run in ``out``, with its own settings. ``data`` is None, or the new place of the same
            images. Of the settings only ``epochs`` or ``steps`` can be given: the whole number, with those it has had.
        init_from: a run; begin with its weights, and with its settings unless others are given.
        roi: where to look: a mask (bright pixels), a JSON file with polygons, or a folder with one of them for each
            category, by name; ``"auto"``: not at a plain background. Nothing else has any effect, in training or later.
        ignore: where not to look, a file or a folder likewise.
        max_megapixels: larger images are left out.
        settings: settings of the preset to change, such as ``epochs=50, holdout=0.2``.

    Returns:
        Detector: the trained run, loaded.

    Raises:
        UserError: one line that says what is wrong with the data, a setting, the folder or the type of an argument.
    """
    from vitlite.engine.detector import Detector
    from vitlite.engine.settings import CONFIG_FILE, SEEDS, new_settings, preset_config, resumed_settings, settings_from
    from vitlite.engine.train import train as train_run
    from vitlite.methods import DEFAULT
    from vitlite.methods.config import change

    if data is not None:
        _check("data", data, _PATH, "the folder of a data set, or None for a synthetic one")
    _check("out", out, _PATH, "the folder for the run")
    for name, value, what in (("method", method, "a method"), ("preset", preset, "a preset")):
        if value is not None:
            _check(name, value, str, f"the name of {what}")
    if init_from is not None:
        _check("init_from", init_from, _PATH, "the folder of a run")
    if not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise UserError(f"`seed={seed!r}`: must be a whole number from 0 to 2^63 - 1")
    names = None if category is None else _names(category)
    if resume:
        if (method, names, preset, seed, init_from, roi, ignore) != (None, None, None, 0, None, None, None):
            raise UserError(
                f"`resume=True`: takes its settings from {out}/{CONFIG_FILE}; give `out`, `data`, `device` and `steps` "
                "or `epochs` alone"
            )
        run = resumed_settings(out, settings, data)
    elif init_from is not None:
        run = settings_from(init_from, method, data, names, preset, seed, settings, roi, ignore)
    else:
        method, preset = method or DEFAULT, preset or "quick"
        run = new_settings(
            method, change(preset_config(method, preset), settings), data, names, preset, seed, roi=roi, ignore=ignore
        )
    train_run(run, out, device=device, resume=resume, max_megapixels=max_megapixels)
    return Detector(out, device, max_megapixels=max_megapixels)


def evaluate(
    run: "Source | Predictor",
    data: Source | None = None,
    category: str | Sequence[str] | None = None,
    *,
    mask_threshold: int | None = None,
    streaming: bool = False,
    scores: bool = False,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> dict[str, Any]:
    """Score a detector on labelled test images, at their original resolution.

    Args:
        run: a run's folder, or a detector, which has its own limit on the size of images.
        data: a data set with labelled test images; default: the data of training.
        category: a name, or several as a list or with commas between, or ``"all"``.
        mask_threshold: a pixel whose mask is above it (0 to 65534) is a defect; None: what the masks of each category
            say by their values.
        streaming: count the maps one by one and keep none, for sets that do not fit into memory; ``error_bound`` says
            how far the pixel metrics may be from the exact ones.
        scores: say as well, in ``scores`` of each category, which image AUROC the settings ``score`` and ``places``
            would give. These are figures on test images: choose nothing by them.
        max_megapixels: larger images are left out.

    Returns:
        dict: ``mean`` and ``categories``, by name, of ``image_auroc``, ``image_ap``, ``image_f1_max``, ``pixel_auroc``,
        ``pixel_ap``, ``pixel_f1_max``, ``aupro_30``, ``aupro_05`` (0 to 1; None without masks). A category also has the
        score and the verdict of every image, and the counts at the calibrated threshold. It is the contents of
        ``vitlite eval``'s results.json; docs/result-files.md lists all fields. Nothing is written.

    Raises:
        UserError: no such run or data, something of another type in their place, a category without both good and
            defective test images, or masks whose values fit no rule.
    """
    from vitlite.engine.evaluate import evaluate as evaluate_run
    from vitlite.predictor import Predictor

    if data is not None:
        _check("data", data, _PATH, "the folder of a data set, or None for the data of training")
    detector = (
        run if isinstance(run, Predictor) else load(run, max_megapixels=max_megapixels)
    )  # which refuses what is neither
    if not hasattr(detector, "settings"):
        name = getattr(detector, "path", detector)
        raise UserError(f"{name}: an exported file knows no data set; give the run that it was exported from")
    names = None if category is None else _names(category)
    return evaluate_run(
        cast("Detector", detector),
        data=data,
        category=names,
        mask_threshold=mask_threshold,
        streaming=streaming,
        scores=scores,
    )


def load(
    path: Source,
    device: str = "auto",
    *,
    max_megapixels: float = MAX_MEGAPIXELS,
    threads: int | None = None,
    precision: str = "float32",
) -> "Predictor":
    """Load what ``train`` or ``vitlite export`` wrote.

    Args:
        path: a run's folder, or an exported file, which needs no torch: .onnx (onnxruntime) or .xml (openvino).
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; an exported file runs on the CPU.
        max_megapixels: larger images are not read.
        threads: of the processor that the network uses, from 1 to 1024; None: all. For a run it holds for all of torch
            in this process.
        precision: of the trained network of ``sivt``, ``"float32"`` or ``"bfloat16"``, which is faster on processors
            and GPUs that multiply in it and changes scores a little. An exported file has its own.

    Returns:
        Predictor: ``detector.predict(image)`` gives a ``Prediction`` with ``score``, ``is_defect``, ``percentile``,
        ``map`` and ``regions``, and a list of them for several images; safe to call from several threads.

    Raises:
        UserError: nothing of the kind there, or a damaged one.
    """
    if threads is not None and (not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS):
        raise UserError(f"`threads={threads!r}`: must be a whole number from 1 to {MAX_THREADS}")
    if not isinstance(path, _PATH):
        raise UserError(f"{path!r}: give the folder of a run, or an exported .onnx or .xml file")
    if is_exported(path):
        if precision != "float32":
            raise UserError(f"`precision={precision}`: {path} has its own; give the run that it was exported from")
        from vitlite.export.onnx_detector import OnnxDetector
        from vitlite.export.openvino_detector import OpenVinoDetector

        kind = OnnxDetector if Path(path).suffix.lower() == ".onnx" else OpenVinoDetector
        return kind(Path(path), device, max_megapixels=max_megapixels, threads=threads)
    if Path(path).suffix.lower() == ".pt2" and Path(path).is_file():
        raise UserError(f"{path}: a pt2 file is for torch.export.load; give the run's folder or an .onnx file")
    from vitlite.engine.detector import Detector

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return Detector(path, device, max_megapixels=max_megapixels, precision=precision)


def is_exported(source: Source) -> bool:
    """Whether the name is that of an exported file that can be loaded: ONNX, or the .xml file of OpenVINO."""
    return Path(source).suffix.lower() in (".onnx", ".xml")


def _check(name: str, value: object, kind: type | tuple[type, ...], what: str) -> None:
    """``UserError`` unless the argument is of a type, which ``what`` describes."""
    if not isinstance(value, kind):
        raise UserError(f"`{name}={value!r}`: must be {what}")


def _names(category: str | Sequence[str]) -> str:
    """Categories as settings hold them, with commas. ``UserError`` for anything but names."""
    names = [category] if isinstance(category, str) else category
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UserError(f"`category={category!r}`: must be the name of a category, or a list of names")
    return ",".join(names)
