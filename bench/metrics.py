"""Exact metrics: ours, plain numpy, scikit-learn, and pyaupro and adeval where they are installed and work.

``vitlite bench metrics`` is quick; ``--full`` takes the sizes of a real test set (some minutes). No speed is printed
for a result that differs from ours.
"""

import argparse
import csv
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date

import numpy as np

EXACT = 1e-9
SIZES = {False: ((10, 400), (20, 512)), True: ((40, 900), (83, 1024))}  # (images, side) for speed, and for memory


def make_data(images, side, seed=0):
    """Masks (uint8) and maps (float32), (images, side, side): a quarter good, the rest with one to four defects."""
    rng = np.random.default_rng(seed)
    maps, masks = np.empty((images, side, side), np.float32), np.zeros((images, side, side), np.uint8)
    for i in range(images):
        rng.standard_normal(out=maps[i], dtype=np.float32)
        for _ in range(rng.integers(1, 5) if i >= max(1, images // 4) else 0):
            height, width = rng.integers(side // 40 + 1, side // 5, 2)
            y, x = rng.integers(0, side - height), rng.integers(0, side - width)
            masks[i, y : y + height, x : x + width] = 1
        maps[i] += 1.5 * masks[i]
    return masks, maps


def plain_aupro(masks, maps, limit=0.3):
    """AUPRO by the official MVTec AD definition in plain numpy and scipy: label, sort all scores, accumulate."""
    from scipy.ndimage import label

    false, overlap, regions = [], [], 0
    for mask in masks:
        marked, found = label(mask, np.ones((3, 3), int))
        regions += found
        share = 1.0 / np.maximum(np.bincount(marked.ravel(), minlength=found + 1), 1)
        share[0] = 0.0
        false.append((marked == 0).ravel())
        overlap.append(share[marked.ravel()])
    scores = np.concatenate([np.ravel(m) for m in maps])
    order = np.argsort(scores)[::-1]
    false, overlap, scores = np.concatenate(false)[order], np.concatenate(overlap)[order], scores[order]
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


def ours(masks, maps):
    from vitlite.metrics import evaluate_maps

    found = evaluate_maps(masks, maps)
    return {key: found[f"pixel_{key}"] for key in ("auroc", "ap", "f1_max")} | {"aupro": found["aupro_30"]}


def numpy_aupro(masks, maps):
    return {"aupro": plain_aupro(masks, maps)}


def sklearn_auroc(masks, maps):
    from sklearn.metrics import roc_auc_score

    return {"auroc": float(roc_auc_score(masks.ravel(), maps.ravel()))}


def sklearn_ap(masks, maps):
    from sklearn.metrics import average_precision_score

    return {"ap": float(average_precision_score(masks.ravel(), maps.ravel()))}


def sklearn_f1(masks, maps):
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    return {"f1_max": float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))}


def pyaupro_aupro(masks, maps):
    import torch
    from pyaupro import PerRegionOverlap, auc_compute

    metric = PerRegionOverlap()
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks).long())
    return {"aupro": float(auc_compute(*metric.compute(), limit=0.3, reorder=True))}


def adeval_all(masks, maps):
    from adeval import EvalAccumulator

    low, high = float(maps.min()), float(maps.max())
    accumulator = EvalAccumulator(low, high, low, high)
    for mask, map_ in zip(masks, maps):
        accumulator.add_anomap(map_, mask)
    found = accumulator.summary()
    return {"auroc": found["p_auroc"], "ap": found["p_aupr"], "aupro": found["p_aupro"]}


# name: (function, packages it needs, how far it may be off). Two of them approximate by design: pyaupro lets tied
# scores be several steps and does not interpolate at the limit, adeval counts in 1000 bins.
RIVALS = {
    "plain numpy AUPRO": (numpy_aupro, ("scipy",), EXACT),
    "scikit-learn AUROC": (sklearn_auroc, ("sklearn",), EXACT),
    "scikit-learn AP": (sklearn_ap, ("sklearn",), EXACT),
    "scikit-learn best F1": (sklearn_f1, ("sklearn",), EXACT),
    "pyaupro AUPRO": (pyaupro_aupro, ("pyaupro",), 1e-5),
    "adeval AUROC+AP+AUPRO": (adeval_all, ("adeval",), 1e-2),
}
USUAL = ("plain numpy AUPRO", "scikit-learn AUROC", "scikit-learn AP")  # what people add up, and the bar to beat


def timed(function, *args):
    start = time.perf_counter()
    found = function(*args)
    return time.perf_counter() - start, found


