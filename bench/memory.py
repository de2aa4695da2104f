"""Memory of `predict` and `eval` over many images: what an image leaves behind, and what its map takes.

`predict` keeps nothing of an image after it is written, so its peak after the last image is hardly above the peak after
the first hundred. `eval` keeps the maps of a category, because exact metrics rank all pixels together, and nothing of
the category before. Each part runs in a process of its own, whose resident memory is read every 5 ms.

Example: vitlite bench memory --images 1000 --maps 100
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitlite.data import synthesize
from vitlite.engine import evaluate
from vitlite.engine.detector import Detector
from vitlite.engine.predict import predict
from vitlite.serve import meters

from ._machine import described, in_a_process, judged, machine, parser_of
from ._runs import brief_run, method_names, small_settings

MIB = 2**20
GROWTH = 64.0  # MiB; the allocator gives freed memory back late
# A pixel of a category takes 4 for its map, 1 for the mask of a defective image, and 4 or more while pixels are ranked;
# 9.6 were measured with 80 million pixels. In smaller categories, code that is loaded and compiled counts as well.
BYTES_PER_PIXEL = 12.0
MARKS = (100, 250, 500, 1000, 2000, 5000, 10_000)
Marks = dict[Any, float]


def resident() -> int:
    """Bytes of this process that are in memory now; without Linux the peak until now, which grows if anything does."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return meters.resident(os.getpid()) or most


class Watch:
    """Peaks of resident memory, sampled on a thread: ``mark(key)`` notes the peak since the last mark."""

    def __init__(self) -> None:
        self.marks: Marks = {}
        self.peak, self.over = resident(), False
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.over = True
        self.thread.join()

    def _sample(self) -> None:
        while not self.over:
            self.peak = max(self.peak, resident())
            time.sleep(0.005)

    def mark(self, key: int | str) -> None:
        now = resident()
        self.marks[key], self.peak = max(self.peak, now), now


