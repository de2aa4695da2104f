"""One class normal, the others defects: MNIST's idx files, CIFAR-10's batches, folders of classes."""

import gzip
import pickle
import subprocess
import sys

import numpy as np
import pytest
from archive_files import digits, idx, write_cifar, write_mnist

from vitlite import data
from vitlite.data.layouts import categories_apart
from vitlite.errors import UserError

TRAIN, TEST = [3, 1, 1, 0, 3], [1, 3, 0, 0]


def rgb(image):
    """What read_image must give for a row of a CIFAR-10 batch."""
    return image.reshape(3, 32, 32).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("place", "compressed", "joint"), [("", True, "-"), ("raw", False, "-"), ("MNIST/raw", True, "-"), ("", False, ".")]
)
def test_mnist(tmp_path, place, compressed, joint):
    train, test = write_mnist(tmp_path / place, TRAIN, TEST, compressed=compressed, joint=joint)
    dataset = data.open_dataset(tmp_path, "1", need_test=True)
    assert (dataset.layout, dataset.categories, dataset.mask_rules, dataset.notes) == ("mnist", ("1",), {}, ())
    assert [(s.category, s.split, s.defect, s.label, s.mask) for s in dataset.train] == [
        ("1", "train", "good", 0, None)
    ] * 2
    assert [(s.defect, s.label) for s in dataset.test] == [("good", 0), ("3", 1), ("0", 1), ("0", 1)]
    assert {s.category for s in dataset.test} == {"1"}
    for sample, number in zip(dataset.train, (1, 2)):
        assert sample.path.relative_to(tmp_path).parts[-1] == f"{number:05d}"
        np.testing.assert_array_equal(data.read_image(sample.path), np.repeat(train[number][:, :, None], 3, axis=2))
    for sample, image in zip(dataset.test, test):
        np.testing.assert_array_equal(data.read_image(str(sample.path))[:, :, 1], image)


def test_a_class_must_be_chosen(tmp_path):
    write_mnist(tmp_path, TRAIN, TEST)
    with pytest.raises(UserError, match=r"3 classes \(0, 1, 3\): .*category"):
        data.open_dataset(tmp_path)
    for several in ("all", "0,1"):
        with pytest.raises(UserError, match=r"one class of .* is normal and the others are its defects"):
            data.open_dataset(tmp_path, several)
        assert categories_apart(tmp_path, several) == (("0", "1", "3") if several == "all" else ("0", "1"))
    for call in (data.open_dataset, categories_apart):
        with pytest.raises(UserError, match="there are: 0, 1, 3"):
            call(tmp_path, "7")


def test_mnist_report(tmp_path):
    write_mnist(tmp_path / "mnist", TRAIN, TEST)
    report = data.check(tmp_path / "mnist")
    assert report.counts == {"mnist": {"train": {"0": 1, "1": 2, "3": 2}, "test": {"0": 2, "1": 1, "3": 1}}}
    assert report.clean
    assert "MNIST's idx files" in report.text()
    one = data.check(tmp_path / "mnist", "0")
    assert one.counts == {"0": {"train": {"good": 1}, "test": {"1": 1, "3": 1, "good": 2}}}


def test_the_report_finds_repeated_images_of_an_archive(tmp_path):
    folder = tmp_path / "mnist"
    train, test = write_mnist(folder, TRAIN, TEST)
    test[2] = train[4]
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(test)))
    (group,) = data.check(folder).leaks
    assert [path.name for path in group] == ["00004", "00002"]


@pytest.mark.parametrize(
    ("write", "file", "content", "message"),
    [
        (write_mnist, "train-images-idx3-ubyte.gz", b"hello", "is neither an idx file nor"),
        (write_mnist, "train-labels-idx1-ubyte.gz", b"hello", "is not an idx file"),
        (write_cifar, "data_batch_1", b"\x80\x02cos\nsystem\n.", "asks for os.system"),
        (write_cifar, "test_batch", b"", "is neither an idx file nor"),
        (write_cifar, "test_batch", idx(digits([1])), "is an idx file, not a CIFAR-10 batch"),
    ],
)
def test_damaged_files_are_named(tmp_path, write, file, content, message):
    write(tmp_path, *((TRAIN, TEST) if write is write_mnist else ()))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        data.open_dataset(tmp_path, "1")
    assert str(caught.value).startswith(f"{tmp_path / file}: ")
    assert str(caught.value).isprintable()


def test_idx_files_that_do_not_fit_together(tmp_path):
    write_mnist(tmp_path, TRAIN, TEST, compressed=False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx([1, 2]))
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte: 2 labels for 5 images"):
        data.open_dataset(tmp_path, "1")
    labels.write_bytes(idx(digits([1])))
    with pytest.raises(UserError, match="holds images, not labels"):
        data.open_dataset(tmp_path, "1")
    labels.unlink()
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz: no such file"):
        data.open_dataset(tmp_path, "1")
    (tmp_path / "train-images-idx3-ubyte").unlink()
    assert len(data.open_dataset(tmp_path, "1", need_train=False, need_test=True).test) == 4
    with pytest.raises(UserError, match="no training images of class 1"):
        data.open_dataset(tmp_path, "1")