def compare(images, side, say):
    """Rows of (name, seconds or None, times ours, remark); ours is measured anew around every rival."""
    masks, maps = make_data(images, side)
    say(f"{images} maps of {side}x{side}, float32, {masks.mean():.1%} defective pixels")
    ours(*make_data(4, 64))  # compiled or loaded
    times, rows = [], []
    expected = None
    for name, (function, packages, tolerance) in RIVALS.items():
        for _ in range(2):
            seconds, expected = timed(ours, masks, maps)
            times.append(seconds)
        missing = _missing(packages)
        if missing:
            rows.append((name, None, missing))
            continue
        try:
            seconds, found = timed(function, masks, maps)
        except Exception as error:  # a rival that breaks is a remark, not the end of the benchmark
            rows.append((name, None, f"fails: {type(error).__name__}: {str(error).splitlines()[0][:80]}"))
            continue
        off = max(abs(found[key] - expected[key]) for key in found)
        if off <= tolerance:
            what = "same result (largest difference" if off <= EXACT else "approximate (off by"
            rows.append((name, seconds, f"{what} {off:.0e})"))
        else:
            rows.append((name, None, f"another result (off by {off:.1e}): no speed"))
    mine = statistics.median(times)
    spread = f"median of {len(times)}, {min(times):.2f} to {max(times):.2f} s"
    table = [("vitlite, all of AUROC AP F1 AUPRO", mine, 1.0, spread)]
    table += [(name, seconds, seconds and seconds / mine, remark) for name, seconds, remark in rows]
    usual = [seconds for name, seconds, _ in rows if name in USUAL]
    if None in usual:
        table.append(("together: " + " + ".join(USUAL), None, None, "a part is missing"))
    else:
        table.append(("together: " + " + ".join(USUAL), sum(usual), sum(usual) / mine, "what vitlite replaces"))
    return table


def _missing(packages):
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            return "not installed" if getattr(error, "name", None) == package else f"does not import ({error})"
    return None


def first_calls():
    """Seconds of the first call in a fresh process without and with compiled code on disk, and of the second call."""
    code = (
        "import time, json; import numpy as np; from vitlite.bench.metrics import make_data, ours\n"
        "d = make_data(4, 64); t = [time.perf_counter()]\n"
        "for _ in range(2): ours(*d); t.append(time.perf_counter())\n"
        "print(json.dumps(list(np.diff(t))))"
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = [json.loads(_python("-c", code, NUMBA_CACHE_DIR=folder)) for _ in range(2)]
    return {"nothing compiled": runs[0][0], "compiled code on disk": runs[1][0], "second call": runs[1][1]}


def peak(name, images, side):
    """Bytes of memory per pixel that a call adds at its worst; meant for a fresh process."""
    function = ours if name == "ours" else RIVALS[name][0]
    function(*make_data(4, 64))  # loads the libraries and the compiled code
    masks, maps = make_data(images, side)
    before = _resident("VmRSS")
    function(masks, maps)
    return (_resident("VmHWM") - before) / maps.size


def _resident(field):
    """Bytes of resident memory now (VmRSS) or at most so far (VmHWM); getrusage would count the parent's as well."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def peaks(images, side, names=("ours", *USUAL)):
    """``peak`` of each that is installed, measured in a process of its own."""
    rows = {}
    for name in names:
        if name == "ours" or _missing(RIVALS[name][1]) is None:
            args = ("--peak", name, "--images", str(images), "--side", str(side))
            rows[name] = float(_python("-m", "vitlite.bench.metrics", *args))
    return rows


def _python(*args, **environment):
    command = [sys.executable, *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment).stdout


def versions():
    from importlib.metadata import PackageNotFoundError, version

    found = [f"python {platform.python_version()}"]
    for name in ("vitlite", "numpy", "numba", "scipy", "scikit-learn", "pyaupro", "adeval"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _machine():
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def main(argv=None):
    """Print the comparison; ``--csv FILE`` writes it as well."""
    parser = argparse.ArgumentParser(prog="vitlite bench metrics", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="40 maps of 900x900, and 83 of 1024x1024 for memory")
    parser.add_argument("--images", type=int, help="number of maps")
    parser.add_argument("--side", type=int, help="height and width of a map")
    parser.add_argument("--csv", metavar="FILE", help="write the table as CSV, with date, machine and versions")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    speed, memory = (tuple(given or d for given, d in zip((options.images, options.side), size))
                     for size in SIZES[options.full])  # fmt: skip
    if options.peak:
        print(peak(options.peak, *memory))
        return
    print(f"{_machine()}; {versions()}")
    rows = compare(*speed, print)
    for name, seconds, ratio, remark in rows:
        print(f"{name:62} {_cell(seconds, '8.2f', ' s')} {_cell(ratio, '7.1f', 'x')}  {remark}")
    print("first call of vitlite in a process: " + ", ".join(f"{k} {v:.2f} s" for k, v in first_calls().items()))
    print(f"extra memory at the peak, {memory[0]} maps of {memory[1]}x{memory[1]}, bytes per pixel: ")
    extra = peaks(*memory)
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in extra.items()))
    if options.csv:
        _write(options.csv, rows, extra, speed, memory)


def _cell(value, form, unit):
    return " " * (int(form.split(".")[0]) + len(unit) - 1) + "-" if value is None else f"{value:{form}}{unit}"


def _write(path, rows, extra, speed, memory):
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("date", "machine", "versions", "what", "images", "side", "value", "unit", "remark"))
        about = (date.today().isoformat(), _machine(), versions())
        for name, seconds, _, remark in rows:
            out.writerow((*about, name, *speed, seconds, "s", remark))
        for name, value in extra.items():
            out.writerow((*about, f"{name}, extra memory", *memory, value, "bytes per pixel", ""))


if __name__ == "__main__":
    main()
