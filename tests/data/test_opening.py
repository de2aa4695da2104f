"""Finding images: layouts, categories, order, mistakes."""

import json
import os

import pytest

from vitlite import data
from vitlite.data.checking import check
from vitlite.data.prediction_files import holds_predictions, warn_of_overlays
from vitlite.errors import UserError


def names(samples):
    return [sample.path.name for sample in samples]


def test_all_and_lists_of_categories(tmp_path, tree):
    for name in ("c10", "c2", "b,x", "é"):
        tree(tmp_path / name)
    everything = data.open_dataset(tmp_path, "all")
    assert everything.categories == ("b,x", "c2", "c10", "é")
    assert len(everything.train) == 12
    assert [s.category for s in everything.train] == [name for name in everything.categories for _ in range(3)]
    assert data.open_dataset(tmp_path, "c10, c2").categories == ("c2", "c10")
    assert data.open_dataset(tmp_path, "b,x").categories == ("b,x",)
    assert data.open_dataset(tmp_path, "e\u0301").categories == ("é",)  # typed with a combining accent


def test_a_choice_is_needed_only_where_there_is_one(tmp_path, tree):
    tree(tmp_path / "nut")
    assert data.open_dataset(tmp_path).categories == ("nut",)
    tree(tmp_path / "bolt")
    with pytest.raises(UserError, match=r"2 categories \(bolt, nut\): .*category"):
        data.open_dataset(tmp_path)


def test_the_current_folder_has_a_name(tmp_path, tree, monkeypatch):
    monkeypatch.chdir(tree(tmp_path / "nut"))
    assert data.open_dataset(".").categories == ("nut",)


def test_plain_folder(tmp_path, put):
    for name in ("b.png", "a.jpg", "sub/c.png"):
        put(tmp_path / "parts" / name)
    dataset = data.open_dataset(tmp_path / "parts")
    assert dataset.layout == "folder"
    assert dataset.categories == ("parts",)
    assert names(dataset.train) == ["a.jpg", "b.png"]
    assert dataset.test == ()
    assert any("sub/" in note for note in dataset.notes)
    assert {(s.category, s.split, s.defect, s.label) for s in dataset.train} == {("parts", "train", "good", 0)}


def test_plain_folder_of_folders(tmp_path, put):
    for name in ("day10/a.png", "day2/a.png", "day2/deep/b.png"):
        put(tmp_path / "parts" / name)
    train = data.open_dataset(tmp_path / "parts").train
    assert [s.path.relative_to(tmp_path / "parts").as_posix() for s in train] == [
        "day2/a.png",
        "day2/deep/b.png",
        "day10/a.png",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/cat/a.png", "test/cat/b.png"], "has train/ but not MVTec's train/good"),
        (["Train/Good/a.png"], "has Train/"),
        (["good/a.png", "bad/b.png"], "has good/ beside other folders; give .*good$"),
        (
            ["rgb/0.png", "xyz/0.png"],
            "has xyz/, coordinates or depths, beside rgb/; give the photographs alone, .*/rgb$",
        ),
        (
            ["0.png", "0_depth.png"],
            "has 0_depth.png, by its name coordinates .*, beside 0.png; put the photographs alone",
        ),
        (["a/1_Color.png", "a/1_Depth.png", "b/2.png"], "has a/1_Depth.png, .*, beside a/1_Color.png"),
        (["rgb_7.png", "depth_7.png"], "has depth_7.png, .*, beside rgb_7.png"),
        (["7.png", "xyz-7.png"], "has xyz-7.png, .*, beside 7.png"),
        (["1/RGB/0.png", "1/Depth/0.png", "2/0.png"], "has 1/Depth/, .*, beside 1/RGB/; give .*/1/RGB$"),
        (
            ["train/good/rgb/0.png", "train/good/xyz/0.png"],
            "good: no images there, .* in rgb/ beside xyz/; give .*/rgb$",
        ),
        (["notes.txt"], r"no images \(1 other file\)"),
        (["0.HEIC", "1.heic", "2.dng"], r"no images \(3 other files\); 3 images are left out, .*\(\.heic 2, \.dng 1\)"),
        ([], "no images"),
        (["a/0.png", "a/run/config.toml", "a/run/split.json", "a/run/odd/0.png"], "has a/run/, a run or predictions"),
        (["a/0.png", "seen/predictions.csv", "seen/predictions.json", "seen/0.png"], "has seen/, a run or predictions"),
    ],
)
def test_folders_that_would_train_on_the_wrong_images(tmp_path, put, files, message):
    for name in files:
        if name.endswith(".png"):
            put(tmp_path / name)
        else:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=message):
        data.open_dataset(tmp_path)


