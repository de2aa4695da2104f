"""``vitlite ablate``: train and evaluate the rows of a method's ablation table."""

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
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="The seed of every row.")
@options.device
@options.verbosity
def command(
    method: str,
    table: str | None,
    data: str | None,
    category: str,
    separate: bool,
    preset: str,
    overrides: tuple[str, ...],
    rows: str | None,
    out: str | None,
    seed: int,
    device: str,
) -> None:
    """Train and evaluate each row of a method's ablation table, and print it beside the paper's figures.

    Writes a run for every row below --out, and ablation.csv with all metrics. A second call goes on where the first
    one stopped: rows that are done are not trained again.
    """
    from vitlite.engine.ablate import CSV_FILE, Plan, ablate, table_text
    from vitlite.errors import UserError
    from vitlite.methods import method_class
    from vitlite.methods.ablations import tables

    method_class(method)
    known = tables(method)
    name = next(iter(known)) if table is None and len(known) == 1 else table
    if name not in known:
        lines = ", ".join(f"{key} ({one.title}, {one.source})" for key, one in known.items())
        what = "`table`: say which" if name is None else f"`table={name}`: {method} has no such table"
        raise UserError(f"{what}; choose from {lines}")
    plan = Plan(method, data or "", category, separate, preset, overrides, seed, device)
    out = out or f"runs/ablate-{method}"
    wanted = None if rows is None else [part.strip() for part in rows.split(",") if part.strip()]
    outcomes = ablate(plan, known[name], out, name=name, rows=wanted)
    click.echo(table_text(known[name], outcomes, plan))
    note(f"written: {out}/{CSV_FILE}")
