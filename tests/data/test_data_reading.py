"""Every kind of file the readers promise to take, and every kind of mistake."""

import io
import os
import pickle
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from vitlite import data
from vitlite.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def repeated(grey):
    return np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, axis=2)


def check_image(path, expected, tolerance=0):
    image = data.read_image(path)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "webp", "ppm"])
def test_colour_is_exact_in_lossless_formats(tmp_path, put, extension):
    options = {"lossless": True} if extension == "webp" else {}
    check_image(put(tmp_path / f"a.{extension}", RGB, **options), RGB)


def test_jpeg(tmp_path, put):
    smooth = np.broadcast_to(np.linspace(20, 220, 40).astype(np.uint8)[None, :, None], (30, 40, 3))
    check_image(put(tmp_path / "a.JPG", smooth, quality=95), smooth, tolerance=6)


def test_content_decides_and_not_the_extension(tmp_path, put):
    (tmp_path / "a.jpg").write_bytes(put(tmp_path / "a.png", RGB).read_bytes())
    check_image(tmp_path / "a.jpg", RGB)


def test_grey_and_bilevel(tmp_path, put):
    check_image(put(tmp_path / "l.png", GREY), repeated(GREY))
    check_image(put(tmp_path / "1.png", Image.fromarray(GREY > 127)), repeated((GREY > 127) * 255))


def test_16_bit_grey_scales_the_full_range(tmp_path, put):
    values = np.array([[0, 1, 127, 128, 129, 257], [65535, 65534, 32768, 25700, 4095, 300]], np.uint16)
    expected = repeated((values.astype(int) + 128) // 257)
    for name in ("a.png", "a.tif"):
        check_image(put(tmp_path / name, values), expected)


def test_big_endian_16_bit_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = np.arange(0, 65536, 331, dtype=np.uint16).reshape(9, 22)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=">")
    check_image(tmp_path / "a.tif", repeated(np.rint(values / 257)))


def test_16_bit_values_that_repeat_8_bits_come_back_exactly(tmp_path, put):
    check_image(put(tmp_path / "a.png", GREY.astype(np.uint16) * 257), repeated(GREY))


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([[0, 300], [65535, 7]], 0, 65535),
        ([[-5, 300], [32767, 7]], -32768, 32767),
        ([[0, 300], [2**31 - 1, 70000]], 0, 2**31 - 1),
        ([[-(2**31), 300], [0, 70000]], -(2**31), 2**31 - 1),
    ],
)
def test_32_bit_integers_take_the_smallest_range_that_holds_them(tmp_path, put, values, low, high):
    values = np.array(values, np.int32)
    expected = np.rint((values.astype(float) - low) * 255 / (high - low))
    check_image(put(tmp_path / "a.tif", values), repeated(expected))


@pytest.mark.parametrize("scale", [1, 255, 65535])
def test_float_scales(tmp_path, put, scale):
    values = (np.linspace(0, 1, 24).reshape(4, 6) * scale).astype(np.float32)
    check_image(put(tmp_path / "a.tif", values), repeated(np.rint(np.linspace(0, 255, 24)).reshape(4, 6)), tolerance=1)


def test_float_overshoot_is_clipped(tmp_path, put):
    values = np.array([[-0.02, 0.0], [1.0, 1.03]], np.float32)
    check_image(put(tmp_path / "a.tif", values), repeated([[0, 0], [255, 255]]))


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "finite"), (np.inf, "finite"), (-40.0, "rescale"), (1e6, "rescale")]
)
def test_float_values_without_a_scale_are_an_error(tmp_path, put, value, reason):
    path = put(tmp_path / "a.tif", np.array([[0, value]], np.float32))
    with pytest.raises(data.ImageError, match=reason):
        data.read_image(path)


def test_palette(tmp_path, put):
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3, "P")
    picture.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
    expected = np.array([[10, 20, 30], [200, 100, 50], [7, 8, 9]])[np.arange(12).reshape(3, 4) % 3]
    check_image(put(tmp_path / "a.png", picture), expected)
    expected[expected[:, :, 0] == 200] = 0  # transparent is black
    check_image(put(tmp_path / "b.png", picture, transparency=1), expected)
    check_image(put(tmp_path / "a.gif", picture, transparency=1), expected)


