"""Layouts of industrial data sets beside MVTec AD, each on a small tree: LOCO, BTAD, MPDD, VisA, KolektorSDD2."""

import numpy as np
import pytest

from vitlite import data
from vitlite.errors import UserError

MARK = np.zeros((12, 16), np.uint8)
MARK[3:6, 4:9] = 255
OTHER = np.roll(MARK, 5, axis=0)


def summary(samples):
    return [(s.category, s.defect, s.label, s.path.name) for s in samples]


@pytest.fixture
def loco(put):
    """Two masks of different grey for one picture, one for another, none for a third; a good picture held out."""

    def write(folder):
        for name in ("train/good/000", "validation/good/000", "validation/good/001", "test/good/000"):
            put(folder / f"{name}.png")
        for name in ("logical_anomalies/000", "logical_anomalies/001", "structural_anomalies/000"):
            put(folder / "test" / f"{name}.png")
        truth = folder / "ground_truth"
        put(truth / "logical_anomalies" / "000" / "000.png", MARK // 255 * 3)
        put(truth / "logical_anomalies" / "000" / "001.png", OTHER)
        put(truth / "structural_anomalies" / "000" / "000.png", MARK // 255 * 240)
        (folder / "defects_config.json").write_text("[]")
        return folder

    return write


def test_loco(tmp_path, loco):
    loco(tmp_path / "pushpins")
    dataset = data.open_dataset(tmp_path, need_test=True)
    assert (dataset.layout, dataset.categories, dataset.nested) == ("loco", ("pushpins",), True)
    assert [s.split for s in (*dataset.train, *dataset.validation)] == ["train", "validation", "validation"]
    assert {(s.defect, s.label, s.mask) for s in (*dataset.train, *dataset.validation)} == {("good", 0, None)}
    assert summary(dataset.test) == [
        ("pushpins", "good", 0, "000.png"),
        ("pushpins", "logical_anomalies", 1, "000.png"),
        ("pushpins", "logical_anomalies", 1, "001.png"),
        ("pushpins", "structural_anomalies", 1, "000.png"),
    ]
    _, two, none, one = dataset.test
    assert none.mask is None
    np.testing.assert_array_equal(data.read_mask(two.mask), (MARK | OTHER) > 0)
    np.testing.assert_array_equal(data.read_mask(one.mask), MARK > 0)
    assert str(two.mask) == str(tmp_path / "pushpins/ground_truth/logical_anomalies/000")
    assert "above 0, in any" in dataset.mask_rule


def test_loco_category_alone_and_checked(tmp_path, loco):
    root = loco(tmp_path / "pushpins")
    assert data.open_dataset(root).layout == "loco"
    report = data.check(root)
    assert report.counts == {
        "pushpins": {
            "train": {"good": 1},
            "validation": {"good": 2},
            "test": {"good": 1, "logical_anomalies": 2, "structural_anomalies": 1},
        }
    }
    assert report.masks == 3
    assert [path.name for path in report.missing_masks] == ["001.png"]
    assert report.grey_masks == report.orphan_masks == report.empty_masks == []
    text = report.text()
    assert "one category in MVTec LOCO layout" in text
    assert "validation     2  good 2" in text
    assert "any mask value above 0" in text


def test_loco_masks_that_do_not_fit(tmp_path, loco, put):
    root = loco(tmp_path / "pushpins")
    folder = root / "ground_truth" / "logical_anomalies"
    put(folder / "000" / "002.png", MARK[:8])
    put(folder / "077" / "000.png", MARK)
    sample = data.open_dataset(root).test[1]
    with pytest.raises(data.ImageError, match=r"000.002\.png: is 16x8, but 16x12 in 000\.png of the same image"):
        data.read_mask(sample.mask)
    report = data.check(root)
    assert [(path.name, reason) for path, reason in report.unreadable] == [
        ("002.png", "is of another size than the image's other masks")
    ]
    assert report.orphan_masks == [folder / "077" / "000.png"]


def test_held_out_pictures_of_several_categories(tmp_path, loco, tree):
    loco(tmp_path / "b")
    loco(tmp_path / "a")
    tree(tmp_path / "nut")
    dataset = data.open_dataset(tmp_path, "a,b")
    assert [s.category for s in dataset.validation] == ["a", "a", "b", "b"]
    assert data.open_dataset(tmp_path, "nut").layout == "mvtec"
    everything = data.open_dataset(tmp_path, "all")
    assert (everything.layout, everything.categories) == ("mixed", ("a", "b", "nut"))
    assert data.MaskFiles not in {type(s.mask) for s in everything.test if s.category == "nut"}
    assert "8-bit mask value above 127" in everything.mask_rule
    assert "any mask value above 0" in everything.mask_rule


def test_a_validation_folder_of_something_else_is_named(tmp_path, tree, put):
    root = tree(tmp_path / "nut")
    put(root / "validation" / "a.png")
    dataset = data.open_dataset(root)
    assert dataset.validation == ()
    assert any("validation/" in line for line in dataset.notes)


@pytest.fixture
def btad(put):
    def write(folder, picture, mask):
        for name in ("train/ok/0000", "train/ok/0001", "test/ok/0000", "test/ko/0000", "test/ko/0001"):
            put(folder / f"{name}.{picture}")
        put(folder / "ground_truth" / "ko" / f"0000.{mask}", MARK)
        put(folder / "ground_truth" / "ko" / f"0001.{mask}", OTHER)
        return folder

    return write


def test_btad(tmp_path, btad):
    for name, picture, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        btad(tmp_path / name, picture, mask)
    dataset = data.open_dataset(tmp_path, "all", need_test=True)
    assert (dataset.layout, dataset.categories) == ("btad", ("01", "02", "03"))
    assert len(dataset.train) == 6
    assert summary(s for s in dataset.test if s.category == "03") == [
        ("03", "ko", 1, "0000.bmp"),
        ("03", "ko", 1, "0001.bmp"),
        ("03", "good", 0, "0000.bmp"),
    ]
    first = next(s for s in dataset.test if s.category == "01" and s.label)
    assert first.mask == tmp_path / "01" / "ground_truth" / "ko" / "0000.png"
    np.testing.assert_array_equal(data.read_mask(first.mask), MARK > 0)
    report = data.check(tmp_path, "01")
    assert report.clean
    assert "BTAD layout" in report.text()
    assert data.open_dataset(tmp_path / "02").layout == "btad"


def test_btad_without_training_pictures(tmp_path, btad):
    root = btad(tmp_path / "01", "bmp", "png")
    for path in (root / "train" / "ok").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"01.train.ok: no images there"):
        data.open_dataset(tmp_path)


def test_mpdd_is_mvtec_layout(tmp_path, put):
    root = tmp_path / "bracket_black"
    for name in ("train/good/000", "test/good/000", "test/hole/000", "test/scratches/003"):
        put(root / f"{name}.png")
    put(root / "ground_truth" / "hole" / "000_mask.png", MARK)
    put(root / "ground_truth" / "scratches" / "003_mask.png", MARK)
    dataset = data.open_dataset(tmp_path, need_test=True)
    assert dataset.layout == "mvtec"
    assert {s.defect: s.mask.name for s in dataset.test if s.label} == {
        "hole": "000_mask.png",
        "scratches": "003_mask.png",
    }


@pytest.fixture
def mvtec2(put):
    """Two kinds of test pictures with the masks among them, and private ones without labels."""

    def write(folder):
        names = (
            "train/good/000",
            "train/good/001",
            "validation/good/000",
            "test_public/good/000",
            "test_public/bad/000",
        )
        for name in (*names, "test_public/bad/001", "test_private/000", "test_private_mixed/000"):
            put(folder / f"{name}_regular.png")
        put(folder / "test_public" / "ground_truth" / "bad" / "000_regular_mask.png", MARK)
        return folder

    return write


def test_mvtec2_takes_its_public_test_pictures(tmp_path, mvtec2):
    root = mvtec2(tmp_path / "can")
    dataset = data.open_dataset(tmp_path, need_test=True)
    assert (dataset.layout, dataset.categories) == ("mvtec2", ("can",))
    assert (len(dataset.train), len(dataset.validation)) == (2, 1)
    assert summary(dataset.test) == [
        ("can", "bad", 1, "000_regular.png"),
        ("can", "bad", 1, "001_regular.png"),
        ("can", "good", 0, "000_regular.png"),
    ]
    assert {s.split for s in dataset.test} == {"test"}
    masks = [s.mask for s in dataset.test]
    assert masks == [root / "test_public" / "ground_truth" / "bad" / "000_regular_mask.png", None, None]
    assert dataset.notes == (f"ignored in {root}: test_private/, test_private_mixed/",)
    assert "above 127" in dataset.mask_rule


def test_mvtec2_category_alone_and_checked(tmp_path, mvtec2, put):
    root = mvtec2(tmp_path / "can")
    stray = put(root / "test_public" / "ground_truth" / "bad" / "007_regular_mask.png", MARK)
    report = data.check(root)
    assert "one category in MVTec AD 2 layout" in report.text()
    assert report.counts["can"]["test"] == {"bad": 2, "good": 1}
    assert report.orphan_masks == [stray]
    assert [path.name for path in report.missing_masks] == ["001_regular.png"]


def test_mvtec2_without_pictures_names_the_folder(tmp_path, put):
    put(tmp_path / "can" / "train" / "good" / "0.png")
    (tmp_path / "can" / "test_public" / "good").mkdir(parents=True)
    with pytest.raises(UserError, match=r"can.test_public: no images there"):
        data.open_dataset(tmp_path, need_test=True)


def test_mvtec2_with_a_test_folder_is_mvtec_layout(tmp_path, mvtec2, put):
    put(mvtec2(tmp_path / "can") / "test" / "good" / "0.png")
    assert data.open_dataset(tmp_path).layout == "mvtec"


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
def visa(put):
    """Masks number their defects: 1, 2 and 5."""

    def write(root, rows=ROWS):
        labels = MARK // 255 + OTHER // 255 * 5
        labels[0, :3] = 2
        for line in rows.splitlines()[1:]:
            *_, image, mask = line.split(",")
            seed = [*image.encode()]
            put(root / image, np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))
            if mask:
                put(root / mask, labels)
        (root / "split_csv").mkdir()
        (root / "split_csv" / "1cls.csv").write_text(rows)
        return root, labels

    return write


