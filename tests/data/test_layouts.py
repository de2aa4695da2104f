"""The layouts of industrial data sets, each on a small tree: what is read, what is checked, what is refused."""

import re

import numpy as np
import pytest

from vitlite import data
from vitlite.errors import UserError

MARK = np.zeros((12, 16), np.uint8)
MARK[3:6, 4:9] = 255
OTHER = np.roll(MARK, 5, axis=0)
LABELS = MARK // 255 + OTHER // 255 * 5  # VisA numbers its defects
LABELS[0, :3] = 2
ROWS = """\
object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0010.JPG,
candle,train,normal,candle/Data/Images/Normal/0002.JPG,
candle,test,normal,candle/Data/Images/Normal/0003.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,
pcb1,test,normal,pcb1/Data/Images/Normal/0001.JPG,
pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/Data/Masks/Anomaly/000.png
"""


@pytest.fixture
def fill(put):
    """fill(root, images, masks) writes images, named in one string, and masks, {name: array}."""

    def write(root, images, masks=None):
        for name in images.split():
            put(root / name)
        for name, values in (masks or {}).items():
            put(root / name, values)
        return root

    return write


# name: (layout, title, images, masks)
CATEGORIES = {
    "nut": (
        "mvtec",
        "MVTec layout",
        "train/good/10.png train/good/2.png train/good/1.PNG test/good/000.png test/dent/a.png test/scratch/000.png",
        {"ground_truth/dent/a.png": MARK, "ground_truth/scratch/000_mask.png": OTHER},
    ),
    "bracket_black": (  # MPDD
        "mvtec",
        "MVTec layout",
        "train/good/000.png test/good/000.png test/hole/000.png test/scratches/003.png",
        {"ground_truth/hole/000_mask.png": MARK, "ground_truth/scratches/003_mask.png": MARK},
    ),
    "can": (
        "mvtec2",
        "MVTec AD 2 layout",
        "train/good/000_regular.png train/good/001_regular.png validation/good/000_regular.png"
        " test_public/good/000_regular.png test_public/bad/000_regular.png test_public/bad/001_regular.png"
        " test_private/000_regular.png test_private_mixed/000_regular.png",
        {"test_public/ground_truth/bad/000_regular_mask.png": MARK},
    ),
    "pushpins": (
        "loco",
        "MVTec LOCO layout",
        "train/good/000.png validation/good/000.png validation/good/001.png test/good/000.png"
        " test/logical_anomalies/000.png test/logical_anomalies/001.png test/structural_anomalies/000.png",
        {
            "ground_truth/logical_anomalies/000/000.png": MARK // 255 * 3,
            "ground_truth/logical_anomalies/000/001.png": OTHER,
            "ground_truth/structural_anomalies/000/000.png": MARK // 255 * 240,
        },
    ),
    "01": (
        "btad",
        "BTAD layout",
        "train/ok/0000.bmp train/ok/0001.bmp test/ok/0000.bmp test/ko/0000.bmp test/ko/0001.bmp",
        {"ground_truth/ko/0000.png": MARK, "ground_truth/ko/0001.png": OTHER},
    ),
}
# name: (train, validation, test: (kind, label, file, what its mask marks), notes)
READ = {
    "nut": (
        ["1.PNG", "2.png", "10.png"],
        [],
        [("dent", 1, "a.png", MARK), ("good", 0, "000.png", None), ("scratch", 1, "000.png", OTHER)],
        (),
    ),
    "bracket_black": (
        ["000.png"],
        [],
        [("good", 0, "000.png", None), ("hole", 1, "000.png", MARK), ("scratches", 1, "003.png", MARK)],
        (),
    ),
    "can": (
        ["000_regular.png", "001_regular.png"],
        ["000_regular.png"],
        [
            ("bad", 1, "000_regular.png", MARK),
            ("bad", 1, "001_regular.png", None),
            ("good", 0, "000_regular.png", None),
        ],
        ("test_private/, test_private_mixed/",),
    ),
    "pushpins": (
        ["000.png"],
        ["000.png", "001.png"],
        [
            ("good", 0, "000.png", None),
            ("logical_anomalies", 1, "000.png", MARK | OTHER),
            ("logical_anomalies", 1, "001.png", None),
            ("structural_anomalies", 1, "000.png", MARK),
        ],
        (),
    ),
    "01": (
        ["0000.bmp", "0001.bmp"],
        [],
        [("ko", 1, "0000.bmp", MARK), ("ko", 1, "0001.bmp", OTHER), ("good", 0, "0000.bmp", None)],
        (),
    ),
}


