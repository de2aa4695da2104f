"""A method's ablation table: every row trained and evaluated, beside the paper's figures."""

import csv
import hashlib
import logging
import re
import statistics
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vitlite.data import open_dataset, synthesize
from vitlite.data.layouts import categories_apart
from vitlite.engine.checkpoint import is_free
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate
from vitlite.engine.settings import SYNTHETIC, RunSettings, load_settings, new_regions, parse_overrides, preset_config
from vitlite.engine.train import train
from vitlite.errors import UserError
from vitlite.files import MAX_MEGAPIXELS, StrPath, make_folder, new_file, write_csv
from vitlite.images.region_files import file_of
from vitlite.methods import method_class
from vitlite.methods.ablations import Row, Table
from vitlite.methods.base import Method
from vitlite.methods.config import AUTO, change
from vitlite.results import KEYS, RESULTS_FILE, mean_of, read, write

log = logging.getLogger(__name__)

CSV_FILE, SEPARATE_FILE = "ablation.csv", "separate.csv"
SECONDS = "training_seconds"  # in results.json of a row that was trained without interruption
SIZES = ("parameters", "trained_parameters", "operations")  # of one network
HEAD = ("method", "table", "row", "settings", "preset", "seed", "models", "data", "categories", SECONDS, *SIZES)
COLUMNS = (*HEAD, *KEYS, *(f"paper_{key}" for key in KEYS))


@dataclass(frozen=True)
class Plan:
    """What every row of a table has in common."""

    method: str
    data: str = ""  # folder; empty: the synthetic set, made in ``out``
    category: str = "all"
    separate: bool = False  # one model for each category instead of one for all
    preset: str = "quick"
    overrides: tuple[str, ...] = ()  # applied before the row's own
    seed: int = 0
    device: str = "auto"

    def method_of(self, row: Row) -> str:
        return row.method or self.method


@dataclass
class Outcome:
    """A row that is done.

    Every metric of each category and their mean, the time of training of all its models (None: unknown), how many
    models there are, and the size of one (empty: nobody asked).
    """

    row: Row
    mean: dict[str, float | None]
    seconds: float | None
    categories: dict[str, dict[str, float | None]] = field(default_factory=dict)
    models: int = 1
    size: dict[str, int] = field(default_factory=dict)


def ablate(
    plan: Plan,
    table: Table,
    out: StrPath,
    *,
    name: str = "ablation",
    rows: Sequence[str] | None = None,
    size_of: Callable[[Method], dict[str, int]] | None = None,
) -> list[Outcome]:
    """Train and evaluate the rows of a table below ``out``.

    Every row has a run of its own, ``out/NAME/ROW`` (with ``separate`` one for each category below it). Rows that are
    done are read, one that was interrupted goes on, and ``out/ablation.csv`` is written anew after each. ``rows`` has
    numbers (from 1) or labels of those to run; None: all. ``size_of`` gives what a network has of :data:`SIZES`.
    ``UserError``: no such row, a row's settings are refused, or ``out`` holds the same row with other settings.
    """
    out = make_folder(Path(out))
    new_file(out / CSV_FILE)  # refused before long work
    plan = replace(plan, separate=plan.separate or table.by_class)
    root, categories = _dataset(plan, out)
    chosen = select_rows(table, rows)
    configs = [row_config(plan, row) for row in chosen]  # every mistake before the first hour of training
    folders = slugs(row.label for row in table.rows)
    done: list[Outcome] = []
    for place, (row, config) in enumerate(zip(chosen, configs), 1):
        changes = " ".join(row.overrides) or "as it is"
        log.info("%s, row %d of %d: %s (%s)", name, place, len(chosen), row.label, changes)
        method = plan.method_of(row)
        parts = [
            run_part(RunSettings(method, root, part, preset_of(plan, row), plan.seed, config), folder, plan.device)
            for part, folder in _parts(plan, categories, out / name / folders[row.label])
        ]
        times: list[Any] = [part.get(SECONDS) for part in parts]
        every = {name: values for part in parts for name, values in part["categories"].items()}
        size = size_of(method_class(method)(config, weights="none")) if size_of else {}
        seconds = None if None in times else sum(times)
        done.append(Outcome(row, mean_of(list(every.values())), seconds, every, len(parts), size))
        _add_to_csv(out / CSV_FILE, [csv_row(plan, name, root, categories, outcome) for outcome in done])
    return done


