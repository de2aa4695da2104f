"""Thresholds and the display scale, from good images alone."""

import contextlib
import json
import logging
import math
import os
from pathlib import Path

import numpy as np
from scipy.special import betaincinv

from vitlite.data import Sample, list_images, open_dataset, scan
from vitlite.engine.features import to_images
from vitlite.engine.progress import Progress
from vitlite.engine.settings import SYNTHETIC, data_folder
from vitlite.engine.split import digest, fingerprint, split_good
from vitlite.errors import UserError
from vitlite.files import shown, write_json
from vitlite.images.loading import Unread, pixel_batches

log = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
TARGET_FPR = 0.01
PIXEL_TARGET_FPR = 1e-3
HELD_OUT = "held out of training"  # where the images come from, by default


def calibrate(method, settings, run, samples, device, *, held_out, target_fpr=TARGET_FPR, source=None):
    """Score good images and write calibration.json; returns what it wrote.

    ``samples`` are good images; ``held_out`` says whether training left them alone (where nothing was held out it did
    not, and thresholds are then too low: the file says so). ``source`` says in words where they come from.
    """
    check_target(target_fpr)
    method.eval()
    scores, categories, pixel_tails, medians = [], [], [], []
    with Progress("threshold", len(samples)) as progress:
        for found in pixel_batches([s.path for s in samples], settings.config.image_size, 8):
            if isinstance(found, Unread):
                log.warning("skipped %s", found.reason)
                continue
            maps, values = method.anomaly(to_images(found.pixels, device))
            scores += values.tolist()
            categories += [samples[loaded.index].category for loaded in found.images]
            for pixels in maps.cpu().numpy():
                medians.append(float(np.median(pixels)))
                pixel_tails.append(upper_quantile(pixels, PIXEL_TARGET_FPR))
            progress.step(len(found.images))
    if not scores:
        raise UserError(
            f"{source or settings.data}: none of the {len(samples)} good images for the threshold is readable"
        )
    if not all(map(math.isfinite, (*scores, *pixel_tails, *medians))):
        raise UserError(f"{run}: scores of good images are not finite numbers, so there is no threshold; train again")
    result = summarize(scores, categories, pixel_tails, medians, target_fpr, held_out, source)
    write_json(Path(run) / CALIBRATION_FILE, result)
    return result


def summarize(scores, categories, pixel_tails, medians, target_fpr, held_out, source=None):
    """The contents of calibration.json.

    All lists have an entry per good image: its score; its category, "" where that is not known; the value that all but
    the share ``PIXEL_TARGET_FPR`` of its pixels stay at or below; the median of its pixels.
    """
    by_category = {}
    for name in sorted(set(categories) - {""}):
        own = [i for i, category in enumerate(categories) if category == name]
        by_category[name] = thresholds([scores[i] for i in own], [pixel_tails[i] for i in own], target_fpr, held_out)
    whole = thresholds(scores, pixel_tails, target_fpr, held_out)
    low = float(np.median(medians))
    return {
        "target_fpr": target_fpr,
        "pixel_share": PIXEL_TARGET_FPR,
        "held_out": held_out,
        "source": source or (HELD_OUT if held_out else "training itself"),
        "interval_confidence": CONFIDENCE,
        **whole,
        # Heat maps run from a good image's usual value to as far above the pixel threshold again.
        "display": {"low": low, "high": low + 2 * max(whole["pixel_threshold"] - low, 1e-12)},
        "categories": by_category,
    }


def thresholds(scores, pixel_tails, target_fpr, held_out):
    """Both thresholds of a set of good images, and the rate of false alarms that they promise.

    Images that were trained on promise nothing: their rate is None.
    """
    expected, interval = false_alarms(len(scores), target_fpr) if held_out else (None, (None, None))
    return {
        "images": len(scores),
        "image_threshold": upper_quantile(scores, target_fpr),
        # A pixel counts as defective above what the worst pixels of nearly every good image reach.
        "pixel_threshold": upper_quantile(pixel_tails, target_fpr),
        "expected_fpr": expected,
        "expected_fpr_interval": list(interval),
        "good_scores": sorted(scores),
    }