@pytest.mark.parametrize("protocol", [None, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["", "cifar-10-batches-py"])
def test_cifar10(tmp_path, place, protocol):
    made = write_cifar(tmp_path / place, protocol=protocol)
    dataset = data.open_dataset(tmp_path, "bird", need_test=True)
    assert (dataset.layout, dataset.categories) == ("cifar10", ("bird",))
    wanted = [(name, i) for name in list(made)[:-1] for i, label in enumerate(made[name][1]) if label == 2]
    assert [(s.path.parent.name, int(s.path.name)) for s in dataset.train] == wanted
    for sample in dataset.train:
        image = made[sample.path.parent.name][0][int(sample.path.name)]
        np.testing.assert_array_equal(data.read_image(sample.path), rgb(image))
    assert len(dataset.test) == 12
    assert [s.defect for s in dataset.test if not s.label] == ["good"]
    assert {s.defect for s in dataset.test if s.label} >= {"airplane", "truck"}
    report = data.check(tmp_path)
    assert sum(report.counts[report.categories[0]]["train"].values()) == 60
    assert "CIFAR-10's batches" in report.text()


def test_cifar10_names_come_from_its_meta_file(tmp_path):
    names = [f"kind {i}" for i in range(10)]
    write_cifar(tmp_path, names=names)
    assert data.open_dataset(tmp_path, "kind 4").categories == ("kind 4",)
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": names[:4]}))
    with pytest.raises(UserError, match=r"data_batch_1: has label 9, but there are 4 classes"):
        data.open_dataset(tmp_path, "kind 1")
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "a"]}))
    with pytest.raises(UserError, match=r"batches\.meta: names two classes alike"):
        data.open_dataset(tmp_path, "a")
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "../b"]}))
    with pytest.raises(UserError, match=r"batches\.meta: has no label_names"):
        data.open_dataset(tmp_path, "a")


def test_cifar10_with_a_batch_missing(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"data_batch_3: no such file, one of the five"):
        data.open_dataset(tmp_path, "cat")
    for path in tmp_path.glob("data_batch_*"):
        path.unlink()
    assert data.open_dataset(tmp_path, "cat", need_train=False, need_test=True).train == ()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("data_batch_1.bin", "binary"),
        ("cifar-10-batches-bin/test_batch.bin", "binary"),
        ("cifar-10-batches-mat/data_batch_5.mat", "Matlab"),
    ],
)
def test_other_versions_of_cifar10_are_told_apart(tmp_path, name, version):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(bytes(3073))
    with pytest.raises(UserError, match=rf"{name}: is of CIFAR-10's {version} version; get the Python version"):
        data.open_dataset(tmp_path, "cat")
    write_cifar(tmp_path)  # the right one beside it
    assert data.open_dataset(tmp_path, "cat").layout == "cifar10"


@pytest.fixture
def folders(put):
    def write(root):
        for name in ("train/cat/a", "train/cat/b", "train/dog/a", "test/cat/c", "test/dog/c", "test/10 eel/c"):
            put(root / f"{name}.png")
        return root

    return write


def test_folders_of_classes(tmp_path, folders):
    dataset = data.open_dataset(folders(tmp_path), "cat", need_test=True)
    assert (dataset.layout, dataset.categories) == ("classes", ("cat",))
    assert [s.path.name for s in dataset.train] == ["a.png", "b.png"]
    assert [(s.defect, s.label) for s in dataset.test] == [("10 eel", 1), ("good", 0), ("dog", 1)]
    with pytest.raises(UserError, match=r"3 classes \(10 eel, cat, dog\)"):
        data.open_dataset(tmp_path)
    with pytest.raises(UserError, match="no training images of class 10 eel"):
        data.open_dataset(tmp_path, "10 eel")
    report = data.check(tmp_path)
    (counts,) = report.counts.values()
    assert counts == {"train": {"cat": 2, "dog": 1}, "test": {"10 eel": 1, "cat": 1, "dog": 1}}
    assert "folders of classes" in report.text()


@pytest.mark.parametrize("name", ["ground_truth/dog/c.png", "train/good/a.png", "test/ok/a.png"])
def test_folders_that_are_no_classes(tmp_path, folders, put, name):
    folders(tmp_path)
    put(tmp_path / name)
    assert data.open_dataset(tmp_path, None, need_train=False).layout in ("category", "btad")


def test_a_root_that_holds_only_classes_of_images_is_not_trained_on_whole(tmp_path, folders):
    folders(tmp_path / "cifar")
    with pytest.raises(UserError, match="a data set in cifar/"):
        data.open_dataset(tmp_path)


def test_reading_archives_does_not_import_torch(tmp_path):
    write_cifar(tmp_path)
    code = f"from vitlite import data; data.open_dataset({str(tmp_path)!r}, 'cat')\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "torch" not in done.stdout.split()
    assert "vitlite.images.batches" in done.stdout.split()
