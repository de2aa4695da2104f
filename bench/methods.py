"""Every method on given data: accuracy, size, work, speed and training time, in one table that can be repeated.

``vitlite bench methods --data DIR --seeds 3 --markdown table.md`` trains and evaluates each registered method (preset
``quick``) on each data set and measures it: one model for all categories, or one for each with ``--separate``. A cell
(method, data set, seed) that is done is read from ``--out``, so an interrupted benchmark goes on; only the speed of
prediction is measured anew. Two controls tell what the numbers mean: the same networks with random weights, and a map
that is the same everywhere.
"""

import argparse
import csv
import io
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SCORES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro_30": "AUPRO",
}
COLUMNS = ("method", "data", "categories", "models", "seed", "kind", "preset", "settings", *SCORES)
COLUMNS += ("parameters", "trained_parameters", "operations", "images_per_second", "training_seconds", "weights")
COLUMNS += ("threads", "processor", "torch")
COUNTED = (
    "Operations: of matrix products, convolutions, attention and our operators for one picture, decoding and resizing "
    "excluded; a multiplication and an addition are two"
)
TRAINED, UNTRAINED, CONSTANT = "trained", "untrained", "constant map"


def parse(args):
    parser = argparse.ArgumentParser(prog="vitlite bench methods", description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="", help="names with commas; default: all there are")
    parser.add_argument("--data", action="append", default=[], help="data set folder; repeatable; default: synthetic")
    parser.add_argument("--category", default="all", help="categories of every data set; default: all")
    parser.add_argument(
        "--separate",
        default="",
        help="methods with commas, or all, that get one model for each category, not one for all",
    )
    parser.add_argument("--preset", default="quick")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        help="KEY=VALUE for every method, or METHOD:KEY=VALUE for one; repeatable",
    )
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of every method")
    parser.add_argument("--images", type=int, default=48, help="test pictures that speed is measured on")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: torch's choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="runs/bench-methods", help="folder for the runs and methods.csv")
    parser.add_argument("--markdown", help="file for the table as markdown")
    parser.add_argument("--no-controls", dest="controls", action="store_false", help="trained methods alone")
    options = parser.parse_args(args)
    if options.seeds < 1 or options.images < 1 or options.threads < 0:
        parser.error("--seeds and --images must be at least 1, --threads at least 0")
    return options


@dataclass(frozen=True)
class Cell:
    """One line of the table before seeds are put together."""

    method: str
    data: str  # folder
    name: str  # of the data set, in tables and folder names
    categories: str
    seed: int
    kind: str
    separate: bool = False

    def parts(self):
        """Categories that are trained together."""
        return self.categories.split(",") if self.separate else [self.categories]


def main(args=None):
    options = parse(args)
    import torch

    from vitlite.files import make_folder, write_text
    from vitlite.methods import REGISTRY, method_class

    if options.threads:
        torch.set_num_threads(options.threads)
    names = [n.strip() for n in options.methods.split(",") if n.strip()] or list(REGISTRY)
    for name in names:
        method_class(name)  # a name that does not exist is said before anything is trained
    separate = separated(options, names)
    out = make_folder(Path(options.out))
    settings = {name: config_of(name, options) for name in names}
    rows = []
    for cell in cells(names, open_data(options, out), options, separate):
        print(f"{cell.name}: {cell.method} {cell.kind}, seed {cell.seed}", file=sys.stderr)
        rows.append(measure_once(cell, settings[cell.method], out, options))
        write_text(out / "methods.csv", csv_text(rows))
    text = markdown(rows)
    print(text)
    if options.markdown:
        write_text(Path(options.markdown), text)
    return 0


def separated(options, names):
    """Those of the methods that get one model for each category; UserError for a name that is not among them."""
    from vitlite.errors import UserError

    if options.separate == "all":
        return names
    wanted = [n.strip() for n in options.separate.split(",") if n.strip()]
    for name in wanted:
        if name not in names:
            raise UserError(f"--separate {name}: not among the methods that are measured ({', '.join(names)})")
    return wanted


def config_of(method, options):
    """A method's preset with the options that are meant for it."""
    from vitlite.engine.settings import apply_overrides, preset_config

    chosen = []
    for item in options.overrides:
        target, colon, rest = item.partition(":")
        aimed = colon and "=" not in target
        if not aimed or target == method:
            chosen.append(rest if aimed else item)
    return apply_overrides(preset_config(method, options.preset), chosen)


def open_data(options, out):
    """``(folder, name, categories)`` of every data set; the synthetic one is made in ``out`` if none is given."""
    from vitlite.data import open_dataset, synthesize

    folders = [Path(folder) for folder in options.data]
    if not folders:
        folders = [out / "synthetic"]
        if not folders[0].is_dir():
            synthesize(folders[0])
    found = []
    for folder in folders:
        dataset = open_dataset(folder.resolve(), options.category, need_test=True)
        found.append((str(folder.resolve()), folder.resolve().name, ",".join(dataset.categories)))
    return found


