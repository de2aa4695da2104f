"""Categories with train/ and test/ folders of their own: what MVTec AD, MPDD, LOCO AD, AD 2 and BTAD share.

``CATEGORY/train/<good>``, ``CATEGORY/validation/<good>`` (optional), ``CATEGORY/test/<kind>`` with the good ones among
them, and masks below ``CATEGORY/ground_truth/<kind>``.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from vitlite.data.index import GOOD, GOOD_NAMES, Dataset, Sample, choose, few, name_of, says_good, stem, without_mark
from vitlite.data.layouts.base import Layout
from vitlite.data.leftovers import Leftovers, slashed
from vitlite.data.listing import entries, sub_folders, walk
from vitlite.data.photographs import surfaces_beside
from vitlite.files import shown
from vitlite.images.masks import MaskFiles, files_of


class CategoryLayout(Layout):
    """A layout that ``matches`` the folder of one category; ``FolderOfCategories`` reads several beside each other."""

    good = GOOD  # the name of the folders of good images; GOOD_NAMES in any spelling stand in for it
    test = "test"  # the folder of test images
    truth = "ground_truth"  # the folder of their masks, as seen from the category's
    unlabelled: tuple[str, ...] = ()  # folders of images without published labels
    kinds_of_mean: tuple[str, ...] = ()  # as in Dataset

    def good_names(self, folder: Path) -> list[str]:
        """What the folder of good images in ``folder`` may be called: one name, or none or several that are unclear."""
        found = [name for name in sub_folders(folder) if name.lower() in GOOD_NAMES] if folder.is_dir() else []
        return [self.good] if self.good in found else found

    def good_folder(self, folder: Path) -> Path | None:
        """The folder of good images in ``folder``."""
        names = self.good_names(folder)
        return folder / names[0] if len(names) == 1 else None

    def masks(self, category: Path, kind: str) -> dict[str, Path | MaskFiles]:
        """The masks of one kind of defect by stem; ``category`` is the category's folder."""
        folder = category / self.truth / kind
        found: dict[str, Path | MaskFiles] = {}
        for name in entries(folder)[1] if folder.is_dir() else ():
            found.setdefault(stem(name), folder / name)
        return found

    def read(self, root: Path, category: str | None) -> Dataset:
        """A folder that is a category itself, called by its name."""
        (name,) = choose(root, [name_of(root)], category)
        return self.read_category(root, name)

    def read_category(self, folder: Path, name: str) -> Dataset:
        """One category."""
        left = Leftovers()
        folders, images, others = entries(folder)
        used = {"train", self.test, self.truth, "validation" if self.good_folder(folder / "validation") else ""}
        unused = [name for name in folders if name not in used]
        missed = [*slashed(name for name in unused if name not in self.unlabelled), *images]
        left.add(folder, [*slashed(unused), *images, *others], len(images) + len(others), missed)
        train, validation = (self._read_good(folder, name, split, left) for split in ("train", "validation"))
        return Dataset(
            root=folder,
            categories=(name,),
            train=train,
            validation=validation,
            test=tuple(self._read_test(folder, name, left)),
            layout=self.name,
            title=f"one category in {self.title}",
            kinds_of_mean=self.kinds_of_mean,
            **left.facts,
        )

    def _read_good(self, folder: Path, name: str, split: str, left: Leftovers) -> tuple[Sample, ...]:
        """The good images of train/ or validation/."""
        here = self.good_folder(folder / split)
        if here is None:
            return ()
        folders, images, others = entries(here)
        images, _ = left.without_masks(here, images)
        left.add(here, slashed(folders), len(others), slashed(folders))
        folders, beside, others = entries(folder / split)
        unused = [*slashed(name for name in folders if name != here.name), *beside]
        left.add(folder / split, unused, len(beside) + len(others), unused)
        return tuple(Sample(here / image, name, split, GOOD, 0, None) for image in images)

    def _read_test(self, folder: Path, name: str, left: Leftovers) -> Iterator[Sample]:
        """The test images, kind by kind."""
        here = folder / self.test
        if not here.is_dir():
            return
        kinds, images, others = entries(here)
        good = self.good_folder(here)
        unclear = slashed(name for name in kinds if name.lower() in GOOD_NAMES and here / name != good)
        left.add(here, [*unclear, *images], len(images) + len(others), [*unclear, *images])
        for kind in kinds:
            if here / kind == folder / self.truth or f"{kind}/" in unclear:
                continue
            inner, images, others = entries(here / kind)
            left.add(here / kind, slashed(inner), len(others), slashed(inner))
            defective = here / kind != good
            masks = self.masks(folder, kind) if defective else {}
            named = {without_mark(own): mask for own, mask in masks.items()}
            images, beside = left.without_masks(here / kind, images)
            if defective and images and says_good(kind):
                left.seem_good.append((here / kind, len(images)))
            for image in images:
                own = stem(image)
                its = masks.get(f"{own}_mask") or masks.get(own) or named.get(own) or beside.get(own)
                mask = its if defective else None
                yield Sample(here / kind / image, name, "test", kind if defective else GOOD, int(defective), mask)

    def hint(self, dataset: Dataset, category: str, split: str) -> str:
        folder = dataset.folder(category)
        if split != "train":
            test = folder / self.test
            kinds = sub_folders(test) if test.is_dir() else ()
            inner = [Path(kind, name) for kind in kinds for name in sub_folders(test / kind)]
            return _no_images(test, inner, lambda photographs: f"move them to {test / photographs.parent}")
        train = folder / "train"
        if len(names := self.good_names(train)) > 1:
            return f"{shown(train)}: has {few(slashed(names))}; name the folder of the good images {self.good}"
        good = self.good_folder(train) or train / self.good
        inner = [Path(name) for name in sub_folders(good)] if good.is_dir() else []
        return _no_images(good, inner, lambda photographs: f"give {good / photographs}")

    def spare_masks(self, dataset: Dataset) -> Iterator[tuple[Path | MaskFiles, bool]]:
        for name in dataset.categories:
            truth = dataset.folder(name) / self.truth
            samples = [sample for sample in dataset.test if sample.category == name]
            claimed = {sample.mask for sample in samples}
            good = {stem(sample.path.name) for sample in samples if not sample.label}
            known: set[Path] = set()
            for kind in entries(truth)[0] if truth.is_dir() else ():
                for own, mask in self.masks(dataset.folder(name), kind).items():
                    known.update(files_of(mask))
                    if kind.lower() in GOOD_NAMES and (own in good or without_mark(own) in good):
                        yield mask, True
                    elif mask not in claimed:
                        yield mask, False
            # A second file of one name, and files in places where this layout has no masks.
            yield from ((path, False) for path in (walk(truth)[0] if truth.is_dir() else ()) if path not in known)


