"""Bit for bit OpenCV's `resize` with `INTER_LINEAR` (4.14 and 5.0 gave the expected values)."""

import hashlib

import numpy as np
import pytest
import torch
from transformers.image_utils import PILImageResampling

from itaclip_hf.processing.pixels import resize_image

GRAY = np.array([[[207, 21, 45, 60], [46, 205, 222, 149], [10, 24, 85, 110]]], dtype=np.uint8)
COLOR = np.array(
    [[[159, 122, 67], [40, 177, 188], [8, 29, 115]], [[100, 227, 132], [107, 110, 170], [150, 44, 188]]],
    dtype=np.uint8,
)


def patterned_image(height, width):
    positions = np.arange(height * width * 3, dtype=np.int64)
    return ((positions * positions * 7 + positions * 13) % 251).astype(np.uint8).reshape(height, width, 3)


@pytest.mark.parametrize(
    "expected",
    [
        [[46, 72, 143, 206, 214, 221, 194, 161, 149]],
        [[150, 78, 83], [27, 94, 120]],
        [[114, 52], [121, 135], [85, 152], [17, 97]],
        [
            [207, 140, 34, 33, 46, 54, 60],
            [142, 125, 98, 105, 114, 103, 96],
            [46, 103, 194, 214, 217, 175, 149],
            [24, 50, 91, 118, 139, 131, 126],
            [10, 15, 23, 54, 87, 101, 110],
        ],
    ],
    ids=lambda expected: f"{len(expected)}x{len(expected[0])}",
)
def test_gray_image(expected):
    assert resize_image(GRAY, np.shape(expected)).tolist() == [expected]


def test_colors_are_resized_alike_in_both_memory_layouts():
    expected = [[[129, 136, 97], [16, 66, 133]], [[115, 167, 119], [78, 63, 158]], [[102, 198, 141], [139, 60, 183]]]
    for planes in (np.moveaxis(COLOR, -1, 0), np.moveaxis(COLOR, -1, 0).copy()):
        resized = resize_image(planes, (3, 2))
        assert resized.dtype == np.uint8
        assert np.moveaxis(resized, 0, -1).tolist() == expected


def test_rows_beyond_the_border_drop_bits_of_two_products():
    resized = resize_image(np.array([[[7, 200]]], dtype=np.uint8), (3, 5))
    assert resized.tolist() == [[[7, 26, 103, 181, 200], [7, 26, 104, 181, 200], [7, 26, 103, 181, 200]]]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((336, 454), "bab2e0a5a08644ddef455225307042b59e8016937e92eae8fe348bd238c11f19"),
        ((50, 61), "5e369f89011faba62e51a506c54e15488be5f6095c0e659e2331882b6ee38551"),
        ((97, 200), "5cbeccf45272a8ab70fcb70f4643b8c71614bfde055b863131e8a14c3ee49766"),
        ((48, 131), "ad047c68fb34c5cd5ae507465c523d842489015dff334409354195b970efcebb"),
    ],
)
def test_larger_images(size, expected):
    resized = resize_image(np.moveaxis(patterned_image(97, 131), -1, 0), size)
    assert hashlib.sha256(np.moveaxis(resized, 0, -1).tobytes()).hexdigest() == expected


@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_flat_images_stay_as_they_are(level):
    resized = resize_image(np.full((3, 7, 5), level, dtype=np.uint8), (23, 31))
    assert np.unique(resized).tolist() == [level]


@pytest.mark.parametrize(
    ("dtype", "resample", "mode"),
    [
        (np.float32, PILImageResampling.BILINEAR, "bilinear"),
        (np.uint8, PILImageResampling.BICUBIC, "bicubic"),
        (np.uint8, PILImageResampling.NEAREST, "nearest-exact"),
    ],
)
def test_other_types_and_interpolations_are_those_of_torch(dtype, resample, mode):
    image = np.moveaxis(patterned_image(20, 30), -1, 0).astype(dtype)
    expected = torch.nn.functional.interpolate(torch.from_numpy(image).float()[None], (31, 17), mode=mode)[0].numpy()
    if dtype == np.uint8:
        expected = expected.round().clip(0, 255)
    resized = resize_image(image, (31, 17), resample)
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized, expected)
