"""Milliseconds that one image takes with a trained run: torch, ONNX Runtime and OpenVINO, with one thread and with two.

Each way of scoring runs in a process of its own, in alternating rounds, over the same images one by one. *Reading* is
decoding and resizing, *network* all from pixels to map and score, *whole* both. *Processor* is what the whole takes of
the cores' time: other work on the machine changes it less. Scores are compared with those of torch in float32: the
largest relative difference, and how many images get another verdict at the threshold of the way. What is not installed,
or what the run's method does not have, is left out. Last comes what an overlay takes of the cores' time: `predict` with
overlays less `predict` without them.

Example: vitlite bench predict --run runs/bottle --images 64
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import vitlite
from vitlite.data import open_dataset
from vitlite.engine.predict import predict
from vitlite.engine.settings import load_settings
from vitlite.errors import UserError
from vitlite.files import MAX_THREADS
from vitlite.images.loading import as_seen
from vitlite.images.reading import image_size, read_noted
from vitlite.predictor import Predictor
from vitlite.results import aligned

from ._machine import described, in_a_process, machine, parser_of

WARM = 3  # images before the clock starts
OVERLAYS = "overlays"  # a worker that is no way of scoring
PAIRS = 5  # of calls with and without overlays


def from_run(precision: str) -> Callable[[Path, Path, int], Predictor]:
    """What opens a run with torch."""

    def opened(run: Path, exported: Path, threads: int) -> Predictor:
        return vitlite.load(run, "cpu", threads=threads, precision=precision)

    return opened


def from_file(ending: str) -> Callable[[Path, Path, int], Predictor]:
    """What opens the exported file of this ending; its path is given without it."""
    return lambda run, exported, threads: vitlite.load(f"{exported}{ending}", threads=threads)


WAYS: dict[str, Callable[[Path, Path, int], Predictor]] = {
    "torch float32": from_run("float32"),
    "torch bfloat16": from_run("bfloat16"),
    "ONNX Runtime": from_file(".onnx"),
    "OpenVINO": from_file(".xml"),
    "OpenVINO int8": from_file("-int8.xml"),
}
FILES = {  # export's format, the package that runs it, the ending, the precision
    "ONNX Runtime": ("onnx", "onnxruntime", ".onnx", "float32"),
    "OpenVINO": ("openvino", "openvino", ".xml", "float32"),
    "OpenVINO int8": ("openvino", "openvino", "-int8.xml", "int8"),
}
FIRST = next(iter(WAYS))


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("predict", __doc__)
    parser.add_argument("--run", required=True, help="folder that vitlite train wrote")
    parser.add_argument("--images", type=int, default=32, help="test images of the run's data, at most")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way")
    parser.add_argument("--threads", default="1,2", help="numbers of threads with commas")
    parser.add_argument(
        "--exported", help="its model.onnx, model.xml and model-int8.xml, as a path without .onnx; default: made now"
    )
    parser.add_argument("--worker", nargs=2, metavar=("WAY", "THREADS"), help=argparse.SUPPRESS)
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    options = parse(args)
    if options.worker:
        print(json.dumps(measure_overlays(options) if options.worker[0] == OVERLAYS else measure(options)))
        return 0
    try:
        threads = [int(number) for number in options.threads.split(",")]
        if min(*threads, options.images, options.rounds) < 1 or max(threads) > MAX_THREADS:
            raise ValueError
    except ValueError:
        numbers = f"give whole numbers from 1, threads at most {MAX_THREADS}"
        raise UserError(f"--threads, --images and --rounds: {numbers}") from None
    report(options, threads)
    return 0


def report(options: argparse.Namespace, threads: Sequence[int]) -> None:
    """Measure every way with every number of threads, and print the table."""
    from vitlite.engine.detector import Detector
    from vitlite.export.export import export

    method = Detector(options.run, "cpu").method
    left_out = [] if "bfloat16" in method.precisions else ["torch bfloat16"]
    left_out += [
        way for way, (_, package, _, low) in FILES.items() if find_spec(package) is None or low not in method.exports
    ]
    ways = [way for way in WAYS if way not in left_out]
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(options.exported or Path(folder) / "model")
        for way in () if options.exported else FILES.keys() & set(ways):
            kind, _, ending, precision = FILES[way]
            try:
                export(options.run, kind, f"{exported}{ending}", precision=precision)
            except UserError as error:
                if precision == "float32":
                    raise
                ways.remove(way)  # its scores are too far from those in float32
                left_out.append(f"{way} ({error})")
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for _ in range(options.rounds):
            for number in threads:
                for way in ways:
                    common = ("--run", options.run, "--images", options.images, "--exported", exported)
                    environment = {"OMP_NUM_THREADS": str(number)}
                    one = in_a_process("predict", *common, "--worker", way, number, **environment)
                    found.setdefault((way, number), []).append(one)
        overlays = in_a_process("predict", *common, "--worker", OVERLAYS, 1, OMP_NUM_THREADS="1")
    images = len(found[FIRST, threads[0]][0]["scores"])
    print(described(machine(packages=("torch", "onnxruntime", "openvino"))))
    print(f"{options.run}: {images} images one by one, milliseconds each, the median of {options.rounds} processes")
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    print("\n".join(aligned(table(found))))
    print(f"an overlay of {overlays['size']} pixels: {overlays['processor'] * 1000:.1f} ms of processor time")


def table(found: dict[tuple[str, int], list[dict[str, Any]]]) -> list[tuple[str, ...]]:
    """The rows; all ways should give the scores and verdicts of the first."""
    head = (
        "way",
        "threads",
        "reading",
        "network",
        "whole",
        "processor",
        "of torch float32",
        "scores differ by",
        "other verdicts",
    )
    rows: list[tuple[str, ...]] = [head]
    whole = {key: median(one["reading"] + one["network"] for one in rounds) * 1000 for key, rounds in found.items()}
    first = next(iter(found.values()))[0]
    expected = np.array(first["scores"])
    for (way, number), rounds in found.items():
        scores = np.array(rounds[0]["scores"])
        differ = np.max(np.abs(scores - expected) / np.abs(expected))
        others = int(((scores > rounds[0]["limit"]) != (expected > first["limit"])).sum())
        reading, network, processor = (
            median(one[part] for one in rounds) * 1000 for part in ("reading", "network", "processor")
        )
        ratio = whole[way, number] / whole[FIRST, number]
        numbers = (f"{value:.1f}" for value in (reading, network, whole[way, number], processor))
        rows.append((way, str(number), *numbers, f"{ratio:.2f}", f"{differ:.1e}", str(others)))
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: the median seconds of reading and of the network, and the scores."""
    way, threads = options.worker
    run, paths = Path(options.run), test_images(options)
    detector = WAYS[way](run, Path(options.exported), int(threads))
    reading, network, processor, scores = [], [], [], []
    for path in (*islice(cycle(paths), WARM), *paths):
        used, began = time.process_time(), time.perf_counter()
        image = read_noted(path, detector.reading).pixels
        seen = as_seen(0, image, detector.view, detector.reading, path)
        decoded = time.perf_counter()
        score = detector.score_seen([seen])[1][0]
        reading.append(decoded - began)
        network.append(time.perf_counter() - decoded)
        processor.append(time.process_time() - used)
        scores.append(score)
    return {
        "reading": median(reading[WARM:]),
        "network": median(network[WARM:]),
        "processor": median(processor[WARM:]),
        "scores": scores[WARM:],
        "limit": detector.calibration["image_threshold"],
    }


def measure_overlays(options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: the median seconds that an image's overlay takes, its file included; its size."""
    detector, paths = vitlite.load(options.run, "cpu", threads=1), list(map(str, test_images(options)))
    differences = []
    with tempfile.TemporaryDirectory() as folder:
        predict(detector, paths[:WARM], Path(folder) / "warm")
        for pair in range(PAIRS):
            used = {}
            for drawn in (True, False) if pair % 2 else (False, True):
                began = time.process_time()
                predict(detector, paths, Path(folder) / f"{pair}-{drawn}", overlays=drawn)
                used[drawn] = time.process_time() - began
            differences.append((used[True] - used[False]) / len(paths))
    height, width = image_size(paths[0])
    return {"processor": median(differences), "size": f"{width} x {height}"}


def test_images(options: argparse.Namespace) -> list[Path]:
    """Some of the test images of the run's data, evenly spaced."""
    settings = load_settings(Path(options.run))
    samples = open_dataset(settings.data, settings.category, need_train=False, need_test=True).test
    paths = [sample.path for sample in samples]
    return paths[:: -(-len(paths) // options.images)]
