"""predictions.csv: its columns, the files that belong to its rows, and the rows that an earlier call left."""

import contextlib
import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from vitlite.data.listing import list_images, not_read, path_list
from vitlite.data.map_files import MAPS_FOLDER
from vitlite.data.parts import COLUMNS as PARTS_COLUMNS
from vitlite.data.parts import PARTS_FILE
from vitlite.errors import UserError
from vitlite.files import (
    DAMAGED,
    StrPath,
    csv_line,
    distinct_candidates,
    distinct_names,
    make_folder,
    remove,
    remove_leftovers,
    shown,
)
from vitlite.images.maps import is_own
from vitlite.ledger import Ledger

log = logging.getLogger(__name__)

CSV_FILE = "predictions.csv"
JSON_FILE = "predictions.json"  # what its rows depend on
SHARDS_FOLDER = "shards"  # below --out: a folder for the table of each share
JUDGED = ("score", "percentile", "verdict", "defect_pixels", "regions")  # what a detector says of an image
PATTERNS = {"overlay": "{}.png", "map": f"{MAPS_FOLDER}/{{}}.tiff", "parts": "parts/{}.png"}
FILES = tuple(PATTERNS)  # columns that name a file of the image
COLUMNS = ("file", *JUDGED, *FILES, "error")


def holds_predictions(folder: Path, kinds: Sequence[str] = ("overlays", "maps", "parts")) -> bool:
    """Whether `predict` has written its table into a folder, and images of these kinds with it.

    A table that does not say what was written with it counts as one with all of them.
    """
    if not ((folder / CSV_FILE).exists() and (folder / JSON_FILE).exists()):
        return False
    try:
        facts = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
        return any(facts.get(kind, True) for kind in kinds)
    except DAMAGED:
        return True


def begun(folder: Path) -> bool:
    """Whether `predict` has begun to write into a folder: a whole call, or a share of one."""
    tables = (CSV_FILE, JSON_FILE)
    return any((folder / name).exists() for name in tables) or any(folder.glob(f"{SHARDS_FOLDER}/*/{CSV_FILE}"))


def refuse_replacing(folder: Path, names: Iterable[str]) -> None:
    """``UserError`` for the first of the names that is in a folder and that no earlier call has written there."""
    there = [name for name in names if os.path.lexists(folder / name)]
    known = _written(folder) if there else set()
    found = next((name for name in there if name not in known and not _is_own(folder / name)), None)
    if found is not None:
        raise UserError(
            f"`out={shown(folder)}`: holds {shown(found)}, which vitlite did not write and would replace; "
            "choose another folder"
        )


def _written(folder: Path) -> set[str]:
    """The files that the tables of a folder name: its own, and those of shares."""
    tables = (folder / CSV_FILE, *folder.glob(f"{SHARDS_FOLDER}/*/{CSV_FILE}"))
    return {name for table in tables for row in _rows(table) for name in row.values()}


def _rows(table: Path) -> list[dict[str, str]]:
    """The files that each row of a table names, by column; of a damaged table those before the damage."""
    found: list[dict[str, str]] = []
    with (
        contextlib.suppress(OSError, csv.Error),
        open(table, encoding="utf-8", errors="replace", newline="") as file,
    ):
        found.extend({column: name for column in FILES if (name := row.get(column))} for row in csv.DictReader(file))
    return found


def remove_whole(ledger: Ledger, names: Container[str]) -> None:
    """Remove the table of all images from the folder of a share's ``ledger``, with its files that are not in ``names``.

    The share is scored anew, so the rows of that table are of an earlier call, and other shares write ``names``.
    """
    table = ledger.folder / CSV_FILE
    for row in _rows(table):
        ledger.remove_files({column: name for column, name in row.items() if name not in names})
    for name in (JSON_FILE, CSV_FILE, PARTS_FILE):
        if name != PARTS_FILE or _is_own(ledger.folder / name):
            remove(ledger.folder / name)


def _is_own(path: Path) -> bool:
    """Whether a call wrote a file that no table names: one that was stopped before the row, or a table of parts."""
    if path.name != PARTS_FILE:
        return is_own(path)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline() == csv_line(PARTS_COLUMNS)
    except OSError:
        return False


def not_written_here(paths: list[Path], inputs: StrPath | Iterable[StrPath], out: StrPath) -> list[Path]:
    """The images that do not lie below ``out``.

    ``UserError`` if an input other than a folder above ``out`` stands for an image below it, or if no earlier call has
    written there: an overlay might replace that image. Also if there is no other image.
    """
    target = Path(os.path.realpath(out))
    folders = {parent: Path(os.path.realpath(parent)) for parent in {path.parent for path in paths}}
    inside = {path for path in paths if folders[path.parent].is_relative_to(target)}
    if not inside:
        return paths
    given = path_list(inputs)
    written = begun(target)
    above = [one for one in given if written and os.path.isdir(one) and Path(os.path.realpath(one)) in target.parents]
    others = [one for one in given if one not in above]
    named = {os.path.abspath(path) for path in list_images(others)} if others else set()
    for path in paths:
        if path in inside and os.path.abspath(path) in named:
            raise UserError(f"`out={shown(out)}`: holds the image {shown(path)} that is to be scored; choose another")
    rest = [path for path in paths if path not in inside]
    if not rest:
        raise UserError(f"{shown(above[0])}: no image there but those of `out={shown(out)}`")
    return rest


