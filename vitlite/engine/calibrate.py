"""Thresholds and the display scale, from good images, and the rate of false alarms that they promise."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from vitlite.data import Sample, list_images
from vitlite.engine.detector import CALIBRATION_FILE, CALIBRATION_SCHEMA, Detector, load_calibration
from vitlite.engine.features import to_images
from vitlite.engine.predict import save_overlay
from vitlite.engine.progress import Progress
from vitlite.engine.settings import RunSettings, data_path
from vitlite.engine.split import given, held_out_share, known_defects, leave_out
from vitlite.errors import UserError
from vitlite.files import StrPath, counted, make_folder, shown, write_json
from vitlite.images.loading import Unread, pixel_batches
from vitlite.images.reading import NO_ROOM, ImageError
from vitlite.images.resize import map_at
from vitlite.images.scale import MAX_PIXELS, Reading
from vitlite.limits import CONFIDENCE, Limits, check_area, check_target, false_alarms, limits_for, limits_of
from vitlite.methods.base import Method
from vitlite.metrics.thresholds import balanced_threshold, threshold_above, upper_quantile
from vitlite.odd import FOLDER as ODD_FOLDER
from vitlite.odd import MOST_DRAWN, Odd, clear, find_odd, in_a_line, overlay_name
from vitlite.verdict import all_small, judge

log = logging.getLogger(__name__)

PIXEL_TARGET_FPR = 1e-3
MISSES_SHOWN = 5  # known defects that are named
HELD_OUT = "held out of training"  # where the images come from, by default
NO_PROMISE: dict[str, Any] = {"expected_fpr": None, "expected_fpr_interval": [None, None]}


class Good(NamedTuple):
    """A good image, or a known defective one, scored."""

    category: str  # "" if it is not known
    score: float
    pixel_tail: float  # all but the share PIXEL_TARGET_FPR of its pixels stay at or below this value
    median: float  # of its pixels
    file: str = ""


def calibrate(
    method: Method,
    settings: RunSettings,
    run: StrPath,
    samples: Sequence[Sample],
    device: torch.device,
    *,
    held_out: bool,
    target_fpr: float | None = None,
    source: str | None = None,
    min_area: int = 0,
    max_pixels: int = MAX_PIXELS,
    defects: Sequence[Sample] = (),
) -> dict[str, Any]:
    """Score good images and write the calibration.json of a run; returns its contents (docs/result-files.md).

    Args:
        method: the trained method, on ``device``.
        settings: those of the run.
        run: its folder.
        samples: good images.
        device: where the method computes.
        held_out: whether training left these images alone. If it did not, thresholds are too low; the file says so.
        target_fpr: the share of good images that may be called defective; default: that of the run's settings.
        source: where the images come from, in words.
        min_area: the smallest area of a defect, in pixels of an image, which is kept in the file; no threshold depends
            on it.
        max_pixels: the most that an image may have.
        defects: known defective images. If there are any, they set the thresholds for images too.
    Raises:
        UserError: a share outside (0, 1), no image that can be read, or scores that are not finite.
    """
    target_fpr = settings.config.target_fpr if target_fpr is None else target_fpr
    check_target(target_fpr)
    reading = Reading(settings.config.image_scale, max_pixels)
    good = score_good(method, samples, reading, device)
    if not good:
        images = counted(len(samples), "good image")
        raise UserError(f"{source or settings.data}: none of the {images} for the threshold is readable")
    bad = score_good(method, defects, reading, device) if defects else []
    if defects and not bad:
        raise UserError(f"`balance`: no known defect is readable, of {counted(len(defects), 'image')}")
    scored = [*good, *bad]
    if not all(math.isfinite(value) for image in scored for value in (image.score, image.pixel_tail, image.median)):
        raise UserError(f"{run}: scores of images are not finite numbers, so there is no threshold; train again")
    result = summarize(good, target_fpr, held_out, source)
    set_balanced(result, bad)
    result |= {"min_area": min_area, "black": settings.config.black, "white": settings.config.white}
    odd = find_odd(good)
    overlays = draw_odd(method, samples, odd, run, result, reading, device)
    for image in odd:
        log.warning(in_a_line(image, run, overlays.get(image.file)))
    result["odd_images"] = [image._asdict() | {"overlay": overlays.get(image.file)} for image in odd]
    for entry in [*result["good_images"], *result["odd_images"]]:
        entry["file"] = below(entry["file"], data_path(settings, run))
    write_json(Path(run) / CALIBRATION_FILE, result)
    return result


def score_good(method: Method, samples: Sequence[Sample], reading: Reading, device: torch.device) -> list[Good]:
    """The images that can be read, scored."""
    method.eval()
    good: list[Good] = []
    with Progress("threshold", len(samples)) as progress:
        for found in pixel_batches([s.path for s in samples], method.config.image_size, 8, reading=reading):
            if isinstance(found, Unread):
                log.warning("skipped %s", found.reason)
                continue
            maps, scores = method.anomaly(to_images(found.pixels, device))
            for loaded, pixels, score in zip(found.images, maps.cpu().numpy(), scores.tolist()):
                tail = upper_quantile(pixels, PIXEL_TARGET_FPR)
                sample = samples[loaded.index]
                good.append(Good(sample.category, score, tail, float(np.median(pixels)), shown(sample.path)))
            progress.step(len(found.images))
    return good


def below(file: str, folder: Path) -> str:
    """The name of a file below a folder; the file as it is if it lies elsewhere."""
    path = Path(os.path.abspath(file))
    return str(path.relative_to(os.path.abspath(folder))) if path.is_relative_to(os.path.abspath(folder)) else file


def draw_odd(
    method: Method,
    samples: Sequence[Sample],
    odd: Sequence[Odd],
    run: StrPath,
    calibration: dict[str, Any],
    reading: Reading,
    device: torch.device,
) -> dict[str, str]:
    """Write overlays of odd ones among ``samples`` in the place of an earlier calibration's; their names by file."""
    clear(run)
    by_file, names = {shown(sample.path): sample for sample in samples}, {}
    drawn = [by_file[image.file] for image in odd[:MOST_DRAWN]]
    # Defects are outlined whatever the threshold: it may come from these images.
    limits = replace(limits_of(calibration), image=-math.inf)
    for found in pixel_batches(
        [sample.path for sample in drawn], method.config.image_size, 1, reading=reading, keep_original=True
    ):
        if isinstance(found, Unread):
            log.warning("not drawn: %s", found.reason)
            continue
        (loaded,), (maps, _) = found.images, method.anomaly(to_images(found.pixels, device))
        sample, score = drawn[loaded.index], odd[loaded.index].score
        name = overlay_name(loaded.index + 1, sample.category, sample.path)
        try:
            prediction = judge(map_at(maps[0].cpu().numpy(), loaded.height, loaded.width), score, limits)
            make_folder(Path(run) / ODD_FOLDER)
            save_overlay(Path(run) / name, cast(np.ndarray, loaded.original), prediction, calibration["display"])
        except MemoryError:
            log.warning("not drawn: %s", ImageError(loaded.path, NO_ROOM))
            continue
        names[shown(sample.path)] = name
    return names