def files(samples):
    return [sample.path.name for sample in samples]


@pytest.fixture
def category(fill):
    """category(root, name) writes one of CATEGORIES into a folder."""
    return lambda root, name: fill(root, *CATEGORIES[name][2:])


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories(tmp_path, category, name):
    layout, title, *_ = CATEGORIES[name]
    train, validation, test, notes = READ[name]
    root = category(tmp_path / name, name)
    for place, own in ((tmp_path, layout), (root, "category" if layout == "mvtec" else layout)):
        dataset = data.open_dataset(place, name, need_test=True)
        assert (dataset.layout, dataset.categories, dataset.root) == (own, (name,), place)
        assert (dataset.nested, dataset.folder(name)) == (place == tmp_path, root)
        assert (files(dataset.train), files(dataset.validation)) == (train, validation)
        assert {(s.defect, s.label, s.mask) for s in (*dataset.train, *dataset.validation)} == {("good", 0, None)}
        assert [(s.defect, s.label, s.path.name) for s in dataset.test] == [row[:3] for row in test]
        assert {s.split for s in dataset.test} == {"test"}
        for sample, (*_, marked) in zip(dataset.test, test):
            assert (sample.mask is None) == (marked is None)
            assert marked is None or (data.read_mask(sample.mask) == (marked > 0)).all()
        assert dataset.notes == tuple(f"ignored in {root}: {line}" for line in notes)
        rule = "above 0" if layout == "loco" else "0/255"
        assert {own: str(rule) for own, rule in data.with_mask_rules(dataset).mask_rules.items()} == {name: rule}
        report = data.check(place)
        assert report.text().startswith(f"{place}: {'one category in ' * (place == root)}{title}\n")
        assert files(s for s in dataset.test if s.label and s.mask is None) == [p.name for p in report.missing_masks]
        assert report.grey_masks == report.orphan_masks == report.empty_masks == report.unreadable == []


def test_what_a_check_counts(tmp_path, category):
    root = category(tmp_path / "pushpins", "pushpins")
    (root / "defects_config.json").write_text("[]")
    report = data.check(root)
    assert report.counts == {
        "pushpins": {
            "train": {"good": 1},
            "validation": {"good": 2},
            "test": {"good": 1, "logical_anomalies": 2, "structural_anomalies": 1},
        }
    }
    assert (report.masks, report.ignored) == (3, 1)
    assert "validation     2  good 2" in report.text()


@pytest.mark.parametrize(
    ("name", "stray"),
    [
        ("can", "test_public/ground_truth/bad/007_regular_mask.png"),
        ("pushpins", "ground_truth/logical_anomalies/077/000.png"),
        ("01", "ground_truth/ko/7.png"),
    ],
)
def test_masks_without_an_image(tmp_path, category, put, name, stray):
    root = category(tmp_path / name, name)
    put(root / stray, MARK)
    for place in (root, tmp_path):
        assert [path.relative_to(root).as_posix() for path in data.check(place).orphan_masks] == [stray]


def test_loco_masks_of_different_sizes(tmp_path, category, put):
    root = category(tmp_path / "pushpins", "pushpins")
    put(root / "ground_truth/logical_anomalies/000/002.png", MARK[:8])
    ((path, reason),) = data.check(root).unreadable
    assert (path.name, reason) == ("002.png", "is of another size than the image's other masks")


def test_categories_in_several_layouts(tmp_path, category):
    for folder, name in (("b", "pushpins"), ("a", "pushpins"), ("nut", "nut")):
        category(tmp_path / folder, name)
    dataset = data.open_dataset(tmp_path, "a,b")
    assert [s.category for s in dataset.validation] == ["a", "a", "b", "b"]
    assert dataset.kinds_of_mean == ("logical_anomalies", "structural_anomalies")
    assert data.open_dataset(tmp_path, "nut").layout == "mvtec"
    everything = data.open_dataset(tmp_path, "all")
    assert (everything.layout, everything.categories) == ("mixed", ("a", "b", "nut"))
    assert data.MaskFiles not in {type(s.mask) for s in everything.test if s.category == "nut"}
    rules = data.with_mask_rules(everything).mask_rules
    assert {name: str(rule) for name, rule in rules.items()} == {"a": "above 0", "b": "above 0", "nut": "0/255"}


