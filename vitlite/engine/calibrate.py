"""Thresholds and the display scale, from good images alone."""

import json
import math
from pathlib import Path

import numpy as np

from vitlite.engine.images import batches
from vitlite.engine.progress import Progress
from vitlite.errors import UserError
from vitlite.files import write_json

CALIBRATION_FILE = "calibration.json"
TARGET_FPR = 0.01
PIXEL_TARGET_FPR = 1e-3


def upper_quantile(values, share):
    """The smallest value that at most ``share`` of n good values exceed, moved up by the finite sample.

    With n values the rank ceil((n + 1)(1 - share)) keeps the expected false-alarm rate of a new good image at or
    below ``share`` (the conformal quantile). Where n is too small for that rank, the largest value is all the data
    can say.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    rank = min(math.ceil((ordered.size + 1) * (1 - share)), ordered.size)
    return float(ordered[rank - 1])


def calibrate(method, settings, run, samples, device, *, held_out, target_fpr=TARGET_FPR, quiet=False, say=print):
    """Score good images and write calibration.json; returns what it wrote.

    ``samples`` are good images; ``held_out`` says whether training saw them (it did where nothing was held out, and
    thresholds are then too low: the file and a line say so).
    """
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
        raise UserError(f"{settings.data}: none of the {len(samples)} good images for the threshold can be read")
    result = summarize(scores, categories, pixel_tails, medians, target_fpr, held_out)
    write_json(Path(run) / CALIBRATION_FILE, result)
    say(
        f"threshold {result['image_threshold']:.6g} from {len(scores)} good images"
        + ("" if held_out else " that were also trained on: it is too low; train with --set holdout=0.1")
    )
    return result


def summarize(scores, categories, pixel_tails, medians, target_fpr, held_out):
    """The contents of calibration.json."""
    by_category = {}
    for name in sorted(set(categories)):
        own = [s for s, c in zip(scores, categories) if c == name]
        by_category[name] = {"images": len(own), "image_threshold": upper_quantile(own, target_fpr)}
    # A pixel counts as defective above what the worst pixels of nearly every good image reach.
    pixel_threshold = upper_quantile(pixel_tails, target_fpr)
    low = float(np.median(medians))
    return {
        "target_fpr": target_fpr,
        "images": len(scores),
        "held_out": held_out,
        "image_threshold": upper_quantile(scores, target_fpr),
        "pixel_threshold": pixel_threshold,
        # Heat maps run from a good image's usual value to as far above the pixel threshold again.
        "display": {"low": low, "high": low + 2 * max(pixel_threshold - low, 1e-12)},
        "good_scores": sorted(scores),
        "categories": by_category,
    }


def load_calibration(run):
    """Read calibration.json. ``UserError`` where it is missing or damaged."""
    path = Path(run) / CALIBRATION_FILE
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        for key in ("image_threshold", "pixel_threshold", "display", "good_scores"):
            result[key]
        return result
    except FileNotFoundError:
        raise UserError(f"{path}: not there; training did not finish: vitlite train --resume --out {run}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); vitlite train --resume --out {run} writes it anew") from None
