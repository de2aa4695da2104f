"""Bad images, masks, folders and maps."""

import os
import shutil

import numpy as np
from bad_case import Table, encoded, noise, png_bomb
from PIL import Image
from tiny_settings import TINY_OPTIONS

IMAGES, FOLDERS, MAPS = Table(), Table(), Table()
# An image that cannot be read is a row with its reason, also if it is the only one.
ROW = ("out/predictions.csv", "out/predictions.json")
RESULTS = ("run/results.json", "run/results.csv", "run/scores.csv")


ONLY = "none of the 1 images could be read; the first: .*"


def only(name, content):
    """Scoring a single file."""
    return lambda place: place.predict(place.write(name, content))


def in_place_of_an_image(disturb):
    """Scoring a path at which something else than a file stands."""

    def make(place):
        disturb(place.root / "a.png")
        return place.predict(place.root / "a.png")

    return make


for about, name, content, reason in (
    ("empty", "a.png", b"", r"a\.png: .*empty"),
    ("text", "a.png", b"this is no image", r"a\.png: "),
    ("signature alone", "a.png", b"\x89PNG\r\n\x1a\n", r"a\.png: "),
    ("cut PNG", "a.png", encoded(noise(), "PNG")[:600], r"a\.png: "),
    ("cut JPEG", "a.jpg", encoded(noise(), "JPEG")[:300], r"a\.jpg: "),
    ("cut TIFF", "a.tif", encoded(noise(), "TIFF")[:200], r"a\.tif: "),
    ("bomb", "a.png", png_bomb(50_000), r"a\.png: .*(pixels|limit)"),
    ("bomb below Pillow's limit", "a.png", png_bomb(12_300), r"a\.png: .*limit of 150000000"),
    ("PostScript", "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", r"a\.png: "),
    ("not finite", "a.tif", encoded(np.full((9, 9), np.nan, np.float32), "TIFF"), r"a\.tif: .*finite"),
    ("floats of no known range", "a.tif", encoded(np.full((9, 9), -1e9, np.float32), "TIFF"), r"a\.tif: .*rescale"),
):
    IMAGES.add(f"image {about}", only(name, content), ONLY + reason, writes=ROW)

for about, disturb in (
    ("link to itself", lambda path: os.symlink(path.name, path)),
    ("link to nowhere", lambda path: os.symlink("nowhere.png", path)),
    ("pipe", os.mkfifo),  # opening it would wait for somebody to write
):
    IMAGES.add(f"image {about}", in_place_of_an_image(disturb), ONLY + r".*a\.png", writes=ROW)
IMAGES.add("image is an empty folder", in_place_of_an_image(os.mkdir), r".*a\.png: no image there")


@IMAGES.works("out/*")
def names_as_long_as_the_file_system_takes(place):
    """Two of them alike from the start to far behind where an overlay's name is cut."""
    for name in ("x" * 251, "布" * 83 + "ab", "x" * 250 + "y"):
        place.save(f"in/{name}.png", noise())
    return place.predict(place.root / "in", options=["--maps"])


@IMAGES.works("out/*", code=3)
def one_of_two_is_broken(place):
    place.save("in/good.png", noise())
    place.write("in/broken.png", b"x")
    return place.predict(place.root / "in")


@IMAGES.works("out/*")
def spaces_and_other_alphabets(place):
    for name in ("two words.png", "Größe 1.png", "写真.png", "naïve%20#?.png", "новый снимок.png"):
        place.save(f"ein Ordner – 2/{name}", noise())
    return place.predict(place.root / "ein Ordner – 2", options=["--maps"])


@IMAGES.works("out/*")
def name_that_is_not_utf8(place):
    folder = place.root / "in"
    folder.mkdir()
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(encoded(noise(), "PNG"))
    return place.predict(folder, options=["--maps"])


@IMAGES.works("out/*")
def folder_that_contains_itself(place):
    place.save("in/a.png", noise())
    os.symlink(place.root / "in", place.root / "in/again")
    return place.predict(place.root / "in")


for about, shape in (("one pixel", (1, 1)), ("a line of pixels", (1, 3000))):
    IMAGES.add(about, only("a.png", encoded(noise(*shape), "PNG")), None, writes=("out/*",))


# Masks and folders


def a_mask(place):
    return sorted((place.data / "weave/ground_truth/spot").glob("*.png"))[0]


def small_mask(place):
    Image.new("L", (10, 10), 255).save(a_mask(place))


def all_become(folder, content):
    """Damage: these bytes in every image below a folder of the category."""

    def damage(place):
        for path in (place.data / "weave" / folder).rglob("*.png"):
            path.write_bytes(content)

    return damage


def no_training_images(place):
    shutil.rmtree(place.data / "weave/train/good")
    (place.root / "set/weave/train/good").mkdir()


def with_data(damage, command, *options):
    """``vitlite eval RUN`` and the like on data that is damaged."""

    def make(place):
        damage(place)
        arguments = [place.run] if command != "train" else ["--method", "sivt", "--out", place.root / "new"]
        return [command, *arguments, "--data", place.root / "set", "--device", "cpu", *options]

    return make


