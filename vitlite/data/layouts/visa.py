"""VisA (Zou et al., ECCV 2022): images by category, and a table that says which of them is for what.

``split_csv/1cls.csv`` holds the one-class split, a row for each image: ``object,split,label,image,mask``, with paths
relative to the root, such as ``candle/Data/Images/Normal/0000.JPG``. The masks number their defects with small
values, so every value but 0 is defective.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from vitlite.data.index import GOOD, GOOD_NAMES, Dataset, Sample, choose, says_defects
from vitlite.data.layouts.base import Layout
from vitlite.data.leftovers import Leftovers, slashed
from vitlite.data.listing import entries, natural_key, sub_folders, walk
from vitlite.errors import UserError
from vitlite.files import is_folder_name, shown
from vitlite.images.masks import MaskFiles

SPLIT = Path("split_csv", "1cls.csv")
MASKS = Path("Data", "Masks")
DEFECT = "anomaly"
_LONGEST_PATH = 1000
_COLUMNS = ("object", "split", "label", "image", "mask")


class VisA(Layout):
    name = "visa"
    title = "VisA layout"

    def matches(self, root: Path) -> bool:
        """Whether the root has the table, or the image folders that the table is about."""
        if (root / SPLIT).exists():
            return True
        return any((root / name / "Data" / "Images" / "Normal").is_dir() for name in sub_folders(root))

    def read(self, root: Path, category: str | None) -> Dataset:
        rows = _rows(root / SPLIT)
        names = sorted({row["object"] for _, row in rows}, key=natural_key)
        chosen = choose(root, names, category)
        samples = [_sample(root, line, row, names) for line, row in rows if row["object"] in chosen]
        samples.sort(key=lambda s: (chosen.index(s.category), s.defect, [natural_key(p) for p in s.path.parts]))
        listed = [sample for sample in samples if sample.split == "train"]
        train = tuple(sample for sample in listed if not sample.label)
        left = Leftovers()
        folders, images, others = entries(root)
        unused = [*slashed(name for name in folders if name not in (*names, "split_csv")), *images]
        left.add(root, [*unused, *others], len(images) + len(others), unused if category == "all" else ())
        if len(train) < len(listed):
            anomalous = len(listed) - len(train)
            left.notes.append(f"{anomalous} anomalous images that {SPLIT} lists for training are left out")
        test = tuple(sample for sample in samples if sample.split == "test")
        unlisted = tuple(Counter(path.parent for path in _unlisted(root, chosen, rows)).items())
        facts = left.facts | {"nested": True, "unlisted": unlisted}
        return Dataset(root, tuple(chosen), train, test, self.name, self.title, **facts)

    def hint(self, dataset: Dataset, category: str, split: str) -> str:
        return f"{shown(dataset.root / SPLIT)}: lists no images of {shown(category)} to {split} on"

    def spare_masks(self, dataset: Dataset) -> Iterator[tuple[Path | MaskFiles, bool]]:
        rows = [row for _, row in _rows(dataset.root / SPLIT) if row["mask"] and row["object"] in dataset.categories]
        listed = [dataset.root / PurePosixPath(row["mask"]) for row in rows]
        yield from ((MaskFiles((path,)), True) for path, row in zip(listed, rows) if row["label"] != DEFECT)
        for name in dataset.categories:
            yield from ((path, False) for path in _files(dataset.folder(name) / MASKS) if path not in listed)


LAYOUT = VisA()


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of the table with their line numbers."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{shown(path)}: has no column {missing[0]}; its first line must be {','.join(_COLUMNS)}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise UserError(
            f"{shown(path)}: no such file; it says which images are for training and comes with VisA"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{shown(path)}: cannot be read as a table ({reason}); use VisA's own") from error
    if not rows:
        raise UserError(f"{shown(path)}: has no rows; use VisA's own")
    lines: dict[str, int] = {}
    for line, row in rows:
        if None in row or any(row[name] is None for name in _COLUMNS):
            raise UserError(f"{shown(path)}, line {line}: has not {len(_COLUMNS)} cells; use VisA's own")
        if not is_folder_name(row["object"]):
            raise UserError(f"{shown(path)}, line {line}: object {row['object'][:100]!r} is not the name of a category")
        if (first := lines.setdefault(str(PurePosixPath(row["image"])), line)) != line:
            raise UserError(
                f"{shown(path)}, line {line}: image {row['image'][:100]!r} is in line {first} too; keep one of them"
            )
    return rows


def _sample(root: Path, line: int, row: dict[str, str], categories: Iterable[str]) -> Sample:
    where = f"{shown(root / SPLIT)}, line {line}"
    for key, allowed in (("split", ("train", "test")), ("label", ("normal", DEFECT))):
        if row[key] not in allowed:
            raise UserError(f"{where}: {key} {row[key][:100]!r} is not {allowed[0]} or {allowed[1]}")
    label = int(row["label"] == DEFECT)
    image = _below(root, row["image"], where, "image")
    if wrong := _contradiction(row, image.relative_to(root), categories):
        raise UserError(f"{where}: {wrong}; correct that row, or use VisA's own table")
    masks = [_below(root, row["mask"], where, "mask")] if row["mask"] else []
    mask = MaskFiles(tuple(masks)) if label and masks else None
    return Sample(image, row["object"], row["split"], DEFECT if label else GOOD, label, mask)


def _contradiction(row: dict[str, str], image: Path, categories: Iterable[str]) -> str:
    """What a row says that the folders of its image deny, or "": else training might see a defect."""
    outer, folder = image.parts[0], image.parent.name
    if outer != row["object"] and outer in categories:
        return f"object {row['object'][:100]!r}, but the image lies in {outer[:100]!r}"
    denied = says_defects(folder) if row["label"] != DEFECT else folder.lower() in GOOD_NAMES
    return f"label {row['label']!r}, but the image lies in {folder[:100]!r}" if denied else ""


def _unlisted(root: Path, categories: Iterable[str], rows: Iterable[tuple[int, dict[str, str]]]) -> Iterator[Path]:
    """The images in the folders of categories that the table has no row for."""
    listed = {root / PurePosixPath(row[column]) for _, row in rows for column in ("image", "mask")}
    for name in categories:
        masks = root / name / MASKS
        yield from (path for path in _files(root / name) if path not in listed and not path.is_relative_to(masks))


def _files(folder: Path) -> list[Path]:
    return walk(folder)[0] if folder.is_dir() else []


def _below(root: Path, text: str, where: str, column: str) -> Path:
    path = PurePosixPath(text)
    if not text or len(text) > _LONGEST_PATH or path.is_absolute() or ".." in path.parts or "\0" in text:
        raise UserError(f"{where}: {column} {text[:100]!r} is not a path below {shown(root)}")
    return root / path
