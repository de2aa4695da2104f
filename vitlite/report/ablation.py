"""Tables and plots of what ``vitlite ablate`` and ``vitlite train --separate`` measure, beside a paper's figures."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitlite.engine.ablate import Outcome, Plan
from vitlite.errors import UserError
from vitlite.methods.ablations import Table
from vitlite.report.plot import Point, scatter
from vitlite.results import HEADS
from vitlite.score_table import aligned

Figures = Mapping[str, float | None]
UNITS = {"parameters": (1e6, "M"), "trained_parameters": (1e6, "M"), "operations": (1e9, "G")}
SHOWN = {"parameters": "parameters", "operations": "operations"}  # of the sizes, in tables


def separate_text(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """What :func:`train_separate` gives as a row of the papers: a column for each category, in percent."""
    keys = [key for key in ("image_auroc", "pixel_auroc", "aupro_30") if rows["mean"][key] is not None]
    lines = [["", *rows]]
    for key in keys:
        values = (row[key] for row in rows.values())
        lines.append([HEADS[key], *("-" if value is None else f"{100 * value:.1f}" for value in values)])
    return "\n".join(aligned(lines))


def table_text(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """The table in the paper's form, in percent; beside a column the paper's figures, if it prints any.

    Then the same for each category of which the paper prints figures.
    """
    columns = [[table.title, *(outcome.row.label for outcome in outcomes)]]
    papers = [row.paper for row in table.rows]
    columns += columns_of(table.columns, [o.mean for o in outcomes], [o.row.paper for o in outcomes], papers)
    columns += sizes_of(outcomes)
    lines = [*aligned(list(zip(*columns))), *by_category(table, outcomes)]
    models = "one model for each category" if plan.separate else "one model for all categories"
    return "\n".join([*lines, about(plan, models), f"paper: {table.source}; {table.about}"])


def class_text(table: Table, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """A table whose lines are categories and whose columns are its rows, in percent, with mean and deviation.

    Beside them the paper's figures, and the relative improvement over the table's baseline (AnoViT, Tables 1 to 5).
    """
    lines = []
    for key in table.columns:
        if any(outcome.mean[key] is not None for outcome in outcomes):
            lines += [f"{HEADS[key]}:", *aligned(list(zip(*class_columns(table, outcomes, key)))), ""]
    lines.append(about(plan, "one model for each category"))
    return "\n".join([*lines, f"paper: {table.source}; {table.about}"])


def class_columns(table: Table, outcomes: Sequence[Outcome], key: str) -> list[list[str]]:
    """The columns of one metric: the categories; then of each row ours, the paper's, and both improvements."""
    names = list(outcomes[0].categories)
    columns = [[table.title, *names, "mean", "std"]]
    ours = {o.row.label: with_spread([o.categories[name].get(key) for name in names]) for o in outcomes}
    papers = {o.row.label: with_spread([o.row.by_category.get(key, {}).get(name) for name in names]) for o in outcomes}
    for label in ours:
        shown = ((label, 100, ours[label]), ("paper", 1, papers[label]))
        columns += [[head, *(percent(value, unit) for value in values)] for head, unit, values in shown]
        if table.baseline in ours and label != table.baseline:
            for head, found in (("improvement", ours), ("paper", papers)):
                pairs = list(zip(found[table.baseline], found[label]))[:-1]  # not of the deviation
                columns.append([*modes_of("", head, pairs)[1], ""])
    return [column for column in columns if any(cell not in ("-", "") for cell in column[1:])]


def with_spread(values: Sequence[float | None]) -> list[float | None]:
    """Values, then their mean and the deviation of a sample; without these if a value is missing."""
    known = [value for value in values if value is not None]
    if len(known) < max(2, len(values)):
        return [*values, None, None]
    return [*values, statistics.mean(known), statistics.stdev(known)]


def columns_of(
    keys: Sequence[str], ours: Sequence[Figures], papers: Sequence[Figures], every: Sequence[Figures]
) -> list[list[str]]:
    """A column for each metric in percent, and one with the paper's figures if any of ``every`` paper row has one."""
    columns = []
    for key in keys:
        columns.append([HEADS[key], *(percent(own[key], 100) for own in ours)])
        if any(key in paper for paper in every):
            columns.append(["paper", *(percent(paper.get(key)) for paper in papers)])
    return columns


