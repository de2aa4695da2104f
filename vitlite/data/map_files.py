"""Finds the anomaly map of each test image, in the layout of the official MVTec AD evaluation scripts."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitlite.data.index import Dataset, Sample, few, grouped, stem
from vitlite.data.listing import entries
from vitlite.errors import UserError
from vitlite.files import StrPath, counted, make_folder, remove, shown
from vitlite.images.maps import MAP_EXTENSIONS, is_own, write_map
from vitlite.images.masks import read_mask
from vitlite.images.reading import image_size

MAPS_FOLDER = "maps"  # in a run
LAYOUT = "MAPS/<category>/test/<defect>/<stem>.tiff, .tif or .npy"
_FEW = 3


def map_file(folder: StrPath, sample: Sample) -> Path:
    """Where the map of a test sample lies: ``folder/<category>/test/<defect>/<stem>.tiff``."""
    return Path(folder) / sample.category / "test" / sample.defect / f"{sample.path.stem}.tiff"


def earlier_maps(folder: StrPath, samples: Iterable[Sample]) -> set[Path]:
    """The maps of these samples, all of a category's, that an earlier evaluation left in ``folder``.

    ``UserError``: two samples would share a map, or a category's folder holds maps of other images, or of these images
    by somebody else. Such maps are not ours to remove, and ``vitlite eval-maps`` would stumble over the former.
    """
    own: dict[Path, Sample] = {}
    for sample in samples:
        other = own.setdefault(map_file(folder, sample), sample)
        if other is not sample:  # their names differ in the extension alone
            raise UserError(
                f"`maps`: {shown(other.path)} and {sample.path.name} would share one map file; rename one of them"
            )
    there = {
        path
        for category in {sample.category for sample in own.values()}
        for path in (Path(folder) / category).rglob("*")
        if path.suffix.lower() in MAP_EXTENSIONS
    }
    strange = sorted(there - own.keys())
    foreign = sorted(path for path in there & own.keys() if not is_own(path))
    for paths, what in (
        (strange, "of other images"),
        (foreign, "that vitlite did not write, or a version before 0.2.0 did"),
    ):
        if paths:
            name = paths[0].relative_to(folder)
            raise UserError(
                f"`maps`: {shown(folder)} holds {counted(len(paths), 'map')} {what} ({shown(name)}); "
                f"move {shown(Path(folder) / name.parts[0])} away first"
            )
    return there


def save_maps(folder: StrPath, samples: Iterable[Sample], scored: Sequence[Sample], maps: Sequence[np.ndarray]) -> None:
    """Write the maps of a category's test images, (H, W) at original size, as 32-bit float TIFFs.

    ``samples`` are all of the category, ``scored`` those that ``maps`` belong to. Earlier maps are removed first, also
    those of images that were not read this time, so that maps of two evaluations never lie side by side.
    """
    remove_maps(folder, samples)
    for sample, values in zip(scored, maps, strict=True):
        save_map(folder, sample, values)


def remove_maps(folder: StrPath, samples: Iterable[Sample]) -> None:
    """Remove the maps of these samples, all of a category's, that an earlier evaluation left in ``folder``."""
    for path in earlier_maps(folder, samples):
        remove(path)


def save_map(folder: StrPath, sample: Sample, values: np.ndarray) -> None:
    """Write one map, (H, W) at original size, as a 32-bit float TIFF."""
    path = map_file(folder, sample)
    make_folder(path.parent)
    write_map(path, values)


@dataclass
class Problems:
    """What is wrong with the maps, by kind: one line names the first few of each kind and counts them all."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, what: str) -> None:
        self.found.setdefault(kind, []).append(what)

    def __bool__(self) -> bool:
        return bool(self.found)

    def line(self) -> str:
        """All kinds of problems, with their numbers."""
        return "; ".join(f"{kind}: {len(names)} ({few(names, _FEW)})" for kind, names in self.found.items())


def find_maps(maps: StrPath, dataset: Dataset, problems: Problems, *, whole: bool = True) -> dict[Sample, Path]:
    """The map file of every test sample; what is missing, extra or misnamed is added to ``problems``.

    ``whole`` says that ``dataset`` has all categories, so further category folders in ``maps`` are extra. Raises
    UserError if ``maps`` is no folder.
    """
    maps = Path(maps)
    if not maps.is_dir():
        what = "is a file" if maps.exists() else "no such folder"
        raise UserError(f"{shown(maps)}: {what}; give the folder that holds {LAYOUT}")
    found: dict[Sample, Path] = {}
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
                problems.add("extra categories", f"{name} with {counted(count, 'map')}")
    return found


def _folders(folder: Path) -> list[str]:
    return entries(folder)[0] if folder.is_dir() else []


def _files(folder: Path) -> list[str]:
    """Names of the files in a folder, without hidden ones."""
    if not folder.is_dir():
        return []
    _, images, others = entries(folder)
    return [name for name in images + others if not name.startswith(".")]


def _map_files(folder: Path) -> list[str]:
    """Names of the map files in a folder."""
    return [name for name in _files(folder) if name.lower().endswith(MAP_EXTENSIONS)]


def _find_category(maps: Path, category: str, samples: list[Sample], problems: Problems) -> dict[Sample, Path]:
    found: dict[Sample, Path] = {}
    kinds = grouped((sample.defect, sample) for sample in samples)
    for kind, wanted in kinds.items():
        found |= _match(maps, Path(category, "test", kind), wanted, problems)
    for kind in _folders(maps / category / "test"):
        if kind not in kinds:
            for name in _map_files(maps / category / "test" / kind):
                problems.add("extra", shown(Path(category, "test", kind, name)))
    return found


def _match(maps: Path, here: Path, samples: list[Sample], problems: Problems) -> dict[Sample, Path]:
    """Pair the samples of one kind of defect with the files of its folder."""
    by_stem = grouped((stem(name), name) for name in _map_files(maps / here))
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
        others = set(_files(maps / here)) - set(_map_files(maps / here))  # no maps by their extension
        stems = {sample.path.stem for sample in missing}
        left += [name for name in _files(maps / here) if name in others and stem(name) in stems]
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


def _likely(image: Path, names: list[str]) -> str | None:
    """Which of the left-over files was probably meant for an image: its stem with something added, or its number."""
    own = image.stem.lower()
    likely = [name for name in names if own in name.lower()]
    numbered = [name for name in names if own.isdigit() and stem(name).isdigit()]
    return next(iter([*likely, *(name for name in numbered if int(stem(name)) == int(own))]), None)


def truth(sample: Sample) -> np.ndarray:
    """Ground truth of a test sample at original resolution, uint8 (H, W) of 0 and 1.

    Raises UserError for a defective image without a mask, and for files that cannot be read.
    """
    if not sample.label:
        return blank(*image_size(sample.path))
    if sample.mask is None:
        raise UserError(f"{shown(sample.path)}: is defective but has no mask in ground_truth/{shown(sample.defect)}")
    return read_mask(sample.mask)


def blank(height: int, width: int) -> np.ndarray:
    """The mask of a good image, read-only uint8 (H, W): one zero that stands in every place and takes no memory."""
    return np.broadcast_to(np.uint8(0), (height, width))
