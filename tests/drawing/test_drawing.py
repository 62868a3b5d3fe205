"""Palettes and pictures of label maps."""

import numpy as np
import pytest
from PIL import Image

from itaclip_hf.drawing import (
    draw_confidence,
    draw_gallery,
    draw_label_map,
    draw_named_regions,
    draw_overlay,
    draw_with_legend,
    make_palette,
    to_grey_image,
    to_indexed_image,
)
from itaclip_hf.drawing.palette import BACKGROUND_COLOR


@pytest.fixture
def labels():
    labels = np.zeros((48, 64), dtype=np.int64)
    labels[10:40, 20:50] = 1
    labels[:4, :4] = 2
    return labels


def test_palette_has_256_different_colors():
    assert len(set(make_palette())) == len(make_palette()) == 256


def test_background_is_dark_and_all_others_differ_from_it():
    palette = make_palette(has_background=True)
    assert palette[0] == BACKGROUND_COLOR
    assert palette[1:] == make_palette()[:-1]


def test_the_first_twenty_colors_are_far_apart():
    first = np.array(make_palette()[:20], dtype=float)
    distances = np.linalg.norm(first[:, None] - first[None], axis=-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 40


def test_label_ids_survive_the_file(labels, tmp_path):
    labels[0, 0] = 255
    to_indexed_image(labels, make_palette()).save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), labels)
        assert image.convert("RGB").getpixel((0, 0)) == make_palette()[255]


def test_more_than_256_labels_become_16_bits(labels, tmp_path):
    labels[0, 0] = 700
    to_indexed_image(labels, make_palette()).save(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as image:
        assert np.array_equal(np.array(image), labels)


def test_negative_ids_are_an_error(labels):
    with pytest.raises(ValueError, match="label ids from 0 to 65535, but got -1 to 2"):
        to_indexed_image(np.where(labels == 0, -1, labels), make_palette())


def test_ids_beyond_the_palette_begin_again_without_the_background():
    palette = make_palette(has_background=True)
    picture = draw_label_map(np.array([[255, 256, 511]]), palette)
    assert [picture.getpixel((x, 0)) for x in range(3)] == [palette[255], palette[1], palette[1]]


def test_overlay_mixes_colors_and_draws_borders(labels):
    palette = make_palette()
    pixels = np.full((48, 64, 3), 100, dtype=np.uint8)
    overlay = np.asarray(draw_overlay(pixels, labels, palette, opacity=0.5))
    assert overlay[25, 35] == pytest.approx((100 + np.array(palette[1])) / 2, abs=1)
    assert (overlay[25, 49] < overlay[25, 35]).all()  # the last column inside the square


def test_names_are_written_where_their_class_is(labels):
    plain = draw_label_map(labels, make_palette())
    named = np.asarray(draw_named_regions(plain, labels, ["sky", "dog", "dot"])) != np.asarray(plain)
    assert named[15:35, 25:45].any()
    assert not named[46:, :10].any()


def test_legend_stands_beside_the_picture(labels):
    page = draw_with_legend(draw_label_map(labels, make_palette()), labels, ["sky", "dog", "dot"], make_palette())
    assert page.height == 48 and page.width > 64 + 40
    legend = np.asarray(page)[:, 64:].reshape(-1, 3)
    assert all((legend == color).all(axis=1).any() for color in make_palette()[:3])


def test_confidence_brightens_with_the_score():
    brightness = np.asarray(draw_confidence(np.linspace(0, 1, 50)[None]).convert("L"))[0].astype(int)
    assert (np.diff(brightness) >= 0).all() and brightness[-1] - brightness[0] > 200


def test_grey_images_keep_scores():
    scores = np.random.default_rng(0).random((5, 6))
    assert np.allclose(np.array(to_grey_image(scores)) / 65535, scores, atol=1e-5)


def test_gallery_puts_pictures_into_rows_and_columns():
    rows = [[Image.new("RGB", (50, 40), color) for color in row] for row in (("red", "blue"), ("lime", "white"))]
    page = draw_gallery(rows, ("left", "right"), ("first", "second"), cell_width=100)
    assert page.width == 2 * 100 + 3 * 8
    colors = {color for _, color in page.getcolors(100_000)}
    assert {(255, 0, 0), (0, 0, 255), (0, 255, 0)} <= colors


def test_gallery_of_uneven_rows_is_an_error():
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="rows of equal length"):
        draw_gallery([[picture], [picture, picture]])
    with pytest.raises(ValueError, match="2 column titles"):
        draw_gallery([[picture, picture]], ("one",))


def test_overlay_of_a_large_picture_is_that_of_its_strips(labels, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
    whole = np.array(draw_overlay(pixels, labels, make_palette()))
    monkeypatch.setattr("itaclip_hf.drawing.label_maps.PIXELS_AT_ONCE", 5 * labels.shape[1])
    assert np.array_equal(np.array(draw_overlay(pixels, labels, make_palette())), whole)