CAMERA = "train/good/a.png train/good/cam2/b.png test/good/c.png test/dent/d.png"


@pytest.mark.parametrize(
    ("images", "train", "test", "left_out"),
    [
        (CAMERA, 1, [0, 1], {"train/good/cam2": 1}),
        (CAMERA + " test/dent/x/y/1.png test/dent/x/2.png", 1, [0, 1], {"train/good/cam2": 1, "test/dent/x": 2}),
        (
            CAMERA + " e.png f/1.png train/2.png train/bad/3.png test/4.png",
            1,
            [0, 1],
            {".": 1, "f": 1, "train": 1, "train/bad": 1, "train/good/cam2": 1, "test": 1},
        ),
        ("train/Good/a.png test/Good/b.png test/Dent/c.png", 1, [0, 1], {}),
        ("train/GOOD/a.png test/good/b.png test/dent/c.png", 1, [0, 1], {}),
        ("train/good/a.png test/OK/b.png test/NG/c.png", 1, [0, 1], {}),
        ("train/ok/a.png test/OK/b.png test/ko/c.png", 1, [0, 1], {}),
        ("train/Normal/a.png test/Normal/b.png test/Abnormal/c.png", 1, [0, 1], {}),
        ("train/good/a.png validation/Good/b.png test/good/c.png", 1, [0], {}),
        ("train/good/a.png test/good/b.png test/Good/c.png test/dent/d.png", 1, [0, 1], {"test/Good": 1}),
        ("train/good/a.png train/Good/b.png test/good/c.png", 1, [0], {"train/Good": 1}),
        ("train/good/a.png test/Good/b.png test/OK/c.png test/x/d.png", 1, [1], {"test/Good": 1, "test/OK": 1}),
        ("train/ok/a.png test/ok/b.png test/good/c.png test/ko/d.png", 1, [0, 1], {"test/good": 1}),
        ("train/good/a.png test_public/good/b.png test_private/c.png test_private_mixed/d.png", 1, [0], {}),
        ("train/cat/a.png train/dog/b.png test/cat/c.png test/cat/deep/d.png", 1, [0], {"test/cat/deep": 1}),
        ("a.png deep/b.png deep/er/c.png", 1, [], {"deep": 2}),
    ],
)
def test_images_that_are_left_out_are_named(tmp_path, fill, caplog, images, train, test, left_out):
    root = fill(tmp_path / "nut", images)
    for name in ("readme.txt", "license", "defects_config.json", "train/Thumbs.db"):
        if (root / name).parent.is_dir():
            (root / name).write_text("x")
    dataset = data.open_dataset(root, "cat" if "cat/" in images else None)
    assert (len(dataset.train), sorted(sample.label for sample in dataset.test)) == (train, test)
    assert {sample.defect for sample in dataset.test if not sample.label} <= {"good"}
    assert {place.relative_to(root).as_posix(): count for place, count in dataset.left_out} == left_out
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(left_out)
    for place, count in left_out.items():
        assert lines[0].startswith(f"{root}: {sum(left_out.values())} image")
        assert f" {place}/ ({count})" in lines[0]
    problems = [line for line in data.check(root).problems() if "left out" in line and "mask" not in line]
    assert len(problems) == bool(left_out)


@pytest.mark.parametrize(
    ("files", "test", "counted"),
    [
        ("dent/0.png dent/0_mask.png dent/1.png dent/1_GT.bmp", {"0": "dent/0_mask.png", "1": "dent/1_GT.bmp"}, [2]),
        ("dent/0.png dent/0_label.png ../ground_truth/dent/0.png", {"0": "../ground_truth/dent/0.png"}, [1]),
        ("dent/0.png dent/0_gt.png dent/0_mask.png", {"0": "dent/0_gt.png"}, [2]),
        ("good/0.png good/0_mask.png", {"0": None}, [1]),
        ("dent/0.png ../ground_truth/dent/0_gt.png", {"0": "../ground_truth/dent/0_gt.png"}, []),
        ("dent/0.png dent/0mask.png dent/0_masked.png", {"0": None, "0_masked": None, "0mask": None}, []),
    ],
)
def test_masks_beside_images(tmp_path, fill, caplog, files, test, counted):
    root = fill(tmp_path / "nut", "train/good/a.png " + " ".join(f"test/{name}" for name in files.split()))
    dataset = data.open_dataset(root)
    masks = {sample.path.stem: sample.mask for sample in dataset.test}
    assert {name: mask and mask.resolve() for name, mask in masks.items()} == {
        name: mask and (root / "test" / mask).resolve() for name, mask in test.items()
    }
    assert [count for _, count in dataset.masks_beside] == counted
    assert len(caplog.records) == len(counted)
    for line in (*(record.getMessage() for record in caplog.records), *data.check(root).left_out):
        assert f"{counted[0]} file" in line
        assert "by name and no image" in line