BLANK = encoded(np.zeros((64, 64), np.uint8), "PNG")
TWO_AND_ONE = encoded(np.eye(64, dtype=np.uint8) + np.uint8(1), "PNG")
for about, damage, says in (
    ("mask of another size", small_mask, r".*000_mask\.png: the mask is 10x10, its image 64x64"),
    ("mask that cannot be read", lambda place: a_mask(place).write_bytes(b"x"), None),
    ("mask is a bomb", lambda place: a_mask(place).write_bytes(png_bomb(50_000)), None),
    ("masks are all empty", all_become("ground_truth", BLANK), None),
    (
        "masks that fit no rule",
        all_become("ground_truth", TWO_AND_ONE),
        "weave: .*has values 1, 2, .*--mask-threshold N",
    ),
    ("no good test images", lambda place: shutil.rmtree(place.data / "weave/test/good"), ".*no good test images"),
    ("good test images are broken", all_become("test/good", b"x"), ".*no longer both good and defective"),
    ("all test images are broken", all_become("test", b"x"), ".*no longer both good and defective"),
):
    FOLDERS.add(about, with_data(damage, "eval"), says, writes=() if says else RESULTS)
FOLDERS.add("mask of another size in a report", with_data(small_mask, "report"), r".*000_mask\.png: the mask is 10x10")
FOLDERS.add("no training images", with_data(no_training_images, "train"), ".*train/good: no images there")
FOLDERS.add(
    "training images are all broken",
    with_data(all_become("train", b"x"), "train", *TINY_OPTIONS),
    ".*none of the 10 training images can be read",
    writes=("new/config.toml",),
)


@FOLDERS.refused(r".*empty: no images")
def data_is_empty(place):
    (place.root / "empty").mkdir()
    return place.train("--data", place.root / "empty")


@FOLDERS.refused(r".*cifar: has train/ but not MVTec's train/good")
def data_in_another_layout(place):
    for split in ("train", "test"):
        place.save(f"cifar/{split}/cat/0.png", noise())
    return place.train("--data", place.root / "cifar")


@FOLDERS.refused(r".*loop: .*")
def data_is_a_link_to_itself(place):
    os.symlink("loop", place.root / "loop")
    return place.train("--data", place.root / "loop")


@FOLDERS.works("new/*")
def data_with_spaces_and_other_alphabets(place):
    os.rename(place.data / "weave", place.root / "set/Stoff, blau – 布")
    return place.train("--data", place.root / "set", *TINY_OPTIONS)


@FOLDERS.refused(r".*empty: no images")
def checking_an_empty_folder(place):
    (place.root / "empty").mkdir()
    return ["data", "check", place.root / "empty"]


@FOLDERS.refused(r".*images can be read")
def checking_images_that_are_all_broken(place):
    all_become(".", b"x")(place)
    return ["data", "check", place.root / "set"]


# Maps


def scoring(place, damage):
    """``vitlite eval-maps`` of perfect maps, one of which a case damages."""
    for image in (place.data / "weave/test").rglob("*.png"):
        kind = image.parent.name
        mask = place.root / "set/weave/ground_truth" / kind / f"{image.stem}_mask.png"
        values = np.asarray(Image.open(mask), np.float32) if kind != "good" else np.zeros((64, 64), np.float32)
        place.save(f"maps/weave/test/{kind}/{image.stem}.tiff", values)
    damage(place.root / "maps/weave/test/spot/000.tiff")
    return ["eval-maps", place.root / "maps", "--data", place.root / "set", "--out", place.root / "scores"]


def save_as(array):
    return lambda path: path.write_bytes(encoded(array, "TIFF"))


@MAPS.works("scores/*")
def maps_that_are_right(place):
    return scoring(place, lambda path: None)


MAP = r".*maps: "
for about, damage, says in (
    ("missing", lambda path: path.unlink(), r"missing: 1 \(weave/test/spot/000\.tiff\)"),
    ("cut", lambda path: path.write_bytes(path.read_bytes()[:500]), r"unreadable: 1 \(weave/test/spot/000\.tiff"),
    ("empty", lambda path: path.write_bytes(b""), r"unreadable: 1"),
    ("text", lambda path: path.write_bytes(b"no map"), r"unreadable: 1"),
    ("not a number", save_as(np.full((64, 64), np.nan, np.float32)), "not finite: 1"),
    ("infinite", save_as(np.full((64, 64), np.inf, np.float32)), "not finite: 1"),
    ("of another size", save_as(np.zeros((9, 9), np.float32)), r"wrong-sized: 1 .*9 x 9"),
    ("in colour", save_as(noise(64, 64)), r"wrong-sized: 1"),
    ("misnamed", lambda path: path.rename(path.with_name("000_map.tiff")), r"misnamed: 1"),
    ("twice", lambda path: np.save(path.with_suffix(".npy"), np.zeros((64, 64))), r"ambiguous: 1"),
    ("too many", lambda path: shutil.copy(path, path.with_name("999.tiff")), r"extra: 1"),
    ("a pickle in npy", lambda path: np.save(path.with_suffix(".npy"), [None]) or path.unlink(), r"unreadable: 1"),
):
    MAPS.add(f"map {about}", lambda place, damage=damage: scoring(place, damage), MAP + says)


@MAPS.refused(r".*: (categories without maps|missing): ")
def maps_are_empty(place):
    (place.root / "maps").mkdir()
    return ["eval-maps", place.root / "maps", "--data", place.data]
