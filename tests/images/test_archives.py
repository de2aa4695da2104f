"""Images that lie with others in one file, MNIST's idx files and CIFAR-10's batches, and files made to do harm."""

import gzip
import os
import pickle
import struct
import threading

import numpy as np
import pytest
from archive_files import digits, idx, modern_batch, python2_batch, rows

from vitlite import images
from vitlite.data import list_images
from vitlite.images import archives, batches
from vitlite.images.archives import read_archive, split_entry
from vitlite.images.batches import read_batch
from vitlite.images.idx import read_idx
from vitlite.images.loading import pixel_batches
from vitlite.images.unusable import Unusable


def test_images_of_an_archive_work_like_files(tmp_path):
    stored = digits([1, 3, 0, 0])
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(idx(stored)))
    paths = [archives.entry(file, number) for number in range(4)]
    ((batch, pixels),) = pixel_batches(paths, 14, 8)
    assert pixels.shape == (4, 14, 14, 3)
    assert [loaded.height for loaded in batch] == [7] * 4
    assert [path.stem for path in paths] == ["00000", "00001", "00002", "00003"]
    assert list_images([paths[2]]) == [paths[2]]
    np.testing.assert_array_equal(images.read_image(file / "1")[:, :, 0], stored[1])
    (tmp_path / "labels").write_bytes(idx([1, 2]))
    for path, limit, message in (
        (file / "00004", 1000, "holds 4 images, numbered from 0"),
        (file / "0", 10, "over the limit of 10"),
        (tmp_path / "labels" / "0", 1000, "holds labels, not images"),
        (tmp_path / "nothing" / "00004", 1000, "no such file"),
    ):
        with pytest.raises(images.ImageError, match=message):
            images.read_image(path, max_pixels=limit)


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
        stored = digits(range(seed + 2), seed=seed)
        path.write_bytes(idx(stored))
        np.testing.assert_array_equal(images.read_image(path / "0")[:, :, 0], stored[0])


def test_threads_decode_a_file_once(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(idx(digits(range(50))))
    reads, plain = [], archives.read_idx
    monkeypatch.setattr(archives, "read_idx", lambda file: (reads.append(file), plain(file))[1])
    threads = [threading.Thread(target=images.read_image, args=(path / str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


def test_read_archive_knows_both_kinds(tmp_path):
    (tmp_path / "a").write_bytes(modern_batch(rows(2), [3, 4], 4))
    stored, labels = read_archive(tmp_path / "a")
    assert (stored.shape, labels.tolist()) == ((2, 32, 32, 3), [3, 4])
    (tmp_path / "b").write_bytes(idx(digits([1, 2])))
    stored, labels = read_archive(tmp_path / "b")
    assert (stored.shape, labels) == ((2, 7, 7), None)
    assert read_idx(tmp_path / "b").dtype == np.uint8
    for reader in (read_archive, read_idx, read_batch):
        with pytest.raises(Unusable, match="no such file"):
            reader(tmp_path / "c")


IDX = idx(digits(range(5)))
IDX_DAMAGE = {
    "nothing": (b"", "is neither an idx file nor"),
    "text": (b"hello", "is neither an idx file nor"),
    "short header": (IDX[:3], "is not an idx file"),
    "short sizes": (IDX[:9], "is cut short within its header"),
    "floats": (IDX[:2] + b"\x0d" + IDX[3:], "idx type 0x0d"),
    "two sizes": (IDX[:3] + b"\x02" + IDX[4:], "has 2 dimensions"),
    "no images": (IDX[:4] + struct.pack(">3I", 0, 7, 7), "holds nothing: its sizes are 0 x 7 x 7"),
    "cut": (IDX[:-5], "is cut short: 240 of the 245 bytes"),
    "longer": (IDX + b"x", "goes on after the 245 bytes"),
    "huge": (IDX[:4] + struct.pack(">3I", 2**31, 2**31, 2**31) + IDX[16:], "over the limit"),
    "large": (IDX[:4] + struct.pack(">3I", 2**14, 2**8, 2**8) + IDX[16:], "is cut short: 245 of the 1073741824"),
    "half a gzip": (gzip.compress(IDX)[:-20], "gzip compression is damaged or cut short"),
    "gzip header": (b"\x1f\x8bxxxx", "gzip compression is damaged"),
    "labels": (idx([1, 2, 3, 4, 5]), "holds labels, not images"),
}


@pytest.mark.parametrize("name", IDX_DAMAGE)
def test_damaged_idx_files(tmp_path, name):
    content, message = IDX_DAMAGE[name]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Unusable, match=message) as caught:
        read_archive(tmp_path / "x")
    assert str(caught.value).isprintable()


class Evil:
    """Pickled, it is a call of a function of the pickler's choice."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def refused(folder, content, message):
    path = folder / "b"
    path.write_bytes(content)
    with pytest.raises(Unusable, match=message) as caught:
        read_batch(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, protocol):
    proof = tmp_path / "proof"
    values = {b"data": rows(3), b"labels": [1, 2, 3]}
    for evil in (Evil(os.mkdir, str(proof)), Evil(eval, f"open({str(proof)!r}, 'w')"), Evil(np.load, str(proof))):
        content = pickle.dumps({**values, b"filenames": evil}, protocol)
        refused(tmp_path, content, r"asks for (posix|nt|builtins|__builtin__|numpy).*nothing of it was run")
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
def test_pickles_of_other_things(tmp_path, content, message):
    refused(tmp_path, content, message)


TEXT = b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<I", 100_000) + b"x" * 100_000 + b"q\x01"
WASTE = {
    "deep key": b"\x80\x02}(" + b"N" + b"\x85" * 200_000 + b"K\x01u.",  # hashing it would overflow the C stack
    "less deep key": b"\x80\x02}" + b"N" + b"\x85" * 5000 + b"K\x01s.",
    "key of itself": b"\x80\x02N" + b"q\x00h\x00\x86" * 500 + b"}(h\x00K\x01u.",  # it has 2**500 leaves
    "wide key": b"\x80\x02}" + b"".join(b"(" + b"h\x00" * 9 * bool(i) + b"tq\x00" for i in range(40)) + b"h\x00K\x01s.",
    "far memo": b"\x80\x02Nr\xff\xff\xff\xff.",  # pickle makes a table of 64 GB of it
    **{
        f"size {code!r}": b"\x80\x04" + code + b"\xff" * 5 + b"\0\0\0." for code in (b"\x8e", b"\x96", b"\x8d", b"\x95")
    },
    "same call": TEXT + b"X\x06\x00\x00\x00latin1\x86q\x02" + b"h\x00h\x02R" * 10_000 + b".",
    "same text": TEXT + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 900 + b".",
}


@pytest.mark.parametrize("name", WASTE)
def test_pickles_that_are_made_to_waste_memory_or_time(tmp_path, name):
    refused(tmp_path, WASTE[name], "is damaged")


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
def test_operations_that_no_batch_needs(tmp_path, program):
    refused(tmp_path, b"\x80\x02}U\x04data" + program + b"s.", r"uses the pickle operation|is damaged")


def test_more_operations_than_any_batch_has(tmp_path, monkeypatch):
    content = modern_batch(rows(2), [3, 4], 4)
    (tmp_path / "b").write_bytes(content)
    assert len(read_batch(tmp_path / "b")[0]) == 2
    monkeypatch.setattr(batches, "_MOST_OPERATIONS", 20)
    refused(tmp_path, content, "is damaged")
