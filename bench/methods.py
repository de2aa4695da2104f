"""Every method on given data: accuracy, size, work, speed and training time, in one table that can be repeated.

``vitlite bench methods --data DIR --seeds 3 --markdown table.md`` trains and evaluates each registered method (preset
``quick``) on each data set and measures it: one model for all categories, or one for each with ``--separate``. A method
may have settings of its own, and then stand there several times: ``--methods knn,knn+backbone=dino_vits8``. A cell
(method, data set, seed) that is done is read from ``--out``, so an interrupted benchmark goes on, on another day and
with another commit, which each row names; only the speed of prediction is measured anew. Two controls tell what the
numbers mean: the same networks with random weights, and a map that is the same everywhere.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitlite.data import open_dataset
from vitlite.engine.ablate import SECONDS, run_part, slug
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate, score_category
from vitlite.engine.settings import RunSettings, apply_overrides, preset_config
from vitlite.errors import UserError
from vitlite.export.operations import size_of
from vitlite.files import make_folder, new_file, write_json, write_text
from vitlite.methods.config import TrainingConfig
from vitlite.predictor import Predictor
from vitlite.report.plot import refuse_plot
from vitlite.results import mean_of, summarize_category

from ._machine import forget_peak, machine, parser_of, peak_mib, write_csv
from ._methods_table import CONSTANT, SCORES, TRAINED, UNTRAINED, Row, markdown, plot
from ._runs import method_names, scoring_rate, synthetic, untrained_run

TABLE = "methods.csv"
KEY = ("method", "data", "categories", "models", "seed", "kind", "preset", "settings")
COLUMNS = (*KEY, *SCORES)
COLUMNS += ("parameters", "trained_parameters", "operations", "images_per_second", "training_seconds", "peak_mib")
COLUMNS += ("weights",)


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    p = parser_of("methods", __doc__)
    p.add_argument(
        "--methods", default="", help="names with commas, each maybe with +KEY=VALUE; default: all there are"
    )
    p.add_argument("--data", action="append", default=[], help="data set folder; repeatable; default: synthetic")
    p.add_argument("--category", default="all", help="categories of every data set; default: all")
    p.add_argument("--separate", default="", help="methods with commas, or all: one model for each category")
    p.add_argument("--preset", default="quick")
    p.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        help="KEY=VALUE for every method, or METHOD:KEY=VALUE for one; repeatable",
    )
    p.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of every method")
    p.add_argument("--images", type=int, default=48, help="test images for the measure of speed")
    p.add_argument("--threads", type=int, default=0, help="CPU threads; default: the choice of torch")
    p.add_argument("--device", default="cpu")
    p.add_argument("--out", default="runs/bench-methods", help="folder for the runs and methods.csv")
    p.add_argument("--markdown", help="file for the table as markdown")
    p.add_argument("--plot", help="file for a plot of accuracy against minutes of training (.svg, .png)")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--no-controls", dest="controls", action="store_false", help="trained methods alone")
    which.add_argument("--no-training", dest="trained", action="store_false", help="controls alone, of every seed")
    options = p.parse_args(args)
    if options.seeds < 1 or options.images < 1 or options.threads < 0:
        p.error("--seeds and --images must be at least 1, --threads at least 0")
    return options


def method_of(variant: str) -> str:
    """The method's name in ``METHOD+KEY=VALUE``."""
    return variant.partition("+")[0]


@dataclass(frozen=True)
class Cell:
    """One line of the table before seeds are put together."""

    label: str  # of the method with its own settings, in tables
    data: str  # folder
    name: str  # of the data set, in tables and folder names
    categories: str
    seed: int
    kind: str
    separate: bool = False

    @property
    def method(self) -> str:
        return method_of(self.label)

    def parts(self) -> list[str]:
        """Categories that are trained together."""
        return self.categories.split(",") if self.separate else [self.categories]


