"""False alarms and misses at the threshold that training sets, on labelled data sets.

Each data set is trained on with the options given and evaluated once. Beside the default rule stands the exact one, and
the best threshold that calls at most the target share of the test's good images defective. That last one is chosen on
test images, so nobody can have it: it is what the ranking allows. "held" is the share of pairs of a good test image and
a good image of training, scored without itself, in which the test image scores higher: 0.5 if both score the same.

Example: vitlite bench verdict --data bottle/ screw/ --out runs/verdict
"""

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlite.data import open_dataset
from vitlite.engine.calibrate import recalibrate
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate
from vitlite.engine.settings import load_settings
from vitlite.engine.train import train
from vitlite.files import refuse_unwritable
from vitlite.good_scores import load_good_scores
from vitlite.metrics import auroc
from vitlite.results import RESULTS_FILE, aligned, read, write

from ._machine import described, machine, parser_of
from ._runs import settings_for

HEAD = ("data", "good", "test", "AUROC", "score", "robust", "exact", "best", "held", "train")


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("verdict", __doc__)
    parser.add_argument("--data", nargs="+", required=True, help="folders of data sets, each of one category")
    parser.add_argument("--out", default="runs/verdict", help="folder for the runs; finished ones are kept")
    parser.add_argument("--method", default="sivt")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    options = parse(args)
    refuse_unwritable(options.out)
    print(described(machine()))
    print(
        f"{options.method}, quick{''.join(f', {one}' for one in options.overrides)}; false alarms / misses, in shares"
    )
    rows: list[dict[str, Any]] = []
    for folder in options.data:
        rows.append(measure(Path(folder), Path(options.out), options))
        print("  ".join(line_of(rows[-1])), flush=True)
    print("\n".join(aligned([HEAD, *map(line_of, rows)])))
    for rule in ("robust", "exact", "best"):
        alarms, misses = zip(*(row[rule] for row in rows))
        mean, most, missed = np.mean(alarms), max(alarms), sum(misses)
        print(f"{rule}: false alarms {mean:.3f} on average, at most {most:.2f}; misses {missed:.2f}")
    return 0


def measure(data: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train on a data set unless it is done, and compare the rules."""
    run, began = out / data.name, time.monotonic()
    if not (run / RESULTS_FILE).exists():
        train(settings_for(options.method, data.resolve(), "", overrides=options.overrides), run, resume=False)
        seconds: float | None = time.monotonic() - began
        write(run, evaluate(Detector(run)))
    else:
        seconds = None
    (found,) = read(run)["categories"].values()
    labels = np.array([image["label"] for image in found["images"]])
    scores = np.array([image["score"] for image in found["images"]])
    kept = load_good_scores(run, open_dataset(data).root)
    own = np.array([image.score for image in kept[0]]) if kept else np.zeros(0)
    detector = Detector(run)
    target = detector.settings.config.target_fpr
    limits = {"best": best(scores[labels == 0], target)}
    logging.disable(logging.WARNING)  # training has named the odd images already
    try:
        for rule in ("exact", "robust"):  # the run keeps the last
            limits[rule] = recalibrate(detector, exact=rule == "exact")["image_threshold"]
    finally:
        logging.disable(logging.NOTSET)
    good, config = scores[labels == 0], load_settings(run).config
    return {
        "data": data.name,
        "good": len(own),
        "test": f"{len(good)}+{labels.sum()}",
        "AUROC": found["image_auroc"],
        "score": f"{config.score} {config.places}",
        "held": auroc(np.repeat([0, 1], [len(own), len(good)]), np.concatenate([own, good])),
        "train": seconds,
        **{
            rule: (float((good > limit).mean()), float((scores[labels == 1] <= limit).mean()))
            for rule, limit in limits.items()
        },
    }


def best(good: np.ndarray, share: float) -> float:
    """The lowest threshold that at most this share of good test images exceeds."""
    ordered = np.sort(good)
    return float(ordered[len(ordered) - 1 - int(share * len(ordered) + 1e-9)])


def line_of(row: dict[str, Any]) -> list[str]:
    """The cells of a data set, as text."""
    rules = (f"{alarms:.2f} / {misses:.2f}" for alarms, misses in (row[rule] for rule in ("robust", "exact", "best")))
    seconds = "-" if row["train"] is None else f"{row['train']:.0f} s"
    return [
        *(row["data"], str(row["good"]), row["test"], f"{row['AUROC']:.3f}", row["score"]),
        *rules,
        *(f"{row['held']:.2f}", seconds),
    ]
