"""`itaclip demo-scenes` and the pictures that ship with the package."""

import shutil

import numpy as np
import pytest
from PIL import Image

from itaclip_hf.cli.demo_scenes import _mean_iou
from itaclip_hf.files import write_json
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.processing import Vocabulary
from itaclip_hf.samples import SAMPLE_PHOTOS, count_demo_scenes, load_demo_scene, load_demo_scene_labels


@pytest.fixture
def one_scene(monkeypatch):
    monkeypatch.setattr("itaclip_hf.samples.count_demo_scenes", lambda: 1)


@pytest.fixture
def small_demo_checkpoint(monkeypatch, checkpoint, tmp_path):
    """A tiny random model in the place of the embedded one, whose many definitions take long to encode."""
    folder = shutil.copytree(checkpoint, tmp_path / "demo_checkpoint")
    write_json(folder / "vocabulary.json", Vocabulary(load_demo_scene_labels()).to_dict())
    monkeypatch.setattr("itaclip_hf.loading.DEMO_CHECKPOINT", folder)


def test_demo_writes_its_pictures_and_says_what_it_cannot_do(itaclip, one_scene, small_demo_checkpoint, tmp_path):
    out = tmp_path / "out"
    result = itaclip("demo-scenes", "--out", out, "--preset", "fast")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["image.png", "scenes.png"]
    assert "mIoU" in result.stdout
    assert "does not understand photographs" in result.stdout
    assert "--model openai/clip-vit-base-patch16" in result.stdout
    assert str(out / "scenes.png") in result.stdout


def test_demo_takes_any_model_image_and_classes(itaclip, one_scene, checkpoint, photo, tmp_path):
    options = ["--image", photo, "--model", checkpoint, "--classes", "cat; sky", "--preset", "fast"]
    result = itaclip("demo-scenes", "--out", tmp_path, *options)
    assert result.exit_code == 0, result.output
    assert "photo.png: " in result.stdout
    assert "does not understand photographs" not in result.stdout


def test_an_image_that_is_none_is_an_error_of_use(itaclip, one_scene, checkpoint, tmp_path):
    result = itaclip("demo-scenes", "--image", tmp_path / "none.jpg", "--model", checkpoint, "--out", tmp_path)
    assert result.exit_code == 2
    assert "none.jpg" in result.stderr


def test_mean_iou_of_a_hand_made_confusion():
    # label 2 occurs nowhere; label 0: 3 of 3 + 1 pixels, label 1: 4 of 4 + 1
    assert _mean_iou(np.array([[3, 0, 0], [1, 4, 0], [0, 0, 0]])) == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_scenes_have_exact_truth_in_the_order_of_the_checkpoints_vocabulary():
    labels = load_demo_scene_labels()
    assert labels == Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json").labels
    for index in range(count_demo_scenes()):
        image, truth = load_demo_scene(index)
        assert image.mode == "RGB"
        assert truth.shape == image.size[::-1]
        assert truth.max() < len(labels)


def test_an_unknown_scene_is_an_error():
    with pytest.raises(ValueError, match="scene from 0 to 5, but got 6"):
        load_demo_scene(6)


def test_sample_photographs_open_and_are_small():
    assert set(SAMPLE_PHOTOS) == {"cat", "coffee", "rocket"}
    for path in SAMPLE_PHOTOS.values():
        with Image.open(path) as image:
            image.load()
        assert path.stat().st_size <= 150_000
        assert path.name in (path.parent / "CREDITS.md").read_text()
