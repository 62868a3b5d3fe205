import os

import numpy as np
import PIL.Image
import pytest
import torch

from itaclip_hf.processing import open_image, read_image, read_rgb_image

RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]]], dtype=np.uint8)  # (1, 2, 3)


def first_pixel(image, **options):
    return read_image(image, **options)[:, 0, 0].tolist()


# Modes that PIL reaches only through others.
DETOURS = {"PA": ["P"], "La": ["LA"], "RGBa": ["RGBA"]}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LA", *DETOURS])
def test_white_is_white_in_every_eight_bit_mode(mode):
    image = PIL.Image.new("RGB", (5, 4), "white")
    for step in [*DETOURS.get(mode, []), mode]:
        image = image.convert(step)
    pixels = read_image(image)
    assert pixels.shape == (3, 4, 5)
    assert pixels.dtype == np.uint8
    assert (pixels == 255).all()


def test_layout_is_channels_height_width():
    pixels = read_image(PIL.Image.fromarray(RED_GREEN))
    assert pixels.tolist() == [[[255, 0]], [[0, 255]], [[0, 0]]]


@pytest.mark.parametrize(
    "image",
    [
        PIL.Image.new("RGBA", (2, 2), (255, 0, 0, 0)),
        PIL.Image.new("LA", (2, 2), (0, 0)),
        np.zeros((2, 2, 4), dtype=np.uint8),
        np.zeros((4, 2, 2), dtype=np.float32),
        torch.zeros(4, 2, 2, dtype=torch.uint8),
    ],
    ids=["RGBA", "LA", "array", "floats", "tensor"],
)
def test_transparent_pixels_are_white(image):
    assert first_pixel(image) in ([255, 255, 255], [1.0, 1.0, 1.0])


def test_half_transparent_red_is_pink():
    image = PIL.Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((0, 0), (255, 0, 0, 128))
    assert first_pixel(image) == [255, 127, 127]
    assert first_pixel(np.asarray(image), input_data_format="channels_last") == [255, 127, 127]


def test_a_palette_with_a_transparent_entry():
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert first_pixel(image) == [255, 0, 0]
    image.info["transparency"] = 0
    assert read_image(image).reshape(3, 2).T.tolist() == [[255, 255, 255], [0, 0, 255]]


def test_gray_with_a_transparent_value():
    image = PIL.Image.new("L", (1, 1), 7)
    image.info["transparency"] = 7
    assert first_pixel(image) == [255, 255, 255]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_are_scaled_by_their_range(mode):
    values = np.array([[0, 257, 32896, 65535]], dtype=">u2" if mode == "I;16B" else "<i4" if mode == "I" else "<u2")
    image = PIL.Image.frombytes(mode, (4, 1), values.tobytes())
    assert read_image(image)[0].tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 65535]], dtype=np.uint16), [0, 255]),
        (np.array([[0, 255]], dtype=np.int64), [0, 255]),
        (np.array([[0, 255]], dtype=np.int16), [0, 255]),
        (np.array([[0, 2**32 - 1]], dtype=np.uint32), [0, 255]),
        (np.array([[0, 2**64 - 1]], dtype=np.uint64), [0, 255]),
        (np.array([[False, True]]), [0, 255]),
    ],
)
def test_integers_become_eight_bits(pixels, expected):
    gray = read_image(pixels)
    assert gray.dtype == np.uint8
    assert gray[0, 0].tolist() == expected


def test_float_pictures_are_gray_values_or_shares_which_is_said():
    image = PIL.Image.fromarray(np.array([[0.0, 200.0]], dtype=np.float32))
    assert image.mode == "F"
    assert read_image(image)[0, 0].tolist() == [0, 200]
    image = PIL.Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32))
    with pytest.warns(UserWarning, match="all between 0 and 1, which are taken for shares of white"):
        assert read_image(image)[0, 0].tolist() == [0, 255]


