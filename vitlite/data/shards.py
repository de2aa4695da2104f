"""Shares of one call of predict for several processes or machines, and how their tables become one."""

import csv
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vitlite.data.parts import write_parts
from vitlite.data.prediction_files import COLUMNS, CSV_FILE, FILES, SHARDS_FOLDER
from vitlite.errors import UserError
from vitlite.files import DAMAGED, make_folder, shown, write_csv, write_json
from vitlite.ledger import SCHEMA, Ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Share ``number``, from 1, of ``count`` that all images are dealt out to.

    Whole batches are dealt, one after another, so that the images that go through the network together are the same as
    in one process, and with them every digit of the scores.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``I/N``. ``UserError`` unless I is from 1 to N."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"`shard={text}`: must be I/N with I from 1 to N, such as 1/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def places(self, images: int, batch_size: int) -> list[int]:
        """The places, among all images, of those of this share."""
        return [i for i in range(images) if i // batch_size % self.count == self.number - 1]

    def table(self, out: Path) -> Path:
        """Where the table of this share is."""
        return out / SHARDS_FOLDER / f"{self.number}-of-{self.count}" / CSV_FILE

    def ledger(self, out: Path, paths: Sequence[Path], facts: dict[str, Any]) -> Ledger:
        """The table of this share of ``paths``; the files of its rows are in ``out``."""
        table = self.table(out)
        make_folder(table.parent)
        return Ledger(table, COLUMNS, FILES, self._facts(paths, facts), folder=out)

    def merge(
        self, out: Path, paths: Sequence[Path], batch_size: int, facts: dict[str, Any], group_by: str | None
    ) -> None:
        """If all shares are scored, write the files that one process would have written, with ``facts`` as its own."""
        merged: dict[int, dict[str, str]] = {}
        for number in range(1, self.count + 1):
            share = type(self)(number, self.count)
            places = share.places(len(paths), batch_size)
            rows = _finished(share.table(out), {"schema": SCHEMA, **share._facts(paths, facts)}, str(share))
            if rows is None or [row["file"] for row in rows] != [shown(paths[i]) for i in places]:
                return
            merged |= zip(places, rows)
        ordered = [merged[i] for i in range(len(paths))]
        write_json((out / CSV_FILE).with_suffix(".json"), {"schema": SCHEMA, **facts})
        write_csv(out / CSV_FILE, COLUMNS, [[row[column] for column in COLUMNS] for row in ordered])
        if group_by is not None:
            write_parts(out, group_by, ordered)

    def _facts(self, paths: Sequence[Path], facts: dict[str, Any]) -> dict[str, Any]:
        """With what else the rows of a share depend on: which share it is, and of which images."""
        names = "\n".join(map(shown, paths)).encode()
        return {**facts, "shard": str(self), "images": hashlib.sha256(names).hexdigest()}


def _finished(table: Path, facts: dict[str, Any], share: str) -> list[dict[str, str]] | None:
    """The rows of a share's table; None if it is not there or, with a warning, depends on other facts."""
    try:
        held = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
        if held != facts:
            changed = ", ".join(key for key in facts if held.get(key) != facts[key])
            log.warning("share %s was scored with another %s: no table of all yet; score it again", share, changed)
            return None
        with open(table, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (*DAMAGED, csv.Error):
        return None