@pytest.mark.parametrize("need_train", [True, False])
def test_masks_of_images_that_are_not_there_are_left_out_and_named(tmp_path, fill, caplog, need_train):
    names = "train/good/a.png train/good/b_mask.png test/dent/0_mask.png test/dent/1.png test/dent/2_GT.png"
    root = fill(tmp_path / "nut", names)
    for place in (root, tmp_path):
        caplog.clear()
        dataset = data.open_dataset(place, need_train=need_train)
        assert (files(dataset.train), files(dataset.test)) == (["a.png"], ["1.png"])
        (line,) = (record.getMessage() for record in caplog.records)
        assert "3 files are masks by name and no image" in line
        assert "train/good/ (1)" in line
        assert "test/dent/ (2); left out" in line
        assert data.check(place).left_out == (line.split(": ", 1)[1],)


def test_masks_beside_images_of_training_are_no_images(tmp_path, fill):
    root = fill(tmp_path / "nut", "train/good/a.png train/good/a_mask.png test/good/a.png")
    for place in (root, tmp_path):
        dataset = data.open_dataset(place)
        assert files(dataset.train) == ["a.png"]
        assert dataset.masks_beside == ((root / "train" / "good", 1),)


def test_a_folder_that_is_no_category_is_named_if_all_are_asked_for(tmp_path, category, fill, caplog):
    category(tmp_path / "nut", "nut")
    fill(tmp_path / "bolt", "Trian/good/1.png Trian/good/2.png")
    assert data.open_dataset(tmp_path, "nut").left_out == ()
    assert not caplog.records
    assert data.open_dataset(tmp_path, "all").left_out == ((tmp_path / "bolt", 2),)
    assert "bolt/ (2)" in caplog.text


def test_folders_that_look_like_another_layout(tmp_path, category, put):
    put(category(tmp_path / "a" / "can", "can") / "test" / "good" / "0.png")
    assert data.open_dataset(tmp_path / "a").layout == "mvtec"
    put(category(tmp_path / "nut", "nut") / "validation" / "a.png")
    dataset = data.open_dataset(tmp_path / "nut")
    assert dataset.validation == ()
    assert any("validation/" in line for line in dataset.notes)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("nut/test/good/0.png nut/test/bent/0.png", {}, r"nut/train/good: no images there"),
        ("nut/train/good/0.png", {"need_test": True}, r"nut/test: no images there"),
        ("nut/train/Good/0.png nut/train/OK/0.png nut/test/good/0.png", {}, r"nut/train: has Good/, OK/; name"),
        ("01/test/ok/0.png 01/test/ko/0.png", {}, r"01/train/ok: no images there"),
        ("can/train/good/0.png can/test_public/other.png", {"need_test": True}, r"can/test_public: no images there"),
        ("train/1.png train/1_GT.png test/2.png test/2_GT.png", {}, r"train: no good images there"),
        ("a/b/c.png", {"need_test": True}, "no test/ folder"),
    ],
)
def test_empty_splits_are_named(tmp_path, fill, images, options, message):
    with pytest.raises(UserError, match=message):
        data.open_dataset(fill(tmp_path, images), **options)


def test_masks_that_are_missing_or_named_in_other_ways(tmp_path, fill, put):
    root = fill(tmp_path / "nut", "train/good/a.png test/dent/a.jpg test/dent/b.png test/dent/c.png")
    put(root / "test/dent/d x.png")
    truth = root / "ground_truth" / "dent"
    fill(truth, "a.png a_mask.bmp")
    put(truth / "c.TIF", format="TIFF")
    put(truth / "d x_mask.png")
    masks = {"a.jpg": truth / "a_mask.bmp", "b.png": None, "c.png": truth / "c.TIF", "d x.png": truth / "d x_mask.png"}
    assert {s.path.name: s.mask for s in data.open_dataset(root).test} == masks


