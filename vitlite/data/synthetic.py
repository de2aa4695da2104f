"""A seeded synthetic data set in MVTec layout, so that every command works on a fresh machine."""

import itertools
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from vitlite.data.defects import DEFECTS
from vitlite.data.drawn import DRAWN, draw_defect
from vitlite.data.index import GOOD
from vitlite.data.layouts import open_dataset
from vitlite.data.levels import used_levels
from vitlite.data.listing import scan
from vitlite.data.textures import TEXTURES, photograph
from vitlite.errors import UserError
from vitlite.files import StrPath, refuse_unwritable, shown
from vitlite.images.loading import LeftOut
from vitlite.images.reading import read_noted
from vitlite.images.scale import Reading, Scale, learn

log = logging.getLogger(__name__)

DEFAULT_CATEGORIES = ("weave", "wood", "gear")
KINDS = (*DEFECTS, *DRAWN)
# A pixel of a kind in DEFECTS is defective if a channel changed by more than this many of 255 levels; smaller changes
# are undone, so the mask is exactly the set of pixels that differ from the good image.
LEVEL = 12
MIN_SIZE, MAX_SIZE = 32, 4096


def synthesize(
    out: StrPath,
    *,
    seed: int = 0,
    categories: str | Iterable[str] | None = None,
    kinds: str | Iterable[str] | None = None,
    size: int = 256,
    train: int = 40,
    good: int = 10,
    defects: int = 6,
) -> Path:
    """Write a data set in MVTec layout and return its folder.

    An image depends on the seed, the category, its folder, its number and the size, and on nothing else: the same seed
    gives the same bytes (with the same libraries), and a larger number of images keeps the earlier ones. The data set
    is written beside ``out`` and renamed at the end.

    Args:
        out: the folder to make; it may be there if it is empty.
        seed: from 0.
        categories: textures of ``weave wood gear metal granite tiles``, as a list or one string with commas, or
            ``all``. None: the first three.
        kinds: defects, some of ``scratch spot missing`` and of those that :func:`draw_defect` draws, ``tiny
            low-contrast erased soft large``; as a list or one string with commas, or ``all``. None: the first three.
        size: height and width in pixels, 32 to 4096. Images are RGB PNG files.
        train: good images for training, for each category.
        good: good images for testing.
        defects: defective images of each kind, with a mask of 0 and 255: exactly the pixels that the defect changed.

    Raises:
        UserError: ``out`` is a file or not empty or cannot be written, a category or a kind is unknown, a number is
            out of range.
    """
    names = _chosen("categories", categories, DEFAULT_CATEGORIES, TEXTURES)
    chosen = _chosen("kinds", kinds, DEFECTS, KINDS)
    _require_numbers(seed=seed, size=size, train=train, good=good, defects=defects)
    with _new_folder(Path(out)) as root:
        for name in names:
            _write_category(root / name, name, chosen, seed, size, train, good, defects)
    return Path(out)


def draw_set(
    folder: StrPath,
    out: StrPath,
    *,
    category: str | None = None,
    kinds: str | Iterable[str] | None = None,
    seed: int = 0,
    good: int = 10,
    defects: int = 6,
) -> Path:
    """Write a test set of defects drawn onto a user's good images, in MVTec layout, and return its folder.

    The images are taken in a random order: first those for ``test/good``, then one for each defect, and the first again
    if there are too few. Several categories have a folder each. A detector is checked fairly only with images that it
    was not trained on. Images of more than 8 bits become 8-bit files, on the scale that training on them would learn.

    Args:
        folder: good images, in any layout that :func:`open_dataset` reads; those for training are taken.
        out: the folder to make; it may be there if it is empty.
        category: a name, several with commas between, or ``all``, if there are several.
        kinds: some of ``DRAWN``, as a list or one string with commas, or ``all``, which None means too.
        seed: from 0; the same images and the same seed give the same set.
        good: good images, at most as many as there are.
        defects: defective images of each kind, with a mask of 0 and 255.

    Raises:
        UserError: no image there that can be read, or one of less than 8 pixels; ``out`` is a file or not empty or
            cannot be written; a kind is unknown; a number is out of range.
    """
    chosen = _chosen("kinds", kinds, DRAWN, DRAWN)
    _require_numbers(seed=seed, good=good, defects=defects)
    _require_free(Path(out))  # before every image is read
    dataset = open_dataset(Path(folder), category)
    levels = used_levels(dataset.train)
    scale = learn(levels)[1] if levels else None  # as training on these images would
    samples, unreadable = scan(dataset.train, Reading(scale))
    lines = ((sample.path, f"{shown(sample.path)} ({reason})") for sample, reason in unreadable)
    LeftOut(log.warning, "left out:").all(lines)
    with _new_folder(Path(out)) as root:
        for name in dataset.categories:
            paths = [sample.path for sample in samples if sample.category == name]
            if not paths:
                raise UserError(f"{shown(dataset.folder(name))}: no image there can be read")
            where = root / name if len(dataset.categories) > 1 else root
            _draw_category(where, name, paths, scale, chosen, seed, good, defects)
    return Path(out)