def summarize(good: Sequence[Good], target_fpr: float, held_out: bool, source: str | None = None) -> dict[str, Any]:
    """The contents of calibration.json."""
    whole = thresholds(good, target_fpr, held_out)
    low = float(np.median([image.median for image in good]))
    return {
        "schema": CALIBRATION_SCHEMA,
        "target_fpr": target_fpr,
        "pixel_share": PIXEL_TARGET_FPR,
        "held_out": held_out,
        "source": source or (HELD_OUT if held_out else "training itself"),
        "interval_confidence": CONFIDENCE,
        **whole,
        # Heat maps run from a good image's usual value to as far above the pixel threshold again.
        "display": {"low": low, "high": low + 2 * max(whole["pixel_threshold"] - low, 1e-12)},
        "categories": {
            name: thresholds([image for image in good if image.category == name], target_fpr, held_out)
            for name in sorted({image.category for image in good} - {""})
        },
        "good_images": [
            {"file": image.file, "category": image.category, "score": image.score}
            for image in sorted(good, key=lambda image: -image.score)
        ],
    }


def thresholds(good: Sequence[Good], target_fpr: float, held_out: bool) -> dict[str, Any]:
    """Both thresholds of a set of good images, and the rate of false alarms that they promise.

    Images that were trained on promise nothing: their rate is None.
    """
    expected, interval = false_alarms(len(good), target_fpr) if held_out else (None, (None, None))
    scores, tails = (sorted(values) for values in zip(*((image.score, image.pixel_tail) for image in good)))
    return {
        "images": len(good),
        "image_threshold": threshold_above(scores, target_fpr),
        # A pixel counts as defective above what the worst pixels of nearly every good image reach.
        "pixel_threshold": threshold_above(tails, target_fpr),
        "expected_fpr": expected,
        "expected_fpr_interval": list(interval),
        "balance": None,
        "good_scores": scores,
        "good_pixels": tails,
    }


