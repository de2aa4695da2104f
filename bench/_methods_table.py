"""The table of the benchmark of methods, for people: a line for each method and data set."""

import statistics
from typing import Any

from ._flops import COUNTED

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
    groups: dict[tuple[str, str, str], list[Row]] = {}
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
