"""A method's ablation table: every row trained and evaluated, beside the paper's figures."""

import csv
import hashlib
import io
import logging
import re
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vitlite.data import open_dataset, synthesize
from vitlite.engine.detector import Detector
from vitlite.engine.evaluate import evaluate, mean_of, results_csv
from vitlite.engine.results import KEYS
from vitlite.engine.settings import CONFIG_FILE, SYNTHETIC, RunSettings, apply_overrides, load_settings, preset_config
from vitlite.engine.train import train
from vitlite.errors import UserError
from vitlite.files import make_folder, write_json, write_text

log = logging.getLogger(__name__)

RESULTS = "results.json"
SECONDS = "training_seconds"  # in results.json of a row that was trained without interruption


@dataclass(frozen=True)
class Plan:
    """What every row of a table has in common."""

    method: str
    data: str = ""  # folder; empty: the synthetic set, made in ``out``
    category: str = "all"
    separate: bool = False  # one model for each category instead of one for all
    preset: str = "quick"
    overrides: tuple = ()  # applied before the row's own
    seed: int = 0
    device: str = "auto"


@dataclass
class Outcome:
    """One row that is done: the mean of every metric over the categories, and the time of training (None: unknown)."""

    row: object
    mean: dict
    seconds: float | None


def ablate(plan, table, out, *, name="ablation", rows=None, finished=None):
    """Train and evaluate the rows of a table below ``out``; returns a list of :class:`Outcome`.

    Every row has a run of its own, ``out/NAME/ROW`` (with ``separate`` one for each category below it). Rows that are
    done are read, one that was interrupted goes on, and ``out/ablation.csv`` is written anew after each.
    ``finished(outcome)`` is called after each row. UserError: a row's settings are refused, or ``out`` holds the same
    row with other settings.
    """
    out = make_folder(Path(out))
    root, categories = _dataset(plan, out)
    chosen = select_rows(table, rows)
    configs = [row_config(plan, row) for row in chosen]  # every mistake before the first hour of training
    folders = slugs(row.label for row in table.rows)
    done = []
    for place, (row, config) in enumerate(zip(chosen, configs), 1):
        changes = " ".join(row.overrides) or "as it is"
        log.info("%s, row %d of %d: %s (%s)", name, place, len(chosen), row.label, changes)
        folder = out / name / folders[row.label]
        parts = [
            run_part(RunSettings(plan.method, root, part, plan.preset, plan.seed, config), where, plan.device)
            for part, where in _parts(plan, categories, folder)
        ]
        times = [part.get(SECONDS) for part in parts]
        every = [c for part in parts for c in part["categories"].values()]
        done.append(Outcome(row, mean_of(every), None if None in times else sum(times)))
        write_text(out / "ablation.csv", _merged_csv(out / "ablation.csv", plan, table, name, root, categories, done))
        if finished is not None:
            finished(done[-1])
    return done


def _dataset(plan, out):
    """The folder of the data as text, and the categories."""
    root = Path(plan.data).resolve() if plan.data else out.resolve() / SYNTHETIC
    if not plan.data and not root.is_dir():
        synthesize(root, seed=plan.seed)
    return str(root), open_dataset(root, plan.category or None, need_test=True).categories


def _parts(plan, categories, folder):
    """Which categories are trained together, and where."""
    if not plan.separate:
        return [(",".join(categories), folder)]
    names = slugs(categories)
    return [(category, folder / names[category]) for category in categories]


def select_rows(table, wanted):
    """Rows by number (from 1) or label; all of them for None. UserError names the rows there are."""
    if wanted is None:
        return list(table.rows)
    labels = [row.label for row in table.rows]
    chosen = []
    for item in wanted:
        if item.isdigit() and 1 <= int(item) <= len(labels):
            chosen.append(int(item) - 1)
        elif item in labels:
            chosen.append(labels.index(item))
        else:
            known = ", ".join(f"{i} ({label})" for i, label in enumerate(labels, 1))
            raise UserError(f"--rows {item}: no such row; there are {known}")
    return [table.rows[i] for i in dict.fromkeys(chosen)]


def row_config(plan, row):
    """The preset with the caller's settings and then the row's; UserError if the method refuses them."""
    preset = preset_config(plan.method, plan.preset)
    try:
        return apply_overrides(preset, (*plan.overrides, *row.overrides))
    except UserError as error:
        raise UserError(f"row {row.label!r}: {error.marked}") from error


