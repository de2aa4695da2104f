"""What `predict` prints of images: their rows as JSON or CSV, or a sentence for a person."""

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from vitlite.cli._messages import note
from vitlite.errors import UserError

Row = dict[str, Any]
FORMATS = ("jsonl", "csv")
SHOWN = 5  # regions that a sentence names


def printer(form: str | None, grouped: bool, *, hide: bool = False) -> Callable[[Row], None]:
    """What prints a row as soon as it is there, in a form of ``FORMATS``; None: as a sentence.

    ``grouped``: whether rows say something of parts. ``hide``: print no sentences under
    ``--quiet``.
    """
    from vitlite.data.parts import PART_FIELDS
    from vitlite.data.prediction_files import COLUMNS, FILES, cells
    from vitlite.files import csv_line

    of_part = PART_FIELDS if grouped else ()

    def as_json(row: Row) -> None:
        values = {key: _json(row.get(key)) for key in (*COLUMNS, *of_part) if key not in FILES or key in row}
        echo(json.dumps(values, allow_nan=False))

    def as_csv(row: Row) -> None:
        if head:  # not before the first row: input that is refused leaves standard output empty
            echo(head.pop())
        echo(csv_line([*cells(row), *(row[key] for key in of_part)]).removesuffix("\n"))

    def as_sentence(row: Row) -> None:
        if "error" not in row:  # which is a message already
            (note if hide else echo)(sentence(row))

    head = [csv_line([*COLUMNS, *of_part]).removesuffix("\n")]
    return {"jsonl": as_json, "csv": as_csv, None: as_sentence}[form]


def echo(line: str) -> None:
    """Print a line on standard output at once. ``UserError`` if nobody reads it any more."""
    try:
        click.echo(line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter writes the rest at its end
        raise UserError("standard output is closed: whoever read the rows has ended") from None


def sentence(row: Row) -> str:
    """The row of an image with a verdict, for a person."""
    from vitlite.files import counted, shown

    name = shown(row["file"])
    text = f"{name}: {row['verdict']}, score {row['score']:.6g}, above {row['percentile']:.1f} % of good images"
    if regions := row["regions"]:
        text += f"; {counted(len(regions), 'region')}"
        text += "".join(f"; x {x0} to {x1}, y {y0} to {y1}" for x0, y0, x1, y1 in regions[:SHOWN])
        text += f"; and {len(regions) - SHOWN} more" if len(regions) > SHOWN else ""
    if "part" in row:
        text += f"; part {row['part']}: {row['part_verdict'] or 'no verdict'} ({counted(row['part_images'], 'image')})"
    return text


def _json(value: Any) -> Any:
    """A value of a row as JSON has it; numbers with the digits that the CSV has."""
    from vitlite.files import shown

    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return shown(value) if isinstance(value, str) else value
