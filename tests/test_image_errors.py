"""Errors of one image, and faults of the program."""

import pytest

from itaclip_hf.image_errors import ImageError, name_image_errors


@pytest.mark.parametrize("error", [ValueError("NaN"), MemoryError(), RuntimeError("CUDA out of memory")])
def test_what_is_wrong_with_an_image_is_an_error_of_that_image(error):
    with pytest.raises(ImageError, match=str(error) or "MemoryError"), name_image_errors():
        raise error


@pytest.mark.parametrize("fault", [RuntimeError("mat1 and mat2"), KeyError("x"), OSError("another run is at work")])
def test_faults_of_the_program_stay_what_they_are(fault):
    with pytest.raises(type(fault)), name_image_errors():
        raise fault