def test_visa(tmp_path, visa):
    root, labels = visa(tmp_path)
    dataset = data.open_dataset(root, "candle", need_test=True)
    assert (dataset.layout, dataset.categories, dataset.folder("candle")) == ("visa", ("candle",), root / "candle")
    assert summary(dataset.train) == [("candle", "good", 0, "0002.JPG"), ("candle", "good", 0, "0010.JPG")]
    assert summary(dataset.test) == [("candle", "anomaly", 1, "000.JPG"), ("candle", "good", 0, "0003.JPG")]
    mask = data.read_mask(dataset.test[0].mask)
    np.testing.assert_array_equal(mask, labels > 0)
    assert set(np.unique(labels)) == {0, 1, 2, 5}
    assert dataset.mask_rule == "any mask value above 0"
    assert data.open_dataset(root, "all").categories == ("candle", "pcb1")
    with pytest.raises(UserError, match=r"2 categories \(candle, pcb1\)"):
        data.open_dataset(root)
    report = data.check(root)
    assert report.clean, report.problems()
    assert report.counts["pcb1"] == {"train": {"good": 1}, "test": {"anomaly": 1, "good": 1}}
    assert "VisA layout" in report.text()


def test_visa_leaves_training_anomalies_out_and_says_so(tmp_path, visa):
    rows = ROWS + "candle,train,anomaly,candle/Data/Images/Anomaly/007.JPG,\n"
    dataset = data.open_dataset(visa(tmp_path, rows)[0], "candle")
    assert all(s.label == 0 for s in dataset.train)
    assert any("1 anomalous images" in line for line in dataset.notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("object,split", "category,split", "1cls.csv: has no column object"),
        (",test,anomaly,candle", ",test,broken,candle", "line 5: label 'broken' is not normal or anomaly"),
        ("candle,train,normal", "candle,val,normal", "line 2: split 'val' is not train or test"),
        (
            "candle/Data/Images/Normal/0003.JPG",
            "../secret.png",
            r"line 4: image '\.\./secret\.png' is not a path below",
        ),
        ("candle/Data/Images/Normal/0003.JPG", "/etc/a.png", "line 4: image '/etc/a.png' is not a path below"),
        ("candle/Data/Masks/Anomaly/000.png", "/a.png", "line 5: mask '/a.png' is not a path below"),
        ("candle,train,normal,candle/Data/Images/Normal/0010.JPG,", "candle,train", "line 2: has not 5 cells"),
        ("candle,train,normal", "../x,train,normal", r"line 2: object '\.\./x' is not the name of a category"),
        (ROWS, "", "has no column object"),
        (ROWS, ROWS.splitlines()[0], "has no rows"),
        (ROWS, 'object,split,label,image,mask\n"candle', "cannot be read as a table"),
    ],
)
def test_visa_tables_that_are_wrong(tmp_path, visa, old, new, message):
    root, _ = visa(tmp_path)
    assert old in ROWS
    (root / "split_csv" / "1cls.csv").write_text(ROWS.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        data.open_dataset(root, "all")
    assert "1cls.csv" in str(caught.value)


def test_visa_without_its_table_or_a_split(tmp_path, visa):
    root, _ = visa(tmp_path / "a")
    (root / "split_csv" / "1cls.csv").unlink()
    with pytest.raises(UserError, match=r"1cls\.csv: no such file"):
        data.open_dataset(root, "candle")
    rows = "".join(line for line in ROWS.splitlines(True) if not line.startswith("pcb1,train"))
    root, _ = visa(tmp_path / "b", rows)
    with pytest.raises(UserError, match=r"1cls\.csv: lists no images of pcb1 to train on"):
        data.open_dataset(root, "pcb1")


@pytest.fixture
def ksdd2(put):
    """Train: two good and one defective; test: one good, one with a faint mark."""

    def write(root):
        for name, mask in (
            ("train/10001", MARK * 0),
            ("train/10002", MARK),
            ("train/10010", MARK * 0),
            ("test/20000", MARK * 0),
            ("test/20001", MARK // 255 * 3),
        ):
            put(root / f"{name}.png")
            put(root / f"{name}_GT.png", mask)
        return root

    return write


def test_ksdd2(tmp_path, ksdd2):
    root = ksdd2(tmp_path / "KolektorSDD2")
    dataset = data.open_dataset(root, need_test=True)
    assert (dataset.layout, dataset.categories) == ("ksdd2", ("KolektorSDD2",))
    assert [s.path.name for s in dataset.train] == ["10001.png", "10010.png"]
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


def test_ksdd2_without_good_pictures(tmp_path, put):
    put(tmp_path / "train" / "1.png")
    put(tmp_path / "train" / "1_GT.png", MARK)
    with pytest.raises(UserError, match=r"train: no good images there"):
        data.open_dataset(tmp_path)


def test_a_data_set_within_is_named(tmp_path, ksdd2, visa):
    ksdd2(tmp_path / "x" / "KolektorSDD2")
    with pytest.raises(UserError, match=r"has no images, but a data set in KolektorSDD2/; give .*KolektorSDD2$"):
        data.open_dataset(tmp_path / "x")
    visa(tmp_path / "y" / "VisA")
    with pytest.raises(UserError, match=r"a data set in VisA/"):
        data.open_dataset(tmp_path / "y")


def test_mask_files_are_values(tmp_path, put):
    first, second = put(tmp_path / "m" / "0.png", MARK), put(tmp_path / "m" / "1.png", OTHER)
    mask = data.MaskFiles((first, second), threshold=127)
    assert hash(mask) == hash(data.MaskFiles((first, second), 127))
    assert mask != data.MaskFiles((first,), 127)
    assert str(mask) == str(tmp_path / "m")
    assert str(data.MaskFiles((first,))) == str(first)
    np.testing.assert_array_equal(data.read_mask(mask), (MARK | OTHER) > 127)