def test_palette_with_partial_transparency(tmp_path, put):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([100, 200, 50, 100, 200, 50])
    check_image(
        put(tmp_path / "a.png", picture, transparency=bytes([255, 128])), np.array([[[100, 200, 50], [50, 100, 25]]]), 1
    )


def test_opaque_alpha_changes_nothing(tmp_path, put):
    opaque = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    check_image(put(tmp_path / "a.png", opaque), RGB)
    check_image(
        put(tmp_path / "b.png", Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(opaque[..., 3])])),
        repeated(GREY),
    )


def test_alpha_blends_with_black(tmp_path, put):
    alpha = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
    alpha[0] = 0
    expected = RGB.astype(float) * alpha[..., None] / 255
    check_image(put(tmp_path / "a.png", np.dstack([RGB, alpha])), expected, tolerance=1)
    check_image(put(tmp_path / "a.tif", np.dstack([RGB, alpha])), expected, tolerance=1)
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    check_image(put(tmp_path / "b.png", grey), repeated(np.rint(GREY * (alpha / 255))), tolerance=1)


def test_transparent_colour_key(tmp_path, put):
    key = int(GREY[2, 3])
    expected = repeated(np.where(key == GREY, 0, GREY))
    check_image(put(tmp_path / "a.png", GREY, transparency=key), expected)


@pytest.mark.parametrize("extension", ["tif", "jpg"])
def test_cmyk(tmp_path, put, extension):
    flat = np.broadcast_to(np.array([200, 40, 90], np.uint8), (16, 16, 3))
    check_image(put(tmp_path / f"a.{extension}", flat, mode="CMYK"), flat, tolerance=3)


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
    assert expected.shape[:2] == ((9, 14) if orientation < 5 else (14, 9))
    check_image(path, expected)


def test_exif_orientation_of_16_bit_and_masks(tmp_path, put):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = GREY.astype(np.uint16) * 257
    path = put(tmp_path / "a.png", values, exif=exif)
    check_image(path, repeated(np.rot90(GREY, -1)))
    assert (data.read_mask(path) == (np.rot90(GREY, -1) > 127)).all()