def run_part(settings, folder, device):
    """Train (or go on, or find done) one run and return its results.json."""
    if (folder / CONFIG_FILE).exists():
        held = load_settings(folder)
        if held != settings:
            changed = differences(held, settings)
            raise UserError(f"{folder}: holds this row with another {', '.join(changed)}; choose another --out")
        if (folder / RESULTS).exists():
            log.info("already done: %s", folder)
            return read_results(folder)
    fresh, began = not (folder / CONFIG_FILE).exists(), time.monotonic()
    train(settings, folder, device=device, resume=not fresh)
    seconds = time.monotonic() - began
    results = evaluate(Detector(folder, device))
    results[SECONDS] = round(seconds, 3) if fresh else None
    write_text(folder / "results.csv", results_csv(results))
    write_json(folder / RESULTS, results)  # last: it says that the row is done
    return results


def read_results(folder):
    """results.json of a finished row; UserError names a file that cannot be read."""
    import json

    try:
        results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        return {"categories": dict(results["categories"]), SECONDS: results.get(SECONDS)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / RESULTS}: cannot be read ({error}); remove it and the row is evaluated again"
        ) from error


def differences(held, wanted):
    """Names of the settings that differ between two RunSettings."""
    names = [k for k in ("method", "data", "category", "preset", "seed") if getattr(held, k) != getattr(wanted, k)]
    mine, theirs = vars(held.config), vars(wanted.config)
    return names + [k for k in theirs if mine.get(k) != theirs[k]]


def slug(label):
    """A folder name for a label: its letters and digits, in lower case. Several labels may have the same."""
    return re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", label).lower()).strip("-") or "row"


def slugs(labels):
    """``{label: folder name}``, no two alike: a hash tells those apart that would be, and names those without letters.

    A label that is its own slug keeps it.
    """
    bare = {label: slug(label) for label in labels}
    often = Counter(bare.values())
    named = {}
    for label, name in bare.items():
        unclear = often[name] > 1 or not re.search(r"[^\W_]", label)
        named[label] = f"{name}-{_digest(label)}" if unclear and label != name else name
    return named


def _digest(label):
    return hashlib.sha256(label.encode("utf-8", "surrogateescape")).hexdigest()[:8]


HEAD = ("method", "table", "row", "settings", "preset", "seed", "models", "data", "categories", "training_seconds")
COLUMNS = (*HEAD, *KEYS, *(f"paper_{key}" for key in KEYS))


def _merged_csv(path, plan, table, name, root, categories, done):
    """ablation.csv with the finished rows; those of other tables and of earlier calls stay."""
    kept = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if set(row) == set(COLUMNS)]
    fresh = [csv_row(plan, table, name, root, categories, outcome) for outcome in done]
    lines = {(row["table"], row["row"]): row for row in (*kept, *fresh)}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines.values())
    return text.getvalue()


def csv_row(plan, table, name, root, categories, outcome):
    row = {
        "method": plan.method,
        "table": name,
        "row": outcome.row.label,
        "settings": " ".join((*plan.overrides, *outcome.row.overrides)),
        "preset": plan.preset,
        "seed": str(plan.seed),
        "models": "one for each category" if plan.separate else "one for all categories",
        "data": root,
        "categories": ",".join(categories),
        SECONDS: "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
    }
    row |= {key: "" if outcome.mean[key] is None else f"{outcome.mean[key]:.6f}" for key in KEYS}
    row |= {f"paper_{key}": str(outcome.row.paper.get(key, "")) for key in KEYS}
    return row


def table_text(table, outcomes, plan, categories=None):
    """The table in the paper's form, percent: for every column ours and, where the paper prints one, its figure."""
    names = [key.replace("_", " ").replace("aupro 30", "PRO@0.3") for key in table.columns]
    shown = [any(key in row.paper for row in table.rows) for key in table.columns]
    head = [table.title]
    for name, paper in zip(names, shown):
        head += [name, "paper"] if paper else [name]
    lines = [head]
    for outcome in outcomes:
        cells = [outcome.row.label]
        for key, paper in zip(table.columns, shown):
            value = outcome.mean[key]
            cells.append("-" if value is None else f"{100 * value:.1f}")
            if paper:
                cells.append(f"{outcome.row.paper[key]:.1f}" if key in outcome.row.paper else "-")
        lines.append(cells)
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join([a[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(a[1:], widths[1:]))]) for a in lines]
    models = "one model for each category" if plan.separate else "one model for all categories"
    changed = f" with {' '.join(plan.overrides)}" if plan.overrides else ""
    text.append(f"ours: {plan.data or 'synthetic'}, preset {plan.preset}{changed}, seed {plan.seed}, {models}")
    text.append(f"paper: {table.source}; {table.about}")
    return "\n".join(text)
