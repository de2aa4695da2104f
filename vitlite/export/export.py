"""From a run directory to one file, written only if it scores real images as the run does."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vitlite.data import list_images, open_dataset
from vitlite.engine.detector import Detector
from vitlite.engine.settings import SYNTHETIC, data_folder
from vitlite.errors import UserError
from vitlite.export.metadata import describe
from vitlite.export.onnx_detector import OnnxDetector
from vitlite.export.program import read_pt2, require_packages, to_onnx, to_pt2, trace
from vitlite.files import atomic, new_file
from vitlite.images.loading import readable_batches

FORMATS = ("onnx", "pt2")
TOLERANCE = 1e-4  # relative: of a score to itself, of a map to its largest value
CHECKED = 5  # images of the training data
log = logging.getLogger(__name__)


def export(
    run: str | Path, kind: str = "onnx", out: str | Path | None = None, *, check: Sequence[str | Path] = ()
) -> Path:
    """Write a run as one file, and return its path.

    Args:
        run: folder of the run.
        kind: ``"onnx"`` or ``"pt2"``.
        out: the file; default: model.KIND in the run.
        check: images (files, folders, patterns) that the finished file scores first; default: a few training images.

    Raises:
        UserError: a score or map differs by more than 1e-4 from the run's own, or a package, the images or the folder
            are missing. Then nothing is written.
    """
    if kind not in FORMATS:
        raise UserError(f"`kind={kind}`: not one of {', '.join(FORMATS)}")
    require_packages(kind)
    if out is not None:
        new_file(out, f".{kind}")
    detector = Detector(run, "cpu")
    path = new_file(out or Path(run) / f"model.{kind}", f".{kind}")
    paths = list_images(check) if check else training_images(detector)
    if next(readable_batches(paths, detector.image_size, 1), None) is None:
        raise UserError(f"none of the {len(paths)} images to compare on can be read; give others with `check`")
    metadata = describe(detector.settings, detector.calibration)
    program = trace(detector.method, detector.image_size)
    data = to_onnx(program, metadata) if kind == "onnx" else to_pt2(program, metadata)
    score_pixels = OnnxDetector(path, data=data).score_pixels if kind == "onnx" else read_pt2(data)[0]
    count, worst = compare(detector, score_pixels, paths, path)
    with atomic(path, "wb") as file:
        file.write(data)
    log.info("checked on %d images: scores differ by at most %.1e relative", count, worst)
    return path


def training_images(detector: Detector) -> list[Path]:
    """``CHECKED`` of the training images. ``UserError`` if they are not there any more."""
    settings = detector.settings
    try:
        if settings.data != SYNTHETIC and not Path(settings.data).is_dir():
            raise UserError(f"{settings.data}: the training data are not there any more")
        train = open_dataset(data_folder(settings, detector.run), settings.category or None).train
    except UserError as error:
        raise UserError(f"{error.marked}; name images to compare on with `check`") from None
    places = np.linspace(0, len(train) - 1, min(CHECKED, len(train))).round().astype(int)
    return [train[i].path for i in places]


def compare(
    detector: Detector,
    score_pixels: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    paths: Sequence[Path],
    out: Path,
) -> tuple[int, float]:
    """Score ``paths`` with the run and with the exported function; ``(count, largest relative difference)``.

    ``UserError`` if scores or maps are further apart than ``TOLERANCE``.
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


def difference(got: np.ndarray, want: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute value; infinite if a value is NaN."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    gap = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
    return float(gap) if np.isfinite(gap) else float("inf")