@pytest.fixture
def visa(fill):
    """visa(root, rows) writes the table and what it names."""

    def write(root, rows=ROWS):
        cells = [line.split(",") for line in rows.splitlines()[1:]]
        fill(root, " ".join(image for *_, image, _ in cells), {mask: LABELS for *_, mask in cells if mask})
        (root / "split_csv").mkdir()
        (root / "split_csv" / "1cls.csv").write_text(rows)
        return root

    return write


def test_visa(tmp_path, visa):
    root = visa(tmp_path)
    dataset = data.open_dataset(root, "candle", need_test=True)
    assert (dataset.layout, dataset.categories, dataset.folder("candle")) == ("visa", ("candle",), root / "candle")
    assert files(dataset.train) == ["0002.JPG", "0010.JPG"]
    assert [(s.defect, s.label, s.path.name) for s in dataset.test] == [
        ("anomaly", 1, "000.JPG"),
        ("good", 0, "0003.JPG"),
    ]
    np.testing.assert_array_equal(data.read_mask(dataset.test[0].mask), LABELS > 0)
    assert {name: str(rule) for name, rule in dataset.mask_rules.items()} == {"candle": "above 0"}
    assert data.open_dataset(root, "all").categories == ("candle", "pcb1")
    with pytest.raises(UserError, match=r"2 categories \(candle, pcb1\)"):
        data.open_dataset(root)
    report = data.check(root)
    assert report.clean, report.problems()
    assert report.counts["pcb1"] == {"train": {"good": 1}, "test": {"anomaly": 1, "good": 1}}
    assert "VisA layout" in report.text()


def test_visa_leaves_training_anomalies_out_and_says_so(tmp_path, visa):
    rows = ROWS + "candle,train,anomaly,candle/Data/Images/Anomaly/007.JPG,\n"
    dataset = data.open_dataset(visa(tmp_path, rows), "candle")
    assert all(s.label == 0 for s in dataset.train)
    assert any("1 anomalous images" in line for line in dataset.notes)


def test_visa_names_what_its_table_leaves_out(tmp_path, visa, fill, caplog):
    root = visa(tmp_path)
    images = " candle/Data/Images/Normal/".join(("", "0004.JPG", "0005.JPG")) + " other/1.png"
    fill(root, images, {"candle/Data/Masks/Anomaly/009.png": LABELS})
    dataset = data.open_dataset(root, "all", need_test=True)
    spare, unlisted = caplog.messages
    assert "1 image is left out, because none are read there: other/ (1); to use it" in spare
    assert "2 images are left out, because the data set's table has no row for them: candle/Data/Images/N" in unlisted
    data.with_mask_rules(dataset)
    assert re.search("1 mask is not used .*: candle/Data/Masks/Anomaly/009.png", caplog.messages[-1])
    assert len(data.check(root).problems()) == 3
    caplog.clear()
    data.open_dataset(root, "pcb1")
    assert not caplog.messages


def test_visa_names_a_mask_that_makes_a_good_image_doubtful(tmp_path, visa, caplog):
    root = visa(tmp_path, ROWS.replace("Normal/0003.JPG,", "Normal/0003.JPG,candle/Data/Masks/Normal/0003.png"))
    data.with_mask_rules(data.open_dataset(root, "candle", need_test=True))
    assert "1 mask of good images marks a defect and does not count: candle/Data/Masks/Normal/0003" in caplog.text
    assert any("1 mask of good images with a mark" in line for line in data.check(root).problems())