def main(args: Sequence[str] | None = None) -> int:
    options = parse(args)
    if options.threads:
        torch.set_num_threads(options.threads)
    variants = [name.strip() for name in options.methods.split(",") if name.strip()] or method_names()
    names = list(dict.fromkeys(method_names(",".join(map(method_of, variants)))))
    separate = separated(options.separate, names)
    configs = {variant: config_of(variant, options) for variant in variants}
    if options.markdown:  # refused before hours of training
        new_file(options.markdown, name="markdown")
    if options.plot:
        refuse_plot(Path(options.plot))
    data = open_data(options)
    out = make_folder(Path(options.out))
    new_file(out / TABLE)
    about = machine(options.device)
    rows: list[Row] = []
    before = kept_rows(out / TABLE)
    for cell in cells(variants, data, options, separate):
        print(f"{cell.name}: {cell.label} {cell.kind}, seed {cell.seed}", file=sys.stderr)
        rows.append(measure_once(cell, configs[cell.label], out, options, about))
        new = {key_of(row) for row in rows}
        write_csv(out / TABLE, COLUMNS, [*(row for row in before if key_of(row) not in new), *rows], about)
    text = markdown(rows)
    print(text)
    if options.markdown:
        write_text(Path(options.markdown), text)
    if options.plot:
        plot(rows, Path(options.plot))
    return 0


