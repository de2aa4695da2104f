"""Anomaly maps on disk, in the layout of the official MVTec AD evaluation scripts, checked and scored.

``MAPS/<category>/test/<defect>/<stem>.tiff`` (or ``.tif``, ``.npy``): one map for each test picture of the data set,
one channel, at the picture's original resolution. Needs no torch.
"""

import difflib
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from vitlite.data.layout import Dataset, Sample, open_dataset
from vitlite.data.listing import entries
from vitlite.data.reading import read_mask, shown
from vitlite.errors import UserError
from vitlite.files import atomic

MAP_EXTENSIONS = (".tiff", ".tif", ".npy")
_LAYOUT = "MAPS/<category>/test/<defect>/<stem>.tiff, .tif or .npy"
_BITS, _ORIENTATION = 258, 274  # TIFF tags
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


class MapError(UserError):
    """A file that does not hold a usable map: ``kind`` for the list of problems, ``reason`` why."""

    def __init__(self, path, kind: str, reason: str):
        super().__init__(f"{shown(path)}: {reason}")
        self.kind, self.reason = kind, reason


def _few(names, limit=_FEW):
    listed = ", ".join(names[:limit])
    return listed if len(names) <= limit else f"{listed} and {len(names) - limit} more"


def read_map(path) -> np.ndarray:
    """Read one map: (H, W) of the file's own real dtype.

    Raises MapError for a file that cannot be read, holds more than one channel or anything but real finite numbers.
    A 64-bit TIFF is refused, because Pillow would round it; save such maps as ``.npy``.
    """
    path = Path(path)
    try:
        values = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _read_tiff(path)
    except MapError:
        raise
    except Exception as error:  # a damaged file makes Pillow and numpy raise nearly anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise MapError(path, "unreadable", f"cannot be read as a map ({reason})") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        kind = getattr(values, "dtype", "an archive")
        raise MapError(path, "unreadable", f"holds {kind}, not real numbers")
    if values.ndim != 2 or values.size == 0:
        raise MapError(path, "wrong-sized", f"has shape {values.shape}; a map is one channel, (H, W)")
    if not np.isfinite(values).all():
        raise MapError(path, "not-a-number", "holds not-a-number or infinite values")
    return values


def _read_tiff(path):
    with Image.open(path, formats=("TIFF",)) as image:
        if getattr(image, "n_frames", 1) != 1:
            raise MapError(path, "wrong-sized", f"holds {image.n_frames} pages; a map is one")
        if max(np.atleast_1d(image.tag_v2.get(_BITS, 1))) > 32:
            raise MapError(path, "unreadable", "is a 64-bit TIFF; save it as 32-bit float, or as .npy")
        if image.mode == "P":
            raise MapError(path, "unreadable", "is a palette picture, not a map")
        return np.array(image)


def write_map(path, values):
    """Write one map (H, W) as a 32-bit float TIFF, atomically. The folder must exist.

    Raises UserError where it cannot be written.
    """
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"values has shape {values.shape}; a map is (H, W)")
    with atomic(path, "wb") as file:
        Image.fromarray(np.ascontiguousarray(values, np.float32)).save(file, format="TIFF")


def find_maps(maps, dataset: Dataset, problems: Problems, *, whole: bool = True) -> dict[Sample, Path]:
    """The map file of every test sample; what is missing, extra or misnamed is added to ``problems``.

    ``whole``: the data set's categories are all that there are, so further category folders in ``maps`` are extra.
    """
    maps = Path(maps)
    if not maps.is_dir():
        raise UserError(f"{shown(maps)}: no such folder; give the folder that holds {_LAYOUT}")
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


def picture_size(path) -> tuple[int, int]:
    """(height, width) of a picture, upright, from its header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
    except Exception as error:  # as for reading maps
        raise UserError(f"{shown(path)}: is not a picture that can be read ({error})") from error
    return (width, height) if turned else (height, width)


def truth(sample: Sample) -> np.ndarray:
    """Ground truth of a test sample at original resolution, uint8 (H, W) of 0 and 1."""
    if sample.label and sample.mask is None:
        raise UserError(f"{shown(sample.path)}: is defective but has no mask in ground_truth/{shown(sample.defect)}")
    return read_mask(sample.mask) if sample.label else np.zeros(picture_size(sample.path), np.uint8)


def _load(pair):
    """(mask, map) of one sample, or a MapError that says what is wrong with the map."""
    sample, path = pair
    mask = truth(sample)
    name = f"{sample.category}/test/{sample.defect}/{path.name}"
    try:
        values = read_map(path)
        if values.shape != mask.shape:
            sizes = " but its picture ".join(f"{h} x {w}" for h, w in (values.shape, mask.shape))
            raise MapError(path, "wrong-sized", f"is {sizes}")
    except MapError as error:
        return MapError(name, error.kind, error.reason)
    return mask, values


def evaluate_folder(maps, data, category=None, *, on_category=None) -> dict:
    """Score the maps of a folder against a data set with masks.

    Args:
        maps, data: folders; the layout of ``maps`` is at the top of this file.
        category: a name, several with commas between, or ``all`` (default).
        on_category: called with (name, results) as each category is done.
    Returns:
        dict: ``mean`` and ``categories`` of the metrics, with the numbers of images, the resolution and the mask rule.
    Raises:
        UserError: names the missing, extra, misnamed, ambiguous, unreadable, wrong-sized and not-a-number maps, the
            first few and how many, or the category that lacks a class. Then there is no result at all.
    """
    from vitlite.metrics.exact import evaluate_maps
    from vitlite.metrics.jit import run_all, thread_count
    from vitlite.metrics.results import collect

    category = category or "all"
    dataset = open_dataset(data, category, need_train=False, need_test=True)
    problems, results = Problems(), {}
    found = find_maps(maps, dataset, problems, whole=category == "all" and dataset.nested)
    for name in dataset.categories:
        pairs = [(sample, path) for sample, path in found.items() if sample.category == name]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL(\.|$)")  # a damaged file is reported once, by us
            loaded = run_all(_load, pairs, thread_count(1 << 30))
        for error in loaded:
            if isinstance(error, MapError):
                problems.add(error.kind, str(error))
        if problems:
            continue  # reads the other categories as well, so that everything wrong is said at once
        labels = np.array([sample.label for sample, _ in pairs])
        try:
            scores = evaluate_maps(*zip(*loaded), image_labels=labels)
        except ValueError as error:
            raise UserError(f"{shown(data)}: category {name!r} cannot be scored: {error}") from error
        results[name] = {"images": len(pairs), "defective": int(labels.sum()), **scores}
        if on_category:
            on_category(name, results[name])
    if problems:
        raise UserError(f"{shown(maps)}: {problems.line()}; expected one map per test picture, {_LAYOUT}")
    return collect(results, resolution="original", mask_rule=dataset.mask_rule)
