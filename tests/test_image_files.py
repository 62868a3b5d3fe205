"""Image files that are none, broken, or of formats that run foreign programs."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from itaclip_hf.image_errors import ImageError, name_image_errors
from itaclip_hf.processing import open_image


def encode(format, mode="RGB", size=(8, 6)):
    content = io.BytesIO()
    Image.new("L", size, 128).convert(mode).save(content, format)
    return content.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000"])
def test_usual_formats_are_read_under_any_suffix(format, tmp_path):
    (tmp_path / "image.png").write_bytes(encode(format))
    image = open_image(tmp_path / "image.png")
    assert image.size == (8, 6)
    assert np.asarray(image.convert("L")).mean() == pytest.approx(128, abs=2)


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO"])
def test_other_formats_are_refused(format, tmp_path):
    (tmp_path / "image.png").write_bytes(encode(format))
    with pytest.raises(OSError, match="Expected an image in JPEG, PNG, BMP"):
        open_image(tmp_path / "image.png")


def test_half_an_image_cannot_be_decoded():
    with pytest.raises(OSError, match="Expected an image file that is whole, but got: "):
        open_image(io.BytesIO(encode("PNG", size=(64, 64))[:100]))


def test_huge_images_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    with pytest.raises(OSError, match="Expected at most 2 megapixels, but got more"):
        open_image(io.BytesIO(encode("TIFF", "1", (2000, 1500))))


@pytest.mark.parametrize("error", [RuntimeError("bad tile"), NotImplementedError("pixel format"), EOFError()])
def test_whatever_a_decoder_raises_is_the_images_error(error, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(OSError, match=f"that is whole, but got: {str(error) or 'EOFError'}"):
        open_image(io.BytesIO(encode("BMP")))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_pipes_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "pipe.png"):
        with pytest.raises(OSError, match="a folder, a pipe or a device"):
            open_image(path)


def test_a_missing_file_is_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "none.png")


def test_errors_of_one_image_and_faults_of_the_program_are_told_apart():
    for error in (ValueError("NaN"), OSError("cut off"), MemoryError(), RuntimeError("CUDA out of memory")):
        with pytest.raises(ImageError, match=str(error) or "MemoryError"), name_image_errors():
            raise error
    for fault in (RuntimeError("mat1 and mat2"), KeyError("x")):
        with pytest.raises(type(fault)), name_image_errors():
            raise fault
