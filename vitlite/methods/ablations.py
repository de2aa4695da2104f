"""What an ablation table of a paper is: which settings each row changes, and the figures printed beside it.

A table is plain data in the class attribute ``ablations`` of a method, so `vitlite ablate` needs to know nothing of the
method.
"""

from dataclasses import dataclass, field
from typing import Any

from vitlite.errors import UserError
from vitlite.methods import REGISTRY, method_class

MVTEC_ONE = "MVTec AD, mean of 15 categories, one model each"
MVTEC_ALL = "MVTec AD, mean of 15 categories, one model for all"
PLOTTED = "; the paper plots the figures that are missing here and prints no numbers"
ONE_PLOTTED, ALL_PLOTTED = MVTEC_ONE + PLOTTED, MVTEC_ALL + PLOTTED
AUROC = ("image_auroc", "pixel_auroc")


@dataclass(frozen=True)
class Row:
    """One row: its label, ``KEY=VALUE`` settings, and the paper's figures in percent by the name of the metric.

    ``each``: those with one model for each category, if ``paper`` has those with one model for all; ``by_category``:
    for each metric, those of the categories. ``method``: if it is another one than the table's.
    """

    label: str
    overrides: tuple[str, ...] = ()
    paper: dict[str, float] = field(default_factory=dict)
    each: dict[str, float] = field(default_factory=dict)
    by_category: dict[str, dict[str, float]] = field(default_factory=dict)
    method: str = ""


@dataclass(frozen=True)
class Table:
    """One ablation.

    ``by_class``: its lines are the categories, each with a model of its own, and its columns the rows. Then
    ``baseline`` is the label of the row that the others are compared with, if there is one.
    """

    title: str
    source: str  # table or figure of the paper
    about: str  # what the paper's figures were measured on
    columns: tuple[str, ...]  # names of metrics, in the paper's order
    rows: tuple[Row, ...]
    by_class: bool = False
    baseline: str = ""


def sweep(key: str, labels: dict[Any, str], paper: dict[Any, dict[str, float]] | None = None) -> tuple[Row, ...]:
    """A row for each value of one setting: labels by value, and the paper's figures by value."""
    return tuple(Row(label, (f"{key}={value}",), (paper or {}).get(value, {})) for value, label in labels.items())


def tables(method: str) -> dict[str, Table]:
    """The ablation tables of a method by name. Raises UserError if it has none."""
    found = method_class(method).ablations
    if not found:
        known = ", ".join(name for name in REGISTRY if method_class(name).ablations)
        raise UserError(f"`method={method}`: has no ablation table; there are tables for {known}")
    return found