def test_photographs_beside_coordinates_in_a_data_set_are_named_for_every_command(tmp_path, put):
    for name in ("train/good", "test/good", "test/hole"):
        for folder in ("rgb", "xyz"):
            put(tmp_path / name / folder / "0.png")
    named = rf"{tmp_path}/train/good: no images there, but photographs in rgb/ beside xyz/; give .*/rgb$"
    with pytest.raises(
        UserError, match=rf"no images for training or testing \(one category in MVTec layout\): {named}"
    ):
        check(tmp_path)
    named = (
        rf"^{tmp_path}/test: no images there, but photographs in good/rgb/ beside good/xyz/; move them to .*/test/good$"
    )
    with pytest.raises(UserError, match=named):
        data.open_dataset(tmp_path, need_train=False, need_test=True)


def test_a_table_alone_makes_no_predictions(tmp_path, put):
    """One rule says it for training, which refuses them, and for predict, which warns."""
    seen = tmp_path / "seen"
    put(seen / "0.png")
    (seen / "predictions.csv").write_text("file\n")
    assert not holds_predictions(seen)
    assert len(data.open_dataset(tmp_path).train) == 1
    (seen / "predictions.json").write_text("{}")
    assert holds_predictions(seen)
    with pytest.raises(UserError, match="has seen/, a run or predictions"):
        data.open_dataset(tmp_path)


@pytest.mark.parametrize("kind", ["overlays", "maps", "parts"])
def test_a_table_without_images_makes_none(tmp_path, put, caplog, kind):
    """As of predict --no-overlays: what lies there are photographs."""
    put(tmp_path / "seen/0.png")
    (tmp_path / "seen/predictions.csv").write_text("file\n")
    facts = {"overlays": False, "maps": False, "parts": False}
    (tmp_path / "seen/predictions.json").write_text(json.dumps(facts))
    assert len(data.open_dataset(tmp_path).train) == 1
    warn_of_overlays([tmp_path / "seen/0.png"])
    assert not caplog.messages
    (tmp_path / "seen/predictions.json").write_text(json.dumps(facts | {kind: True}))
    with pytest.raises(UserError, match="has seen/, a run or predictions"):
        data.open_dataset(tmp_path)
    warn_of_overlays([tmp_path / "seen/0.png"])
    assert ["overlays are scored too" in message for message in caplog.messages] == [True] * (kind == "overlays")


MVTEC = ("train/good/0.png", "test/good/0.png", "test/bent/0.png", "ground_truth/bent/0_mask.png")
BTAD = ("train/ok/0.bmp", "test/ok/0.bmp", "test/ko/0.bmp", "ground_truth/ko/0.png")
LOCO = ("train/good/0.png", "test/logical_anomalies/0.png", "ground_truth/logical_anomalies/0/0.png")
VISA = ("Images/Normal/0.png", "Images/Anomaly/0.png", "Masks/Anomaly/0.png")
CLASSES = ("train/cat/0.png", "train/dog/0.png", "test/cat/1.png")


def below(folder, names):
    return [f"{folder}/{name}" for name in names]


