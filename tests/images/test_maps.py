"""Maps on disk: what is written comes back; a damaged file is a map or a MapError, and nothing on the terminal."""

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

from vitlite.errors import UserError
from vitlite.images import reading
from vitlite.images.maps import MapError, read_map, write_map

VALUES = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)


def test_a_written_map_comes_back(tmp_path):
    write_map(tmp_path / "a.tiff", VALUES.T)
    np.testing.assert_array_equal(read_map(tmp_path / "a.tiff"), VALUES.T)
    tifffile = pytest.importorskip("tifffile")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tiff"), VALUES.T)
    tifffile.imwrite(tmp_path / "b.tiff", VALUES)  # as people who use the official scripts write theirs
    np.testing.assert_array_equal(read_map(tmp_path / "b.tiff"), VALUES)
    with pytest.raises(ValueError, match="a map is"):
        write_map(tmp_path / "c.tiff", VALUES[None])


@pytest.mark.parametrize(
    "case", ["infinite", "empty file", "folder", "npz", "complex", "complex tiff", "pages", "palette"]
)
def test_files_that_hold_no_map(tmp_path, case):
    path = tmp_path / ("a.tiff" if case in ("complex tiff", "pages", "palette", "empty file", "folder") else "a.npy")
    page = Image.fromarray(np.zeros((3, 4), np.float32))
    if case == "infinite":
        np.save(path, np.array([[0, np.inf]]))
    elif case == "empty file":
        path.touch()
    elif case == "folder":
        path.mkdir()
    elif case == "npz":
        np.savez(tmp_path / "b.npz", np.zeros((3, 4)))
        (tmp_path / "b.npz").rename(path)
    elif case == "complex":
        np.save(path, np.zeros((3, 4), complex))
    elif case == "complex tiff":
        pytest.importorskip("tifffile").imwrite(path, np.zeros((3, 4), complex))
    elif case == "pages":
        page.save(path, save_all=True, append_images=[page])
    else:
        Image.new("P", (4, 3)).save(path)
    with pytest.raises(MapError, match=path.name):
        read_map(path)


def test_images_that_lie_on_their_side_are_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert reading.image_size(tmp_path / "a.jpg") == (20, 10)
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(UserError, match=r"b\.png"):
        reading.image_size(tmp_path / "b.png")


def encoded(values, **options):
    buffer = io.BytesIO()
    if options:
        Image.fromarray(values).save(buffer, **options)
    else:
        np.save(buffer, values)
    return buffer.getvalue()


LZW = encoded(VALUES, format="TIFF", compression="tiff_lzw")
FILES = {
    "tiff": (
        encoded(VALUES, format="TIFF"),
        LZW,
        encoded(VALUES, format="TIFF", compression="tiff_adobe_deflate"),
        encoded((VALUES * 255).astype(np.uint8), format="TIFF"),
        encoded((VALUES * 65535).astype(np.uint16), format="TIFF"),
    ),
    "npy": (encoded(VALUES), encoded(VALUES.astype(np.float64)), encoded(np.asfortranarray(VALUES))),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("kind", "header"), [("tiff", 160), ("npy", 128)])
@few_examples
@given(data=st.data())
def test_damaged_files(fuzz_folder, capfd, data, kind, header):
    path = fuzz_folder / f"map.{kind}"
    path.write_bytes(data.draw(st.sampled_from(FILES[kind]).flatmap(lambda content: damaged(content, header=header))))
    values, error = attempt(lambda: read_map(path), MapError)
    if error is not None:
        assert str(path) in str(error)
        assert error.kind in ("unreadable", "wrong-sized", "not finite")
    else:
        assert values.ndim == 2
        assert values.dtype.kind in "biuf"
        assert np.isfinite(values).all()
    assert capfd.readouterr() == ("", "")


def test_libtiff_is_quiet_from_the_first_map_on(tmp_path):
    """Found by the test above: libtiff wrote its own complaint to stderr if no image had been read before."""
    content = bytearray(LZW)
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