def in_words(result):
    """What a calibration says to a person, as lines."""
    count, target = result["images"], result["target_fpr"]
    line = (
        f"threshold {result['image_threshold']:.6g} (pixels {result['pixel_threshold']:.6g}) from {count} good images"
    )
    if not result["held_out"]:
        return [f"{line} that were also trained on: it is too low; train with --set holdout=0.1"]
    lines = [f"{line}: {promise(result)}"]
    if count < images_needed(target):
        lines.append(
            f"too few for {percent(target)}: with {count} the lowest rate that can be promised is 1/{count + 1}; "
            f"it takes {images_needed(target)} good images"
        )
    if len(result["categories"]) > 1:
        for name, own in result["categories"].items():
            few = "; too few" if own["images"] < images_needed(target) else ""
            lines.append(f"  {name}: threshold {own['image_threshold']:.6g} from {own['images']}: {promise(own)}{few}")
    return lines


def promise(values):
    """The expected rate of false alarms with its interval, as text."""
    low, high = values["expected_fpr_interval"]
    return (
        f"expect {percent(values['expected_fpr'])} false alarms "
        f"({percent(CONFIDENCE)} interval {percent(low)} to {percent(high)})"
    )


def percent(share):
    return f"{100 * share:.3g} %"


def load_calibration(run):
    """Read calibration.json. ``UserError`` where it is missing or damaged."""
    path = Path(run) / CALIBRATION_FILE
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        check_numbers([result["image_threshold"], result["pixel_threshold"]])
        check_numbers([result["display"]["low"], result["display"]["high"]])
        check_numbers(result["good_scores"])
        for own in result.get("categories", {}).values():
            check_numbers([own["image_threshold"], own.get("pixel_threshold", 0.0), *own.get("good_scores", ())])
        return result
    except FileNotFoundError:
        raise UserError(f"{path}: not there; training did not finish: vitlite train --resume --out {run}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged ({type(error).__name__}: {error}); vitlite calibrate {run} writes it anew"
        ) from None


def check_numbers(values):
    """ValueError unless ``values`` are finite numbers, and at least one."""
    if not values or not all(map(math.isfinite, values)):
        raise ValueError("expected finite numbers")


CONFIDENCE = 0.9  # of the interval that is reported
_ROUNDING = 1e-9  # 30 * 0.1 must count as 3 whatever its last bit


def check_target(share):
    """Refuses a false-alarm rate outside (0, 1), not-a-number included, and one that is lost in rounding."""
    if not _ROUNDING <= share < 1:
        bound = f"at least {_ROUNDING:g}" if 0 < share < 1 else "above 0"
        raise UserError(f"--target-fpr {share}: must be {bound} and below 1, such as 0.01 for one false alarm in 100")


def threshold_rank(count, share):
    """The rank k, from 1 to ``count``, whose value keeps the expected false-alarm rate at or below ``share``.

    Where ``count`` is below :func:`images_needed` no rank does, and the largest value is all that the data can say.
    """
    return min(count + 1 - math.floor((count + 1) * share + _ROUNDING), count)


def images_needed(share):
    """The fewest good images with which the expected rate can be as low as ``share``: 1 / (n + 1) <= share."""
    return max(math.ceil(1 / share - _ROUNDING / share) - 1, 1)


