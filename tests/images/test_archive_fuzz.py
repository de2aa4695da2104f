"""Damaged and made-up idx files and pickles: an array or the documented error, whatever the bytes are."""

import gzip
import pickle
import pickletools
import struct

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from archive_files import digits, idx, modern_batch, python2_batch, rows
from fuzzing import attempt, damaged, few_examples
from hypothesis import example, given
from hypothesis import strategies as st

from vitlite import data
from vitlite.errors import UserError
from vitlite.images.archives import read_archive
from vitlite.images.batches import read_batch, read_class_names
from vitlite.images.idx import read_idx
from vitlite.images.unusable import Unusable

pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")  # of pickletools
IDX = idx(digits([1, 2, 3], side=4))
BATCHES = (python2_batch(rows(1), [3]), *(modern_batch(rows(1), [3], protocol) for protocol in (2, 3, 4, 5)))
GLOBALS = (
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"c_codecs\nencode\n",
    b"cnumpy.core.numeric\n_frombuffer\n",
    b"cos\nsystem\n",
)


def outcome(read, path, content):
    """What a reader returns, or None if it raises its documented error, in one line."""
    path.write_bytes(content)
    found, error = attempt(lambda: read(path), Unusable)
    assert error is None or str(error).isprintable()
    return found


@few_examples
@given(content=st.binary(max_size=64) | damaged(IDX, header=16) | damaged(gzip.compress(IDX), header=20))
@example(content=b"\0\0\x08\x03" + struct.pack(">3I", 1, 1, 2**32 - 1) + b"x")
@example(content=b"\x1f\x8b\x08\x04" + b"\0" * 6 + b"\xff\xff")
def test_idx(fuzz_folder, content):
    array = outcome(read_idx, fuzz_folder / "idx", content)
    if array is not None:
        assert array.dtype == np.uint8
        assert array.ndim in (1, 3)
        assert array.size > 0


@few_examples
@given(content=st.sampled_from(BATCHES).flatmap(lambda batch: damaged(batch, header=300)))
def test_batches(fuzz_folder, content):
    found = outcome(read_batch, fuzz_folder / "batch", content)
    if found is not None:
        images, labels = found
        assert images.dtype == np.uint8
        assert images.shape == (len(labels), 32, 32, 3)
        assert labels.min() >= 0


operations = st.lists(
    st.sampled_from(GLOBALS)
    | st.sampled_from([operation.code.encode("latin-1") for operation in pickletools.opcodes])
    | st.sampled_from((b"K\x01", b"U\x02u1", b"X\x04\x00\x00\x00data", b"X\x06\x00\x00\x00labels", b"h\x00", b"q\x00"))
    | st.binary(max_size=3),
    max_size=40,
)


@few_examples
@given(parts=operations)
@example(parts=[b"(" * 1000, b"t" * 1000])
@example(parts=[b"]q\x00", b"h\x00", b"a"])
def test_programs_of_known_operations(fuzz_folder, parts):
    content = b"\x80\x02" + b"".join(parts) + b"."
    outcome(read_batch, fuzz_folder / "batch", content)
    outcome(read_class_names, fuzz_folder / "batch", content)


@few_examples
@given(content=st.binary(max_size=40) | damaged(IDX) | damaged(BATCHES[0], header=300))
def test_whole_way(fuzz_folder, content):
    path = fuzz_folder / "test_batch"
    outcome(read_archive, path, content)
    image, error = attempt(lambda: data.read_image(path / "00000"), data.ImageError)
    if error is None:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
    else:
        assert str(path) in str(error)
    _, error = attempt(lambda: data.open_dataset(fuzz_folder, "cat", need_train=False), UserError)
    assert error is None or "\n" not in str(error)


@few_examples
@given(
    names=st.recursive(st.none() | st.text() | st.binary() | st.integers(), lambda inner: st.lists(inner, max_size=3))
)
def test_names_of_classes(fuzz_folder, names):
    found = outcome(read_class_names, fuzz_folder / "batches.meta", pickle.dumps({"label_names": names}, 4))
    assert found is None or all(isinstance(name, str) and name for name in found)
