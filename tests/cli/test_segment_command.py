"""`itaclip segment` as a user runs it: files in, files out, exit codes and messages."""

import json

import numpy as np
import pytest
from PIL import Image

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPProcessor, Vocabulary
from itaclip_hf.loading import load_demo_vocabulary


def save_picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def segment(itaclip, checkpoint, tmp_path):
    """Runs `itaclip segment` fast and into tmp_path / "out"."""

    def run(*arguments, classes="cat; dog, puppy; sky"):
        options = ["--model", checkpoint, "--preset", "fast", "--out", tmp_path / "out"]
        options += [] if classes is None else ["--classes", classes]
        return itaclip("segment", *arguments, *options)

    return run


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_results_agree_with_the_library(segment, checkpoint, photo, tmp_path):
    result = segment(photo, "--confidence")
    assert result.exit_code == 0, result.output
    model = ITACLIPForSemanticSegmentation.from_pretrained(checkpoint, window_stride=112).eval()
    processor = ITACLIPProcessor.from_pretrained(checkpoint)
    model.set_vocabulary(processor, Vocabulary(["cat", ["dog", "puppy"], "sky"]))
    outputs = model(**processor(images=Image.open(photo), return_tensors="pt"))
    expected = processor.post_process_semantic_segmentation(outputs)[0].numpy()
    scores = outputs.logits[0].exp().detach().numpy()

    out = tmp_path / "out"
    labels = np.array(Image.open(out / "photo_labels.png"))
    description = json.loads((out / "photo.json").read_text())
    assert np.array_equal(labels, expected)
    assert [entry["name"] for entry in description["classes"]] == ["cat", "dog", "sky"]
    for entry in description["classes"]:
        is_class = expected == entry["id"]
        assert entry["share"] == pytest.approx(is_class.mean(), abs=1e-5)
        if is_class.any():
            assert entry["mean_score"] == pytest.approx(scores.max(0)[is_class].mean(), abs=1e-4)
        else:
            assert entry["mean_score"] is None
    confidence = np.array(Image.open(out / "photo_confidence.png")) / 65535
    assert np.allclose(confidence, scores.max(0), atol=1e-4)
    assert (description["height"], description["width"]) == (40, 60)
    assert description["settings"]["window_stride"] == 112


def test_writes_label_map_overlay_and_description_and_nothing_else(segment, photo, tmp_path):
    result = segment(photo)
    assert list_files(tmp_path / "out") == ["photo.json", "photo_labels.png", "photo_overlay.png"]
    with Image.open(tmp_path / "out" / "photo_labels.png") as labels:
        assert labels.mode == "P" and labels.size == (60, 40)
    with Image.open(tmp_path / "out" / "photo_overlay.png") as overlay:
        assert overlay.height == 40 and overlay.width > 60
    assert f"{photo} -> " in result.stdout


