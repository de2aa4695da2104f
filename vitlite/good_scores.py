"""The scores of good images, and good_scores.json, which keeps them in a run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitlite.errors import UserError
from vitlite.files import DAMAGED, StrPath, below, write_json

GOOD_SCORES_FILE = "good_scores.json"
SCHEMA = 1
SCORED_BY = "scored_by"  # in this file and in calibration.json: the settings and the weights that made the scores
PIXEL_TARGET_FPR = 1e-3


class Good(NamedTuple):
    """A good image, scored."""

    category: str  # "" if it is not known
    score: float
    pixel_tail: float  # all but the share PIXEL_TARGET_FPR of its pixels stay at or below this value
    median: float  # of its pixels
    file: str = ""
    group: int | None = None  # images of one number are near-copies, or belong together; None: it is alone


def save_good_scores(
    run: StrPath, folder: Path, good: Sequence[Good], source: str, scored_by: Mapping[str, Any]
) -> None:
    """Write good_scores.json into a run: thresholds can be set anew from it without scoring (docs/result-files.md).

    ``folder`` is that of the data, ``source`` says in words where the images come from, and ``scored_by`` what made
    the scores.
    """
    images = [image._asdict() | {"file": below(image.file, folder)} for image in good]
    write_json(
        Path(run) / GOOD_SCORES_FILE, {"schema": SCHEMA, "source": source, SCORED_BY: scored_by, "images": images}
    )


def load_good_scores(run: StrPath, folder: Path) -> tuple[list[Good], str, Mapping[str, Any]] | None:
    """(good images, where they come from, what made their scores) of a run's good_scores.json; None without that file.

    The last one is empty if an earlier version wrote the file.

    ``UserError`` if it is damaged, or a newer version wrote it.
    """
    path = Path(run) / GOOD_SCORES_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] > SCHEMA:
            raise UserError(f"{path}: written by a newer vitlite (schema {found['schema']}); upgrade to read it")
        images = []
        for image in found["images"]:
            score, tail, median = (float(image[key]) for key in ("score", "pixel_tail", "median"))
            group = None if image.get("group") is None else int(image["group"])
            images.append(Good(str(image["category"]), score, tail, median, str(folder / image["file"]), group))
        if not images:
            raise ValueError("no images")
        return images, str(found["source"]), found.get(SCORED_BY, {})
    except FileNotFoundError:
        return None
    except DAMAGED as error:
        why = f"damaged ({type(error).__name__}: {error})"
        raise UserError(f"{path}: {why}; restore it, or give `good` images") from None
