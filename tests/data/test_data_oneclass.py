"""One class normal, the others defects: MNIST's idx files, CIFAR-10's batches, folders of classes."""

import gzip
import pickle
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from archive_files import digits, idx, modern_batch, python2_batch, rows, write_cifar, write_mnist

from vitlite import data
from vitlite.errors import UserError
from vitlite.images import batches
from vitlite.images.archives import read_archive, split_entry
from vitlite.images.batches import read_batch
from vitlite.images.idx import read_idx
from vitlite.images.loading import pixel_batches
from vitlite.images.modes import Unusable

TRAIN, TEST = [3, 1, 1, 0, 3], [1, 3, 0, 0]


def rgb(picture):
    """What read_image must give for a row of a CIFAR-10 batch."""
    return picture.reshape(3, 32, 32).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("place", "compressed", "joint"), [("", True, "-"), ("raw", False, "-"), ("MNIST/raw", True, "-"), ("", False, ".")]
)
def test_mnist(tmp_path, place, compressed, joint):
    train, test = write_mnist(tmp_path / place, TRAIN, TEST, compressed=compressed, joint=joint)
    dataset = data.open_dataset(tmp_path, "1", need_test=True)
    assert (dataset.layout, dataset.categories, dataset.mask_rule, dataset.notes) == ("mnist", ("1",), None, ())
    assert [(s.category, s.split, s.defect, s.label, s.mask) for s in dataset.train] == [
        ("1", "train", "good", 0, None)
    ] * 2
    assert [(s.defect, s.label) for s in dataset.test] == [("good", 0), ("3", 1), ("0", 1), ("0", 1)]
    assert {s.category for s in dataset.test} == {"1"}
    for sample, number in zip(dataset.train, (1, 2)):
        assert sample.path.relative_to(tmp_path).parts[-1] == f"{number:05d}"
        np.testing.assert_array_equal(data.read_image(sample.path), np.repeat(train[number][:, :, None], 3, axis=2))
    for sample, picture in zip(dataset.test, test):
        np.testing.assert_array_equal(data.read_image(str(sample.path))[:, :, 1], picture)


def test_pictures_of_an_archive_work_like_files(tmp_path):
    _, test = write_mnist(tmp_path, TRAIN, TEST)
    paths = [sample.path for sample in data.open_dataset(tmp_path, "1").test]
    ((batch, pixels),) = pixel_batches(paths, 14, 8)
    assert pixels.shape == (4, 14, 14, 3)
    assert [loaded.height for loaded in batch] == [7] * 4
    assert [path.stem for path in paths] == ["00000", "00001", "00002", "00003"]
    assert data.list_images([paths[2]]) == [paths[2]]
    good, bad = data.scan(data.open_dataset(tmp_path, "3").train)
    assert (len(good), bad) == (2, [])
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    with pytest.raises(data.ImageError, match="holds 4 images, numbered from 0"):
        data.read_image(file / "00004")
    with pytest.raises(data.ImageError, match="over the limit of 10"):
        data.read_image(file / "0", max_pixels=10)
    with pytest.raises(data.ImageError, match="holds labels, not images"):
        data.read_image(tmp_path / "t10k-labels-idx1-ubyte.gz" / "0")
    with pytest.raises(data.ImageError, match="no such file"):
        data.read_image(tmp_path / "nothing" / "00004")
    np.testing.assert_array_equal(data.read_image(file / "1")[:, :, 0], test[1])


@pytest.mark.parametrize("path", ["a/00001", "00001", "", "/", "file/1x", "file/\u0663", "file/12345678901", "f\0/1"])
def test_only_numbers_in_a_file_are_entries(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "a").mkdir()
    assert split_entry(path) is None
    assert split_entry("file/00012") == ("file", 12)


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "x"
    for seed in (1, 2):
        pictures = digits(range(seed + 2), seed=seed)
        path.write_bytes(idx(pictures))
        np.testing.assert_array_equal(data.read_image(path / "0")[:, :, 0], pictures[0])


