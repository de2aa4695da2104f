"""A plain folder of good images, and the signs that it is something else."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vitlite.data.index import (
    DEFECTS,
    GOOD,
    GOOD_NAMES,
    MASK_NAME,
    Dataset,
    Sample,
    choose,
    grouped,
    name_of,
    says_defects,
    stem,
    without_mark,
)
from vitlite.data.layouts.base import Layout
from vitlite.data.layouts.categories import FolderOfCategories
from vitlite.data.layouts.oneclass import OneClassLayout
from vitlite.data.leftovers import Leftovers, slashed
from vitlite.data.listing import entries, not_read, sub_folders, walk
from vitlite.data.photographs import surface_beside, surfaces_beside
from vitlite.data.prediction_files import holds_predictions
from vitlite.errors import UserError
from vitlite.files import counted, shown

# Names of folders, in lower case, that people give to what must not be trained on.
SPLITS = frozenset(("train", "training", "val", "validation"))
TESTS = frozenset(("test", "testing", "test_public", "test_private", "test_private_mixed"))
# fmt: off
MASKS = frozenset((
    "annotation", "annotations", "ground_truth", "groundtruth", "gt", "label", "labels", "mask", "masks",
    "segmentation", "segmentations",
))
# fmt: on
RUN = ("config.toml", "split.json")  # files of a run
_DEEPEST_PART = 4  # folders between a data set's root and its images; VisA has the most


class PlainFolder(Layout):
    """Good images alone. The layout of what is in none of the others, which it knows in order to refuse their parts."""

    name = "folder"
    title = "plain folder of images"

    def __init__(self, layouts: Sequence[Layout], categories: FolderOfCategories) -> None:
        self.layouts, self.categories = layouts, categories

    def matches(self, root: Path) -> bool:
        return True

    def read(self, root: Path, category: str | None) -> Dataset:
        """The images directly in the folder, or everything below it if there are none directly.

        Raises UserError if there is none, or if some of them seem to be defects, test images or masks.
        """
        self._refuse_data_sets_within(root)
        self._refuse_parts(root)
        folders, images, others = entries(root)
        left = Leftovers(ignored=len(others))
        if images:
            paths = [root / name for name in images]
            left.add(root, slashed(folders), missed=slashed(folders))
        else:
            paths, left.ignored = walk(root)
        _refuse_surfaces(root, paths)
        self._refuse_doubtful(root, paths)
        paths = _without_masks(paths, left)
        if not paths:
            masks = sum(count for _, count in left.stray_masks)
            extra = f" ({counted(left.ignored, 'other file')})" if left.ignored else ""
            extra += f" but {masks} that {'is a mask' if masks == 1 else 'are masks'} by name" if masks else ""
            advice = "give a folder of good images, or a data set in one of the known layouts"
            raise UserError(f"{shown(root)}: no images{extra}; {not_read([root]) or advice}")
        (name,) = choose(root, [name_of(root)], category)
        train = tuple(Sample(path, name, "train", GOOD, 0, None) for path in paths)
        return Dataset(root, (name,), train, (), self.name, self.title, **left.facts)

    def hint(self, dataset: Dataset, category: str, split: str) -> str:
        return f"{shown(dataset.root)}: a plain folder of good images has no test/ folder to evaluate on"

    def _refuse_data_sets_within(self, root: Path) -> None:
        """Everything below a plain folder is taken, so no data set's defects may be there."""
        folders, images, _ = entries(root)
        for name in folders if not images else ():
            if self._holds_data_sets(root / name):
                raise UserError(
                    f"{shown(root)}: has no images, but a data set in {shown(name)}/; give {shown(root / name)}"
                )

    def _refuse_parts(self, root: Path) -> None:
        """Folders of a data set that hold something else than its good images."""
        whole, layout = self._data_set_around(root)
        if whole is None:
            return
        names = [part.lower() for part in root.resolve().relative_to(whole).parts]
        if isinstance(layout, OneClassLayout):
            wrong = names in (["train"], ["test"])  # all classes at once, whichever is normal
        else:
            wrong = names[-1] not in GOOD_NAMES and not (TESTS | MASKS | DEFECTS).isdisjoint(names)
        # If good images lie beside others, _refuse_doubtful names the folder of the good ones too.
        if wrong and not any(name.lower() in GOOD_NAMES for name in sub_folders(root)):
            raise UserError(f"{shown(root)}: is part of a data set and not its good images; give {shown(whole)}")

    def _refuse_doubtful(self, root: Path, paths: list[Path]) -> None:
        """Images that cannot all be good ones; the line says which folder to give instead, if that is known."""
        found = doubt(root, paths)
        if found is None:
            return
        ways = [root.joinpath(*found.place.parts[:depth]) for depth in range(1, len(found.place.parts) + 1)]
        within = next((way for way in ways if self._holds_data_sets(way)), None)
        whole, _ = self._data_set_around(root)
        if within:
            raise UserError(
                f"{shown(root)}: has {shown(found.place)}/, part of a data set; give that data set, {shown(within)}"
            )
        advice = found.advice
        if whole:
            alone = f", or {shown(root / found.good)} for good images alone" if found.good else ""
            advice = f"give {shown(whole)}, the data set that it is part of{alone}"
        raise UserError(f"{shown(root)}: {found.reason}; {advice}")

    def _holds_data_sets(self, place: Path) -> bool:
        """Whether a folder is a data set in any other layout, or a folder of categories."""
        return any(layout.matches(place) for layout in (*self.layouts, self.categories))

    def _data_set_around(self, root: Path) -> tuple[Path | None, Layout | None]:
        """The data set that a folder is a part of, such as ``candle/Data/Images/Anomaly`` of VisA, and its layout."""
        for parent in list(root.resolve().parents)[:_DEEPEST_PART]:
            with contextlib.suppress(UserError):  # a folder that may not be listed
                for layout in self.layouts:
                    if layout.matches(parent):
                        return parent, layout
        return None, None


