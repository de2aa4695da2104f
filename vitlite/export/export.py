"""From a run directory to one file, written only if it scores real pictures as the run does."""

import logging
from pathlib import Path

import numpy as np

from vitlite.data import list_images, open_dataset
from vitlite.engine.detector import Detector
from vitlite.engine.settings import SYNTHETIC, data_folder
from vitlite.errors import UserError
from vitlite.export.metadata import describe
from vitlite.export.onnx_detector import OnnxDetector
from vitlite.export.program import read_pt2, require_packages, to_onnx, to_pt2, trace
from vitlite.files import atomic
from vitlite.images.loading import readable_batches

log = logging.getLogger(__name__)

FORMATS = ("onnx", "pt2")
TOLERANCE = 1e-4  # of scores, relative; of maps, relative to the largest value of the map
CHECKED = 5  # pictures of the training data


def export(run, kind="onnx", out=None, *, check=()):
    """Write ``run`` as one file and return its path; ``kind`` is ``"onnx"`` or ``"pt2"``.

    ``out`` defaults to model.KIND in the run. The finished file's contents score real pictures first: ``check``
    (files, folders, patterns), by default a few of the training data. ``UserError``, and nothing is written, where a
    score is off by more than 1e-4 of the run's own, or a package, the pictures or the folder are missing.
    """
    if kind not in FORMATS:
        raise UserError(f"--format {kind}: not one of {', '.join(FORMATS)}")
    require_packages(kind)
    if out:
        check_out(Path(out), kind)
    out = Path(out or Path(run) / f"model.{kind}")
    detector = Detector(run, "cpu")
    paths = pictures(detector, check)
    metadata = describe(detector.settings, detector.calibration)
    program = trace(detector.method, detector.image_size)
    data = to_onnx(program, metadata) if kind == "onnx" else to_pt2(program, metadata)
    score_pixels = OnnxDetector(out, data=data).score_pixels if kind == "onnx" else read_pt2(data)[0]
    count, worst = compare(detector, score_pixels, paths, out)
    with atomic(out, "wb") as file:
        file.write(data)
    log.info("checked on %d images: scores differ by at most %.1e relative", count, worst)
    return out


def check_out(out, kind):
    """Refuses, before the work begins, a path that cannot be written or has another suffix."""
    if out.suffix.lower() != f".{kind}":
        raise UserError(f"--out {out}: a {kind} file is known by its name; let it end with .{kind}")
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out {out}: " + ("is a folder" if out.is_dir() else f"{out.parent} is not a folder"))


def pictures(detector, check):
    """What to compare on: the given pictures, or a few of the training data, spread over them."""
    paths = list_images(check) if check else training_pictures(detector)
    if next(readable_batches(paths, detector.image_size, 1), None) is None:
        raise UserError(f"none of the {len(paths)} images to compare on can be read; give others with --check IMAGE")
    return paths


def training_pictures(detector):
    """``CHECKED`` of the training images. ``UserError`` where they are not there any more."""
    settings = detector.settings
    try:
        if settings.data != SYNTHETIC and not Path(settings.data).is_dir():
            raise UserError(f"{settings.data}: the training data are not there any more")
        train = open_dataset(data_folder(settings, detector.run), settings.category or None).train
    except UserError as error:
        raise UserError(f"{error}; name pictures to compare on with --check IMAGE") from None
    places = np.linspace(0, len(train) - 1, min(CHECKED, len(train))).round().astype(int)
    return [train[i].path for i in places]


def compare(detector, score_pixels, paths, out):
    """Score ``paths`` with the run and with the exported function; ``(count, largest relative difference)``.

    ``UserError`` where scores or maps are further apart than ``TOLERANCE``.
    """
    count, worst = 0, 0.0
    # Batches of three and a rest: the size of a batch must not matter.
    for batch, pixels in readable_batches(paths, detector.image_size, 3):
        for loaded, want_map, want, got_map, got in zip(batch, *detector.score_pixels(pixels), *score_pixels(pixels)):
            count, worst = count + 1, max(worst, difference(got, want), difference(got_map, want_map))
            if not worst <= TOLERANCE:
                raise UserError(
                    f"{out}: not written: for {loaded.path} the exported model gives {got:.8g}, the run {want:.8g}; "
                    f"score or map differ by more than {TOLERANCE:g} relative"
                )
    return count, worst


def difference(got, want):
    """Largest absolute difference over the largest absolute value; infinite where something is not a number."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    gap = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
    return float(gap) if np.isfinite(gap) else float("inf")
