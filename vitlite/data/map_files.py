"""Which anomaly map on disk belongs to which test image, in the layout of the official MVTec AD evaluation scripts."""

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitlite.data.index import Dataset, Sample
from vitlite.data.listing import entries
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.maps import MAP_EXTENSIONS, picture_size
from vitlite.images.masks import read_mask

LAYOUT = "MAPS/<category>/test/<defect>/<stem>.tiff, .tif or .npy"


_FEW = 3


@dataclass
class Problems:
    """What is wrong with the maps, kind by kind, so that one line can name the first few of each and count them all."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, what: str):
        self.found.setdefault(kind, []).append(what)

    def __bool__(self):
        return bool(self.found)

    def line(self) -> str:
        return "; ".join(f"{kind}: {len(names)} ({_few(names)})" for kind, names in self.found.items())


def _few(names, limit=_FEW):
    listed = ", ".join(names[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"


def find_maps(maps, dataset: Dataset, problems: Problems, *, whole: bool = True) -> dict[Sample, Path]:
    """The map file of every test sample; what is missing, extra or misnamed is added to ``problems``.

    ``whole``: the data set's categories are all that there are, so further category folders in ``maps`` are extra.
    """
    maps = Path(maps)
    if not maps.is_dir():
        raise UserError(f"{shown(maps)}: no such folder; give the folder that holds {LAYOUT}")
    found = {}
    for category in dataset.categories:
        samples = [s for s in dataset.test if s.category == category]
        if (maps / category).is_dir():
            found |= _find_category(maps, category, samples, problems)
        else:
            near = difflib.get_close_matches(category.lower(), {n.lower(): n for n in entries(maps)[0]}, n=1)
            hint = f", is it {near[0]!r}?" if near else ""
            problems.add("categories without maps", f"{category}{hint}")
    if whole:
        for name in entries(maps)[0]:
            count = sum(len(_map_files(maps / name / "test" / kind)) for kind in _folders(maps / name / "test"))
            if name not in dataset.categories and count:
                problems.add("extra categories", f"{name} with {count} maps")
    return found


def _folders(folder):
    return entries(folder)[0] if folder.is_dir() else []


def _map_files(folder):
    """Names of the map files in a folder."""
    if not folder.is_dir():
        return []
    _, images, others = entries(folder)
    return [n for n in images + others if not n.startswith(".") and n.lower().endswith(MAP_EXTENSIONS)]


def _find_category(maps, category, samples, problems):
    found, kinds = {}, {}
    for sample in samples:
        kinds.setdefault(sample.defect, []).append(sample)
    for kind, wanted in kinds.items():
        here = Path(category, "test", kind)
        found |= _match(maps, here, wanted, problems)
    for kind in _folders(maps / category / "test"):
        if kind not in kinds:
            for name in _map_files(maps / category / "test" / kind):
                problems.add("extra", shown(Path(category, "test", kind, name)))
    return found


def _match(maps, here, samples, problems):
    """Pair the samples of one kind of defect with the files of its folder."""
    by_stem = {}
    for name in _map_files(maps / here):
        by_stem.setdefault(os.path.splitext(name)[0], []).append(name)
    found, missing = {}, []
    for sample in samples:
        names = by_stem.pop(sample.path.stem, [])
        if len(names) > 1:
            problems.add("ambiguous", f"{shown(here / sample.path.stem)} is there as {' and '.join(sorted(names))}")
        elif names:
            found[sample] = maps / here / names[0]
        else:
            missing.append(sample)
    left = [name for names in by_stem.values() for name in names]
    if missing:
        left += [n for n in _other_files(maps / here) if os.path.splitext(n)[0] in {s.path.stem for s in missing}]
    for sample in missing:
        likely = _likely(sample.path, left)
        if likely is None:
            problems.add("missing", shown(here / f"{sample.path.stem}.tiff"))
        else:
            left.remove(likely)
            problems.add("misnamed", f"{shown(here / likely)} for {sample.path.stem}.tiff")
    for name in left:
        problems.add("extra", shown(here / name))
    return found


def _other_files(folder):
    """Files that are no maps by their extension, but may be maps under a wrong one."""
    if not folder.is_dir():
        return []
    _, images, others = entries(folder)
    maps = set(_map_files(folder))
    return [n for n in images + others if not n.startswith(".") and n not in maps]


def _likely(picture, names):
    """Which of the left-over files was probably meant for a picture: its stem with something added, or its number."""
    stem = picture.stem.lower()
    for name in names:
        if stem in name.lower():
            return name
    for name in names:
        other = os.path.splitext(name)[0]
        if stem.isdigit() and other.isdigit() and int(stem) == int(other):
            return name
    return None


def truth(sample: Sample) -> np.ndarray:
    """Ground truth of a test sample at original resolution, uint8 (H, W) of 0 and 1."""
    if sample.label and sample.mask is None:
        raise UserError(f"{shown(sample.path)}: is defective but has no mask in ground_truth/{shown(sample.defect)}")
    return read_mask(sample.mask) if sample.label else np.zeros(picture_size(sample.path), np.uint8)
