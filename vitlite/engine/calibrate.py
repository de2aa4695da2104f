"""Thresholds and the display scale, from good images alone."""

import json
import math
from pathlib import Path

import numpy as np

from vitlite.engine.coverage import CONFIDENCE, check_target, false_alarms, images_needed, upper_quantile
from vitlite.engine.images import batches
from vitlite.engine.progress import Progress
from vitlite.errors import UserError
from vitlite.files import write_json

CALIBRATION_FILE = "calibration.json"
TARGET_FPR = 0.01
PIXEL_TARGET_FPR = 1e-3
HELD_OUT = "held out of training"  # where the images come from, by default


def calibrate(
    method, settings, run, samples, device, *, held_out, target_fpr=TARGET_FPR, source=None, quiet=False, say=print
):
    """Score good images and write calibration.json; returns what it wrote.

    ``samples`` are good images; ``held_out`` says whether training left them alone (where nothing was held out it did
    not, and thresholds are then too low: the file and a line say so). ``source`` says in words where they come from.
    """
    check_target(target_fpr)
    method.eval()
    scores, categories, pixel_tails, medians, bad = [], [], [], [], []
    with Progress("threshold", len(samples), quiet=quiet) as progress:
        for batch, images in batches([s.path for s in samples], settings.config.image_size, 8, device, bad=bad):
            maps, values = method.anomaly(images)
            scores += values.tolist()
            categories += [samples[loaded.index].category for loaded in batch]
            for pixels in maps.cpu().numpy():
                medians.append(float(np.median(pixels)))
                pixel_tails.append(upper_quantile(pixels, PIXEL_TARGET_FPR))
            progress.step(len(batch))
    for _, _, reason in bad:
        say(f"skipped {reason}")
    if not scores:
        raise UserError(
            f"{source or settings.data}: none of the {len(samples)} good images for the threshold is readable"
        )
    if not all(map(math.isfinite, (*scores, *pixel_tails, *medians))):
        raise UserError(f"{run}: scores of good images are not finite numbers, so there is no threshold; train again")
    result = summarize(scores, categories, pixel_tails, medians, target_fpr, held_out, source)
    write_json(Path(run) / CALIBRATION_FILE, result)
    for line in in_words(result):
        say(line)
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
