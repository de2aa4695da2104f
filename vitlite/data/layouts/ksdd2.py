"""KolektorSDD2 (Bozic et al., Computers in Industry 2021): two folders of pictures with their masks beside them.

``train/`` and ``test/`` hold ``NNNNN.png`` and ``NNNNN_GT.png``. A picture is good where its mask is black all over.
Training pictures with defects, which the data set has for supervised methods, are left out of the training set.
"""

import os
from pathlib import Path

from vitlite.data.index import GOOD, Dataset, Sample, choose, name_of, note
from vitlite.data.listing import entries
from vitlite.errors import UserError
from vitlite.files import shown
from vitlite.images.loading import each
from vitlite.images.masks import MaskFiles, read_mask
from vitlite.images.reading import ImageError

DEFECT = "defect"
_MARK = "_GT"


def is_here(root: Path) -> bool:
    """Whether train/ or test/ directly holds a mask of this naming."""
    folders = [root / split for split in ("train", "test") if (root / split).is_dir()]
    return any(os.path.splitext(name)[0].endswith(_MARK) for folder in folders for name in entries(folder)[1])


def read(root: Path, category: str | None) -> Dataset:
    """The whole data set; its only category is called as its folder. Reads every mask, to know which are good."""
    (name,) = choose(root, [name_of(root)], category)
    folders, images, others = entries(root)
    notes = list(note(root, [f"{n}/" for n in folders if n not in ("train", "test")] + images + others))
    ignored = len(images) + len(others)
    splits = {}
    for split in ("train", "test"):
        splits[split], passed, extra = _read_split(root, name, split)
        ignored += passed
        notes += extra
    train = tuple(sample for sample in splits["train"] if not sample.label)
    left_out = len(splits["train"]) - len(train)
    if left_out:
        notes.append(f"left out of training: {left_out} defective pictures in {shown(root / 'train')}")
    return Dataset(root, (name,), train, tuple(splits["test"]), "ksdd2", tuple(notes), ignored)


def _read_split(root: Path, name: str, split: str):
    """``(samples, files passed over, notes)`` of train/ or test/."""
    folder = root / split
    if not folder.is_dir():
        return [], 0, ()
    folders, images, others = entries(folder)
    stems = {os.path.splitext(image)[0]: image for image in images}
    # A copy of a mask beside it, such as 10301_GT(copy).png, is no picture either.
    pictures = [stem for stem in stems if _MARK not in stem]
    unclaimed = [stems[stem] for stem in stems if _MARK in stem and stem.removesuffix(_MARK) not in pictures]
    for stem in pictures:
        if stem + _MARK not in stems:
            raise UserError(
                f"{shown(folder / stems[stem])}: has no {shown(stem)}{_MARK}.png beside it, which says whether it is "
                f"good; add it (black all over for a good picture), or move the picture away"
            )
    masks = [folder / stems[stem + _MARK] for stem in pictures]
    samples = []
    for stem, mask, defective in zip(pictures, masks, each(_marks_a_defect, masks)):
        kind = DEFECT if defective else GOOD
        own = MaskFiles((mask,)) if defective else None
        samples.append(Sample(folder / stems[stem], name, split, kind, int(defective), own))
    return samples, len(others), note(folder, [f"{n}/" for n in folders] + unclaimed)


def _marks_a_defect(mask: Path) -> bool:
    try:
        return bool(read_mask(mask, threshold=0).any())
    except ImageError as error:
        raise UserError(f"{error}; without this mask nobody knows whether its picture is good: get it anew") from error