def _no_images(place: Path, inner: Iterable[Path], advice: Callable[[Path], str]) -> str:
    """The line about a folder without images; ``advice`` is about photographs beside coordinates in it, if any are."""
    two = surfaces_beside(inner)
    more = f", but photographs in {two[1]}/ beside {two[0]}/; {advice(two[1])}" if two else ""
    return shown(f"{place}: no images there{more}")


class FolderOfCategories(Layout):
    """A folder whose sub-folders are categories, each in one of several layouts."""

    name = "mixed"
    title = "categories in several layouts"

    def __init__(self, layouts: tuple[Layout, ...]) -> None:
        self.layouts = [layout for layout in layouts if isinstance(layout, CategoryLayout)]

    def layout_of(self, folder: Path) -> CategoryLayout | None:
        """The layout of a category; None if the folder is no category."""
        return next((layout for layout in self.layouts if layout.matches(folder)), None)

    def matches(self, root: Path) -> bool:
        return any(self.layout_of(root / name) for name in sub_folders(root))

    def read(self, root: Path, category: str | None) -> Dataset:
        folders, images, others = entries(root)
        found = {name: layout for name in folders if (layout := self.layout_of(root / name))}
        chosen = choose(root, list(found), category)
        left = Leftovers()
        unused = [*slashed(name for name in folders if name not in found), *images]
        left.add(root, [*unused, *others], len(images) + len(others), unused if category == "all" else ())
        parts = [found[name].read_category(root / name, name) for name in chosen]
        for part in parts:
            left.take(part)
        kinds: set[Layout] = {found[name] for name in chosen}
        kind = kinds.pop() if len(kinds) == 1 else self
        return Dataset(
            root=root,
            categories=tuple(chosen),
            train=tuple(sample for part in parts for sample in part.train),
            validation=tuple(sample for part in parts for sample in part.validation),
            test=tuple(sample for part in parts for sample in part.test),
            layout=kind.name,
            title=kind.title,
            nested=True,
            kinds_of_mean=tuple(dict.fromkeys(of_mean for part in parts for of_mean in part.kinds_of_mean)),
            **left.facts,
        )

    def hint(self, dataset: Dataset, category: str, split: str) -> str:
        layout = self.layout_of(dataset.folder(category))
        return layout.hint(dataset, category, split) if layout else super().hint(dataset, category, split)

    def spare_masks(self, dataset: Dataset) -> Iterator[tuple[Path | MaskFiles, bool]]:
        for name in dataset.categories:
            if layout := self.layout_of(dataset.folder(name)):
                yield from layout.spare_masks(replace(dataset, categories=(name,)))