def _without_masks(paths: list[Path], left: Leftovers) -> list[Path]:
    """The images without those that are masks by name, which are counted."""
    folders = grouped((path.parent, path.name) for path in paths)
    images = {here: set(left.without_masks(here, names)[0]) for here, names in folders.items()}
    return [path for path in paths if path.name in images[path.parent]]


def _refuse_surfaces(root: Path, paths: list[Path]) -> None:
    """Coordinates or depths are no photographs: beside these they would be other images of the same parts."""
    two = surfaces_beside(_with_outer(folder.relative_to(root) for folder in {path.parent: None for path in paths}))
    if two is not None:
        surface, photographs = map(shown, two)
        raise UserError(
            f"{shown(root)}: has {surface}/, coordinates or depths, beside {photographs}/; "
            f"give the photographs alone, {shown(root / two[1])}"
        )
    files = surface_beside(paths)
    if files is not None:
        surface, photographs = (shown(path.relative_to(root)) for path in files)
        raise UserError(
            f"{shown(root)}: has {surface}, by its name coordinates or depths, beside {photographs}; "
            "put the photographs alone into a folder"
        )


class Doubt(NamedTuple):
    """Why the images of a folder cannot all be good ones; paths are relative to that folder."""

    reason: str
    advice: str
    place: Path  # the folder that shows it
    good: Path | None = None  # the folder where the good images seem to be


def doubt(root: Path, paths: list[Path]) -> Doubt | None:
    """What speaks against taking ``paths``, all below ``root``, for good images; None if nothing does.

    Only names count: those of folders at any depth, and of files that are called after another image.
    """
    folders = _with_outer(parent.relative_to(root) for parent in dict.fromkeys(path.parent for path in paths))
    return next(itertools.chain(_by_folders(root, folders), _by_files(root, paths)), None)


def _with_outer(folders: Iterable[Path]) -> list[Path]:
    """Relative folders and those around them, outer ones first, each once."""
    found: dict[Path, None] = {}
    for folder in folders:
        found.update(dict.fromkeys([*reversed(folder.parents), folder]))
    return [folder for folder in found if folder.parts]


def _by_folders(root: Path, folders: list[Path]) -> Iterator[Doubt]:
    for folder in folders:
        place = root / folder
        if holds_predictions(place) or all((place / name).exists() for name in RUN):
            reason = f"has {shown(folder)}/, a run or predictions, whose overlays are no good images"
            yield Doubt(reason, "move that folder away, or give the one that holds the good images alone", folder)
    for folder in (folder for names in (SPLITS, TESTS) for folder in folders if folder.name.lower() in names):
        reason = f"has {shown(folder)}/ but not MVTec's train/good and test/<defect>"
        yield Doubt(reason, "rename the folders, or give the one that holds the good images", folder)
    beside = Counter(folder.parent for folder in folders)
    for folder in folders:
        if folder.name.lower() in GOOD_NAMES and beside[folder.parent] > 1:
            yield Doubt(f"has {shown(folder)}/ beside other folders", f"give {shown(root / folder)}", folder, folder)
    for folder in folders:
        masks = folder.name.lower() in MASKS
        if masks or says_defects(folder.name):
            reason = f"has {shown(folder)}/, by its name {'masks' if masks else 'defects'} and not good images"
            yield Doubt(reason, "give the folder that holds the good images alone, or rename that one", folder)


def _by_files(root: Path, paths: list[Path]) -> Iterator[Doubt]:
    advice = "give a folder of good images without masks"
    names = {stem(str(path)): path.name for path in paths}
    for path in paths:
        match = MASK_NAME.fullmatch(stem(str(path)))
        if match and match[1] in names:
            inner = path.relative_to(root)
            reason = f"has {shown(inner)}, by its name the mask of {shown(names[match[1]])}"
            yield Doubt(reason, advice, inner.parent)
    # A folder beside the images that has masks of them: in such a set, as in DAGM, some images are defective.
    beside = {stem(path.name) for path in paths if path.parent == root}
    for name in entries(root)[0] if beside else ():
        for mask in walk(root / name)[0] if name.lower() in MASKS else ():
            if without_mark(stem(mask.name)) in beside:
                reason = f"has {shown(mask.relative_to(root))}, by its name the mask of an image beside {shown(name)}/"
                yield Doubt(reason, advice, Path(name))