def test_damaged_exif_only_loses_the_orientation(tmp_path, put):
    path = put(tmp_path / "a.png", RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x12\x01\x03")
    check_image(path, RGB)


def test_first_frame(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    for name in ("a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        check_image(tmp_path / name, RGB)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_any_size(tmp_path, put, shape):
    image = np.full((*shape, 3), 9, np.uint8)
    check_image(put(tmp_path / "a.png", image), image)


def test_names_and_path_types(tmp_path, put):
    path = put(tmp_path / "ä b\u4e2d[1].png", RGB)
    check_image(str(path), RGB)
    check_image(path, RGB)


# --- masks


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([[0, 255]], [[0, 1]]),
        ([[127, 128]], [[0, 1]]),
        ([[0, 1]], [[0, 1]]),  # saved as 0 and 1
        ([[0, 2]], [[0, 0]]),
        ([[0, 0]], [[0, 0]]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_mask_values(tmp_path, put, stored, expected, dtype):
    mask = data.read_mask(put(tmp_path / "a.tif", np.array(stored, dtype)))
    assert mask.dtype == np.uint8
    assert mask.tolist() == expected


def test_mask_kinds(tmp_path, put):
    marked = np.zeros((6, 7), bool)
    marked[2:4, 3:6] = True
    palette = Image.fromarray(marked.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])  # the colour of the first class in PASCAL VOC
    indices = Image.fromarray(marked.astype(np.uint8), "P")
    indices.putpalette([0, 0, 0, 1, 1, 1])
    red = np.zeros((6, 7, 3), np.uint8)
    red[marked] = (255, 0, 0)
    drawn = np.dstack([np.full((6, 7, 3), 255, np.uint8), marked.astype(np.uint8) * 255])
    kinds = {
        "bilevel": Image.fromarray(marked),
        "palette": palette,
        "indices": indices,
        "16bit": marked.astype(np.uint16) * 65535,
        "red": red,
        "alpha": drawn,
        "true": np.where(marked, 1, 0).astype(np.uint8),
    }
    for name, picture in kinds.items():
        assert (data.read_mask(put(tmp_path / f"{name}.png", picture)) == marked).all(), name
    assert (data.read_mask(put(tmp_path / "float.tif", marked.astype(np.float32))) == marked).all()


def test_mask_threshold(tmp_path, put):
    path = put(tmp_path / "a.png", np.array([[0, 40, 41, 255]], np.uint8))
    assert data.read_mask(path, threshold=40).tolist() == [[0, 0, 1, 1]]
    for wrong in (-1, 255):
        with pytest.raises(UserError, match="threshold"):
            data.read_mask(path, threshold=wrong)


# --- resizing


def test_resize_is_antialiased_and_shaped():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = data.resize_image(stripes, (16, 24))
    assert small.shape == (16, 24, 3)
    assert small.dtype == np.uint8
    assert np.abs(data.resize_image(stripes, (16, 16))[:, 1:-1].astype(int) - 128).max() <= 8
    assert data.resize_image(GREY, (5, 6)).shape == (5, 6)
    assert data.resize_image(RGB[::-1, ::2], (20, 20)).shape == (20, 20, 3)


def test_resize_keeps_flat_colours_and_range():
    flat = np.full((31, 17, 3), 201, np.uint8)
    assert (data.resize_image(flat, (256, 99)) == 201).all()
    same = data.resize_image(RGB, RGB.shape[:2])
    assert (same == RGB).all()
    assert same is not RGB


@pytest.mark.parametrize(
    ("image", "size"),
    [(RGB.astype(float), (4, 4)), (RGB[..., :2], (4, 4)), (RGB[0, 0], (4, 4)), (RGB, (0, 4)), (RGB[:0], (4, 4))],
)
def test_resize_says_what_is_wrong(image, size):
    with pytest.raises(ValueError, match=r"image must be|cannot resize"):
        data.resize_image(image, size)


# --- files that cannot be read


def test_unreadable_files_are_named(tmp_path, put):
    good = put(tmp_path / "good.png", RGB).read_bytes()
    jpeg = io.BytesIO()
    Image.fromarray(RGB).resize((200, 200)).save(jpeg, "JPEG")
    files = {
        "empty.png": b"",
        "text.png": b"this is not a picture\n" * 40,
        "cut.png": good[: len(good) // 2],
        "head.png": good[:20],
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "zeros.png": bytes(500),
        "broken.png": good[:45] + bytes(40) + good[85:],
        "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        for read in (data.read_image, data.read_mask):
            with pytest.raises(data.ImageError) as caught:
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
    ],
)
def test_things_that_are_no_files(tmp_path, make, reason):
    make(tmp_path / "a.png")
    with pytest.raises(data.ImageError, match=reason):
        data.read_image(tmp_path / "a.png")


def test_zero_byte_in_the_name():
    with pytest.raises(data.ImageError):
        data.read_image("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path, put):
    path = put(tmp_path / "a.png", RGB)
    path.chmod(0)
    with pytest.raises(data.ImageError, match="permission"):
        data.read_image(path)


def test_pixel_limit(tmp_path, put):
    path = put(tmp_path / "a.png", RGB)
    assert data.read_image(path, max_pixels=9 * 14).shape == (9, 14, 3)
    with pytest.raises(data.ImageError, match="14 x 9 pixels, over the limit of 125"):
        data.read_image(path, max_pixels=125)


def test_decompression_bomb(tmp_path):
    Image.new("1", (20000, 15000)).save(tmp_path / "a.png")  # 300 million pixels in a few kB
    with pytest.raises(data.ImageError, match="pixels"):
        data.read_image(tmp_path / "a.png")


def test_big_pictures_within_the_limit_warn_of_nothing(tmp_path, monkeypatch, put, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    check_image(put(tmp_path / "a.png", RGB), RGB)
    assert not recwarn.list


def test_warnings_turned_into_errors_do_not_matter(tmp_path, monkeypatch, put):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = put(tmp_path / "a.png", RGB)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_image(path, RGB)


def test_threads_leave_the_warning_filters_as_they_were(tmp_path, put):
    path = put(tmp_path / "a.png", RGB)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [data.read_image(path) for _ in range(30)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_errors_cross_process_boundaries():
    error = data.ImageError("some/file.png", "is\n broken")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "some/file.png: is broken"
    assert copy.path == error.path
    assert copy.reason == "is broken"


def test_names_that_are_not_valid_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    with pytest.raises(data.ImageError) as caught:
        data.read_image(path)
    str(caught.value).encode("utf-8")
