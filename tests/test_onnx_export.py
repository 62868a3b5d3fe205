"""Towers for other runtimes: `torch.export` and ONNX with any number of windows, and nothing written that differs."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from itaclip_hf import Settings, Vocabulary, load, onnx_export
from itaclip_hf.onnx_export import TextTower, VisionTower, export_onnx, trace_tower
from itaclip_hf.samples import load_demo_scene

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
WORDS = Vocabulary(["sky", ["grass", "meadow"], "dog"], background=["road"])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Names after the page's code ran, as a reader copies it; the exported folder is `demo-onnx`."""
    names = {"folder": tmp_path_factory.mktemp("page") / "demo-onnx"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(names["folder"].parent)
        for code in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            exec(compile(code, str(PAGE), "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
def short():
    """The embedded checkpoint with its last two blocks alone: as good for these tests, and quick."""
    settings = {"intermediate_layers": (), "window_size": 32, "window_stride": 16}
    loaded = load("demo", WORDS, settings=settings, device="cpu")
    loaded.model.vision_model.encoder.layers = loaded.model.vision_model.encoder.layers[-2:]
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 3])
def test_the_page_segments_in_numpy_as_the_model_does(page, index):
    image, _ = load_demo_scene(index)
    inputs = page.processor(images=image, return_tensors="pt")
    expected = page.model.predict_labels(page.processor, **inputs)
    labels, scores = page.segment(image)
    is_same = labels == expected.labels[0].numpy()
    assert is_same.mean() >= 0.999 and len(np.unique(labels)) > 1
    assert np.abs(scores - expected.confidence[0].numpy()).max() < 1e-3


@pytest.mark.slow
def test_the_page_resizes_as_the_model_does(page):
    image = load_demo_scene(0)[0].crop((20, 10, 300, 260))  # 250 x 280, which becomes 336 x 376
    inputs = page.processor(images=np.asarray(image), return_tensors="pt")
    expected = page.model.predict_labels(page.processor, **inputs).labels[0].numpy()
    assert (page.segment(image)[0] == expected).mean() >= 0.99  # fixed point and floats round differently


@pytest.mark.parametrize("batch", [1, 5])
def test_a_traced_tower_takes_any_batch(short, batch):
    pixels = torch.randn(batch, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    program = trace_tower(VisionTower(short.model), torch.zeros(2, 3, 64, 96))
    cosines, features = program.module()(pixels)
    with torch.inference_mode():
        expected = short.model.encode_patches(pixels)
    torch.testing.assert_close(features, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(cosines, expected @ short.model.query_embeddings.T, atol=1e-6, rtol=0)
    assert features.norm(dim=-1).sub(1).abs().max() < 1e-5


def test_a_traced_text_tower_takes_any_batch(short):
    inputs = short.processor.tokenizer(["a dog", "grass"], padding="max_length", return_tensors="pt")
    program = trace_tower(TextTower(short.model), inputs.input_ids, inputs.attention_mask)
    inputs = short.processor.tokenizer(["sky", "a meadow", "road"], padding="max_length", return_tensors="pt")
    with torch.inference_mode():
        expected = short.model.get_text_features(**inputs).pooler_output
    torch.testing.assert_close(program.module()(inputs.input_ids, inputs.attention_mask), expected)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_the_file_gives_what_the_model_gives(page, batch):
    session = onnxruntime.InferenceSession(page.folder / "vision.onnx")
    pixels = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    cosines, features = session.run(None, {"pixel_values": pixels.numpy()})
    with torch.inference_mode():
        expected = page.model.encode_patches(pixels)
    assert np.abs(features - expected.numpy()).max() < 1e-5
    assert np.abs(cosines - (expected @ page.model.query_embeddings.T).numpy()).max() < 1e-5


@pytest.mark.slow
def test_the_description_is_that_of_the_file(page):
    description = json.loads((page.folder / "vision.json").read_text())
    session = onnxruntime.InferenceSession(page.folder / "vision.onnx")
    (given,) = session.get_inputs()
    assert description["input"] == {"name": given.name, "shape": given.shape} == {
        "name": "pixel_values", "shape": ["batch", 3, 224, 224]
    }  # fmt: skip
    assert description["outputs"] == {output.name: output.shape for output in session.get_outputs()}
    assert description["labels"] == ["sky", "grass", "tree", "dog", "cat"]
    assert description["query_classes"] == [0, 1, 1, 2, 3, 4]
    assert description["settings"]["window_stride"] == 56 and description["settings"]["shortest_edge"] == 336
    assert description["largest_difference_from_torch"] < 1e-5
    assert sorted(path.name for path in page.folder.iterdir()) == ["progress", "vision.json", "vision.onnx"]


def test_an_image_in_one_piece_has_the_size_that_it_is_resized_to(short, tmp_path):
    Settings.of(*short).replace(window_size=0, shortest_edge=64).apply(*short)
    description = export_onnx(tmp_path, *short, image_size=(480, 640))
    assert description["input"]["shape"] == ["batch", 3, 64, 85]
    assert description["outputs"]["features"][1:3] == [4, 5]


def test_windows_that_would_be_padded_are_refused(short, tmp_path):
    Settings.of(*short).replace(window_multiple=24).apply(*short)
    with pytest.raises(ValueError, match=r"need no padding, but those of \(32, 32\) pixels are padded to \(48, 48\)"):
        export_onnx(tmp_path, *short)
    assert not list(tmp_path.iterdir())


def test_a_difference_beyond_the_bound_is_refused_and_nothing_written(short, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST_DIFFERENCE", 1e-12)
    with pytest.raises(ValueError, match="what torch gives, within 1e-12, but the largest difference is"):
        export_onnx(tmp_path, *short)
    assert [path.name for path in tmp_path.iterdir()] == ["progress"]


def test_what_cannot_be_exported_is_refused(short, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Expected a model with a vocabulary.*Name the classes"):
        export_onnx(tmp_path, *load("demo"))
    with pytest.raises(ValueError, match=r"float32 on the CPU, but it is in torch\.bfloat16 on cpu"):
        export_onnx(tmp_path, *load("demo", WORDS, dtype="bfloat16"))
    with pytest.raises(ValueError, match="settings that torch can trace, but got"):
        trace_tower(Wilful(), torch.zeros(2, 3))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"onnxscript for the export.*pip install 'itaclip_hf\[onnx\]'"):
        export_onnx(tmp_path, *short)
    assert not list(tmp_path.iterdir())


class Wilful(torch.nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if inputs.sum() > 0 else -inputs


def test_large_weights_go_into_a_file_of_their_own(short, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", 2**20)
    export_onnx(tmp_path, *short)
    assert (tmp_path / "vision.onnx.data").stat().st_size > 2**20 > (tmp_path / "vision.onnx").stat().st_size
    assert onnxruntime.InferenceSession(tmp_path / "vision.onnx").get_inputs()[0].shape == ["batch", 3, 32, 32]
