"""Where region maps of files come from, and that the commands use them."""

import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from itaclip_hf.cli.main import app
from itaclip_hf.evaluation.data.regions import DatasetWithRegions
from itaclip_hf.evaluation.data.segmentation_datasets import Sample, SampleError
from itaclip_hf.files import read_json
from itaclip_hf.loading import DEMO_CHECKPOINT, load, load_demo_vocabulary
from itaclip_hf.regions import compute_superpixels, open_regions
from itaclip_hf.samples import load_demo_scene

SMALL = {"window_size": 0, "image_engineering": False, "shortest_edge": 64, "pamr_steps": 0}
NUMPY_START = b"\x93NUMPY\x01\x00\x76\x00"  # version 1.0, a header of 118 bytes
OPTIONS = ("--window-size", "0", "--no-image-engineering", "--shortest-edge", "64", "--pamr-steps", "0")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    """Two scenes, their truth, and this again as regions, once as a label map and once as masks."""
    for place in ("images", "labels", "regions"):
        (tmp_path / place).mkdir()
    for index in range(2):
        image, labels = load_demo_scene(index)
        image.save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{index}.png")
    Image.fromarray(load_demo_scene(0)[1] + 1).save(tmp_path / "regions" / "0.png")
    np.save(tmp_path / "regions" / "1.npy", np.stack([labels == label for label in np.unique(labels)]))
    return tmp_path


def test_superpixels_are_regions_of_like_colour():
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[10:30, 20:40] = (200, 30, 30)
    found = compute_superpixels(Image.fromarray(pixels))
    assert found.dtype == np.int64 and found.shape == (40, 60) and found.min() == 1
    assert found[20, 30] != found[0, 0] and (found[12:28, 22:38] == found[20, 30]).all()


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    image = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match="Expected a folder of region maps, or 'felzenszwalb', but nowhere is none"):
        open_regions("nowhere")
    with pytest.raises(ValueError, match=r"Expected regions in .*cat\.png or cat\.npy, but there are none"):
        open_regions(str(tmp_path))("cat", image)
    np.save(tmp_path / "dog.npy", np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"dog\.npy: Expected regions as whole numbers"):
        open_regions(str(tmp_path))("dog", image)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"pip install 'itaclip_hf\[regions\]'"):
        compute_superpixels(image)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"PK\x03\x04 no archive",
        pickle.dumps([1]),
        NUMPY_START + b"{'descr': '<i8', 'fortran_order': False, 'shape': (4, 4".ljust(118),  # no end
        NUMPY_START + b"{'descr': '<i8', 'fortran_order': False, 'shape': (4, 999999999999)}".ljust(118),
        NUMPY_START + b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 4)}".ljust(118),
    ],
)
def test_whatever_is_wrong_with_an_array_is_said_with_its_file(tmp_path, content):
    (tmp_path / "cat.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"cat\.npy: Expected an array as `numpy\.save` writes it, but it cannot be"):
        open_regions(str(tmp_path))("cat", Image.new("RGB", (4, 4)))


def test_broken_regions_are_their_images_error_and_the_rest_goes_on(folder):
    (folder / "regions" / "1.npy").write_bytes(NUMPY_START + b"(((".ljust(118))
    result = run(
        "segment", folder / "images", "--model", "demo", *OPTIONS, "--regions", folder / "regions", "--out",
        folder / "out",
    )  # fmt: skip
    assert result.exit_code == 1 and "1.npy: Expected an array" in result.stderr
    assert "1 of 2 images failed" in result.stderr and (folder / "out" / "0_labels.png").exists()


def test_segment_lets_regions_vote_and_says_what_they_are(folder):
    result = run(
        "segment", folder / "images", "--model", "demo", *OPTIONS, "--regions", folder / "regions", "--out",
        folder / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    loaded = load("demo", load_demo_vocabulary(), settings={**SMALL, "region_vote": True})
    image, labels = load_demo_scene(0)
    inputs = loaded.processor(images=image, region_maps=labels + 1, return_tensors="pt")
    expected = loaded.model.predict_regions(loaded.processor, **inputs)
    with Image.open(folder / "out" / "0_labels.png") as found:
        np.testing.assert_array_equal(np.array(found), expected.labels[0])
    described = read_json(folder / "out" / "0.json")["regions"]
    assert [row["id"] for row in described] == (np.unique(labels) + 1).tolist()
    names = loaded.model.config.id2label
    for row, same in zip(described, expected.regions[0], strict=True):
        assert (row["label_id"], row["name"]) == (same["label_id"], names[same["label_id"]])
        assert (row["share"], row["mean_score"]) == pytest.approx((same["share"], same["score"]), abs=1e-5)
    kept = run(
        "segment", folder / "images" / "0.png", "--model", "demo", *OPTIONS, "--regions", folder / "regions", "--out",
        folder / "kept", "--no-region-vote",
    )  # fmt: skip
    assert kept.exit_code == 0, kept.output
    del inputs["region_maps"], inputs["original_region_maps"]
    with Image.open(folder / "kept" / "0_labels.png") as found:
        plain = loaded.model.predict_labels(loaded.processor, **inputs).labels[0]
        np.testing.assert_array_equal(np.array(found), plain)
    assert read_json(folder / "kept" / "0.json")["regions"] == described
    assert not torch.equal(plain, expected.labels[0])


def test_an_image_without_regions_fails_alone(folder):
    (folder / "regions" / "1.npy").unlink()
    result = run(
        "segment", folder / "images", "--model", "demo", *OPTIONS, "--regions", folder / "regions", "--out",
        folder / "out",
    )  # fmt: skip
    assert result.exit_code == 1 and "Expected regions in" in result.output
    assert (folder / "out" / "0.json").exists() and not (folder / "out" / "1.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--regions", "nowhere"), "Expected a folder of region maps"),
        (("--region-vote",), "Expected --regions with --region-vote"),
        (("--regions", "felzenszwalb", "--tile", "256"), "Expected pictures without --tile"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, options, message):
    result = run("segment", folder / "images", "--model", "demo", "--out", folder / "out", *options)
    assert result.exit_code == 2 and message in " ".join(result.output.split())


def test_evaluate_scores_label_maps_after_the_vote(folder):
    arguments = (
        "evaluate", "--images", folder / "images", "--labels", folder / "labels", "--model", "demo", *OPTIONS,
        "--vocabulary", DEMO_CHECKPOINT / "vocabulary.json", "--workers", 0, "--no-plots", "--batch-size", 2,
    )  # fmt: skip
    scores = {}
    for name, options in {"plain": (), "vote": ("--regions", folder / "regions")}.items():
        result = run(*arguments, *options, "--out", folder / name)
        assert result.exit_code == 0, result.output
        scores[name] = read_json(folder / name / "report.json")
    assert scores["vote"]["settings"]["dataset"]["regions"] == "regions"
    assert scores["vote"]["settings"]["predictor"]["image_processor"]["region_vote"] is True
    assert scores["vote"]["scores"] != scores["plain"]["scores"]


def test_a_sample_without_regions_is_named():
    class Samples:
        title, mapping = "two", None

        def load(self, index):
            image, labels = load_demo_scene(index)
            return Sample(index, f"scenes/{index}.jpg", image, labels.astype(np.int32))

    with pytest.raises(SampleError, match=r"unusable regions: scenes/0.jpg: Expected regions in .*0.png"):
        DatasetWithRegions(Samples(), str(DEMO_CHECKPOINT)).load(0)
    assert DatasetWithRegions(Samples(), "felzenszwalb").load(1).regions.shape == (336, 448)
