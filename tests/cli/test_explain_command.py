"""`itaclip explain` as a user runs it."""

import json

import pytest
from PIL import Image


@pytest.fixture
def explain(itaclip, checkpoint, photo, tmp_path):
    def run(*options):
        words = ["--classes", "cat; dog, puppy", "--background", "sky, wall"]
        return itaclip(
            "explain", photo, "--model", checkpoint, "--preset", "fast", "--out", tmp_path / "out", *words, *options
        )

    return run


def test_tables_pictures_and_figures(explain, tmp_path):
    for _ in range(2):  # the results of the first run are replaced
        result = explain("--at", "30,20")
        assert result.exit_code == 0, result.output
    assert "| class | % of pixels | score | margin | won by | ahead of | next best in % |" in result.output
    out = tmp_path / "out"
    content = json.loads((out / "photo_explained.json").read_text())
    assert (content["width"], content["height"]) == (60, 40)
    assert [entry["label"] for entry in content["classes"]] == ["background", "cat", "dog"]
    assert sorted((each["kind"], each["text"]) for each in content["without"]) == [
        ("background word", "sky"),
        ("background word", "wall"),
        ("name", "dog"),
        ("name", "puppy"),
    ]
    assert content["attention"]["at"] == [30, 20] and len(content["attention"]["blocks"]) == 13
    for kind in ("explained", "attention"):
        Image.open(out / f"photo_{kind}.png").verify()


def test_without_a_place_there_is_no_attention(explain, tmp_path):
    assert explain().exit_code == 0
    assert json.loads((tmp_path / "out" / "photo_explained.json").read_text())["attention"] is None
    assert not (tmp_path / "out" / "photo_attention.png").exists()


def test_a_large_image_that_is_scaled_down_is_said_once(explain, photo, tmp_path):
    Image.open(photo).resize((90, 60)).save(tmp_path / "second.png")
    result = explain(tmp_path / "second.png", "--shortest-edge", "16")
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert note.startswith(f"Note: {photo} has 40 x 60 pixels, and the model sees 16 x 24. To explain details, raise")


def test_other_files_stay(explain, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo_explained.png").write_text("mine")
    result = explain()
    assert result.exit_code == 2 and "to be an earlier result, but it is another file" in result.output
    assert (tmp_path / "out" / "photo_explained.png").read_text() == "mine"


def test_a_broken_image_is_named_and_the_rest_goes_on(explain, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    result = explain(broken)
    assert result.exit_code == 1
    assert f"{broken}: Expected an image in JPEG, PNG" in result.stderr and "1 of 2 images failed" in result.stderr
    assert (tmp_path / "out" / "photo_explained.png").exists()


@pytest.mark.parametrize("place", ["12", "1,2,3", "a,b"])
def test_a_place_is_two_numbers(explain, place):
    result = explain("--at", place)
    assert result.exit_code == 2
    assert f'Expected a pixel as "X,Y", such as 120,80, but got {place!r}.' in result.output


def test_a_place_outside_one_image_is_that_images_error(explain, tmp_path):
    Image.new("RGB", (80, 40)).save(tmp_path / "wide.png")
    result = explain(tmp_path / "wide.png", "--at", "60,0")
    assert result.exit_code == 1 and "photo.png: Expected a pixel (x, y) of an image of 60 x 40" in result.stderr
    assert (tmp_path / "out" / "wide_attention.png").exists()


def test_a_name_without_room_for_those_of_the_results_is_that_images_error(explain, tmp_path):
    long = tmp_path / f"{'x' * 245}.png"
    Image.new("RGB", (60, 40)).save(long)
    result = explain(long)
    assert result.exit_code == 1 and "Expected a name that leaves room for its results' names" in result.stderr
    assert (tmp_path / "out" / "photo_explained.png").exists()


def test_words_are_needed(itaclip, checkpoint, photo):
    result = itaclip("explain", photo, "--model", checkpoint)
    assert result.exit_code == 2 and "Expected the words to explain, but got none." in result.output
