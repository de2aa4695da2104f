"""Files of more than 8 bits: all their bits are read, whatever the format, or the reason names what they hold."""

import contextlib
import io

import numpy as np
import pytest
from deep_files import png
from PIL import Image

from vitlite import images
from vitlite.images.reading import convert_image, frame_count, image_size, read_stored

HEIGHT, WIDTH = 19, 23
WIDE = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png(tmp_path, channels, interlaced):
    values = WIDE[..., 0] if channels == 1 else WIDE[..., :channels]
    (tmp_path / "a.png").write_bytes(png(values, interlaced))
    colours = values if channels == 1 else values[..., 0] if channels == 2 else values[..., :3]
    found, _ = read_stored(tmp_path / "a.png")
    np.testing.assert_array_equal(found.values, colours)
    alpha = values[..., -1:].astype(float) / 65535 if channels in (2, 4) else np.ones((1, 1, 1))
    expected = np.rint(colours.reshape(HEIGHT, WIDTH, -1) / 257) * alpha
    assert np.abs(images.read_image(tmp_path / "a.png") - expected).max() <= 0.51
    for source in (tmp_path / "a.png", io.BytesIO((tmp_path / "a.png").read_bytes())):
        with Image.open(source) as image:  # as Pillow opens it, not loaded yet
            np.testing.assert_array_equal(convert_image(image)[0], images.read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_a_png_is_black(tmp_path, channels):
    values = np.squeeze(WIDE[..., :channels])
    (tmp_path / "a.png").write_bytes(png(values, key=values[3, 4]))
    image = images.read_image(tmp_path / "a.png")
    assert image[3, 4].tolist() == [0, 0, 0]
    assert image[3, 5].any()


@pytest.mark.parametrize("highest", [1023, 65535])
@pytest.mark.parametrize(("magic", "channels"), [("P5", 1), ("P6", 3), ("P3", 3)])
def test_netpbm_files_say_what_white_is(tmp_path, magic, channels, highest):
    values = np.minimum(np.squeeze(WIDE[..., :channels]), highest)
    text = magic == "P3"
    data = " ".join(map(str, values.ravel())).encode() if text else values.astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(f"{magic}\n{WIDTH} {HEIGHT}\n{highest}\n".encode() + data)
    found, _ = read_stored(tmp_path / "a.ppm")
    np.testing.assert_array_equal(found.values, np.rint(values * (65535 / highest)))


TIFFS = {
    "rgb": (WIDE[..., :3], {"photometric": "rgb"}),
    "rgba": (WIDE, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "big endian": (WIDE[..., :3], {"photometric": "rgb", "byteorder": ">"}),
    "compressed": (WIDE[..., :3], {"photometric": "rgb", "compression": "zlib", "predictor": True}),
    "compressed, big endian": (WIDE[..., :3], {"photometric": "rgb", "compression": "zlib", "byteorder": ">"}),
    "tiles": (WIDE[..., :3], {"photometric": "rgb", "tile": (16, 16)}),
    "planes apart": (np.moveaxis(WIDE[..., :3], 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    "float rgb": (np.float32(WIDE[..., :3] / 65535), {"photometric": "rgb"}),
    "strips": (np.float64(WIDE[..., 0] / 65535), {"rowsperstrip": 4}),
    **{
        f"{kind} {order}": ((WIDE[..., 0] // 700).astype(kind), {"byteorder": order})
        for kind in ("uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
        for order in "<>"
    },
}


@pytest.mark.parametrize("name", TIFFS)
def test_tiff(tmp_path, name):
    tifffile = pytest.importorskip("tifffile")
    values, options = TIFFS[name]
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    found, _ = read_stored(tmp_path / "a.tif")
    expected = np.moveaxis(values, 0, 2) if "separate" in options.values() else values
    np.testing.assert_array_equal(found.values, expected[..., :3] if expected.ndim == 3 else expected)
    if values.dtype.kind != "f":
        info = np.iinfo(values.dtype)
        assert (found.bottom, found.top) == (info.min, info.max)


def test_tiffs_whose_white_is_zero_and_signed_bytes(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", WIDE[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_stored(tmp_path / "a.tif")[0].values, 65535 - WIDE[..., 0])
    signed = (WIDE[..., 0] >> 8).astype(np.uint8).view(np.int8)
    tifffile.imwrite(tmp_path / "b.tif", signed)
    np.testing.assert_array_equal(images.read_image(tmp_path / "b.tif")[..., 0], signed.astype(int) + 128)


def test_an_orientation_turns_what_pillow_does_not_open(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = WIDE[..., 0] / 65535
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(274, "H", 1, 6, True)])
    assert image_size(tmp_path / "a.tif") == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(read_stored(tmp_path / "a.tif")[0].values, np.rot90(values, -1))


@pytest.mark.parametrize(
    ("kind", "channels", "options", "reason"),
    [
        ("uint8", 4, {"photometric": "minisblack"}, "4 channels of 8-bit integers"),
        ("uint8", 5, {"photometric": "minisblack"}, "5 channels of 8-bit integers"),
        ("uint8", 5, {"photometric": "rgb"}, "5 channels of 8-bit integers"),
        ("uint16", 5, {"photometric": "rgb"}, "5 channels of 16-bit integers"),
        ("float32", 4, {"photometric": "rgb"}, "4 channels of 32-bit floats"),
        ("float32", 1, {"photometric": "miniswhite"}, "floats with zero as white"),
        ("uint64", 1, {}, "64-bit integers"),
        ("complex64", 1, {}, "complex numbers"),
        ("float64", 1, {"compression": "zlib"}, "64-bit floats, compressed"),
        ("float16", 1, {"tile": (16, 16)}, "16-bit floats, in tiles"),
        ("uint16", 3, {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}, "planes apart"),
    ],
)
def test_what_is_refused_says_what_it_holds(tmp_path, kind, channels, options, reason):
    tifffile = pytest.importorskip("tifffile")
    apart = options.get("planarconfig") == "separate"
    shape = (HEIGHT, WIDTH) if channels == 1 else (channels, HEIGHT, WIDTH) if apart else (HEIGHT, WIDTH, channels)
    contiguous = {"planarconfig": "contig"} if channels > 1 and not apart else {}
    tifffile.imwrite(tmp_path / "a.tif", np.ones(shape, kind), **contiguous, **options)
    with pytest.raises(images.ImageError, match=reason):
        images.read_image(tmp_path / "a.tif")


def test_damaged_tiffs_of_floats_are_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, WIDE[..., 0] / 65535)
    whole = path.read_bytes()
    for length in range(0, len(whole), 291):
        path.write_bytes(whole[:length])
        with pytest.raises(images.ImageError, match=r"a\.tif"):
            images.read_image(path)
    generator = np.random.default_rng(0)
    for _ in range(100):
        spoiled = np.frombuffer(whole, np.uint8).copy()
        spoiled[generator.integers(0, 300, 3)] = generator.integers(0, 256, 3)
        path.write_bytes(spoiled.tobytes())
        with contextlib.suppress(images.ImageError):
            assert images.read_image(path, max_pixels=10_000_000).shape[2] == 3


def test_maps_of_floats_of_any_width(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for kind in ("float16", "float32", "float64"):
        values = (WIDE[..., 0] / 65535).astype(kind)
        tifffile.imwrite(tmp_path / "a.tif", values)
        np.testing.assert_array_equal(images.read_map(tmp_path / "a.tif"), values)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib")
    with pytest.raises(images.MapError, match="64-bit floats, compressed"):
        images.read_map(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.stack([values, values]), photometric="minisblack")
    with pytest.raises(images.MapError, match="2 pages"):
        images.read_map(tmp_path / "a.tif")


def test_masks_of_floats_that_pillow_does_not_open(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    marked = WIDE[..., 0] > 40000
    tifffile.imwrite(tmp_path / "a.tif", marked.astype(np.float64))
    np.testing.assert_array_equal(images.read_mask(tmp_path / "a.tif"), marked)


def test_frames_are_counted(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    frames = [Image.fromarray((WIDE[..., i] >> 8).astype(np.uint8)) for i in range(3)]
    for name in ("a.tif", "a.gif", "a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert frame_count(tmp_path / name) == 3
    frames[0].save(tmp_path / "one.tif")
    tifffile.imwrite(tmp_path / "float.tif", WIDE[..., 0].astype(np.float64))
    assert frame_count(tmp_path / "one.tif") == frame_count(tmp_path / "float.tif") == 1
    assert frame_count(tmp_path / "missing.tif") == 1


def test_a_limit_above_pillows_own(tmp_path, put, monkeypatch):
    path = put(tmp_path / "a.png", Image.new("1", (200, 150)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(images.ImageError, match="max_megapixels"):
        images.read_image(path, max_pixels=15_000)
    assert images.read_image(path, max_pixels=30_000).shape == (150, 200, 3)
    assert Image.MAX_IMAGE_PIXELS == 10_000
