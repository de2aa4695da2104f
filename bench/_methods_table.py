"""The table of the benchmark of methods, for people: a line for each method and data set."""

import statistics
from pathlib import Path
from typing import Any

from vitlite.data.index import grouped
from vitlite.export.operations import COUNTED
from vitlite.report.plot import scatter

Row = dict[str, Any]

SCORES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro_30": "AUPRO",
}
TRAINED, UNTRAINED, CONSTANT = "trained", "untrained", "constant map"


def markdown(rows: list[Row]) -> str:
    """Mean and deviation over seeds; below the trained methods of a data set, its controls."""
    groups = grouped(((row["data"], row["kind"], row["method"]), row) for row in rows)
    head = ["data", "method", *SCORES.values(), "parameters", "operations", "images/s", "training", "memory", "weights"]
    head.append("commit")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * 2 + " ---: |" * (len(head) - 4) + " --- |" * 2]
    for (data, kind, method), group in groups.items():
        name = {TRAINED: method, UNTRAINED: f"{method}, untrained", CONSTANT: CONSTANT}[kind]
        if group[0]["models"] > 1:
            name += f", {group[0]['models']} models"
        cells = [data, name, *(spread([r[key] for r in group]) for key in SCORES)]
        cells += [scaled(group, "parameters", 1e6, "M"), scaled(group, "operations", 1e9, "G")]
        cells += [scaled(group, "images_per_second", 1, ""), scaled(group, "training_seconds", 1, "s")]
        cells += [scaled(group, "peak_mib", 1, "MiB"), group[0]["weights"]]
        cells.append(", ".join(dict.fromkeys(row.get("commit") or "-" for row in group)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", footnote(rows)]) + "\n"


def footnote(rows: list[Row]) -> str:
    """What the numbers of the table are."""
    first, seeds = rows[0], len({row["seed"] for row in rows})
    many = f", mean ± deviation over {seeds} seeds" if seeds > 1 else ""
    changed = f" with {first['settings']}" if first["settings"] else ""
    machine = f"{first['date']}: {first.get('gpu') or first['processor']}, {first['threads']} threads"
    return (
        f"Scores in percent, the mean over categories{many}; AUPRO to 0.3, of which a constant map reaches 15. Preset "
        f"{first['preset']}{changed}, one model for all categories of a data set unless the line names more models, "
        f"whose training times are added. {COUNTED}. Images/s of `vitlite predict` without overlays. "
        "Memory: the most that the process had while it trained. "
        f"{machine}, torch {first['torch']}."
    )


def spread(values: list[float | None]) -> str:
    """Mean of shares in percent, with their deviation if there are several."""
    shares = [100 * v for v in values if v is not None]
    if not shares:
        return "-"
    text = f"{statistics.mean(shares):.1f}"
    return f"{text} ± {statistics.stdev(shares):.1f}" if len(shares) > 1 else text


def scaled(group: list[Row], key: str, unit: float, name: str) -> str:
    values = [row[key] / unit for row in group if row.get(key) is not None]
    return f"{statistics.median(values):.4g} {name}".strip() if values else "-"


def plot(rows: list[Row], path: Path) -> None:
    """Draw image AUROC (mean over seeds) against minutes of training, a point for each trained method and data set.

    Raises ``UserError`` without matplotlib, or if it does not know the ending of ``path``.
    """
    trained = [row for row in rows if row["kind"] == TRAINED and row["training_seconds"]]
    measured = [row for row in trained if row["image_auroc"] is not None]
    series = {}
    for method, own in grouped((row["method"], row) for row in measured).items():
        sets = grouped((row["data"], row) for row in own)
        minutes = [statistics.mean(row["training_seconds"] for row in group) / 60 for group in sets.values()]
        auroc = [statistics.mean(row["image_auroc"] for row in group) for group in sets.values()]
        label = f"{method}: mean {statistics.mean(auroc):.3f}, {statistics.mean(minutes):.1f} min"
        series[label] = [(*point, "") for point in zip(minutes, auroc)]
    scatter(series, path, across="minutes of training", up="image AUROC", means=True)