NORMAL = "candle/Data/Images/Normal/0003.JPG"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("object,split", "category,split", "1cls.csv: has no column object"),
        (",test,anomaly,candle", ",test,broken,candle", "line 5: label 'broken' is not normal or anomaly"),
        ("candle,train,normal", "candle,val,normal", "line 2: split 'val' is not train or test"),
        (NORMAL, "../secret.png", r"line 4: image '\.\./secret\.png' is not a path below"),
        (NORMAL, "/etc/a.png", "line 4: image '/etc/a.png' is not a path below"),
        ("candle/Data/Masks/Anomaly/000.png", "/a.png", "line 5: mask '/a.png' is not a path below"),
        ("candle,train,normal,candle/Data/Images/Normal/0010.JPG,", "candle,train", "line 2: has not 5 cells"),
        ("candle,train,normal", "../x,train,normal", r"line 2: object '\.\./x' is not the name of a category"),
        (ROWS, "", "has no column object"),
        (ROWS, ROWS.splitlines()[0], "has no rows"),
        (ROWS, 'object,split,label,image,mask\n"candle', "cannot be read as a table"),
        (ROWS, None, "no such file"),
        ("pcb1,train", "pcb1,test", r"lists no images of pcb1 to train on"),
        ("pcb1,train", "candle,train", "line 6: object 'candle', but the image lies in 'pcb1'; correct"),
        (",test,anomaly,candle", ",train,normal,candle", "line 5: label 'normal', but the image lies in 'Anomaly'"),
        ("pcb1,test,normal", "pcb1,test,anomaly", "line 7: label 'anomaly', but the image lies in 'Normal'"),
        (NORMAL, "candle/./Data/Images/Normal/0010.JPG", "line 4: image .* is in line 2 too; keep one"),
    ],
)
def test_visa_tables_that_are_wrong(tmp_path, visa, old, new, message):
    table = visa(tmp_path) / "split_csv" / "1cls.csv"
    assert old in ROWS
    if new is None:
        table.unlink()
    else:
        table.write_text(ROWS.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        data.open_dataset(tmp_path, "all")
    assert "1cls.csv" in str(caught.value)


@pytest.fixture
def ksdd2(fill):
    """Train: two good and one defective; test: one good, one with a faint mark."""
    masks = {
        "train/10001_GT.png": MARK * 0,
        "train/10002_GT.png": MARK,
        "train/10010_GT.png": MARK * 0,
        "test/20000_GT.png": MARK * 0,
        "test/20001_GT.png": MARK // 255 * 3,
    }
    return lambda root: fill(root, " ".join(masks).replace("_GT", ""), masks)


def test_ksdd2(tmp_path, ksdd2):
    root = ksdd2(tmp_path / "KolektorSDD2")
    dataset = data.open_dataset(root, need_test=True)
    assert (dataset.layout, dataset.categories) == ("ksdd2", ("KolektorSDD2",))
    assert files(dataset.train) == ["10001.png", "10010.png"]
    assert [(s.defect, s.label, s.path.name) for s in dataset.test] == [
        ("good", 0, "20000.png"),
        ("defect", 1, "20001.png"),
    ]
    assert data.read_mask(dataset.test[1].mask).sum() == (MARK > 0).sum()
    assert any("left out of training: 1 defective" in line for line in dataset.notes)
    report = data.check(root)
    assert report.clean, report.problems()
    assert report.counts == {"KolektorSDD2": {"train": {"good": 2}, "test": {"good": 1, "defect": 1}}}
    assert "KolektorSDD2 layout" in report.text()
    assert "left out of training: 1 defective" in report.text()


def test_ksdd2_names_what_is_left_out(tmp_path, ksdd2, fill, caplog):
    root = fill(ksdd2(tmp_path), "validation/1.png train/more/2.png 3.png train/10302_GT.png")
    data.open_dataset(root)
    masks, images = caplog.messages
    assert "1 file is a mask by name and no image: train/ (1)" in masks
    assert re.search(r"3 images are left out.*validation/ \(1\).*train/more/ \(1\)", images)


def test_ksdd2_pieces_that_are_missing_or_damaged(tmp_path, ksdd2, put):
    root = ksdd2(tmp_path / "a")
    put(root / "train" / "10301_GT(copy).png", MARK)
    put(root / "train" / "10302_GT.png", MARK)
    assert len(data.open_dataset(root).train) == 2
    (note,) = [line for line in data.open_dataset(root).notes if line.startswith("ignored")]
    assert "10301_GT(copy).png, 10302_GT.png" in note
    (root / "test" / "20000_GT.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"20000_GT\.png: is empty "):
        data.open_dataset(root)
    (root / "test" / "20000_GT.png").unlink()
    with pytest.raises(UserError, match=r"20000\.png: has no 20000_GT\.png beside it"):
        data.open_dataset(root)
    put(root / "train" / "10001.jpg")
    with pytest.raises(UserError, match=r"10001\.png: 10001\.jpg is there too; keep one of them"):
        data.open_dataset(root)
