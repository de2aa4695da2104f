"""A plain folder of good pictures, and what gives away that it is something else."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from vitlite.data.index import GOOD, Dataset, Sample, choose, name_of, note
from vitlite.data.listing import entries, walk
from vitlite.errors import UserError
from vitlite.files import shown

# Names of folders, in lower case, that people give to what must not be trained on.
GOOD_NAMES = frozenset((GOOD, "ok", "normal"))
SPLITS = frozenset(("train", "training", "val", "validation"))
TESTS = frozenset(("test", "testing", "test_public", "test_private", "test_private_mixed"))
# fmt: off
MASKS = frozenset((
    "annotation", "annotations", "ground_truth", "groundtruth", "gt", "label", "labels", "mask", "masks",
    "segmentation", "segmentations",
))
DEFECTS = frozenset((
    "abnormal", "anomalies", "anomalous", "anomaly", "bad", "broken", "damaged", "defect", "defective", "defects",
    "fault", "faults", "faulty", "ko", "logical_anomalies", "ng", "nio", "nok", "not_good", "not_ok", "reject",
    "rejected", "rejects", "scrap", "structural_anomalies",
))
# fmt: on
_MASK_OF = re.compile(r"(.+)[_-](?:gt|label|mask)", re.IGNORECASE | re.DOTALL)


class Doubt(NamedTuple):
    """Why the pictures of a folder cannot all be good ones; paths are relative to that folder."""

    reason: str
    mend: str
    place: Path  # the folder that gives it away
    good: Path | None = None  # where the good pictures seem to be


def read(root: Path, category: str | None) -> Dataset:
    """Those directly inside, or everything below where there are none."""
    folders, images, others = entries(root)
    if images:
        paths, ignored = [root / name for name in images], len(others)
        unused = [f"{name}/" for name in folders]
    else:
        (paths, ignored), unused = walk(root), []
    if not paths:
        extra = f" ({ignored} other files)" if ignored else ""
        raise UserError(
            f"{shown(root)}: no images{extra}; give a folder of good images, or a data set in one of the known layouts"
        )
    (name,) = choose(root, [name_of(root)], category)
    train = tuple(Sample(path, name, "train", GOOD, 0, None) for path in paths)
    return Dataset(root, (name,), train, (), "folder", note(root, unused), ignored)


def doubt(root: Path, paths: list[Path]) -> Doubt | None:
    """What speaks against taking ``paths``, all below ``root``, for good pictures; None where nothing does.

    Names alone tell: of folders at any depth, and of files that are called after another picture.
    """
    parents = dict.fromkeys(path.parent for path in paths)
    folders = _with_outer(parent.relative_to(root) for parent in parents)
    return (
        _split(folders) or _good_beside_others(root, folders) or _masks_or_defects(folders) or _mask_file(root, paths)
    )


def _with_outer(folders) -> list[Path]:
    """Relative folders and those around them, outer ones first, each once."""
    found = {}
    for folder in folders:
        found.update(dict.fromkeys([*reversed(folder.parents), folder]))
    return [folder for folder in found if folder.parts]


def _split(folders: list[Path]) -> Doubt | None:
    for names in (SPLITS, TESTS):
        for folder in folders:
            if folder.name.lower() in names:
                reason = f"has {shown(folder)}/ but not MVTec's train/good and test/<defect>"
                return Doubt(reason, "rename the folders, or give the one that holds the good images", folder)
    return None


def _good_beside_others(root: Path, folders: list[Path]) -> Doubt | None:
    beside = Counter(folder.parent for folder in folders)
    for folder in folders:
        if folder.name.lower() in GOOD_NAMES and beside[folder.parent] > 1:
            return Doubt(f"has {shown(folder)}/ beside other folders", f"give {shown(root / folder)}", folder, folder)
    return None


def _masks_or_defects(folders: list[Path]) -> Doubt | None:
    for folder in folders:
        name = folder.name.lower()
        if name in MASKS | DEFECTS:
            reason = f"has {shown(folder)}/, by its name {'masks' if name in MASKS else 'defects'} and not good images"
            return Doubt(reason, "give the folder that holds the good images alone, or rename that one", folder)
    return None


def _mask_file(root: Path, paths: list[Path]) -> Doubt | None:
    names = {os.path.splitext(path)[0]: path.name for path in paths}
    for path in paths:
        match = _MASK_OF.fullmatch(os.path.splitext(path)[0])
        if match and match[1] in names:
            inner = path.relative_to(root)
            reason = f"has {shown(inner)}, by its name the mask of {shown(names[match[1]])}"
            return Doubt(reason, "give a folder of good images without masks", inner.parent)
    return None
