"""A plain folder of good pictures."""

from pathlib import Path

from vitlite.data.index import GOOD, Dataset, Sample, choose, name_of, note
from vitlite.data.listing import entries, walk
from vitlite.data.reading import shown
from vitlite.errors import UserError


def read(root: Path, category: str | None) -> Dataset:
    """Those directly inside, or everything below where there are none."""
    folders, images, others = entries(root)
    if images:
        paths, ignored = [root / name for name in images], len(others)
        unused = [f"{name}/" for name in folders]
    else:
        _refuse_splits(root, folders)
        (paths, ignored), unused = walk(root), []
    if not paths:
        extra = f" ({ignored} other files)" if ignored else ""
        raise UserError(
            f"{shown(root)}: no images{extra}; give a folder of good images, or a data set in one of the known layouts"
        )
    (name,) = choose(root, [name_of(root)], category)
    train = tuple(Sample(path, name, "train", GOOD, 0, None) for path in paths)
    return Dataset(root, (name,), train, (), "folder", note(root, unused), ignored)


def _refuse_splits(root: Path, folders: list[str]):
    """Taking every sub-folder of these would quietly train on test pictures or on defects."""
    lower = {name.lower(): name for name in folders}
    split = next((lower[name] for name in ("train", "test") if name in lower), None)
    if split:
        raise UserError(
            f"{shown(root)}: has {split}/ but not MVTec's train/good and test/<defect>; "
            f"rename the folders, or give the one that holds the good images"
        )
    if GOOD in lower and len(folders) > 1:
        raise UserError(f"{shown(root)}: has {lower[GOOD]}/ beside other folders; give {shown(root / lower[GOOD])}")