def percent(value: float | None, unit: float = 1) -> str:
    return "-" if value is None else f"{unit * value:.1f}"


def sizes_of(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Columns of parameters, of all models of a row, and of operations; none if they were not counted."""
    columns = []
    for key, head in SHOWN.items() if all(outcome.size for outcome in outcomes) else ():
        unit, name = UNITS[key]
        counts = (outcome.size[key] * (outcome.models if key == "parameters" else 1) for outcome in outcomes)
        columns.append([head, *(f"{count / unit:.4g} {name}" for count in counts)])
    return columns


def by_category(table: Table, outcomes: Sequence[Outcome]) -> list[str]:
    """Lines for the rows and categories of which the paper prints figures; none without any."""
    labels, names, ours, papers = ["by category"], ["category"], [], []
    for outcome in outcomes:
        for category, own in outcome.categories.items():
            by_metric = outcome.row.by_category.items()
            if paper := {key: figures[category] for key, figures in by_metric if category in figures}:
                labels.append(outcome.row.label)
                names.append(category)
                ours.append(own)
                papers.append(paper)
    if not ours:
        return []
    columns = columns_of(table.columns, ours, papers, papers)
    return ["", *aligned(list(zip(labels, names, *columns)))]


def about(plan: Plan, models: str) -> str:
    """What our figures are."""
    changed = f" with {' '.join(plan.overrides)}" if plan.overrides else ""
    return f"ours: {plan.data or 'synthetic'}, preset {plan.preset}{changed}, seed {plan.seed}, {models}"


def reduction_text(table: Table, each: Sequence[Outcome], together: Sequence[Outcome], plan: Plan) -> str:
    """Each row with one model for each category, one for all, and by how many percent the latter has less.

    As SIVT's Table II: (all - each) / each. The parameters are those of all models together.
    """
    columns = [[table.title, *(outcome.row.label for outcome in each)]]
    for key in table.columns:
        ours = [(one.mean[key], other.mean[key]) for one, other in zip(each, together)]
        columns += modes_of(HEADS[key], "reduction", [tuple(100 * v if v is not None else v for v in o) for o in ours])
        if any(key in row.each for row in table.rows):
            paper = [(outcome.row.each.get(key), outcome.row.paper.get(key)) for outcome in each]
            columns += modes_of("paper", "reduction", paper)
    if all(outcome.size for outcome in (*each, *together)):
        counts = [tuple(o.size["parameters"] * o.models / 1e6 for o in pair) for pair in zip(each, together)]
        columns += modes_of("parameters (M)", "reduction", counts, "{:.4g}")
    lines = aligned(list(zip(*columns)))
    return "\n".join([*lines, about(plan, "one model each / one for all"), f"paper: {table.source}; {table.about}"])


def modes_of(
    head: str, change: str, pairs: Sequence[tuple[float | None, ...]], form: str = "{:.1f}"
) -> list[list[str]]:
    """Two columns: both figures of each pair, and by how many percent the second is above the first."""
    both, relative = [head], [change]
    for one, other in pairs:
        both.append(" / ".join("-" if figure is None else form.format(figure) for figure in (one, other)))
        relative.append(f"{100 * (other - one) / one:+.1f} %" if one and other is not None else "-")
    return [both, relative]


def plot(table: Table, outcomes: Sequence[Outcome], path: Path, against: str = "operations") -> None:
    """Draw the metrics of a table's rows against a size; the paper's figures are hollow, at the size of our networks.

    As SIVT's Figures 4 and 5. ``UserError`` if the sizes were not counted, there is no matplotlib, or it does not know
    the ending of ``path``.
    """
    if not all(outcome.size for outcome in outcomes):
        raise UserError(f"`plot={path}`: the sizes of the networks were not counted; give `size_of`")
    unit, name = UNITS[against]
    ours: dict[str, list[Point]] = {}
    papers: dict[str, list[Point]] = {}
    for key in table.columns:
        for outcome in outcomes:
            size = outcome.size[against] / unit
            if (value := outcome.mean[key]) is not None:
                ours.setdefault(HEADS[key], []).append((size, 100 * value, outcome.row.label))
            if key in outcome.row.paper:
                papers.setdefault(HEADS[key], []).append((size, outcome.row.paper[key], ""))
    across = f"{against.replace('_', ' ')} ({name})"
    scatter(ours, path, across=across, up="percent (hollow: the paper)", title=table.title, beside=papers)
