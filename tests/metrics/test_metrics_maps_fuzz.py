"""Damaged maps, TIFF and npy: a map or a MapError, and nothing on the terminal."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("hypothesis")

from fuzzing import attempt, damaged, few_examples
from hypothesis import given
from hypothesis import strategies as st

from vitlite.images.maps import MapError, read_map

VALUES = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)


def tiff(values, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="TIFF", **options)
    return buffer.getvalue()


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


TIFFS = (
    tiff(VALUES),
    tiff(VALUES, compression="tiff_lzw"),
    tiff(VALUES, compression="tiff_adobe_deflate"),
    tiff((VALUES * 255).astype(np.uint8)),
    tiff((VALUES * 65535).astype(np.uint16)),
)
ARRAYS = (npy(VALUES), npy(VALUES.astype(np.float64)), npy(np.asfortranarray(VALUES)))


def read(path, content, capfd):
    path.write_bytes(content)
    values, error = attempt(lambda: read_map(path), MapError)
    if error is not None:
        assert str(path) in str(error)
        assert error.kind in ("unreadable", "wrong-sized", "not finite")
    else:
        assert values.ndim == 2
        assert values.dtype.kind in "biuf"
        assert np.isfinite(values).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@few_examples
@given(content=st.sampled_from(TIFFS).flatmap(lambda content: damaged(content, header=160)))
def test_tiff(fuzz_folder, capfd, content):
    read(fuzz_folder / "map.tiff", content, capfd)


@few_examples
@given(content=st.sampled_from(ARRAYS).flatmap(lambda content: damaged(content, header=128)))
def test_npy(fuzz_folder, capfd, content):
    read(fuzz_folder / "map.npy", content, capfd)


def test_libtiff_is_quiet_from_the_first_map_on(tmp_path):
    """Found by the test above: libtiff wrote its own complaint to stderr where no picture had been read before."""
    content = bytearray(TIFFS[1])
    content[8:10] = b"\xff\xff"  # a code that the table cannot have yet
    (tmp_path / "map.tiff").write_bytes(content)
    plain = "from PIL import Image; Image.open('map.tiff').load()"
    ours = "from vitlite.images.maps import MapError, read_map\ntry: read_map('map.tiff')\nexcept MapError: pass"
    complaints = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True).stderr
        for code in (plain, ours)
    ]
    assert "not yet in table" in complaints[0]
    assert complaints[1] == ""