def _dataset(plan: Plan, out: Path) -> tuple[str, tuple[str, ...]]:
    """The folder of the data, and the categories."""
    root = Path(plan.data).resolve() if plan.data else out.resolve() / SYNTHETIC
    if not plan.data and not root.is_dir():
        synthesize(root, seed=plan.seed)
    if plan.separate:
        return str(root), categories_apart(root, plan.category or None)
    return str(root), open_dataset(root, plan.category or None, need_test=True).categories


def _parts(plan: Plan, categories: Sequence[str], folder: Path) -> list[tuple[str, Path]]:
    """Which categories are trained together, and where."""
    if not plan.separate:
        return [(",".join(categories), folder)]
    names = slugs(categories)
    return [(category, folder / names[category]) for category in categories]


def select_rows(table: Table, wanted: Sequence[str] | None) -> list[Row]:
    """Rows by number (from 1) or label; all of them for None. UserError names the rows there are."""
    if wanted is None:
        return list(table.rows)
    labels = [row.label for row in table.rows]
    places = {**{label: i for i, label in enumerate(labels)}, **{str(i + 1): i for i in range(len(labels))}}
    for item in wanted:
        if item not in places:
            known = ", ".join(f"{i} ({label})" for i, label in enumerate(labels, 1))
            raise UserError(f"`rows={item}`: no such row; there are {known}")
    return [table.rows[i] for i in dict.fromkeys(places[item] for item in wanted)]


def preset_of(plan: Plan, row: Row) -> str:
    """The plan's preset; "quick" if the row has a method of its own, to compare with, that has no such preset."""
    return plan.preset if not row.method or plan.preset in method_class(row.method).presets else "quick"


def row_config(plan: Plan, row: Row) -> Any:
    """The preset with the caller's settings and then the row's; UserError if the method refuses them."""
    preset = preset_config(plan.method_of(row), preset_of(plan, row))
    try:
        return change(preset, parse_overrides((*plan.overrides, *row.overrides)), idle=True)
    except UserError as error:
        raise UserError(f"row {row.label!r}: {error.marked}") from error


def run_part(
    settings: RunSettings, folder: Path, device: str, max_megapixels: float = MAX_MEGAPIXELS
) -> dict[str, Any]:
    """Train (or go on, or find done) one run and return its results.json."""
    fresh, began = is_free(folder), time.monotonic()
    if not fresh:
        held = load_settings(folder)
        if held != (settings := as_chosen(settings, held)):
            changed = ", ".join(differences(held, settings))
            raise UserError(f"{folder}: holds this row with another {changed}; choose another `out`")
        if (folder / RESULTS_FILE).exists():
            log.info("already done: %s", folder)
            return read(folder)
    train(settings, folder, device=device, resume=not fresh, max_megapixels=max_megapixels)
    seconds = time.monotonic() - began
    results = evaluate(Detector(folder, device, max_megapixels=max_megapixels)) | {
        SECONDS: round(seconds, 3) if fresh else None
    }
    write(folder, results)
    return results


def as_chosen(settings: RunSettings, held: RunSettings) -> RunSettings:
    """The settings with what training chose in the place of ``auto`` and ``keep``, as a run holds it."""
    if held.method != settings.method:
        return settings
    decided = (key for key in ("score", "places", "compare_maps", "precision") if getattr(settings.config, key) == AUTO)
    chosen = {key: getattr(held.config, key) for key in decided}
    if settings.config.keeps:
        chosen |= {key: value for key, value in vars(held.config).items() if key in ("image_size", "feature_size")}
    return replace(settings, config=replace(settings.config, **chosen), chosen=held.chosen)