def _draw_category(
    folder: Path,
    name: str,
    paths: list[Path],
    scale: Scale | None,
    kinds: list[str],
    seed: int,
    good: int,
    defects: int,
) -> None:
    def read(path: Path) -> np.ndarray:
        return read_noted(path, Reading(scale))[0]

    order = [paths[i] for i in _generator(seed, name, "test", 0).permutation(len(paths))]
    others = itertools.cycle(order[good:] + order[:good])
    for i, path in enumerate(order[:good]):
        _save(folder / "test" / GOOD / f"{i:03d}.png", read(path))
    for kind in kinds:
        for i in range(defects):
            image, mask = draw_defect(read(next(others)), kind, _generator(seed, name, f"test/{kind}", i))
            _save_defect(folder, kind, i, image, mask)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``out`` at the end, or nothing after an error."""
    _require_free(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"{shown(out)}: cannot be written ({error.strerror})") from error
    try:
        # One folder deeper: what mkdtemp makes is private to the user, and the data set should not be.
        root = staging / "data"
        root.mkdir()
        yield root
        if out.exists():
            out.rmdir()
        os.rename(root, out)
    except OSError as error:
        raise UserError(f"{shown(out)}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def render_good(category: str, split: str, index: int, *, seed: int, size: int) -> np.ndarray:
    """A good image, uint8 (size, size, 3)."""
    rng = _generator(seed, category, f"{split}/good", index)
    scene = TEXTURES[category](rng, size)
    return photograph(rng, size)(scene.image)


def render_defect(
    category: str, kind: str, index: int, *, seed: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A defective image and the same image without the defect, both uint8 (size, size, 3), and the mask, bool."""
    rng = _generator(seed, category, f"test/{kind}", index)
    scene = TEXTURES[category](rng, size)
    expose = photograph(rng, size)
    clean = expose(scene.image)
    if kind in DRAWN:
        damaged, mask = draw_defect(clean, kind, rng, part=scene.part > 0.9)
        return damaged, clean, mask
    while True:
        damaged = expose(DEFECTS[kind](rng, scene))
        mask = np.abs(damaged.astype(np.int16) - clean).max(axis=2) > LEVEL
        # A scratch can start at the edge of the part and leave it at once: draw again until there is something to see.
        if mask.sum() >= max(8, 3e-4 * size * size):
            return np.where(mask[..., None], damaged, clean), clean, mask


def _generator(seed: int, category: str, folder: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{category}/{folder}".encode()), index])


def _write_category(
    folder: Path, name: str, kinds: list[str], seed: int, size: int, train: int, good: int, defects: int
) -> None:
    for split, number in (("train", train), ("test", good)):
        for i in range(number):
            _save(folder / split / "good" / f"{i:03d}.png", render_good(name, split, i, seed=seed, size=size))
    for kind in kinds:
        for i in range(defects):
            image, _, mask = render_defect(name, kind, i, seed=seed, size=size)
            _save_defect(folder, kind, i, image, mask)


def _save_defect(folder: Path, kind: str, index: int, image: np.ndarray, mask: np.ndarray) -> None:
    _save(folder / "test" / kind / f"{index:03d}.png", image)
    _save(folder / "ground_truth" / kind / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=4)


def _chosen(field: str, names: str | Iterable[str] | None, default: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names that a field asks for, each once; UserError for one that is not known, or for none."""
    if names is None:
        return list(default)
    if isinstance(names, str):
        names = known if names == "all" else names.split(",")
    chosen = list(dict.fromkeys(name.strip() for name in names))
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise UserError(f"`{field}={','.join(unknown)!r}`: choose from {', '.join(known)}, or all")
    return chosen


def _require_numbers(**numbers: int) -> None:
    limits = {"seed": (0, 2**63 - 1), "size": (MIN_SIZE, MAX_SIZE)}
    for name, value in numbers.items():
        low, high = limits.get(name, (0, 100_000))
        if not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise UserError(f"`{name}={value}`: choose a whole number from {low} to {high}")
    counts = [name for name in numbers if name not in limits]
    if not any(numbers[name] for name in counts):
        raise UserError(f"{', '.join(f'`{name}`' for name in counts)} are 0: nothing to write")


def _require_free(out: Path) -> None:
    if out.is_dir():
        if any(out.iterdir()):
            raise UserError(f"{shown(out)}: the folder is not empty; choose another `out` or empty it first")
    elif os.path.lexists(out):
        raise UserError(f"{shown(out)}: exists and is no folder; choose another `out`")
    refuse_unwritable(out)
