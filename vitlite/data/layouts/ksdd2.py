"""KolektorSDD2 (Bozic et al., Computers in Industry 2021): two folders of images with their masks beside them.

``train/`` and ``test/`` hold ``NNNNN.png`` and ``NNNNN_GT.png``. An image is good if its mask is black all over.
Training images with defects, which the data set has for supervised methods, are left out of the training set.
"""

from pathlib import Path

from vitlite.data.index import GOOD, Dataset, Sample, choose, name_of, stem
from vitlite.data.layouts.base import Layout
from vitlite.data.leftovers import Leftovers, slashed
from vitlite.data.listing import entries
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.loading import each
from vitlite.images.mask_values import ANY_VALUE
from vitlite.images.masks import MaskFiles, read_mask
from vitlite.images.reading import ImageError

DEFECT = "defect"
_MARK = "_GT"


class KolektorSDD2(Layout):
    name = "ksdd2"
    title = "KolektorSDD2 layout"

    def matches(self, root: Path) -> bool:
        """Whether train/ or test/ directly holds a mask of this naming."""
        folders = [root / split for split in ("train", "test") if (root / split).is_dir()]
        return any(stem(name).endswith(_MARK) for folder in folders for name in entries(folder)[1])

    def read(self, root: Path, category: str | None) -> Dataset:
        """The whole data set as one category, called as its folder. Reads every mask, to know which images are good."""
        (name,) = choose(root, [name_of(root)], category)
        left = Leftovers()
        folders, images, others = entries(root)
        unused = [*slashed(n for n in folders if n not in ("train", "test")), *images]
        left.add(root, [*unused, *others], len(images) + len(others), unused)
        found, test = (_read_split(root, name, split, left) for split in ("train", "test"))
        train = tuple(sample for sample in found if not sample.label)
        if len(train) < len(found):
            defective = len(found) - len(train)
            left.notes.append(f"left out of training: {defective} defective images in {shown(root / 'train')}")
        return Dataset(root, (name,), train, test, self.name, self.title, **left.facts)

    def hint(self, dataset: Dataset, category: str, split: str) -> str:
        return f"{shown(dataset.root / split)}: no {'good ' * (split == 'train')}images there"


LAYOUT = KolektorSDD2()


def _read_split(root: Path, name: str, split: str, left: Leftovers) -> tuple[Sample, ...]:
    """The images of train/ or test/."""
    folder = root / split
    if not folder.is_dir():
        return ()
    folders, files, others = entries(folder)
    by_stem: dict[str, str] = {}
    for file in files:
        if (other := by_stem.setdefault(stem(file), file)) != file:
            raise UserError(f"{shown(folder / file)}: {shown(other)} is there too; keep one of them")
    # A copy of a mask beside it, such as 10301_GT(copy).png, is no image either.
    images = dict.fromkeys(own for own in by_stem if _MARK not in own)
    unclaimed = [by_stem[own] for own in by_stem if _MARK in own and own.removesuffix(_MARK) not in images]
    for own in images:
        if own + _MARK not in by_stem:
            raise UserError(
                f"{shown(folder / by_stem[own])}: has no {shown(own)}{_MARK}.png beside it, which says whether it is "
                f"good; add it (black all over for a good image), or move the image away"
            )
    left.add(folder, slashed(folders) + unclaimed, len(others), slashed(folders))
    if strays := sum(own.endswith(_MARK) for own in map(stem, unclaimed)):
        left.stray_masks.append((folder, strays))
    masks = [folder / by_stem[own + _MARK] for own in images]
    return tuple(
        Sample(folder / by_stem[own], name, split, DEFECT, 1, MaskFiles((mask,)))
        if defective
        else Sample(folder / by_stem[own], name, split, GOOD, 0, None)
        for own, mask, defective in zip(images, masks, each(_marks_a_defect, masks))
    )


def _marks_a_defect(mask: Path) -> bool:
    try:
        return bool(read_mask(mask, rule=ANY_VALUE).any())
    except ImageError as error:
        raise UserError(
            f"{error}; without this mask nobody knows whether its image is good: download it again"
        ) from error
