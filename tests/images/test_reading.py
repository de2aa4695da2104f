"""Every kind of file the readers promise to take, and every kind of mistake."""

import io
import os
import pickle
import threading
import warnings

import deep_files
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from vitlite import images
from vitlite.errors import UserError
from vitlite.images.reading import image_size

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]
ALPHA = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
ALPHA[0] = 0
WIDE = np.array([[0, 1, 127, 128, 129, 257], [65535, 65534, 32768, 25700, 4095, 300]], np.uint16)
SMOOTH = np.broadcast_to(np.linspace(20, 220, 40).astype(np.uint8)[None, :, None], (30, 40, 3))
FLAT = np.broadcast_to(np.array([200, 40, 90], np.uint8), (16, 16, 3))
STEPS = np.linspace(0, 1, 24).reshape(4, 6)


def repeated(grey):
    return np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, axis=2)


def check_image(path, expected, tolerance=0):
    image = images.read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def palette(indices, *colours):
    image = Image.fromarray(np.array(indices, np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    return image


def grey_alpha(grey, alpha):
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])


def integers(values, low, high):
    values = np.array(values, np.int32)
    return "a.tif", values, repeated(np.rint((values.astype(float) - low) * 255 / (high - low)))


INDICES = np.arange(12).reshape(3, 4) % 3
COLOURS = np.array([[10, 20, 30], [200, 100, 50], [7, 8, 9]])
THREE = palette(INDICES, *COLOURS)
WITHOUT_SECOND = np.where((INDICES == 1)[..., None], 0, COLOURS[INDICES])  # transparent is black
BLENDED = RGB.astype(float) * ALPHA[..., None] / 255
# name: (file, what is saved, what is read, tolerance, options of saving)
KINDS = {
    "png": ("a.png", RGB, RGB),
    "bmp": ("a.bmp", RGB, RGB),
    "tiff": ("a.tif", RGB, RGB),
    "webp": ("a.webp", RGB, RGB, 0, {"lossless": True}),
    "ppm": ("a.ppm", RGB, RGB),
    "jpeg": ("a.JPG", SMOOTH, SMOOTH, 6, {"quality": 95}),
    "one pixel": ("a.png", RGB[:1, :1], RGB[:1, :1]),
    "one row": ("a.png", SMOOTH[:1], SMOOTH[:1]),
    "one column": ("a.png", RGB[:, :1], RGB[:, :1]),
    "other letters": ("ä b\u4e2d[1].png", RGB, RGB),
    "grey": ("a.png", GREY, repeated(GREY)),
    "one bit": ("a.png", Image.fromarray(GREY > 127), repeated((GREY > 127) * 255)),
    "16-bit png": ("a.png", WIDE, repeated((WIDE.astype(int) + 128) // 257)),
    "16-bit tiff": ("a.tif", WIDE, repeated((WIDE.astype(int) + 128) // 257)),
    "8 bits in 16": ("a.png", GREY.astype(np.uint16) * 257, repeated(GREY)),
    "small numbers of 32 bits": integers([[0, 300], [65535, 7]], -(2**31), 2**31 - 1),
    "32 bits": integers([[-(2**31), 300], [0, 70000]], -(2**31), 2**31 - 1),
    "floats to 1": ("a.tif", STEPS.astype(np.float32), repeated(np.rint(STEPS * 255)), 1),
    "overshoot": ("a.tif", np.array([[-0.02, 0.0], [1.0, 1.03]], np.float32), repeated([[0, 0], [255, 255]])),
    "palette": ("a.png", THREE, COLOURS[INDICES]),
    "palette with a gap": ("a.png", THREE, WITHOUT_SECOND, 0, {"transparency": 1}),
    "gif with a gap": ("a.gif", THREE, WITHOUT_SECOND, 0, {"transparency": 1}),
    "palette half transparent": (
        "a.png",
        palette([[0, 1]], (100, 200, 50), (100, 200, 50)),
        np.array([[[100, 200, 50], [50, 100, 25]]]),
        1,
        {"transparency": bytes([255, 128])},
    ),
    "opaque": ("a.png", np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)]), RGB),
    "opaque grey": ("a.png", grey_alpha(GREY, np.full(GREY.shape, 255, np.uint8)), repeated(GREY)),
    "alpha png": ("a.png", np.dstack([RGB, ALPHA]), BLENDED, 1),
    "alpha tiff": ("a.tif", np.dstack([RGB, ALPHA]), BLENDED, 1),
    "alpha grey": ("a.png", grey_alpha(GREY, ALPHA), repeated(np.rint(GREY * (ALPHA / 255))), 1),
    "colour key": (
        "a.png",
        GREY,
        repeated(np.where(GREY[2, 3] == GREY, 0, GREY)),
        0,
        {"transparency": int(GREY[2, 3])},
    ),
    "cmyk tiff": ("a.tif", FLAT, FLAT, 3, {"mode": "CMYK"}),
    "cmyk jpeg": ("a.jpg", FLAT, FLAT, 3, {"mode": "CMYK"}),
    "damaged exif": ("a.png", RGB, RGB, 0, {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff\x12\x01\x03"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_files(tmp_path, put, name):
    file, saved, expected, *rest = KINDS[name]
    tolerance, options = (*rest, *(0, {})[len(rest) :])
    check_image(put(tmp_path / file, saved, **options), expected, tolerance)


def test_content_decides_and_not_the_extension(tmp_path, put):
    (tmp_path / "a.jpg").write_bytes(put(tmp_path / "a.png", RGB).read_bytes())
    check_image(str(tmp_path / "a.jpg"), RGB)


def test_big_endian_16_bit_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = np.arange(0, 65536, 331, dtype=np.uint16).reshape(9, 22)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=">")
    check_image(tmp_path / "a.tif", repeated(np.rint(values / 257)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, "finite"), (np.inf, "finite"), (-40.0, "give black and white"), (255.0, "give black and white")],
)
def test_float_values_without_a_scale_are_an_error(tmp_path, put, value, reason):
    path = put(tmp_path / "a.tif", np.array([[0, value], [0, value]], np.float32))
    with pytest.raises(images.ImageError, match=reason):
        images.read_image(path)


def test_lab(tmp_path):
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(Image.new("RGB", (8, 8), (180, 90, 60)), lab).save(tmp_path / "a.tif")
    check_image(tmp_path / "a.tif", np.broadcast_to([180, 90, 60], (8, 8, 3)), tolerance=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "tif", "webp", "jpg"])
def test_exif_orientation(tmp_path, put, orientation, extension):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if extension == "webp" else {}
    path = put(tmp_path / f"a.{extension}", RGB, exif=exif, **lossless)
    stored = Image.open(path)
    stored.load()
    expected = np.array(ImageOps.exif_transpose(stored))
    assert expected.shape[:2] == image_size(path) == ((9, 14) if orientation < 5 else (14, 9))
    check_image(path, expected)


def test_exif_orientation_of_16_bit_and_masks(tmp_path, put):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = put(tmp_path / "a.png", GREY.astype(np.uint16) * 257, exif=exif)
    check_image(path, repeated(np.rot90(GREY, -1)))
    assert (images.read_mask(path, threshold=127 * 257) == (np.rot90(GREY, -1) > 127)).all()


def test_first_frame(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    for name in ("a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        check_image(tmp_path / name, RGB)


def test_files_that_cannot_be_read_are_named(tmp_path, put):
    good = put(tmp_path / "good.png", RGB).read_bytes()
    jpeg = io.BytesIO()
    Image.fromarray(RGB).resize((200, 200)).save(jpeg, "JPEG")
    files = {
        "empty.png": b"",
        "text.png": b"this is not an image\n" * 40,
        "cut.png": good[: len(good) // 2],
        "head.png": good[:20],
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "zeros.png": bytes(500),
        "broken.png": good[:45] + bytes(40) + good[85:],
        "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        for read in (images.read_image, images.read_mask):
            with pytest.raises(images.ImageError) as caught:
                read(tmp_path / name)
            assert name in str(caught.value)
            assert "\n" not in str(caught.value)
            assert isinstance(caught.value, UserError)
            assert caught.value.path == tmp_path / name


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
        (lambda path: path.write_bytes(b""), "empty"),
        pytest.param(
            lambda path: os.mkfifo(path),
            "not a regular file",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system"),
        ),
        pytest.param(
            lambda path: (path.write_bytes(b"x"), path.chmod(0)),
            "permission",
            marks=pytest.mark.skipif(
                not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
            ),
        ),
    ],
)
def test_things_that_are_no_files(tmp_path, make, reason):
    make(tmp_path / "a.png")
    with pytest.raises(images.ImageError, match=reason):
        images.read_image(tmp_path / "a.png")


def test_names_that_are_no_names_and_not_valid_text(tmp_path):
    with pytest.raises(images.ImageError):
        images.read_image("a\0b.png")
    with pytest.raises(images.ImageError) as caught:
        images.read_image(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    str(caught.value).encode("utf-8")


def test_pixel_limit(tmp_path, put):
    path = put(tmp_path / "a.png", RGB)
    assert images.read_image(path, max_pixels=9 * 14).shape == (9, 14, 3)
    with pytest.raises(images.ImageError, match="14 x 9 pixels, over the limit of 125"):
        images.read_image(path, max_pixels=125)
    Image.new("1", (20000, 15000)).save(path)  # 300 million pixels in a few kB
    with pytest.raises(images.ImageError, match="pixels"):
        images.read_image(path)


@pytest.mark.parametrize("action", ["default", "error"])
def test_big_images_within_the_limit_warn_of_nothing(tmp_path, monkeypatch, put, action):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = put(tmp_path / "a.png", RGB)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter(action)
        check_image(path, RGB)
    assert not found


def test_threads_leave_the_warning_filters_as_they_were(tmp_path, put):
    path = put(tmp_path / "a.png", RGB)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [images.read_image(path) for _ in range(30)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_errors_cross_process_boundaries():
    error = images.ImageError("some/file.png", "is\n broken")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "some/file.png: is broken"
    assert copy.path == error.path
    assert copy.reason == "is broken"


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "16 bits"])
def test_images_that_are_transparent_all_over_are_named(tmp_path, kind):
    """Some programs write an alpha channel of zeros. All such images would be the same black one, and good."""
    path = tmp_path / "a.png"
    if kind == "16 bits":
        path.write_bytes(deep_files.png(np.dstack([RGB.astype(np.uint16) * 257, np.zeros(RGB.shape[:2], np.uint16)])))
    elif kind == "palette":
        Image.fromarray(np.zeros((4, 5), np.uint8), "P").save(path, transparency=0)
    else:
        image = Image.fromarray(RGB).convert(kind)
        image.putalpha(0)
        image.save(path)
    with pytest.raises(images.ImageError, match="is transparent all over: save it without transparency"):
        images.read_image(path)