def set_balanced(calibration: dict[str, Any], defects: Sequence[Good]) -> None:
    """Balance missed defects and false alarms in the image thresholds of the whole and of each category with defects.

    These thresholds promise no rate of false alarms.
    """
    for name, own in [("", calibration), *calibration["categories"].items()]:
        bad = [image.score for image in defects if name in ("", image.category)]
        if bad:
            limit = balanced_threshold(own["good_scores"], bad)
            missed, alarms = sum(score <= limit for score in bad), sum(score > limit for score in own["good_scores"])
            balance = {"defects": len(bad), "missed": missed, "false_alarms": alarms}
            own |= {"image_threshold": limit, **NO_PROMISE, "balance": balance}


def recalibrate(
    detector: Detector,
    *,
    target_fpr: float | None = None,
    good: Sequence[StrPath] = (),
    without: Sequence[StrPath] = (),
    balance: Sequence[StrPath] = (),
    min_area: int | None = None,
) -> dict[str, Any]:
    """Rewrite a run's calibration.json for another false-alarm rate or from other images; returns its contents.

    Args:
        detector: the run; uses the new calibration from then on.
        target_fpr: the share of good images that may be called defective; default: that of the run's settings.
        good: files, folders and patterns of good images. Default: the share that training held out, which needs the
            data of training as it was.
        without: files among them that are left out, because they show a defect after all.
        balance: files, folders and patterns of known defective images. With them, each threshold for images has the
            least sum of the share of good images above it and the share of these defects at or below it, and no rate
            is promised. A category without defects keeps the threshold from its good images, as pixels do. A warning
            says that new defects are missed more often than these.
        min_area: the smallest area of a defect, in pixels of an image; default: as it is.
    Raises:
        UserError: a rate outside (0, 1) or together with ``balance``, an area below 0, a run that is not finished, data
            that is missing or has changed, images that the run was trained on, a file in ``without`` that is not among
            the good images, an image that is given as good and as defective, no defective image that can be read.
    """
    if target_fpr is not None:
        if balance:
            raise UserError("`target_fpr`: not together with `balance`, which promises no rate")
        check_target(target_fpr)
    if not (detector.run / CALIBRATION_FILE).exists():
        load_calibration(detector.run)  # says that training did not finish
    min_area = earlier_area(detector.run) if min_area is None else check_area(min_area)
    if good:
        samples, source = given(detector, good), ", ".join(shown(path) for path in good)
    else:
        samples, source = held_out_share(detector), HELD_OUT
    if without:
        samples, source = leave_out(samples, without), f"{source}, without {len(without)} of them"
    detector.calibration = calibrate(
        detector.method,
        detector.settings,
        detector.run,
        samples,
        detector.device,
        held_out=True,
        target_fpr=target_fpr,
        source=source,
        min_area=min_area,
        max_pixels=detector.reading.max_pixels,
        defects=known_defects(detector, balance, samples) if balance else (),
    )
    if balance:
        log.warning("misses of known defects are optimistic: they chose the threshold; new ones are missed more often")
    return detector.calibration


