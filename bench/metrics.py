"""Exact metrics: ours, plain numpy, scikit-learn, and pyaupro and adeval if they are installed and work.

``vitlite bench metrics`` is quick; ``--full`` takes the sizes of a real test set (some minutes). No speed is printed
for a result that differs from ours.
"""

import argparse
import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from vitlite.errors import first_line
from vitlite.files import new_file

from ._machine import described, held, in_a_process, machine, parser_of, write_csv

Maps = np.ndarray | Sequence[np.ndarray]
Found = dict[str, float]
PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "pyaupro", "adeval")

EXACT = 1e-9
Size = tuple[int, int]  # number of maps, and their height and width
Line = tuple[str, float | None, float | None, str]  # name, seconds, times ours, remark
SIZES = {False: ((10, 400), (20, 512)), True: ((40, 900), (83, 1024))}  # (images, side) for speed, and for memory


def make_data(images: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (uint8) and maps (float32), (images, side, side): a quarter good, the rest with one to four defects."""
    rng = np.random.default_rng(0)
    maps, masks = np.empty((images, side, side), np.float32), np.zeros((images, side, side), np.uint8)
    for i in range(images):
        rng.standard_normal(out=maps[i], dtype=np.float32)
        for _ in range(rng.integers(1, 5) if i >= max(1, images // 4) else 0):
            height, width = rng.integers(side // 40 + 1, side // 5, 2)
            y, x = rng.integers(0, side - height), rng.integers(0, side - width)
            masks[i, y : y + height, x : x + width] = 1
        maps[i] += 1.5 * masks[i]
    return masks, maps


def plain_aupro(masks: Maps, maps: Maps, limit: float = 0.3) -> float:
    """AUPRO by the official MVTec AD definition in plain numpy and scipy: label, sort all scores, accumulate."""
    from scipy.ndimage import label

    falses, overlaps, regions = [], [], 0
    for mask in masks:
        marked, found = label(mask, np.ones((3, 3), int))
        regions += found
        share = 1.0 / np.maximum(np.bincount(marked.ravel(), minlength=found + 1), 1)
        share[0] = 0.0
        falses.append((marked == 0).ravel())
        overlaps.append(share[marked.ravel()])
    scores = np.concatenate([np.ravel(m) for m in maps])
    order = np.argsort(scores)[::-1]
    false, overlap, scores = np.concatenate(falses)[order], np.concatenate(overlaps)[order], scores[order]
    last = np.append(np.diff(scores) != 0, True)  # equal scores are one step of the curve
    fpr = np.cumsum(false)[last]
    fpr = np.append(0.0, fpr / fpr[-1])
    pro = np.append(0.0, np.cumsum(overlap)[last] / regions)
    inside = np.searchsorted(fpr, limit, side="right")
    x, y = fpr[:inside], pro[:inside]
    if x[-1] < limit:
        share = (limit - x[-1]) / (fpr[inside] - x[-1])
        x, y = np.append(x, limit), np.append(y, y[-1] + share * (pro[inside] - y[-1]))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / limit)


def ours(masks: Maps, maps: Maps) -> Found:
    from vitlite.metrics import evaluate_maps

    found = evaluate_maps(masks, maps)
    return {key: found[f"pixel_{key}"] for key in ("auroc", "ap", "f1_max")} | {"aupro": found["aupro_30"]}


def sklearn(function: str, key: str, masks: np.ndarray, maps: np.ndarray) -> Found:
    from sklearn import metrics

    return {key: float(getattr(metrics, function)(masks.ravel(), maps.ravel()))}


def sklearn_f1(masks: np.ndarray, maps: np.ndarray) -> Found:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    return {"f1_max": float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))}


def pyaupro_aupro(masks: np.ndarray, maps: np.ndarray) -> Found:
    import torch
    from pyaupro import PerRegionOverlap, auc_compute

    metric = PerRegionOverlap()
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks).long())
    return {"aupro": float(auc_compute(*metric.compute(), limit=0.3, reorder=True))}


def adeval_all(masks: np.ndarray, maps: np.ndarray) -> Found:
    from adeval import EvalAccumulator

    low, high = float(maps.min()), float(maps.max())
    accumulator = EvalAccumulator(low, high, low, high)
    for mask, map_ in zip(masks, maps):
        accumulator.add_anomap(map_, mask)
    found = accumulator.summary()
    return {"auroc": found["p_auroc"], "ap": found["p_aupr"], "aupro": found["p_aupro"]}


# name: (function, packages that it needs, permitted error). Two of them approximate by design: pyaupro counts tied
# scores as several steps and does not interpolate at the limit, adeval counts in 1000 bins.
RIVALS: dict[str, tuple[Callable[..., Found], tuple[str, ...], float]] = {
    "plain numpy AUPRO": (lambda masks, maps: {"aupro": plain_aupro(masks, maps)}, ("scipy",), EXACT),
    "scikit-learn AUROC": (partial(sklearn, "roc_auc_score", "auroc"), ("sklearn",), EXACT),
    "scikit-learn AP": (partial(sklearn, "average_precision_score", "ap"), ("sklearn",), EXACT),
    "scikit-learn best F1": (sklearn_f1, ("sklearn",), EXACT),
    "pyaupro AUPRO": (pyaupro_aupro, ("pyaupro",), 1e-5),
    "adeval AUROC+AP+AUPRO": (adeval_all, ("adeval",), 1e-2),
}
USUAL = ("plain numpy AUPRO", "scikit-learn AUROC", "scikit-learn AP")  # what people add up, and the bar to beat


def timed(function: Callable[..., Found], *args: np.ndarray) -> tuple[float, Found]:
    start = time.perf_counter()
    found = function(*args)
    return time.perf_counter() - start, found


def compare(images: int, side: int) -> list[Line]:
    """Rows of (name, seconds or None, times ours, remark); ours is measured anew around every rival."""
    masks, maps = make_data(images, side)
    print(f"{images} maps of {side}x{side}, float32, {masks.mean():.1%} defective pixels")
    ours(*make_data(4, 64))  # compiled or loaded
    times: list[float] = []
    rivals: dict[str, tuple[float | None, str]] = {}
    for name in RIVALS:
        for _ in range(2):
            seconds, expected = timed(ours, masks, maps)
            times.append(seconds)
        rivals[name] = time_rival(name, masks, maps, expected)
    mine = statistics.median(times)
    spread = f"median of {len(times)}, {min(times):.2f} to {max(times):.2f} s"
    table: list[Line] = [("vitlite, all of AUROC AP F1 AUPRO", mine, 1.0, spread)]
    table += [(name, taken, taken and taken / mine, remark) for name, (taken, remark) in rivals.items()]
    usual = [taken for taken in (rivals[name][0] for name in USUAL) if taken is not None]
    if len(usual) < len(USUAL):
        table.append(("together: " + " + ".join(USUAL), None, None, "a part is missing"))
    else:
        table.append(("together: " + " + ".join(USUAL), sum(usual), sum(usual) / mine, "what vitlite replaces"))
    return table


def time_rival(name: str, masks: np.ndarray, maps: np.ndarray, expected: Found) -> tuple[float | None, str]:
    """(seconds, remark) of a rival; no seconds if it is not there, breaks or gives another result."""
    function, packages, tolerance = RIVALS[name]
    missing = _missing(packages)
    if missing:
        return None, missing
    try:
        seconds, found = timed(function, masks, maps)
    except Exception as error:  # a rival that breaks is a remark, not the end of the benchmark
        return None, f"fails: {type(error).__name__}: {first_line(error, 80)}"
    off = max(abs(found[key] - expected[key]) for key in found)
    if off > tolerance:
        return None, f"another result (off by {off:.1e}): no speed"
    what = "same result (largest difference" if off <= EXACT else "approximate (off by"
    return seconds, f"{what} {off:.0e})"


def _missing(packages: tuple[str, ...]) -> str | None:
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            return "not installed" if getattr(error, "name", None) == package else f"does not import ({error})"
    return None


def two_calls() -> list[float]:
    """Seconds of the first call in a process and of the second; meant for a fresh one."""
    data = make_data(4, 64)
    return [timed(ours, *data)[0] for _ in range(2)]


def first_calls() -> Found:
    """Seconds of the first call in a fresh process without and with compiled code on disk, and of the second call."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [in_a_process("metrics", "--two-calls", NUMBA_CACHE_DIR=folder) for _ in range(2)]
    return {"nothing compiled": runs[0][0], "compiled code on disk": runs[1][0], "second call": runs[1][1]}


def peak(name: str, images: int, side: int) -> float:
    """Bytes of memory per pixel that a call adds at its worst; meant for a fresh process."""
    function = ours if name == "ours" else RIVALS[name][0]
    function(*make_data(4, 64))  # loads the libraries and the compiled code
    masks, maps = make_data(images, side)
    before = held("VmRSS") or 0
    function(masks, maps)
    return ((held("VmHWM") or 0) - before) / maps.size


def peaks(images: int, side: int, names: Sequence[str] = ("ours", *USUAL)) -> Found:
    """``peak`` of each that is installed, measured in a process of its own; of none where the system does not say."""
    if held("VmHWM") is None:
        return {}
    chosen = [name for name in names if name == "ours" or _missing(RIVALS[name][1]) is None]
    return {name: in_a_process("metrics", "--peak", name, "--images", images, "--side", side) for name in chosen}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; ``--csv FILE`` writes it as well."""
    parser = parser_of("metrics", __doc__)
    parser.add_argument("--full", action="store_true", help="40 maps of 900x900, and 83 of 1024x1024 for memory")
    parser.add_argument("--images", type=int, help="number of maps")
    parser.add_argument("--side", type=int, help="height and width of a map")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV, with date, machine and versions")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--two-calls", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    speed, memory = ((options.images or number, options.side or side) for number, side in SIZES[options.full])
    if options.peak or options.two_calls:  # in a process of its own
        print(json.dumps(peak(options.peak, *memory) if options.peak else two_calls()))
        return 0
    if options.csv:
        new_file(options.csv, name="csv")
    about = machine(packages=PACKAGES)
    print(described(about))
    rows = compare(*speed)
    for name, seconds, ratio, remark in rows:
        print(f"{name:62} {_cell(seconds, '8.2f', ' s')} {_cell(ratio, '7.1f', 'x')}  {remark}")
    print("first call of vitlite in a process: " + ", ".join(f"{k} {v:.2f} s" for k, v in first_calls().items()))
    print(f"extra memory at the peak, {memory[0]} maps of {memory[1]}x{memory[1]}, bytes per pixel: ")
    extra = peaks(*memory)
    print("  " + (", ".join(f"{name} {value:.1f}" for name, value in extra.items()) or "not measured: needs Linux"))
    if options.csv:
        _write(options.csv, rows, extra, speed, memory, about)
    return 0


def _cell(value: float | None, form: str, unit: str) -> str:
    return " " * (int(form.split(".")[0]) + len(unit) - 1) + "-" if value is None else f"{value:{form}}{unit}"


def _write(path: str, rows: list[Line], extra: Found, speed: Size, memory: Size, about: dict[str, str]) -> None:
    columns = ("what", "images", "side", "value", "unit", "remark")
    lines = [(name, *speed, seconds, "s", remark) for name, seconds, _, remark in rows]
    lines += [(f"{name}, extra memory", *memory, value, "bytes per pixel", "") for name, value in extra.items()]
    write_csv(path, columns, [dict(zip(columns, line)) for line in lines], about)
