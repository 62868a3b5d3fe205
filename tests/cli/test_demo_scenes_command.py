"""`itaclip demo-scenes` and the pictures that ship with the package."""

import re
import shutil

import pytest
from PIL import Image

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


def test_demo_writes_its_picture_and_says_how_to_do_photographs(itaclip, one_scene, small_demo_checkpoint, tmp_path):
    out = tmp_path / "out"
    result = itaclip("demo-scenes", "--out", out, "--preset", "fast")
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.iterdir()] == ["scenes.png"]
    assert re.search(r"scene 1: mIoU [\d.]+% \([\d.]+% over the classes that are there\); found", result.stdout)
    assert "does not understand photographs" in result.stdout
    assert "make demo IMAGE=photo.jpg MODEL=openai/clip-vit-base-patch16" in result.stdout
    assert str(out / "scenes.png") in result.stdout


def test_photographs_are_shown_where_a_real_clip_is_on_the_machine(
    itaclip, one_scene, small_demo_checkpoint, checkpoint, monkeypatch, tmp_path
):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, local_files_only: str(checkpoint))
    monkeypatch.setattr("itaclip_hf.samples.PHOTO_WORDS", {"cat": ("cat", "wall")})
    result = itaclip("demo-scenes", "--out", tmp_path / "out", "--shortest-edge", 32)
    assert result.exit_code == 0, result.output
    assert "cat.jpg, by openai/clip-vit-base-patch16: " in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat.png", "scenes.png"]


def test_demo_takes_any_model_image_and_classes(itaclip, checkpoint, photo, tmp_path):
    options = ["--image", photo, "--model", checkpoint, "--classes", "cat; sky", "--preset", "fast"]
    result = itaclip("demo-scenes", "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert f"photo.png, by {checkpoint}: " in result.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image.png"]
    assert "does not understand photographs" not in result.stdout


def test_classes_without_an_image_are_refused_as_the_scenes_have_their_own(itaclip, tmp_path):
    result = itaclip("demo-scenes", "--classes", "cat; sky", "--out", tmp_path)
    assert result.exit_code == 2
    assert "Expected --image with --classes" in result.stderr


def test_an_image_that_is_none_is_an_error_of_use(itaclip, checkpoint, tmp_path):
    result = itaclip("demo-scenes", "--image", tmp_path / "none.jpg", "--model", checkpoint, "--out", tmp_path)
    assert result.exit_code == 2
    assert "none.jpg" in result.stderr


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