def upper_quantile(values, share):
    """The value of rank :func:`threshold_rank` among n >= 1 good values (the conformal quantile), a float."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    index = threshold_rank(flat.size, share) - 1
    return float(np.partition(flat, index)[index])


def false_alarms(count, share, confidence=CONFIDENCE):
    """The rate that ``upper_quantile`` of ``count`` values leads to: ``(expected, (low, high))``.

    ``expected`` is (n + 1 - k) / (n + 1); the rate of one particular calibration lies between ``low`` and ``high`` with
    the probability ``confidence``, as much of the rest on either side.
    """
    rank = threshold_rank(count, share)
    tail = (1 - confidence) / 2
    low, high = (float(betaincinv(count + 1 - rank, rank, p)) for p in (tail, 1 - tail))
    return (count + 1 - rank) / (count + 1), (low, high)


_OTHERS = "give good images that it has not seen with --good DIR"


def recalibrate(detector, *, target_fpr=TARGET_FPR, good=()):
    """Rewrite a run's calibration.json for another false-alarm rate or from other good images.

    ``good`` holds files, folders and patterns; without it the share that training held out is taken, which needs the
    data of training as it was. Returns what was written, and ``detector`` uses it from then on. Raises ``UserError``:
    a rate outside (0, 1), a run that is not finished, data that is gone or has changed, images that were trained on.
    """
    check_target(target_fpr)
    if not (detector.run / CALIBRATION_FILE).exists():
        load_calibration(detector.run)  # says that training did not finish
    if good:
        samples, source = given(detector, good), ", ".join(shown(path) for path in good)
    else:
        samples, source = held_out_share(detector), HELD_OUT
    detector.calibration = calibrate(
        detector.method,
        detector.settings,
        detector.run,
        samples,
        detector.device,
        held_out=True,
        target_fpr=target_fpr,
        source=source,
    )
    return detector.calibration


def without_threshold(detector):
    """A line on the categories of a run of several that the calibration has no images of; none otherwise."""
    trained, calibrated = detector.settings.category.split(","), detector.calibration["categories"]
    left_out = [shown(name) for name in trained if name not in calibrated]
    if not left_out or len(trained) == 1:
        return []
    return [
        f"no threshold of its own: {', '.join(left_out)}; give --good images of every category in a folder so named"
    ]


def held_out_share(detector):
    """The good images that training kept apart."""
    if not good_split(detector)[2]:
        share = detector.settings.config.holdout
        raise UserError(f"{detector.run}: training held no good images out (holdout = {share}); {_OTHERS}")
    return training_split(detector)[1]


def good_split(detector):
    """(root, trained, held out) of the data of training as it is now. ``UserError`` where it is gone."""
    settings = detector.settings
    try:
        dataset = open_dataset(data_folder(settings, detector.run), settings.category or None)
    except UserError as error:
        raise UserError(f"{error} (the data of training, with the images that it held out); or {_OTHERS}") from error
    return dataset.root, *split_good(dataset, settings.config, settings.seed)


def training_split(detector):
    """(trained, held out) as training split its images. ``UserError`` where that can no longer be known."""
    root, trained, held = good_split(detector)
    # The split depends on which files there are: with one more or less, a trained image may pass for one held out.
    # Training took the fingerprint of those that it could read; reading them all again is slow and seldom needed.
    for samples in (lambda: trained, lambda: scan(trained)[0]):
        if fingerprint(root, [s.path for s in samples()]) == detector.fingerprint:
            return trained, held
    raise UserError(
        f"{detector.settings.data}: images were added, removed, renamed or changed since training, so that it is no "
        f"longer known which were held out; {_OTHERS}"
    )


def given(detector, inputs):
    """The images that ``--good`` stands for, as samples; refuses those that the run was trained on."""
    categories = detector.settings.category.split(",")
    found = {}
    for path in inputs:
        for image in folder_images(path) if os.path.isdir(path) else list_images([path]):
            found.setdefault(os.path.abspath(image), image)
    samples = [Sample(path, category_of(path, categories), "train", "good", 0, None) for path in found.values()]
    refuse_trained(detector, samples)
    return samples


def folder_images(folder):
    """A plain folder of good images, by the rules of training: a data set with defects among them is refused."""
    dataset = open_dataset(folder, "all", need_train=False)
    if dataset.layout != "folder":
        raise UserError(f"--good {shown(folder)}: is a data set ({dataset.title}); give a folder of good images alone")
    return [sample.path for sample in dataset.train]


def category_of(path, categories):
    """A run of several categories knows an image's by the nearest folder of that name; "" where there is none."""
    if len(categories) == 1:
        return categories[0]
    folders = Path(os.path.abspath(path)).parts[-2::-1]
    return next((name for name in folders if name in categories), "")


def refuse_trained(detector, samples):
    """Images that were trained on, copies included, score too low; found where the data of training is still there."""
    trained = perhaps_trained(detector)
    # Only files of equal size can be equal, which spares reading most of them.
    sizes = {size_of(s.path) for s in samples}
    digests = {digest(s.path) for s in trained if size_of(s.path) in sizes} - {None}
    seen = [s.path for s in samples if digests and digest(s.path) in digests]
    if seen:
        raise UserError(
            f"--good: the run was trained on {len(seen)} of the {len(samples)} images, first {shown(seen[0])}; "
            f"give others, or leave --good out to take those that training held out"
        )


def perhaps_trained(detector):
    """What was trained on; all good images where the split is no longer known; none where the data is gone."""
    settings = detector.settings
    folder = detector.run / SYNTHETIC if settings.data == SYNTHETIC else Path(settings.data)
    if folder.is_dir():
        with contextlib.suppress(UserError):
            return training_split(detector)[0]
        with contextlib.suppress(UserError):
            _, trained, held = good_split(detector)
            return trained + held
    return []


def size_of(path):
    try:
        return os.stat(path).st_size
    except OSError:  # reading it will say why
        return -1