def earlier_area(run: StrPath) -> int:
    """The smallest area of a defect in a run's calibration.json; 0, with a warning, if the file cannot be used."""
    try:
        return limits_of(load_calibration(run)).min_area
    except UserError as error:
        log.warning("%s; a smallest area of defects that it may hold is not kept", error)
        return 0


def without_threshold(detector: Detector) -> list[str]:
    """A line about the categories that the calibration has no images of, for a run of several; none otherwise."""
    trained, calibrated = detector.settings.category.split(","), detector.calibration["categories"]
    left_out = [shown(name) for name in trained if name not in calibrated]
    if not left_out or len(trained) == 1:
        return []
    return [
        f"no threshold of its own: {', '.join(left_out)}; give good images of every category in a folder with its name"
    ]


def misses(detector: Detector, inputs: Sequence[StrPath]) -> list[str]:
    """How many known defective images the calibrated thresholds miss, in lines; the first ones that are missed by name.

    ``UserError`` if ``inputs`` stand for no image that can be read.
    """
    paths = list_images(inputs)
    limits = limits_for(paths, detector.calibration, None)
    scores: list[tuple[float, bool, Path]] = []
    for found in detector.score_files(paths, keep_original=False):
        if isinstance(found, Unread):
            log.warning("skipped %s", found.reason)
            continue
        loaded, pixels, score = found
        own = limits[loaded.index]
        is_defect = score > own.image and not all_small(pixels, loaded.height, loaded.width, own)
        scores.append((score, is_defect, loaded.path))
    if not scores:
        raise UserError(f"`defects`: none of the {len(paths)} images can be read")
    missed = [(score, path) for score, is_defect, path in sorted(scores, key=lambda one: one[0]) if not is_defect]
    area = f", with regions of fewer than {limits[0].min_area} pixels left out" if limits[0].min_area > 1 else ""
    lines = [f"known defects: {len(missed)} of {len(scores)} missed at the threshold{area}"]
    lines += [f"  missed: {shown(path)}, score {score:.6g}" for score, path in missed[:MISSES_SHOWN]]
    return lines


def set_thresholds(
    run: StrPath,
    *,
    image: float | None = None,
    pixel: float | None = None,
    min_area: int | None = None,
    category: str | None = None,
) -> Limits:
    """Write limits chosen by hand into a run's calibration.json; returns those that hold now.

    Args:
        run: the run's folder.
        image: an image with a score above it is defective; None leaves the threshold as it is.
        pixel: the same for pixels.
        min_area: regions of fewer pixels of an image are no defect; one value for the whole run.
        category: the thresholds of this category alone; default: those of the run and of all its categories.
    Raises:
        UserError: a threshold that is not finite, an area below 0, an unknown category, a run without a calibration.
    """
    for name, value in (("threshold", image), ("pixel_threshold", pixel)):
        if value is not None and not math.isfinite(value):
            raise UserError(f"`{name}={value}`: must be a finite number")
    result = load_calibration(run)
    limits_of(result, category)  # refuses an unknown category
    every = [result, *result["categories"].values()]
    # The only category of a run and the run itself are the same.
    for own in every if category is None or len(every) == 2 else [result["categories"][category]]:
        if image is not None:
            own |= {"image_threshold": image, **NO_PROMISE, "balance": None}
        if pixel is not None:
            own["pixel_threshold"] = pixel
    if min_area is not None:
        result["min_area"] = check_area(min_area)
    write_json(Path(run) / CALIBRATION_FILE, result)
    return limits_of(result, category)