def test_a_fourth_channel_that_is_hardly_an_opacity_is_told():
    pixels = np.random.default_rng(0).integers(1, 255, (8, 8, 4), dtype=np.uint8)
    with pytest.warns(UserWarning, match="fourth channel that says how opaque"):
        read_image(pixels)
    pixels[:, 0, 3] = 255
    read_image(pixels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_stay_as_they_are_in_single_precision(dtype):
    pixels = read_image(torch.tensor([[0.5, -2.0]], dtype=dtype, requires_grad=True))
    assert pixels.dtype == np.float32
    assert pixels[0, 0].tolist() == [0.5, -2.0]


def test_arrays_may_have_their_channels_first_or_last_or_none():
    pixels = np.arange(3 * 5 * 6, dtype=np.uint8).reshape(3, 5, 6)
    np.testing.assert_array_equal(read_image(pixels), pixels)
    np.testing.assert_array_equal(read_image(pixels.transpose(1, 2, 0)), pixels)
    np.testing.assert_array_equal(read_image(torch.from_numpy(pixels)), pixels)
    np.testing.assert_array_equal(read_image(pixels[0]), pixels[[0, 0, 0]])
    np.testing.assert_array_equal(read_image(pixels[:1]), pixels[[0, 0, 0]])


@pytest.mark.parametrize("shape", [(1, 5, 3), (3, 5, 3), (3, 5, 4), (4, 5, 3), (5, 6, 1), (1, 1, 3)])
def test_colors_come_last_where_both_ends_have_the_length_of_channels(shape):
    pixels = np.full(shape, 255, dtype=np.uint8)
    assert read_image(pixels).shape == (3, *shape[:2])
    assert read_image(pixels.transpose(2, 0, 1), input_data_format="channels_first").shape == (3, *shape[:2])


@pytest.mark.parametrize("shape", [(1, 5, 1), (3, 5, 1), (4, 5, 1)])
def test_an_ambiguous_layout_has_to_be_said(shape):
    with pytest.raises(ValueError, match="may mean both"):
        read_image(np.zeros(shape, dtype=np.uint8))
    assert read_image(np.zeros(shape, dtype=np.uint8), input_data_format="channels_last").shape == (3, *shape[:2])


def test_transparent_black_floats_are_white_of_255():
    assert first_pixel(np.zeros((4, 2, 2), dtype=np.float32)) == [255, 255, 255]


@pytest.mark.parametrize(("highest", "expected"), [(255, 1), (4095, 16), (10000, 39)])
def test_dark_sixteen_bit_images_are_told(highest, expected):
    with pytest.warns(UserWarning, match=f"uint16 pixels between 0 and 65535, but got 0 to {highest}"):
        assert read_image(np.array([[0, highest]], dtype=np.uint16))[0, 0].tolist() == [0, expected]


@pytest.mark.parametrize("values", [[-9999.0, 5.0], [0.0, 10000.0]])
def test_floats_beyond_a_picture_are_no_rgb_image(values):
    image = PIL.Image.fromarray(np.array([values], dtype=np.float32))
    with pytest.raises(ValueError, match=f"but got {min(values):g} to {max(values):g}. Scale the image"):
        read_rgb_image(image)


def test_a_decoder_of_any_error_is_an_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    PIL.Image.new("RGB", (4, 4)).save(path)
    assert open_image(path).size == (4, 4)
    monkeypatch.setattr(PIL.Image.Image, "load", lambda _: (_ for _ in ()).throw(NotImplementedError("pixel format")))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", PIL.Image.Image.load)
    with pytest.raises(OSError, match="an image file that is whole, but got: pixel format"):
        open_image(path)


def test_programs_pipes_and_folders_are_no_images(tmp_path):
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "image.eps")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match=r"Expected an image in JPEG, PNG.*, but its content is none"):
        open_image(tmp_path / "image.eps")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(OSError, match="a folder, a pipe or a device"):
            open_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "ppm", "tiff", "webp", "jp2"])
def test_usual_formats_are_read_under_any_name(tmp_path, suffix):
    PIL.Image.new("L", (8, 6), 128).save(tmp_path / f"image.{suffix}")
    image = open_image((tmp_path / f"image.{suffix}").rename(tmp_path / "image"))
    assert image.size == (8, 6)
    assert np.asarray(image.convert("L")).mean() == pytest.approx(128, abs=2)


def test_huge_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2_000_000)
    PIL.Image.new("1", (2000, 1500)).save(tmp_path / "image.tiff")
    with pytest.raises(OSError, match="Expected at most 2 megapixels, but got more"):
        open_image(tmp_path / "image.tiff")


def test_without_conversion_channels_stay():
    assert read_image(np.zeros((5, 6, 4), dtype=np.uint8), do_convert_rgb=False).shape == (4, 5, 6)
    assert read_image(PIL.Image.new("L", (6, 5)), do_convert_rgb=False).shape == (1, 5, 6)


def test_exif_rotation_is_applied():
    image = PIL.Image.fromarray(RED_GREEN)
    image.getexif()[0x0112] = 6  # to be turned clockwise by 90 degrees
    assert read_image(image).tolist() == [[[255], [0]], [[0], [255]], [[0], [0]]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIL.Image.new("RGB", (0, 5)), r"empty image of shape \(5, 0, 3\)"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "empty image"),
        (np.full((5, 5, 3), np.nan), "NaN or infinity"),
        (torch.full((3, 5, 5), float("inf")), "NaN or infinity"),
        (np.full((5, 5, 3), -1), "integer pixels from 0 on, but got -1 to -1"),
        (np.full((5, 5, 3), 1e300), "between 0 and 255, but got 1e\\+300"),
        (np.full((5, 5, 3), 1e36, dtype=np.float32), "between 0 and 255, but got 1e\\+36"),
        (np.array([[0, 256]], dtype=np.int32), "int32 pixels between 0 and 255, but got 0 to 256. .* unsigned"),
        (np.zeros((5, 6, 2), dtype=np.uint8), "1, 3 or 4 channels"),
        (np.zeros((5, 6, 8), dtype=np.uint8), "1, 3 or 4 channels"),
        (np.zeros((2, 5, 5, 3), dtype=np.uint8), "2 or 3 dimensions"),
        (np.full((5, 5, 3), "a"), "numbers as pixels"),
    ],
)
def test_unusable_pixels_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        read_image(image)


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="but got list"):
        read_image([[0, 1]])
