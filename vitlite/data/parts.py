"""One verdict for a part that several images show, and parts.csv."""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vitlite.errors import UserError
from vitlite.files import StrPath, counted, shown, write_csv

log = logging.getLogger(__name__)

PARTS_FILE = "parts.csv"
COLUMNS = ("part", "verdict", "images", "defects", "score", "file", "error")
PART_FIELDS = ("part", "part_verdict", "part_images")  # what a row of an image says of its part


class Parts:
    """Images by part: the rows of those whose names agree in what a regular expression finds are one part.

    Its groups name the part, with "_" between them, or the whole of what it finds if it has none. An image in whose
    name it finds nothing is a part by itself. A part is defective if one of its images is, and good if all are; with an
    image without a verdict among good ones it has none. Of an image that is scored again the last row counts.

    ``UserError`` for what is no regular expression.
    """

    def __init__(self, pattern: str) -> None:
        self.text = pattern
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise UserError(f"`group_by={pattern}`: not a regular expression ({error})") from None
        self._parts: dict[str, dict[str, dict[str, Any]]] = {}  # by part and file

    def name(self, file: StrPath) -> str:
        """The part that an image shows."""
        return self._found(file) or shown(file)

    def check(self, files: Sequence[StrPath]) -> None:
        """Warn if the expression finds nothing in any name: a shell may have changed it."""
        if files and not any(map(self._found, files)):
            one = shown(files[0])
            log.warning(
                "parts: the expression %r finds nothing in any name, such as %s; each image is a part by itself",
                self.text,
                one,
            )

    def _found(self, file: StrPath) -> str:
        """What the expression finds in a name; empty: nothing."""
        match = self.pattern.search(shown(file).replace(os.sep, "/"))
        if match is None:
            return ""
        return "_".join(group for group in match.groups() if group) or match.group()

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Count the row of an image; what it says of its part, by the names of ``PART_FIELDS``, as far as it is known.

        The verdict is None if the part has none.
        """
        name = self.name(row["file"])
        images = self._parts.setdefault(name, {})
        images[row["file"]] = {key: row.get(key) for key in ("score", "verdict")}
        return {"part": name, "part_verdict": _verdict(images), "part_images": len(images)}

    def write(self, out: Path) -> None:
        """Write parts.csv into a folder: a row for each part, in the order of their first images."""
        write_csv(out / PARTS_FILE, COLUMNS, [self._cells(name, images) for name, images in self._parts.items()])

    def count(self) -> tuple[int, int]:
        """How many parts there are, and how many of them are defective."""
        return len(self._parts), sum(_verdict(images) == "defect" for images in self._parts.values())

    def _cells(self, name: str, images: dict[str, dict[str, Any]]) -> list[object]:
        judged = {file: image for file, image in images.items() if image["verdict"]}
        worst = max(judged, key=lambda file: judged[file]["score"]) if judged else None
        defects = sum(image["verdict"] == "defect" for image in judged.values())
        missing = len(images) - len(judged)
        return [
            name,
            _verdict(images),
            len(images),
            defects,
            None if worst is None else f"{judged[worst]['score']:.6g}",
            None if worst is None else shown(worst),
            f"{missing} of {counted(len(images), 'image')} without a verdict" if missing else None,
        ]


def write_parts(out: Path, pattern: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write parts.csv of finished rows, whose scores may be text."""
    parts = Parts(pattern)
    for row in rows:
        parts.add(row | {"score": float(row.get("score") or "nan")})
    parts.write(out)


def _verdict(images: dict[str, dict[str, Any]]) -> str | None:
    verdicts = [image["verdict"] for image in images.values()]
    if "defect" in verdicts:
        return "defect"
    return "good" if all(verdicts) else None
