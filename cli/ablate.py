"""``vitlite ablate``: train and evaluate the rows of a method's ablation table."""

from typing import Any

import click

from vitlite.cli import _options as options
from vitlite.cli._messages import note


@click.command(name="ablate", epilog="Example: vitlite ablate --method sivt --table induction --data mvtec --separate")
@click.option("--method", required=True, help="The method whose table is run: sivt, memca and others.")
@click.option("--table", metavar="NAME", help="One of the method's tables.  [default: its only one, or list them]")
@click.option("--data", metavar="DIR", help="Data set with labelled test images.  [default: synthetic]")
@click.option(
    "--category", metavar="NAME|all", default="all", show_default=True, help="A category, several with commas, or all."
)
@click.option("--separate", is_flag=True, help="Train a model for each category instead of one for all.")
@click.option("--preset", metavar="NAME", default="quick", show_default=True, help="The settings that the rows change.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change a setting of every row.")
@click.option("--rows", metavar="ROWS", help="Numbers or labels of rows, with commas.  [default: all]")
@click.option("--out", metavar="DIR", help="The folder for the runs and ablation.csv.  [default: runs/ablate-METHOD]")
@click.option("--reduction", is_flag=True, help="Train both one model for each category and one for all; compare them.")
@click.option("--plot", metavar="FILE", help="Draw the table as a plot (.svg, .png).  [needs matplotlib]")
@click.option(
    "--against",
    type=click.Choice(["operations", "parameters", "trained_parameters"]),
    default="operations",
    show_default=True,
    help="What --plot has across.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="The seed of every row.")
@options.device
@options.verbosity
def command(
    method: str,
    table: str | None,
    data: str | None,
    separate: bool,
    rows: str | None,
    out: str | None,
    reduction: bool,
    plot: str | None,
    against: str,
    **common: Any,
) -> None:
    """Train and evaluate each row of a method's ablation table, and print it beside the paper's figures.

    Writes a run for every row below --out, and ablation.csv with all metrics. A second call goes on where the first
    one stopped: rows that are done are not trained again.

    --reduction shows what one model for all categories loses against one for each: (all - each) / each.
    """
    from pathlib import Path

    from vitlite.engine.ablate import CSV_FILE, Plan, ablate, both_modes
    from vitlite.errors import UserError
    from vitlite.export.operations import size_of
    from vitlite.methods import method_class
    from vitlite.methods.ablations import tables
    from vitlite.report.ablation import class_text, reduction_text, table_text
    from vitlite.report.ablation import plot as draw
    from vitlite.report.plot import refuse_plot

    method_class(method)
    known = tables(method)
    name = next(iter(known)) if table is None and len(known) == 1 else table
    if name not in known:
        lines = ", ".join(f"{key} ({one.title}, {one.source})" for key, one in known.items())
        what = "`table`: say which" if name is None else f"`table={name}`: {method} has no such table"
        raise UserError(f"{what}; choose from {lines}")
    plan = Plan(method, data or "", separate=separate, **common)
    out = out or f"runs/ablate-{method}"
    wanted = None if rows is None else [part.strip() for part in rows.split(",") if part.strip()]
    if plot is not None:
        refuse_plot(Path(plot))  # before the training
    if known[name].by_class and (reduction or plot is not None):
        other = "--reduction" if reduction else "--plot"
        raise UserError(f"{other}: not with --table {name}, whose lines are categories with a model each")
    if reduction:
        if separate or plot is not None:
            other = "--separate" if separate else "--plot"
            raise UserError(f"{other}: not together with --reduction, which trains both modes")
        each, together = both_modes(plan, known[name], out, name=name, rows=wanted, size_of=size_of)
        click.echo(reduction_text(known[name], each, together, plan))
        note(f"written: {out}/each/{CSV_FILE} and {out}/all/{CSV_FILE}")
        return
    outcomes = ablate(plan, known[name], out, name=name, rows=wanted, size_of=size_of)
    text = class_text if known[name].by_class else table_text
    click.echo(text(known[name], outcomes, plan))
    note(f"written: {out}/{CSV_FILE}")
    if plot is not None:
        draw(known[name], outcomes, Path(plot), against)
        note(f"written: {plot}")