@pytest.mark.parametrize(
    ("files", "root", "message"),
    [
        (below("sets/mvtec/bottle", MVTEC), "sets", r"a data set in mvtec/; give \S*sets/mvtec$"),
        (below("a/sets/mvtec/bottle", MVTEC), "a", r"part of a data set; give that data set, \S*a/sets/mvtec$"),
        (below("sets/btad/01", BTAD), "sets", r"a data set in btad/; give \S*sets/btad$"),
        (below("sets/loco/pins", LOCO), "sets", r"a data set in loco/; give \S*sets/loco$"),
        (["x/K2/train/1.png", "x/K2/train/1_GT.png"], "x", r"a data set in K2/; give \S*x/K2$"),
        (below("x/visa/candle/Data", VISA), "x", r"a data set in visa/; give \S*x/visa$"),
        (
            below("visa/candle/Data", VISA),
            "visa/candle",
            r"has Data/Images/Normal/ beside .*; give \S*visa, .*/Normal for",
        ),
        (below("visa/candle/Data", VISA), "visa/candle/Data", r"has Images/Normal/ beside .*; give \S*visa, "),
        (below("visa/candle/Data", VISA), "visa/candle/Data/Images", r"has Normal/ beside .*; give \S*visa, "),
        (below("visa/candle/Data", VISA), "visa/candle/Data/Images/Anomaly", r"part of a data set .*; give \S*visa$"),
        (below("btad/01", BTAD), "btad/01/test", r"has ok/ beside other folders; give \S*btad/01, .* \S*test/ok for"),
        (below("btad/01", BTAD), "btad/01/test/ko", r"part of a data set and not its good images; give \S*btad/01$"),
        (below("nut", MVTEC), "nut/ground_truth", r"part of a data set and not its good images; give \S*nut$"),
        (below("animals", CLASSES), "animals/train", r"part of a data set and not its good images; give \S*animals$"),
        (["K2/train/1.png", "K2/train/1_GT.png"], "K2/train", r"has 1_GT\.png, .* mask of 1\.png; give \S*K2, the"),
        (
            ["K/kos01/Part0.jpg", "K/kos01/Part0_label.bmp"],
            "K",
            r"has kos01/Part0_label\.bmp, .* mask of Part0\.jpg; give",
        ),
        (["x/1.png", "x/1_mask.png"], "x", r"has 1_mask\.png, by its name the mask of 1\.png"),
        (["x/normal/a.png", "x/scratch/b.png"], "x", r"has normal/ beside other folders; give \S*normal$"),
        (["x/1.png", "x/Label/1_label.png"], "x", r"has Label/1_label\.png, by its name the mask of an image beside"),
        (["x/images/a.png", "x/masks/b.png"], "x", r"has masks/, by its name masks and not good images; give"),
        (["x/line1/a.png", "x/line2/Defective/b.png"], "x", r"has line2/Defective/, by its name defects"),
        (["x/OK parts/a.png", "x/NG parts/b.png"], "x", r"has NG parts/, by its name defects"),
        (["x/line1/a.png", "x/2024_defects/b.png"], "x", r"has 2024_defects/, by its name defects"),
        (["x/line1/test/a.png"], "x", r"has line1/test/ but not MVTec's"),
    ],
)
def test_no_data_set_or_part_of_one_passes_for_a_plain_folder(tmp_path, put, files, root, message):
    for name in files:
        put(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        data.open_dataset(tmp_path / root, "all", need_train=False)
    assert str(caught.value).startswith(f"{tmp_path / root}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "root", "count"),
    [
        (["x/line1/2024-05/a.png", "x/line2/b.png", "x/training day/c.png"], "x", 3),
        (["x/a_mask.png", "x/b_GT.png", "x/c.png"], "x", 1),  # masks of images that are not there
        (["x/a.png", "x/test/b.png", "x/mvtec/nut/train/good/c.png"], "x", 1),  # what lies deeper is not taken
        (["x/good/a.png"], "x", 1),
        (
            ["x/0_depth.png", "x/depth of cut 1.png", "x/depths1.png", "x/1.png", "y/0.png"],
            "x",
            4,
        ),  # none beside its own
        (["x/a.png", "x/labels/b.png"], "x", 1),
        (["x/no_defect/a.png", "x/defect-free/b.png", "x/kos01/c.png", "x/badge/d.png"], "x", 4),
        (["x/2023/ok/a.png", "x/2024/ok/b.png"], "x", 2),
        (["defects/a.png"], "defects", 1),
        (below("nut", MVTEC), "nut/train", 1),
        (below("nut", MVTEC), "nut/test/good", 1),
        (below("btad/01", BTAD), "btad/01/train/ok", 1),
        (below("visa/candle/Data", VISA), "visa/candle/Data/Images/Normal", 1),
        (below("animals", CLASSES), "animals/train/cat", 1),
    ],
)
def test_folders_of_good_images_still_open(tmp_path, put, files, root, count):
    for name in files:
        put(tmp_path / name)
    dataset = data.open_dataset(tmp_path / root)
    assert (dataset.layout, len(dataset.train)) == ("folder", count)


def test_lists_of_images_take_folders_of_any_name(tmp_path, put):
    """What is scored may well be defective."""
    for name in ("test/ko/a.png", "test/ok/b.png", "masks/c.png"):
        put(tmp_path / name)
    assert [path.name for path in data.list_images([tmp_path])] == ["c.png", "a.png", "b.png"]


def test_what_is_no_category_is_named_and_passed_over(tmp_path, tree, put):
    tree(tmp_path / "nut")
    put(tmp_path / "cifar" / "train" / "cat" / "a.png")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "licence.txt").write_text("x")
    (tmp_path / ".DS_Store").write_text("x")
    dataset = data.open_dataset(tmp_path, "all")
    assert dataset.categories == ("nut",)
    assert dataset.notes == (f"ignored in {tmp_path}: cifar/, mnist/, licence.txt",)
    assert dataset.ignored == 2


def test_unknown_category_names_the_nearest(tmp_path, tree):
    for name in ("bottle", "cable", "capsule"):
        tree(tmp_path / name)
    with pytest.raises(UserError, match=r"'botle'.*nearest: bottle"):
        data.open_dataset(tmp_path, "cable,botle")
    with pytest.raises(UserError, match="there are: bottle, cable, capsule"):
        data.open_dataset(tmp_path, "zzz")
    with pytest.raises(UserError, match="category=''"):
        data.open_dataset(tmp_path, "")


