"""Methods that need another backbone, with a tiny one, by name: on the command line, in Python, and as a folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from itaclip_hf import ITACLIPForSemanticSegmentation, Vocabulary, load_method, save_with_code

SMALL = ["--shortest-edge", "64", "--classes", "cat; dog, puppy; sky", "--device", "cpu", "--dtype", "float32"]


@pytest.mark.parametrize("method", ["proxyclip", "corrclip"])
def test_segment_gives_what_the_library_gives(itaclip, checkpoint, proxy, photo, tmp_path, method):
    result = itaclip(
        "segment", photo, "--model", checkpoint, "--method", method, "--proxy", proxy, *SMALL, "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    model, processor = load_method(method, checkpoint, proxy=proxy, shortest_edge=64)
    model.set_vocabulary(processor, Vocabulary(["cat", ["dog", "puppy"], "sky"]))
    inputs = processor(images=Image.open(photo), return_tensors="pt")
    expected = model.predict_labels(processor, **inputs).labels[0].numpy()
    assert np.array_equal(np.array(Image.open(tmp_path / "photo_labels.png")), expected)
    assert json.loads((tmp_path / "photo.json").read_text())["settings"]["method"] == method
    assert ("This method looks at regions and gets none" in result.output) is (method == "corrclip")


@pytest.mark.parametrize("method", ["scclip", "pearl", "resclip_rcs"])
def test_methods_of_clip_alone_need_none(itaclip, checkpoint, photo, tmp_path, method):
    result = itaclip("segment", photo, "--model", checkpoint, "--method", method, *SMALL, "--out", tmp_path)
    assert result.exit_code == 0, result.output


def test_a_proxy_is_neither_forgotten_nor_ignored(itaclip, checkpoint, proxy, photo, tmp_path):
    common = ["segment", photo, "--model", checkpoint, *SMALL, "--out", tmp_path]
    result = itaclip(*common, "--method", "corrclip")
    assert result.exit_code == 2
    assert "Expected a proxy, whose patches this method compares, but got none." in result.output
    result = itaclip(*common, "--proxy", proxy)
    assert result.exit_code == 2
    assert "Expected a proxy only with a method that compares its patches" in result.output
    result = itaclip(*common, "--method", "proxyclip", "--proxy", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "Expected a vision backbone in" in result.output


def test_the_demo_takes_the_proxy_along_to_photographs(itaclip, checkpoint, proxy, monkeypatch, tmp_path):
    monkeypatch.setattr("itaclip_hf.samples.count_demo_scenes", lambda: 1)
    monkeypatch.setattr("itaclip_hf.samples.PHOTO_WORDS", {"cat": ("cat", "wall")})
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, local_files_only: str(checkpoint))
    result = itaclip(
        "demo-scenes", "--method", "proxyclip", "--proxy", proxy, "--shortest-edge", 64, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat.png", "scenes.png"]


def test_a_folder_with_code_brings_the_proxy_along(checkpoint, proxy, tmp_path):
    model, processor = load_method("proxyclip", checkpoint, proxy=proxy)
    save_with_code(tmp_path, model, processor)
    again = ITACLIPForSemanticSegmentation.from_pretrained(tmp_path).eval()
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(again.encode_patches(pixels), model.encode_patches(pixels))