def test_threads_decode_a_file_once(tmp_path, monkeypatch):
    from vitlite.images import archives as reader

    path = tmp_path / "x"
    path.write_bytes(idx(digits(range(50))))
    reads, plain = [], reader.read_idx
    monkeypatch.setattr(reader, "read_idx", lambda file: (reads.append(file), plain(file))[1])
    threads = [threading.Thread(target=data.read_image, args=(path / str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


def test_a_class_must_be_chosen(tmp_path):
    write_mnist(tmp_path, TRAIN, TEST)
    with pytest.raises(UserError, match=r"3 classes \(0, 1, 3\): .*category"):
        data.open_dataset(tmp_path)
    for several in ("all", "0,1"):
        with pytest.raises(UserError, match=r"one class of .* is normal and the others are its defects"):
            data.open_dataset(tmp_path, several)
    with pytest.raises(UserError, match="there are: 0, 1, 3"):
        data.open_dataset(tmp_path, "7")


def test_mnist_report(tmp_path):
    write_mnist(tmp_path / "mnist", TRAIN, TEST)
    report = data.check(tmp_path / "mnist")
    assert report.counts == {"mnist": {"train": {"0": 1, "1": 2, "3": 2}, "test": {"0": 2, "1": 1, "3": 1}}}
    assert report.clean
    assert "MNIST's idx files" in report.text()
    one = data.check(tmp_path / "mnist", "0")
    assert one.counts == {"0": {"train": {"good": 1}, "test": {"1": 1, "3": 1, "good": 2}}}


def test_the_report_finds_repeated_pictures_of_an_archive(tmp_path):
    folder = tmp_path / "mnist"
    train, test = write_mnist(folder, TRAIN, TEST)
    test[2] = train[4]
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(test)))
    (group,) = data.check(folder).leaks
    assert [path.name for path in group] == ["00004", "00002"]


IDX_DAMAGE = {
    "nothing": (lambda c: b"", "is neither an idx file nor"),
    "text": (lambda c: b"hello", "is neither an idx file nor"),
    "short header": (lambda c: c[:3], "is not an idx file"),
    "short sizes": (lambda c: c[:9], "is cut short within its header"),
    "floats": (lambda c: c[:2] + b"\x0d" + c[3:], "idx type 0x0d"),
    "two sizes": (lambda c: c[:3] + b"\x02" + c[4:], "has 2 dimensions"),
    "no pictures": (lambda c: c[:4] + struct.pack(">3I", 0, 7, 7), "holds nothing: its sizes are 0 x 7 x 7"),
    "cut": (lambda c: c[:-5], "is cut short: 240 of the 245 bytes"),
    "longer": (lambda c: c + b"x", "goes on after the 245 bytes"),
    "huge": (lambda c: c[:4] + struct.pack(">3I", 2**31, 2**31, 2**31) + c[16:], "over the limit"),
    "large": (lambda c: c[:4] + struct.pack(">3I", 2**14, 2**8, 2**8) + c[16:], "is cut short: 245 of the 1073741824"),
    "half a gzip": (lambda c: gzip.compress(c)[:-20], "gzip compression is damaged or cut short"),
    "gzip header": (lambda c: b"\x1f\x8bxxxx", "gzip compression is damaged"),
    "labels": (lambda c: idx([1, 2, 3, 4, 5]), "holds labels, not images"),
}


@pytest.mark.parametrize("name", IDX_DAMAGE)
def test_damaged_idx_files_are_one_line(tmp_path, name):
    write_mnist(tmp_path, TRAIN, TEST, compressed=False)
    path = tmp_path / "train-images-idx3-ubyte"
    damage, message = IDX_DAMAGE[name]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        data.open_dataset(tmp_path, "1")
    assert str(caught.value).startswith(f"{path}: ")


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
        picture = made[sample.path.parent.name][0][int(sample.path.name)]
        np.testing.assert_array_equal(data.read_image(sample.path), rgb(picture))
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


class Evil:
    """Pickled, it is a call of a function of the pickler's choice."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, protocol):
    import os

    write_cifar(tmp_path)
    proof = tmp_path / "proof"
    values = {b"data": rows(3), b"labels": [1, 2, 3]}
    for evil in (Evil(os.mkdir, str(proof)), Evil(eval, f"open({str(proof)!r}, 'w')"), Evil(np.load, str(proof))):
        (tmp_path / "data_batch_1").write_bytes(pickle.dumps({**values, b"filenames": evil}, protocol))
        with pytest.raises(UserError, match=r"data_batch_1: asks for .*nothing of it was run") as caught:
            data.open_dataset(tmp_path, "cat")
        assert str(caught.value).startswith(str(tmp_path / "data_batch_1"))
    assert not proof.exists()
    pickle.loads(pickle.dumps(Evil(os.mkdir, str(proof)), protocol))
    assert proof.exists()  # so the file above would have done it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(rows(2)), "is a pickle of something else"),
        (pickle.dumps({"a": 1}), "without data and labels"),
        (pickle.dumps({"data": [1], "labels": [1]}), "without data and labels"),
        (pickle.dumps({"data": rows(2), "fine_labels": [1, 2]}), "is of CIFAR-100"),
        (pickle.dumps({"data": rows(2), "labels": [1]}), "has 2 images but 1 labels"),
        (pickle.dumps({"data": rows(2)[:, :3000], "labels": [1, 1]}), "is not rows of 3072 bytes"),
        (pickle.dumps({"data": rows(2).ravel(), "labels": [1, 1]}), "is not rows of 3072 bytes"),
        (pickle.dumps({"data": rows(2).astype(np.int16), "labels": [1, 1]}), "not an array of unsigned bytes"),
        (pickle.dumps({"data": np.asfortranarray(rows(2)), "labels": [1, 1]}), "not an array of unsigned bytes"),
        (pickle.dumps({"data": rows(2), "labels": [1, -1]}), "labels that are not small whole numbers"),
        (pickle.dumps({"data": rows(2), "labels": [1, True]}), "labels that are not small whole numbers"),
        (pickle.dumps({"data": rows(2), "labels": [1, 1.5]}), "uses the pickle operation"),
        (python2_batch(rows(2), [1, 2])[:-20], "is damaged"),
        (b"\x80\x02", "is damaged"),
        (b"\x80\x02.", "is damaged"),
        (b"\x80\x02}(]K\x01u.", "is damaged"),
        (b"\x80\x02" + b"(" * 100 + b"t" * 101 + b".", "is damaged"),
        (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "is damaged"),
        (b"\x80\x02T\xff\xff\xff\xff.", "is damaged"),
        (b"\x80\x02ccopy_reg\n_reconstructor\n.", "asks for copy_reg._reconstructor"),
        (b"\x80\x02cno newline", "is damaged"),
    ],
)
def test_pickles_of_other_things_are_one_line(tmp_path, content, message):
    path = tmp_path / "test_batch"
    path.write_bytes(content)
    with pytest.raises(Unusable, match=message):
        read_batch(path)
    with pytest.raises(UserError, match=f"test_batch: .*{message}"):
        data.open_dataset(tmp_path, "cat", need_train=False)


def test_pickles_that_are_made_to_waste_memory_or_time(tmp_path):
    path = tmp_path / "b"
    deep = b"\x80\x02}(" + b"N" + b"\x85" * 200_000 + b"K\x01u."  # hashing this key would overflow the C stack
    twice = b"\x80\x02N" + b"q\x00h\x00\x86" * 500 + b"}(h\x00K\x01u."  # this one has 2**500 leaves
    far = b"\x80\x02Nr\xff\xff\xff\xff."  # Python's own reader makes a table of 64 GB of it
    wide = b"\x80\x02}" + b"".join(b"(" + b"h\x00" * 9 * bool(i) + b"tq\x00" for i in range(40)) + b"h\x00K\x01s."
    apart = b"\x80\x02}" + b"N" + b"\x85" * 5000 + b"K\x01s."
    huge = [b"\x80\x04" + code + b"\xff" * 5 + b"\0\0\0." for code in (b"\x8e", b"\x96", b"\x8d", b"\x95")]
    for content in (deep, twice, far, wide, apart, *huge):
        path.write_bytes(content)
        with pytest.raises(Unusable):
            read_batch(path)
    text = "x" * 100_000
    again = b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<I", len(text)) + text.encode()
    again += b"q\x01X\x06\x00\x00\x00latin1\x86q\x02" + b"h\x00h\x02R" * 10_000 + b"."
    path.write_bytes(again)
    with pytest.raises(Unusable, match="is damaged"):
        read_batch(path)
    apart = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 900  # the arguments are new each time
    path.write_bytes(again[: again.index(b"h\x00")] + apart + b".")
    with pytest.raises(Unusable, match="is damaged"):
        read_batch(path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x82\x01",  # extension registry: what another part of the process registered would come unasked
        b"\x83\x01\0",
        b"\x84\x01\0\0\0",
        b"Ppid\n",
        b"K\x01Q",
        b"(ios\nsystem\n",
        b"cnumpy\nndarray\n)\x81",
        b"(cnumpy\nndarray\no",
        b"cnumpy\ndtype\n}b",  # a state for a function of ours
        b"cnumpy\ndtype\nN}U\x08functionNs\x86b",
        b"cnumpy\nndarray\n)R",
        b"cnumpy\nndarray\n}b",
        b"U\x01a)R",
        b"]}b",
        b"cnumpy.core.multiarray\n_reconstruct\n)R]b",
        b"cnumpy.core.multiarray\n_reconstruct\n)RK\x01a",
    ],
)
def test_operations_that_no_batch_needs_are_refused(tmp_path, program):
    path = tmp_path / "b"
    path.write_bytes(b"\x80\x02}U\x04data" + program + b"s.")
    with pytest.raises(Unusable, match=r"uses the pickle operation|is damaged"):
        read_batch(path)


def test_more_operations_than_any_batch_has(tmp_path, monkeypatch):
    path = tmp_path / "b"
    path.write_bytes(modern_batch(rows(2), [3, 4], 4))
    assert len(read_batch(path)[0]) == 2
    monkeypatch.setattr(batches, "_MOST_OPERATIONS", 20)
    with pytest.raises(Unusable, match="is damaged"):
        read_batch(path)


def test_read_archive_knows_both_kinds(tmp_path):
    (tmp_path / "a").write_bytes(modern_batch(rows(2), [3, 4], 4))
    pictures, labels = read_archive(tmp_path / "a")
    assert (pictures.shape, labels.tolist()) == ((2, 32, 32, 3), [3, 4])
    (tmp_path / "b").write_bytes(idx(digits([1, 2])))
    pictures, labels = read_archive(tmp_path / "b")
    assert (pictures.shape, labels) == ((2, 7, 7), None)
    assert read_idx(tmp_path / "b").dtype == np.uint8
    for reader in (read_archive, read_idx, read_batch):
        with pytest.raises(Unusable, match="no such file"):
            reader(tmp_path / "c")


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


def test_a_root_that_holds_only_classes_of_pictures_is_not_trained_on_whole(tmp_path, folders):
    folders(tmp_path / "cifar")
    with pytest.raises(UserError, match="a data set in cifar/"):
        data.open_dataset(tmp_path)


def test_reading_archives_does_not_import_torch(tmp_path):
    write_cifar(tmp_path)
    code = f"from vitlite import data; data.open_dataset({str(tmp_path)!r}, 'cat')\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "torch" not in done.stdout.split()
    assert "vitlite.images.batches" in done.stdout.split()