def cells(names, data, options, separate=()):
    """Every cell in order: a data set, a method, its seeds; then the controls of that data set."""
    for folder, name, categories in data:
        for method in names:
            for seed in range(options.seeds):
                apart = method in separate and "," in categories
                yield Cell(method, folder, name, categories, seed, TRAINED, apart)
        if options.controls:
            for method in names:
                yield Cell(method, folder, name, categories, 0, UNTRAINED)
            yield Cell(names[0], folder, name, categories, 0, CONSTANT)


def measure_once(cell, config, out, options):
    """The row of a cell, from its file if it was measured with the same settings before; the speed is always new."""
    from vitlite.engine.settings import RunSettings
    from vitlite.files import make_folder, write_json

    settings = [RunSettings(cell.method, cell.data, part, options.preset, cell.seed, config) for part in cell.parts()]
    kind = "separate" if cell.separate else cell.kind.replace(" ", "-")
    folder = out / cell.name / cell.method / f"{kind}-{cell.seed}"
    kept, asked = folder / "cell.json", {"settings": list(map(repr, settings))}
    held = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if held.get("asked") == asked:
        return held["row"] | speed_of(cell, settings, folder, options)
    row = {
        "method": "any" if cell.kind == CONSTANT else cell.method,
        "data": cell.name,
        "categories": cell.categories,
        "models": len(settings),
        "seed": cell.seed,
        "kind": cell.kind,
        "preset": options.preset,
        "settings": " ".join(options.overrides),
        **MEASURES[cell.kind](settings, folder, options),
        **surroundings(options),
    }
    write_json(make_folder(folder) / "cell.json", {"asked": asked, "row": row})
    return row | speed_of(cell, settings, folder, options)


def run_folder(folder, settings, part):
    """Where one of a cell's runs lies."""
    return folder / "run" if len(settings) == 1 else folder / part.category


def measure_trained(settings, folder, options):
    """Train (or go on with) the runs, evaluate them, and say how large one is; the time is that of all together."""
    from vitlite.engine.ablate import SECONDS, run_part
    from vitlite.engine.detector import Detector
    from vitlite.engine.evaluate import mean_of

    parts = [run_part(part, run_folder(folder, settings, part), options.device) for part in settings]
    detector = Detector(run_folder(folder, settings, settings[0]), options.device)
    seconds = [part[SECONDS] for part in parts]
    return {
        **scores_of(mean_of([scores for part in parts for scores in part["categories"].values()])),
        **size_of(detector.method),
        "training_seconds": None if None in seconds else sum(seconds),
        "weights": weights_of(detector),
    }


def measure_untrained(settings, folder, options):
    """The same network, every weight random, nothing fitted."""
    from vitlite.engine.detector import Detector
    from vitlite.engine.evaluate import evaluate

    (settings,) = settings
    write_untrained(settings, folder / "run")
    detector = Detector(folder / "run", options.device, calibrated=False)
    return {**scores_of(evaluate(detector)["mean"]), **size_of(detector.method), "weights": "random"}


def write_untrained(settings, run):
    """A run directory that holds a method as it is before training."""
    import torch

    from vitlite.engine.checkpoint import save_checkpoint
    from vitlite.engine.settings import build_method, save_settings
    from vitlite.files import make_folder

    torch.manual_seed(settings.seed)
    method = build_method(settings, weights="none")
    save_settings(make_folder(run), settings)
    start = {"stage": 0, "epoch": 0, "optimizer": None, "rng": torch.get_rng_state(), "cuda_rng": None}
    save_checkpoint(run, {"method": settings.method, "model": method.state_dict(), "fingerprint": "", **start})


def measure_constant(settings, folder, options):
    """A detector that says the same of every pixel of every picture."""
    from vitlite.data import open_dataset
    from vitlite.engine.evaluate import mean_of, score_category, summarize_category

    dataset = open_dataset(settings[0].data, settings[0].category, need_train=False, need_test=True)
    detector = constant(folder)
    scored = [score_category(detector, dataset, name) for name in dataset.categories]
    return {**scores_of(mean_of([summarize_category(one) for one in scored])), "weights": "none"}


def constant(folder):
    """The predictor whose maps and scores are all zero."""
    import numpy as np

    from vitlite.engine.predict import Predictor

    class Constant(Predictor):
        run, calibration, image_size = folder, None, 64

        def score_pixels(self, pixels):
            return np.zeros((len(pixels), 64, 64), np.float32), np.zeros(len(pixels), np.float32)

    return Constant()


MEASURES = {TRAINED: measure_trained, UNTRAINED: measure_untrained, CONSTANT: measure_constant}


def scores_of(mean):
    return {key: mean[key] for key in SCORES}


def size_of(method):
    """Numbers of parameters, and operations for one picture."""
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    return {
        "parameters": sum(p.numel() for p in method.parameters()),
        "trained_parameters": sum(p.numel() for p in method.parameters() if id(p) in trained),
        "operations": operations_of(method),
    }