def images(side: int, number: int) -> Iterator[np.ndarray]:
    """A few different images, uint8 (side, side, 3): noise at the scale of a texture."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        coarse = rng.integers(60, 200, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
        yield np.repeat(np.repeat(coarse, 8, 0), 8, 1)[:side, :side]


def spread(files: list[Path], folder: Path, number: int, suffix: str = "") -> None:
    """``number`` names for a few files, by hard links: reading costs the same, and the disk stays free."""
    folder.mkdir(parents=True)
    for i in range(number):
        os.link(files[i % len(files)], folder / f"{i:05d}{suffix}{files[0].suffix}")


def make_sources(folder: Path, side: int) -> tuple[list[Path], Path]:
    """Eight images and a mask as files."""
    folder.mkdir(parents=True)
    files = []
    for i, array in enumerate(images(side, 8)):
        files.append(folder / f"{i}.png")
        Image.fromarray(array).save(files[-1], compress_level=1)
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return files, folder / "mask.png"


def make_run(folder: Path) -> Path:
    """A detector that costs little, so that everything around it is measured."""
    data = synthesize(folder / "data", size=64, categories=("weave",), train=8, good=1, defects=1)
    return brief_run(small_settings(method_names()[0], data), folder / "run")


def measure_predict(options: argparse.Namespace) -> Marks:
    """Peaks after so many images, in bytes, of scoring them with overlays and maps into files."""
    folder = Path(options.work)
    files, _ = make_sources(folder / "sources", options.side)
    spread(files, folder / "images", options.images)
    out = folder / "out"
    wanted = {m for m in MARKS if m < options.images} | {options.images}
    watch = Watch()

    class Counted(Detector):
        def score_files(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
            for count, found in enumerate(super().score_files(*args, **kwargs)):
                if count in wanted:
                    watch.mark(count)
                yield found
                for path in out.rglob("*.*"):  # the disk is not what is measured
                    path.unlink()

    detector = Counted(options.run, "cpu")
    with watch:
        watch.mark(0)
        predict(detector, [folder / "images"], out, maps=True)
        watch.mark(options.images)
    return watch.marks


def measure_eval(options: argparse.Namespace) -> Marks:
    """Peaks of two equal categories, one after the other."""
    folder = Path(options.work)
    files, mask = make_sources(folder / "sources", options.side)
    half = options.maps // 2
    for name in ("first", "second"):
        spread(files, folder / "data" / name / "test/good", half - half // 2)
        spread(files, folder / "data" / name / "test/spot", half // 2)
        spread([mask], folder / "data" / name / "ground_truth/spot", half // 2, "_mask")
    detector = Detector(options.run, "cpu")
    evaluate_category = evaluate.evaluate_category
    with Watch() as watch:
        watch.mark("before")

        def marked(detector: Detector, dataset: Any, name: str, **kwargs: Any) -> Any:
            found = evaluate_category(detector, dataset, name, **kwargs)
            watch.mark(name)
            return found

        evaluate.evaluate_category = marked
        evaluate.evaluate(detector, data=folder / "data", category="all")
    return watch.marks


PARTS = {"predict": measure_predict, "eval": measure_eval}


def measured(part: str, run: Path | str, options: argparse.Namespace) -> Marks:
    """The marks of a part, measured in a process of its own; keys are strings, values MiB."""
    with tempfile.TemporaryDirectory(prefix="vitlite-memory-", dir=options.scratch) as work:
        numbers = [f"--{name}={getattr(options, name)}" for name in ("images", "maps", "side")]
        marks = in_a_process("memory", f"--part={part}", f"--run={run}", f"--work={work}", *numbers)
        return {key: value / MIB for key, value in marks.items()}


def report_predict(marks: Marks, options: argparse.Namespace) -> bool:
    """Prints the peaks, and says whether the growth is within its bound."""
    print(f"predict, {options.images} images of {options.side} x {options.side}, overlays and maps written")
    for key, value in marks.items():
        print(f"  {'before the first' if key == '0' else f'peak up to {key:>5}'}  {value:8.1f} MiB")
    counted = [value for key, value in marks.items() if key != "0"]
    growth = counted[-1] - counted[0]
    print(f"  growth {growth:+.1f} MiB, at most {options.growth:g}: {judged(growth <= options.growth)}")
    return growth <= options.growth


def report_eval(marks: Marks, options: argparse.Namespace) -> bool:
    """Prints the peaks, and says whether memory for a pixel and growth between categories are in bounds."""
    half = options.maps // 2
    pixels = half * options.side**2
    each = (marks["first"] - marks["before"]) * MIB / pixels
    growth = marks["second"] - marks["first"]
    print(
        f"eval, 2 categories of {half} maps of {options.side} x {options.side}, {pixels / 1e6:.0f} million pixels each"
    )
    print(f"  before           {marks['before']:8.1f} MiB")
    print(f"  peak of first    {marks['first']:8.1f} MiB, {each:.1f} bytes for each pixel of the category")
    print(f"  peak of second   {marks['second']:8.1f} MiB")
    fits = each <= options.bytes_per_pixel
    print(f"  bytes for each pixel at most {options.bytes_per_pixel:g}: {judged(fits)}")
    print(f"  growth {growth:+.1f} MiB, at most {options.growth:g}: {judged(growth <= options.growth)}")
    return fits and growth <= options.growth


REPORTS = {"predict": report_predict, "eval": report_eval}


def parser() -> argparse.ArgumentParser:
    p = parser_of("memory", __doc__)
    p.add_argument("--images", type=int, default=2000, help="images to predict (default 2000)")
    p.add_argument("--maps", type=int, default=500, help="test images to evaluate (default 500)")
    p.add_argument("--side", type=int, default=1000, help="height and width of an image (default 1000)")
    p.add_argument("--growth", type=float, default=GROWTH, help=f"MiB that the peaks may grow (default {GROWTH:g})")
    p.add_argument("--bytes-per-pixel", type=float, default=BYTES_PER_PIXEL, help=f"default {BYTES_PER_PIXEL:g}")
    p.add_argument("--run", help="a trained run (default: a small one, trained first)")
    p.add_argument("--scratch", metavar="DIR", help="for the images (default: the system's temporary folder)")
    p.add_argument("--only", choices=PARTS, help="one of the two (default: both)")
    p.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    p.add_argument("--work", help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 1 if a bound is not met."""
    p = parser()
    options = p.parse_args(argv)
    for name, least in {"images": 101, "maps": 8, "side": 16}.items():
        if getattr(options, name) < least:
            p.error(f"--{name} must be at least {least}")
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return 0
    print(described(machine()))
    with contextlib.ExitStack() as stack:
        run = options.run
        if run is None:
            run = make_run(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitlite-memory-"))))
        chosen = [options.only] if options.only else list(PARTS)
        met = [REPORTS[part](measured(part, run, options), options) for part in chosen]
    return 0 if all(met) else 1