def test_missing_and_wrong_roots(tmp_path, put):
    with pytest.raises(UserError, match="nothing: no such folder"):
        data.open_dataset(tmp_path / "nothing")
    with pytest.raises(UserError, match="is a file"):
        data.open_dataset(put(tmp_path / "a.png"))


def test_hidden_and_other_files_are_counted(tmp_path, tree, put):
    tree(tmp_path / "nut")
    good = tmp_path / "nut" / "train" / "good"
    for name in (".hidden.png", "._1.png", "Thumbs.db", "notes.txt"):
        (good / name).write_bytes(b"x")
    (good / "folder.png").mkdir()
    put(tmp_path / ".cache" / "train" / "good" / "a.png")
    dataset = data.open_dataset(tmp_path)
    assert names(dataset.train) == ["1.PNG", "2.png", "10.png"]
    assert dataset.ignored == 5
    assert any("folder.png/" in note for note in dataset.notes)


def test_folders_that_systems_make_hold_no_images(tmp_path, put):
    for name in (
        "line1/0.png",
        "line1/@eaDir/0.png/THUMB_M.jpg",
        "#recycle/1.png",
        "$RECYCLE.BIN/2.png",
        "__MACOSX/3.png",
    ):
        put(tmp_path / "parts" / name)
    dataset = data.open_dataset(tmp_path / "parts")
    assert names(dataset.train) == ["0.png"]
    assert dataset.warnings == []
    assert names([data.Sample(p, "", "", "", 0, None) for p in data.list_images(tmp_path / "parts")]) == ["0.png"]
    assert [p.name for p in data.list_images(str(tmp_path / "parts" / "**" / "*"))] == ["0.png"]


def test_images_of_formats_that_are_not_read_are_named(tmp_path, tree, caplog):
    root = tree(tmp_path / "nut")
    for name in ("train/good/1.heic", "test/bent/2.HEIC", "test/bent/3.dng", "notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    data.open_dataset(tmp_path, "nut")
    line = "3 images are left out, because the format is not read (.heic 2, .dng 1); save them as PNG, TIFF or JPEG"
    assert caplog.messages == [f"{tmp_path}: {line}"]
    assert line in data.check(root).problems()


def test_folders_that_are_not_there_say_nothing_of_formats(tmp_path):
    """A table may list a category whose images were never copied."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "1.heic").write_bytes(b"x")
    assert data.listing.not_read([tmp_path / "nowhere", tmp_path / "there"]).startswith("1 image is left out")


def test_images_that_differ_in_the_extension_alone_are_named(tmp_path, tree, put):
    """They are often copies, and one mask is read for both."""
    root = tree(tmp_path / "nut")
    put(root / "train" / "good" / "2.bmp")
    put(root / "test" / "dent" / "a.jpg")
    (line,) = data.open_dataset(root).warnings
    assert line.startswith(
        "2 images have the name of another but for its extension: train/good/2.png, test/dent/a.png;"
    )


def test_dangling_links_are_kept_to_be_named_by_the_reader(tmp_path, tree):
    tree(tmp_path / "nut")
    (tmp_path / "nut" / "train" / "good" / "3.png").symlink_to("nowhere.png")
    dataset = data.open_dataset(tmp_path)
    assert names(dataset.train) == ["1.PNG", "2.png", "3.png", "10.png"]
    good, bad = data.scan(dataset.train)
    assert names(good) == ["1.PNG", "2.png", "10.png"]
    assert [(s.path.name, reason) for s, reason in bad] == [("3.png", "no such file")]


def test_link_loops_end(tmp_path, put):
    put(tmp_path / "a" / "b" / "x.png")
    os.symlink("..", tmp_path / "a" / "up")
    os.symlink(tmp_path, tmp_path / "a" / "b" / "top")
    os.symlink("self", tmp_path / "a" / "self")
    assert names(data.open_dataset(tmp_path).train) == ["x.png"]
    assert names([data.Sample(p, "", "", "", 0, None) for p in data.list_images(tmp_path)]) == ["x.png"]


def test_scan_names_the_bad_files(tmp_path, tree):
    root = tree(tmp_path / "nut")
    (root / "train" / "good" / "2.png").write_bytes(b"")
    (root / "train" / "good" / "5.png").write_bytes(b"not an image")
    train = data.open_dataset(root).train
    good, bad = data.scan(train)
    assert names(good) == ["1.PNG", "10.png"]
    assert [(s.path.name, reason) for s, reason in bad] == [
        ("2.png", "is empty (0 bytes)"),
        ("5.png", "is not an image, or its header is damaged"),
    ]


def test_samples_are_values():
    sample = data.Sample(None, "nut", "train", "good", 0, None)
    with pytest.raises(AttributeError):
        sample.label = 1
    assert hash(sample) == hash(data.Sample(None, "nut", "train", "good", 0, None))