def operations_of(method):
    """Operations for one image, as ``COUNTED`` says; without oneDNN's fused convolutions, which torch does not count.

    The method is asked as an exporter asks it (Pictures), so what is counted is what scoring computes.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vitlite.export.program import exportable

    size = method.config.image_size
    twin, picture = exportable(method), torch.zeros(1, size, size, 3, dtype=torch.uint8)
    counter = FlopCounterMode(display=False, custom_mapping=own_operators())
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), counter:
        twin(picture)
    return counter.get_total_flops()


def own_operators():
    """What FlopCounterMode does not know: our operators' matrix products, and attention on a CPU."""
    import torch

    ops = torch.ops

    def mixture(x, y, w_logits, w_mean, w_std, *rest, out_shape=None, **options):
        return 2 * x[0] * x[1] * (w_logits[0] + w_mean[0] + w_std[0])

    def memory(z, items, *rest, out_shape=None, **options):
        return 2 * 2 * z[0] * items[0] * items[1]  # similarities, and the weighted sum

    def attention(query, key, value, *rest, out_shape=None, **options):
        batch, heads, length, width = query
        return 2 * batch * heads * length * key[2] * (width + value[3])

    return {
        ops.vitlite.linear_gmm_log_likelihood_forward: mixture,
        ops.vitlite.memory_read_forward: memory,
        ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
    }


def speed_of(cell, settings, folder, options):
    """Pictures per second of `vitlite predict` without overlays: from files to scores and thresholded maps.

    Of the first model where there are several; of trained ones alone.
    """
    from vitlite.data import open_dataset
    from vitlite.engine.detector import Detector
    from vitlite.engine.predict import predict

    if cell.kind != TRAINED:
        return {}
    one = settings[0]
    detector = Detector(run_folder(folder, settings, one), options.device)
    test = open_dataset(one.data, one.category, need_train=False, need_test=True).test
    paths = [str(sample.path) for sample in test][: options.images]
    with tempfile.TemporaryDirectory() as folder:
        predict(detector, paths[:8], Path(folder) / "warm", overlays=False)
        began = time.perf_counter()
        predict(detector, paths, Path(folder) / "out", overlays=False)
        return {"images_per_second": round(len(paths) / (time.perf_counter() - began), 2)}


def weights_of(detector):
    """What training started from; the checkpoints of vitlite 0.1 do not hold it."""
    name, source = detector.method.backbone_name, detector.weights_source
    if source is None:
        return detector.method.starts_from
    return f"{name} ({source})" if name else source


def surroundings(options):
    """What timings depend on."""
    import torch

    from vitlite.bench._machine import machine

    about = machine("cuda" if options.device.startswith("cuda") else "cpu")
    return {
        "threads": torch.get_num_threads(),
        "processor": about.get("gpu", about["processor"]),
        "torch": about["torch"],
    }


def csv_text(rows):
    """One line for each cell; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def markdown(rows):
    """The table for people: a line for each method and data set, mean and deviation over seeds; controls below."""
    groups = {}
    for row in rows:
        groups.setdefault((row["data"], row["kind"], row["method"]), []).append(row)
    head = ["data", "method", *SCORES.values(), "parameters", "operations", "images/s", "training", "weights"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * 2 + " ---: |" * (len(head) - 3) + " --- |"]
    for (data, kind, method), group in groups.items():
        name = {TRAINED: method, UNTRAINED: f"{method}, untrained", CONSTANT: CONSTANT}[kind]
        if group[0]["models"] > 1:
            name += f", {group[0]['models']} models"
        cells = [data, name, *(spread([r[key] for r in group]) for key in SCORES)]
        cells += [scaled(group, "parameters", 1e6, "M"), scaled(group, "operations", 1e9, "G")]
        cells += [scaled(group, "images_per_second", 1, ""), scaled(group, "training_seconds", 1, "s")]
        lines.append("| " + " | ".join([*cells, group[0]["weights"]]) + " |")
    return "\n".join([*lines, "", footnote(rows)]) + "\n"


def footnote(rows):
    """What the numbers of the table are."""
    first, seeds = rows[0], len({row["seed"] for row in rows})
    many = f", mean ± deviation over {seeds} seeds" if seeds > 1 else ""
    changed = f" with {first['settings']}" if first["settings"] else ""
    return (
        f"Scores in percent, the mean over categories{many}; AUPRO to 0.3, of which a constant map has 15. Preset "
        f"{first['preset']}{changed}, one model for all categories of a data set unless more are named, whose training "
        f"times are added. {COUNTED}. Images/s of `vitlite predict` without overlays. {first['processor']}, "
        f"{first['threads']} threads, torch {first['torch']}."
    )


def spread(values):
    """Mean of shares in percent, with their deviation where there are several."""
    values = [100 * v for v in values if v is not None]
    if not values:
        return "-"
    text = f"{statistics.mean(values):.1f}"
    return f"{text} ± {statistics.stdev(values):.1f}" if len(values) > 1 else text


def scaled(group, key, unit, name):
    values = [row[key] / unit for row in group if row.get(key) is not None]
    return f"{statistics.median(values):.4g} {name}".strip() if values else "-"
