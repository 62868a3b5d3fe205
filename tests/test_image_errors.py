"""Errors of one image, and faults of the program."""

import pytest

from itaclip_hf.image_errors import find_image_error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("NaN"),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        TypeError("Expected numbers, but got bool."),
    ],
)
def test_what_is_wrong_with_an_image_is_an_error_of_that_image(error):
    assert find_image_error(error) == (str(error) or "MemoryError")


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("mat1 and mat2"),
        KeyError("x"),
        OSError("another run is at work"),
        TypeError("prepare() got an unexpected keyword argument 'region_maps'"),
    ],
)
def test_faults_of_the_program_stay_what_they_are(fault):
    assert find_image_error(fault) is None
