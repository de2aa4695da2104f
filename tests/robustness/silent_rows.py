"""Valid files and folders whose meaning is easy to mistake: how a set is stored anew, and what must come out then.

The set is a category in MVTec layout, with grey images of 8 bits and masks of 0 and 255. A row stores it in another
way, and its figures must come out, except those that the row gives. Each of ``says`` is a pattern for a line that must
be logged; no other may be. A new row is a function below ``@row``, or an entry of IMAGES, MASKS or FOLDERS, which are
mixed with each other as well.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

NOT_USED = r"not used \(no image has that name, or it has another mask\)"
KINDS = ("missing", "scratch", "spot")


class Row(NamedTuple):
    change: Callable[[Path], None]  # of the category's folder
    says: tuple[str, ...]
    gives: dict[str, object]


ROWS: dict[str, Row] = {}


def row(name, *says, **gives):
    def keep(change):
        ROWS[name] = Row(change, says, gives)

    return keep


def images(root):
    return sorted((root / "test").rglob("*.png"))


def masks(root):
    return sorted((root / "ground_truth").rglob("*.png"))


def store(path, image, extension="png", **options):
    """Another file in the place of an image."""
    path.unlink()
    image.save(path.with_suffix(f".{extension}"), **options)


# Images: (H, W) uint8 in files of other kinds that hold the same values: image, extension, options of saving.


def palette(values):
    image = Image.fromarray(255 - values, "P")
    image.putpalette([level for index in range(256) for level in 3 * [255 - index]])
    return image, "png", {}


def turned(values):
    exif = Image.Exif()
    exif[0x0112] = 6  # upright after a quarter turn to the right
    return Image.fromarray(np.rot90(values)), "png", {"exif": exif}


IMAGES = {
    "RGB": lambda values: (Image.fromarray(values).convert("RGB"), "png", {}),
    "BMP": lambda values: (Image.fromarray(values), "bmp", {}),
    "palette": palette,
    "opaque alpha": lambda values: (Image.fromarray(values).convert("RGBA"), "png", {}),
    "16 bits": lambda values: (Image.fromarray(values.astype(np.uint16) * 257), "png", {}),
    "16 bits in a TIFF": lambda values: (Image.fromarray(values.astype(np.uint16) * 257), "tif", {}),
    "EXIF orientation": turned,
}

# Masks: (H, W) bool and the number of the kind of defect, from 0.


def grey(mark, value=255):
    return Image.fromarray(np.uint8(mark) * np.uint8(value))


def smooth(mark):
    values = ndimage.gaussian_filter(mark * 255.0, 0.7)
    return Image.fromarray(np.where(mark, np.maximum(values, 128), np.minimum(values, 127)).astype(np.uint8))


def indexed(mark, number):
    image = Image.fromarray(np.uint8(mark) * np.uint8(number + 1), "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 64, 0, 0, 0, 32])
    return image


def brush(mark, colour):
    return Image.fromarray(np.where(mark[..., None], [*colour, 255], 0).astype(np.uint8), "RGBA")


# name: (image of a mask, extension, the rule)
MASKS = {
    "0 and 1": (lambda mark, number: grey(mark, 1), "png", "0/1"),
    "class numbers": (lambda mark, number: grey(mark, number + 1), "png", "classes 1, 2, 3"),
    "class numbers in 16 bits": (
        lambda mark, number: Image.fromarray(mark.astype(np.uint16) * np.uint16(1 + 300 * number)),
        "png",
        "classes 1, 301, 601",
    ),
    "classes in colours": (indexed, "png", "colours #000020, #004000, #800000"),
    "1 bit": (lambda mark, number: Image.fromarray(mark), "tif", "0/255"),
    "16 bits": (lambda mark, number: Image.fromarray(mark.astype(np.uint16) * np.uint16(65535)), "png", "0/65535"),
    "inverted": (lambda mark, number: grey(~mark), "png", "0/255, inverted: the lowest value is a defect"),
    "grey edges": (lambda mark, number: smooth(mark), "png", "grey, above 127"),
    "black brush": (lambda mark, number: brush(mark, (0, 0, 0)), "png", "alpha"),
    "red brush": (lambda mark, number: brush(mark, (255, 0, 0)), "png", "alpha"),
}


# Folders: other names and places for the same files.


def spelled(good):
    def change(root):
        for split in ("train", "test"):
            (root / split / "good").rename(root / split / good)

    return change


def renamed_masks(end):
    def change(root):
        for path in [*(root / "ground_truth").rglob("*_mask.*")]:
            path.rename(path.with_name(path.name.replace("_mask", end)))

    return change


def beside(root):
    for path in [*(root / "ground_truth").rglob("*_mask.*")]:
        path.rename(root / "test" / path.parent.name / path.name)
    shutil.rmtree(root / "ground_truth")


def hidden(root):
    for folder in (root, root / "test", root / "test" / "spot", root / "ground_truth" / "spot"):
        for name in ("Thumbs.db", ".DS_Store", "._000.png", "notes.txt"):
            (folder / name).write_bytes(b"no image")


# name: (change, patterns of what must be said)
FOLDERS = {
    "Good": (spelled("Good"), ()),
    "OK": (spelled("OK"), ()),
    "Pass": (spelled("Pass"), ()),
    "masks called as their images": (renamed_masks(""), ()),
    "masks called _GT": (renamed_masks("_GT"), ()),
    "masks called _label": (renamed_masks("_label"), ()),
    "masks beside the images": (beside, ("6 files are masks by name and no image: .*",)),
    "hidden files": (hidden, ()),
}


def store_images(root, name):
    for path in images(root):
        image, extension, options = IMAGES[name](np.array(Image.open(path)))
        store(path, image, extension, **options)


def store_masks(root, name):
    save, extension, _ = MASKS[name]
    for path in masks(root):
        store(path, save(np.array(Image.open(path)) > 127, KINDS.index(path.parent.name)), extension)


# What is not the same set.


@row("half in sub-folders", r"3 images are left out, .*: test/good/cam2/ \(2\), test/spot/cam2/ \(1\).*")
def _(root):
    for kind in ("good", "spot"):
        for path in [*(root / "test" / kind).iterdir()][::2]:
            target = root / "test" / kind / "cam2" / path.name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)


@row("a mask of no image", rf"1 mask is {NOT_USED}: ground_truth/spot/7\.png")
def _(root):
    grey(np.zeros((9, 9))).save(root / "ground_truth" / "spot" / "7.png")


@row("names of masks without their image", r"2 files are masks by name and no image: test/spot/ \(2\); left out, .*")
def _(root):
    for name in ("007_mask.png", "008_gt.png"):
        grey(np.ones((9, 9))).save(root / "test" / "spot" / name)


@row("masks that match nothing", rf"6 masks are {NOT_USED}: .*", mask_rule=None, without_mask=6, pixel_auroc=None)
def _(root):
    for path in masks(root):
        path.rename(path.with_name(f"mask_{path.name}"))


@row("no masks", mask_rule=None, without_mask=6, pixel_auroc=None, aupro_30=None)
def _(root):
    shutil.rmtree(root / "ground_truth")


@row("empty masks", empty_masks=6, pixel_auroc=None)
def _(root):
    for path in masks(root):
        Image.new("L", Image.open(path).size).save(path)


@row("a second mask of one name", rf"1 mask is {NOT_USED}: ground_truth/spot/000_mask\.tif")
def _(root):
    Image.new("L", (9, 9)).save(root / "ground_truth" / "spot" / "000_mask.tif")


@row("masks in a folder each", rf"6 masks are {NOT_USED}: .*", mask_rule=None, without_mask=6, pixel_auroc=None)
def _(root):
    for path in masks(root):
        path.with_suffix("").mkdir()
        path.rename(path.with_suffix("") / "000.png")


@row("masks in one folder", rf"6 masks are {NOT_USED}: .*", mask_rule=None, without_mask=6, pixel_auroc=None)
def _(root):
    for path in masks(root):
        path.rename(root / "ground_truth" / f"{path.parent.name}_{path.name}")


@row(
    "a good image whose mask marks a defect", r"1 mask of good images marks a defect .*: ground_truth/good/001\.png; .*"
)
def _(root):
    (root / "ground_truth" / "good").mkdir()
    for path in images(root)[:4]:
        if path.parent.name == "good":
            values = np.zeros(Image.open(path).size[::-1])
            values[9:20, 9:20] = path.stem == "001"
            grey(values).save(root / "ground_truth" / "good" / path.name)


@row("folders of thumbnails")
def _(root):
    for path in images(root):
        folder = path.parent / "@eaDir" / path.name
        folder.mkdir(parents=True)
        Image.open(path).resize((8, 8)).save(folder / "THUMB_M.png")