def train_separate(
    settings: RunSettings, out: StrPath, device: str = "auto", *, max_megapixels: float = MAX_MEGAPIXELS
) -> dict[str, dict[str, float | None]]:
    """Train and evaluate one model for each category, each in a run of its own, ``out/CATEGORY``.

    Runs that are done are read, and one that was interrupted goes on. Returns the metrics of each category, and those
    of ``mean`` and ``std`` (of a sample), which are the lines of ``out/separate.csv`` too. ``UserError``: no labelled
    test images, or ``out`` holds runs with other settings.
    """
    categories = categories_apart(settings.data, settings.category or None)
    new_regions(settings, categories)  # refused before long work
    out, names, rows = make_folder(Path(out)), slugs(categories), {}
    new_file(out / SEPARATE_FILE)
    for number, category in enumerate(categories, 1):
        log.info("%s, model %d of %d", category, number, len(categories))
        roi, ignore = (file_of(where, category) for where in (settings.roi, settings.ignore))
        single = replace(settings, category=category, roi=roi, ignore=ignore)
        part = run_part(single, out / names[category], device, max_megapixels)
        (found,) = part["categories"].values()
        rows[category] = {key: found.get(key) for key in KEYS}
    measured = {key: [row[key] for row in rows.values() if row[key] is not None] for key in KEYS}
    spread = {key: statistics.stdev(values) if len(values) > 1 else None for key, values in measured.items()}
    rows |= {"mean": mean_of(list(rows.values())), "std": spread}
    cells = ([name, *("" if row[key] is None else f"{row[key]:.6f}" for key in KEYS)] for name, row in rows.items())
    write_csv(out / SEPARATE_FILE, ("category", *KEYS), cells)
    return rows


def differences(held: RunSettings, wanted: RunSettings) -> list[str]:
    """Names of the settings that differ between two RunSettings."""
    names = [k for k in ("method", "data", "category", "preset", "seed") if getattr(held, k) != getattr(wanted, k)]
    mine, theirs = vars(held.config), vars(wanted.config)
    return names + [k for k in theirs if mine.get(k) != theirs[k]]


def slug(label: str) -> str:
    """A folder name for a label: its letters and digits, in lower case. Several labels may have the same."""
    return re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", label).lower()).strip("-") or "row"


def slugs(labels: Iterable[str]) -> dict[str, str]:
    """``{label: folder name}``, no two alike: a hash tells equal slugs apart, and names labels without letters.

    A label that is its own slug keeps it.
    """
    bare = {label: slug(label) for label in labels}
    often = Counter(bare.values())
    named = {}
    for label, name in bare.items():
        unclear = often[name] > 1 or not re.search(r"[^\W_]", label)
        named[label] = f"{name}-{_digest(label)}" if unclear and label != name else name
    return named


def _digest(label: str) -> str:
    return hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _add_to_csv(path: Path, fresh: Sequence[Mapping[str, str]]) -> None:
    """Add rows to ablation.csv, or replace them; those of other tables and of earlier calls stay."""
    kept: list[Mapping[str, str]] = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if set(HEAD) - set(SIZES) <= set(row)]
    rows = {(row["table"], row["row"]): row for row in (*kept, *fresh)}
    write_csv(path, COLUMNS, ([row.get(column, "") for column in COLUMNS] for row in rows.values()))


def both_modes(plan: Plan, table: Table, out: StrPath, **options: Any) -> tuple[list[Outcome], list[Outcome]]:
    """:func:`ablate` with one model for each category, below ``out/each``, and with one for all, below ``out/all``.

    ``options`` are further ones of :func:`ablate`. ``UserError`` as there, and for a single category.
    """
    out = make_folder(Path(out))
    root, categories = _dataset(plan, out)
    if len(categories) < 2:
        raise UserError(f"`category={plan.category}`: one category; two or more can have one model, or one each")
    each, together = (
        ablate(replace(plan, data=root, separate=separate), table, out / part, **options)
        for part, separate in (("each", True), ("all", False))
    )
    return each, together


def csv_row(plan: Plan, name: str, root: str, categories: Sequence[str], outcome: Outcome) -> dict[str, str]:
    """The row of ablation.csv for a row of the table ``name``."""
    row = {
        "method": plan.method_of(outcome.row),
        "table": name,
        "row": outcome.row.label,
        "settings": " ".join((*plan.overrides, *outcome.row.overrides)),
        "preset": plan.preset,
        "seed": str(plan.seed),
        "models": "one for each category" if plan.separate else "one for all categories",
        "data": root,
        "categories": ",".join(categories),
        SECONDS: "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
        **{key: str(outcome.size.get(key, "")) for key in SIZES},
    }
    for key in KEYS:
        value = outcome.mean[key]
        row[key] = "" if value is None else f"{value:.6f}"
        row[f"paper_{key}"] = str(outcome.row.paper.get(key, ""))
    return row
