"""The table of a job that fills a folder: it grows row by row, so that a job that is stopped loses no row."""

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from vitlite.errors import UserError
from vitlite.files import DAMAGED, Claim, csv_line, remove, remove_leftovers, shown, unwritable, write_csv, write_json

SCHEMA = 1  # of the file with the facts


class Ledger:
    """``NAME.csv``, to which rows are appended, and ``NAME.json`` beside it with the facts that all rows depend on.

    A context manager; within it no other process can have the folder. A row is one write: whatever ends the process,
    the file holds whole rows, or the system lost the end of the last one, which ``begin`` then cuts off.

    Args:
        path: the table. Its folder must exist.
        columns: its head.
        files: those columns that name a file in the folder, which belongs to the row.
        facts: what has to be the same if a later job goes on with the rows; values of JSON.
        folder: where the files are; default: beside the table.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        files: Sequence[str],
        facts: dict[str, Any],
        folder: Path | None = None,
    ) -> None:
        self.path, self.state = path, path.with_suffix(".json")
        self.folder = folder or path.parent
        self.columns, self.files = tuple(columns), tuple(files)
        self.facts = {"schema": SCHEMA, **facts}
        self.claim = Claim(path.parent, "writing")
        self.file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self.claim.take()
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
        self.claim.__exit__()

    def begin(self, *, resume: bool, overwrite: bool, names: Iterable[str]) -> list[dict[str, str]]:
        """Make the table ready for rows; the rows that are in it already, if those of an earlier job are kept.

        ``resume`` goes on with them; ``overwrite`` removes them, and the files that belong to them. ``UserError`` if
        there are such rows, or files of the ``names`` that this job writes into the folder, and neither is given, or if
        the facts of the rows are others.
        """
        there = self.path.exists() or self.state.exists()
        if resume and there:
            self._compare()
            rows = self._rows()
        else:
            if not overwrite:
                self._refuse(there, names)
            self._remove_rows()
            write_json(self.state, self.facts)
            rows = []
        try:
            self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed at the end of the context
        except OSError as error:
            raise unwritable(self.path, error) from error
        if not self.path.stat().st_size:
            self.append(self.columns)
        return rows

    def append(self, cells: Iterable[object]) -> None:
        """Add a row; None is an empty cell. ``UserError`` if it cannot be written."""
        assert self.file is not None
        line, size = csv_line(cells).encode(), self.file.tell()
        try:
            if self.file.write(line) != len(line):  # a disk that is full takes what fits
                self.file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def finish(self, rows: Iterable[Sequence[object]]) -> None:
        """Write the table anew with its rows in their final order."""
        write_csv(self.path, self.columns, rows)

    def remove_files(self, row: dict[str, str]) -> None:
        """Remove the files that belong to a row."""
        for name in filter(None, map(row.get, self.files)):
            if ".." not in Path(name).parts and not Path(name).is_absolute():
                remove(self.folder / name)

    def _refuse(self, there: bool, names: Iterable[str]) -> None:
        folder = self.folder
        if there:
            raise UserError(
                f"`out={shown(folder)}`: holds {self.path.name} of an earlier call; use `resume=True` to go on with "
                "it, `overwrite=True` to replace it, or choose another folder"
            )
        found = next((name for name in names if (folder / name).exists()), None)
        if found is not None:
            raise UserError(
                f"`out={shown(folder)}`: holds {shown(found)}, which would be replaced; choose another folder, "
                "or use `overwrite=True`"
            )

    def _compare(self) -> None:
        """``UserError`` if the rows that are there depend on other facts."""
        try:
            held = json.loads(self.state.read_text(encoding="utf-8"))
            changed = [key for key in {**self.facts, **held} if held.get(key) != self.facts.get(key)]
        except DAMAGED as error:
            raise UserError(
                f"{shown(self.state)}: cannot be read ({error}), so `resume=True` cannot go on; use `overwrite=True`"
            ) from None
        if changed:
            raise UserError(
                f"`out={shown(self.folder)}`: holds rows that were made with another {', '.join(changed)}; "
                "`resume=True` needs the same; use `overwrite=True`, or choose another folder"
            )

    def _rows(self) -> list[dict[str, str]]:
        """The whole rows of the table, whose cut end is removed."""
        remove_leftovers(self.path.parent)
        try:
            data = self._whole()
            if self.path.exists() and self.path.stat().st_size > len(data):
                os.truncate(self.path, len(data))
            return self._parse(data)
        except OSError as error:
            raise unwritable(self.path, error) from error
        except (ValueError, csv.Error) as error:
            raise UserError(f"{shown(self.path)}: damaged ({error}); use `overwrite=True`") from None

    def _whole(self) -> bytes:
        """The table without a row that was cut; empty if there is no table."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return data[: whole_rows(data)]

    def _parse(self, data: bytes) -> list[dict[str, str]]:
        """Rows by column. ValueError if they are not those of this table."""
        head, *rows = csv.reader(io.StringIO(data.decode(), newline="")) if data else (list(self.columns),)
        if tuple(head) != self.columns or any(len(row) != len(head) for row in rows):
            raise ValueError("its columns are others")
        return [dict(zip(head, row)) for row in rows]

    def _remove_rows(self) -> None:
        """Remove the rows of an earlier job and their files. A table that cannot be read names no files."""
        remove_leftovers(self.path.parent)
        try:
            earlier = self._parse(self._whole())
        except (OSError, ValueError, csv.Error):
            earlier = []
        for row in earlier:
            self.remove_files(row)
        remove(self.path)


def whole_rows(data: bytes) -> int:
    """How many bytes the whole rows at the beginning of a CSV file have: a row ends with a newline outside quotes."""
    end = data.rfind(b"\n") + 1
    while data.count(b'"', 0, end) % 2:
        end = data.rfind(b"\n", 0, end - 1) + 1
    return end