def warn_of_overlays(paths: Iterable[Path]) -> None:
    """Warn once if images lie in a folder of predictions: what an earlier call drew would be scored as a photograph."""
    for folder in dict.fromkeys(path.parent for path in paths):
        if holds_predictions(folder, ["overlays"]):
            log.warning("%s: holds predictions of an earlier call, whose overlays are scored too", shown(folder))
            return


def warn_of_formats(inputs: StrPath | Iterable[StrPath]) -> None:
    """Warn of images in folders that are to be scored whose formats are not read."""
    if text := not_read(folder for folder in path_list(inputs) if os.path.isdir(folder)):
        log.warning(text)


def files_of(paths: Sequence[Path], columns: Sequence[str]) -> list[dict[str, str]]:
    """The names of the files that belong to each image's row, by column of ``FILES``."""
    return [_filled(columns, name) for name in distinct_names(paths)]


def make_folders(out: Path, columns: Sequence[str], *, alone: bool) -> None:
    """Make the folders of these files below ``out``; ``alone``: no other call writes there, so no leftover stays."""
    for column in columns:
        folder = make_folder((out / PATTERNS[column]).parent)
        if alone:
            remove_leftovers(folder)


class Names:
    """The names of the files that belong to rows, for images that come one after another.

    An image that comes again has the names that it had. No other's are taken, and no file that is in ``folder`` already
    is replaced, but for those that an earlier call wrote whose ``known`` rows are gone on with.
    """

    def __init__(self, folder: Path, columns: Sequence[str], known: Iterable[dict[str, Any]] = ()) -> None:
        self.folder, self.columns = folder, columns
        written = {row["file"]: next(filter(None, map(row.get, FILES)), None) for row in known}
        self._names = {file: Path(name).stem for file, name in written.items() if name}
        self._used = set(self._names.values())
        self._replaces = bool(self._names)

    def of(self, path: Path) -> dict[str, str]:
        """The names of an image's files by column, as :func:`files_of` gives them."""
        if not self.columns:
            return {}
        name = self._names.get(shown(path))
        if name is None:
            name = next(filter(self._free, distinct_candidates(path)))
            self._names[shown(path)] = name
            self._used.add(name)
        return _filled(self.columns, name)

    def _free(self, name: str) -> bool:
        files = [self.folder / file for file in _filled(self.columns, name).values()]
        return name not in self._used and not any(
            os.path.lexists(file) and not (self._replaces and is_own(file)) for file in files
        )


def _filled(columns: Sequence[str], name: str) -> dict[str, str]:
    return {column: PATTERNS[column].format(name) for column in columns}


def kept_rows(
    ledger: Ledger, earlier: list[dict[str, str]], paths: Sequence[Path], files: list[dict[str, str]], batch_size: int
) -> dict[int, dict[str, Any]]:
    """Those rows of an earlier call that stay, by the place of their image in ``paths``; the files of others go.

    A row stays if it has a verdict and its files, and so have the rows of all images that went through the network with
    it: scores depend on the batch in their last digits. ``UserError`` for rows of images that are not in ``paths``.
    """
    rows = {row["file"]: row for row in earlier}  # the last one of an image that was scored again
    names = [shown(path) for path in paths]
    count = Counter(names)  # names that are no text may read alike
    strange = sorted({file for file, row in rows.items() if row["verdict"]} - set(names))
    if strange:
        raise UserError(
            f"{shown(ledger.path)}: holds rows of {len(strange)} images that are not given, first {strange[0]}; "
            "`resume=True` needs all images of the earlier call; give them, or use `overwrite=True`"
        )

    def stays(index: int) -> bool:
        row = rows.get(names[index], {})
        own = {column: name for column in FILES if (name := row.get(column))}
        there = all((ledger.folder / name).is_file() for name in own.values())
        return bool(row.get("verdict")) and count[names[index]] == 1 and own == files[index] and there

    kept: dict[int, dict[str, Any]] = {}
    for first in range(0, len(paths), batch_size):
        batch = range(first, min(first + batch_size, len(paths)))
        if all(map(stays, batch)):
            kept |= {index: row_of(ledger, rows.pop(names[index])) for index in batch}
    for row in rows.values():
        ledger.remove_files(row)
    return kept


def cells(row: dict[str, Any]) -> list[object]:
    """A row of predictions.csv as text."""
    text = {key: shown(value) if isinstance(value, str) else value for key, value in row.items()}
    if "score" in row:
        text["score"] = f"{row['score']:.6g}"
    if "verdict" in row:
        text["percentile"] = f"{row['percentile']:.1f}"
        text["regions"] = ";".join(" ".join(map(str, box)) for box in row["regions"])
    return [text.get(column) for column in COLUMNS]


def row_of(ledger: Ledger, text: dict[str, str]) -> dict[str, Any]:
    """The row that ``cells`` wrote as text, for an image with a verdict."""
    try:
        row: dict[str, Any] = {key: value for key, value in text.items() if value}
        row |= {key: float(text[key]) for key in ("score", "percentile")}
        row["defect_pixels"] = int(text["defect_pixels"])
        boxes = [box.split() for box in text["regions"].split(";") if box]
        row["regions"] = tuple((int(x0), int(y0), int(x1), int(y1)) for x0, y0, x1, y1 in boxes)
        return row
    except ValueError as error:
        raise UserError(f"{shown(ledger.path)}: damaged ({error}); use `overwrite=True`") from None