def kept_rows(path: Path) -> list[Row]:
    """The rows of earlier calls with the same --out: a table may be gathered data set by data set."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def key_of(row: Row) -> tuple[str, ...]:
    """What two rows of the same measurement have in common."""
    return tuple(str(row.get(key)) for key in KEY)


def separated(text: str, names: list[str]) -> list[str]:
    """The methods that get one model for each category; UserError for a name that is not among them."""
    wanted = names if text == "all" else [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in names:
            raise UserError(f"--separate {name}: not among the methods that are measured ({', '.join(names)})")
    return wanted


def config_of(variant: str, options: argparse.Namespace) -> TrainingConfig:
    """The preset of a method with the options that are meant for it, and then its own: ``METHOD+KEY=VALUE``."""
    method, *own = variant.split("+")
    chosen = []
    for item in options.overrides:
        target, colon, rest = item.partition(":")
        aimed = colon and "=" not in target
        if not aimed or target == method:
            chosen.append(rest if aimed else item)
    return apply_overrides(preset_config(method, options.preset), [*chosen, *own])


def open_data(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """``(folder, name, categories)`` of every data set; the synthetic one is made in ``--out`` if none is given."""
    found = []
    for folder in [Path(folder).resolve() for folder in options.data] or [synthetic(Path(options.out)).resolve()]:
        dataset = open_dataset(folder, options.category, need_test=True)
        found.append((str(folder), folder.name, ",".join(dataset.categories)))
    return found


def cells(
    variants: list[str], data: list[tuple[str, str, str]], options: argparse.Namespace, separate: Sequence[str] = ()
) -> Iterator[Cell]:
    """Every cell in order: a data set, a method, its seeds; then the controls of that data set."""
    for folder, name, categories in data:
        for variant in variants:
            for seed in range(options.seeds * options.trained):
                apart = method_of(variant) in separate and "," in categories
                yield Cell(variant, folder, name, categories, seed, TRAINED, apart)
        if options.controls:
            for variant in variants:
                for seed in range(1 if options.trained else options.seeds):
                    yield Cell(variant, folder, name, categories, seed, UNTRAINED)
            yield Cell(variants[0], folder, name, categories, 0, CONSTANT)


def measure_once(
    cell: Cell, config: TrainingConfig, out: Path, options: argparse.Namespace, about: dict[str, str]
) -> Row:
    """The row of a cell, from its file if it was measured with the same settings before; the speed is always new."""
    settings = [RunSettings(cell.method, cell.data, part, options.preset, cell.seed, config) for part in cell.parts()]
    kind = "separate" if cell.separate else cell.kind.replace(" ", "-")
    place = cell.method if cell.label == cell.method else slug(cell.label)
    folder = out / cell.name / place / f"{kind}-{cell.seed}"
    kept, asked = folder / "cell.json", {"settings": list(map(repr, settings))}
    held = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if held.get("asked") == asked:
        return held["row"] | speed_of(cell, settings, folder, options)
    row = {
        "method": "any" if cell.kind == CONSTANT else cell.label,
        "data": cell.name,
        "categories": cell.categories,
        "models": len(settings),
        "seed": cell.seed,
        "kind": cell.kind,
        "preset": options.preset,
        "settings": " ".join(options.overrides),
        **MEASURES[cell.kind](settings, folder, options),
        **about,
    }
    write_json(make_folder(folder) / "cell.json", {"asked": asked, "row": row})
    return row | speed_of(cell, settings, folder, options)


def run_folder(folder: Path, settings: list[RunSettings], part: RunSettings) -> Path:
    """Where one of the runs of a cell lies."""
    return folder / "run" if len(settings) == 1 else folder / part.category


def measure_trained(settings: list[RunSettings], folder: Path, options: argparse.Namespace) -> Row:
    """Train (or go on with) the runs, evaluate them, and say how large one is; the time is that of all together."""
    forget_peak()
    parts = [run_part(part, run_folder(folder, settings, part), options.device) for part in settings]
    detector = Detector(run_folder(folder, settings, settings[0]), options.device)
    seconds = [part[SECONDS] for part in parts]
    return {
        **scores_of(mean_of([scores for part in parts for scores in part["categories"].values()])),
        **size_of(detector.method),
        "training_seconds": None if None in seconds else sum(seconds),
        "peak_mib": None if None in seconds else peak_mib(),
        "weights": weights_of(detector),
    }


def measure_untrained(settings: list[RunSettings], folder: Path, options: argparse.Namespace) -> Row:
    """The same network, every weight random, nothing fitted."""
    run = untrained_run(settings[0], folder / "run")
    detector = Detector(run, options.device, calibrated=False)
    return {**scores_of(evaluate(detector)["mean"]), **size_of(detector.method), "weights": "random"}


def measure_constant(settings: list[RunSettings], folder: Path, options: argparse.Namespace) -> Row:
    """A detector that says the same of every pixel of every image."""
    dataset = open_dataset(settings[0].data, settings[0].category, need_train=False, need_test=True)
    scored = [score_category(Constant(), dataset, name) for name in dataset.categories]
    return {**scores_of(mean_of([summarize_category(one) for one in scored])), "weights": "none"}


class Constant(Predictor):
    """The predictor whose maps and scores are all zero."""

    calibration, image_size = None, 64

    def score_pixels(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(pixels), 64, 64), np.float32), np.zeros(len(pixels), np.float32)

    def digest(self) -> str:
        return "constant"


MEASURES = {TRAINED: measure_trained, UNTRAINED: measure_untrained, CONSTANT: measure_constant}


def scores_of(mean: dict[str, Any]) -> Row:
    return {key: mean[key] for key in SCORES}


def weights_of(detector: Detector) -> str:
    """What training started from; the checkpoints of vitlite 0.1 did not record it."""
    name, source = detector.method.backbone_name, detector.weights_source
    if detector.method.weights_source is None:
        return "none"  # no part of the method could have any
    if source is None:
        return "not recorded"
    return f"{name} ({source})" if name else source


def speed_of(cell: Cell, settings: list[RunSettings], folder: Path, options: argparse.Namespace) -> Row:
    """Images per second of `vitlite predict` without overlays: from files to scores and thresholded maps.

    Only for trained models; the first one if there are several.
    """
    if cell.kind != TRAINED:
        return {}
    one = settings[0]
    detector = Detector(run_folder(folder, settings, one), options.device)
    test = open_dataset(one.data, one.category, need_train=False, need_test=True).test
    paths = [str(sample.path) for sample in test][: options.images]
    return {"images_per_second": round(scoring_rate(detector, paths, overlays=False), 2)}