def test_background_words_become_class_0(segment, photo, tmp_path):
    segment(photo, "--background", "wall, floor")
    classes = json.loads((tmp_path / "out" / "photo.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == ["background", "cat", "dog", "sky"]


def test_folders_are_searched_and_their_subfolders_kept(segment, tmp_path):
    save_picture(tmp_path / "in" / "one.jpg")
    save_picture(tmp_path / "in" / "deep" / "TWO.PNG")
    save_picture(tmp_path / "in" / ".hidden" / "three.png")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    assert segment(tmp_path / "in").exit_code == 0
    assert [name for name in list_files(tmp_path / "out") if name.endswith(".json")] == ["deep/TWO.json", "one.json"]


def test_images_of_one_name_do_not_overwrite_each_other(segment, tmp_path):
    paths = [save_picture(tmp_path / name, seed) for seed, name in enumerate(["a/cat.png", "b/cat.png", "b/cat.jpg"])]
    assert segment(*paths).exit_code == 0
    sources = [
        json.loads((tmp_path / "out" / f"{name}.json").read_text())["image"] for name in ("cat", "cat-2", "cat-3")
    ]
    assert sources == [str(path) for path in paths]


def test_a_broken_image_is_reported_and_the_rest_goes_on(segment, photo, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:200])
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    result = segment(broken, tmp_path / "missing.png", text, photo)
    assert result.exit_code == 1
    for path in (broken, tmp_path / "missing.png", text):
        assert f"{path}: " in result.stderr
    assert f"Expected an image file, but there is no {tmp_path / 'missing.png'}. Check its path." in result.stderr
    assert "3 of 4 images failed" in result.stderr
    assert "photo.json" in list_files(tmp_path / "out")


@pytest.mark.parametrize(("classes", "is_one"), [("cat, dog", True), ("cat; dog", False)])
def test_synonyms_alone_are_told_to_be_one_class(segment, photo, classes, is_one):
    result = segment(photo, classes=classes)
    assert result.exit_code == 0
    assert ("Every pixel gets the one class that you name." in result.stderr) == is_one


def test_where_nothing_is_there_no_model_is_loaded(itaclip):
    result = itaclip("segment", "photo.jpg", "folder", "--classes", "cat", "--model", "nowhere")
    assert result.exit_code == 2
    assert "Expected images, but there is no photo.jpg, no folder. Check the paths." in result.output


def test_earlier_results_are_refused_by_default(segment, photo, tmp_path):
    segment(photo)
    before = (tmp_path / "out" / "photo.json").read_bytes()
    result = segment(photo, classes="tree; sky")
    assert result.exit_code == 2
    assert "--existing overwrite" in result.stderr
    assert (tmp_path / "out" / "photo.json").read_bytes() == before


def test_earlier_results_can_be_overwritten(segment, photo, tmp_path):
    segment(photo)
    assert segment(photo, "--existing", "overwrite", classes="tree; sky").exit_code == 0
    classes = json.loads((tmp_path / "out" / "photo.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == ["tree", "sky"]


def test_finished_images_can_be_skipped(segment, photo, tmp_path):
    segment(photo)
    before = (tmp_path / "out" / "photo.json").stat().st_mtime_ns
    other = save_picture(tmp_path / "other.png", 1)
    result = segment(photo, other, "--existing", "skip")
    assert result.exit_code == 0
    assert "1 of 2 images are finished already" in result.stdout
    assert (tmp_path / "out" / "photo.json").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "other.json").exists()


def test_results_with_other_settings_are_not_skipped(segment, photo):
    segment(photo)
    result = segment(photo, "--existing", "skip", classes="tree; sky")
    assert result.exit_code == 2
    assert "other settings" in result.stderr


def test_a_baked_vocabulary_needs_no_classes(itaclip, checkpoint, photo, tmp_path):
    model = ITACLIPForSemanticSegmentation.from_pretrained(checkpoint)
    processor = ITACLIPProcessor.from_pretrained(checkpoint)
    model.set_vocabulary(processor, Vocabulary(["tree", "house"]))
    for part in (model, processor):
        part.save_pretrained(tmp_path / "baked")
    result = itaclip("segment", photo, "--model", tmp_path / "baked", "--out", tmp_path / "out", "--preset", "fast")
    assert result.exit_code == 0, result.output
    classes = json.loads((tmp_path / "out" / "photo.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == ["tree", "house"]


@pytest.mark.slow
def test_the_embedded_checkpoint_brings_its_vocabulary(itaclip, photo, tmp_path):
    settings = ["--window-size", "0", "--no-image-engineering", "--pamr-steps", "0", "--shortest-edge", "64"]
    result = itaclip("segment", photo, "--model", "demo", "--out", tmp_path / "out", *settings)
    assert result.exit_code == 0, result.output
    classes = json.loads((tmp_path / "out" / "photo.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == load_demo_vocabulary().labels


def test_without_any_vocabulary_the_message_names_the_option(segment, photo):
    result = segment(photo, classes=None)
    assert result.exit_code == 2
    assert "Add --classes" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "cat;;dog"], "Expected classes like"),
        (["--classes", "cat; cat"], "every name once"),
        (["--classes", "cat", "--device", "toaster"], "Expected a device"),
        (["--background", "wall"], "Expected `--classes` with `--background`"),
        (["--classes", "cat", "--model", "no/such/folder"], "no/such/folder"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_code_2(itaclip, checkpoint, photo, tmp_path, arguments, message):
    result = itaclip("segment", photo, "--model", checkpoint, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Loading ")]
    assert len(lines) == 1
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_all_weights_is_refused(itaclip, checkpoint, photo, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoint, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    result = itaclip("segment", photo, "--model", folder, "--classes", "cat", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "lacks 1 weights, among them visual_projection.weight" in result.stderr


def test_a_folder_without_images_is_an_error(segment, tmp_path):
    (tmp_path / "empty").mkdir()
    result = segment(tmp_path / "empty")
    assert result.exit_code == 2
    assert "found none" in result.stderr


def test_a_failure_while_writing_leaves_no_half_written_file(segment, photo, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("itaclip_hf.files.os.replace", fail)
    result = segment(photo)
    assert result.exit_code == 2
    assert "disk full" in result.stderr
    assert list_files(tmp_path / "out") == []


def test_traceback_option_shows_where_an_error_arose(itaclip, photo):
    result = itaclip("--traceback", "segment", photo, "--classes", ";")
    assert isinstance(result.exception, ValueError)


def test_version_and_help(itaclip):
    from itaclip_hf import __version__

    assert itaclip("--version").stdout.strip() == f"itaclip_hf {__version__}"
    help_text = itaclip("--help").stdout
    assert "segment" in help_text and "demo-scenes" in help_text
