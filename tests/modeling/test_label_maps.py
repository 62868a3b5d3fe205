"""Labels without class maps: equal to the full path, by tiles, with dropped classes, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from itaclip_hf import ITACLIPImageProcessor
from itaclip_hf.modeling.class_scores import Queries, compute_best_classes
from itaclip_hf.modeling.query_maps import plan_tiles


def _inputs(texts, sizes=((40, 56), (40, 56)), originals=((61, 83), (90, 70)), seed=3):
    pixels = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(seed))
    return {
        "pixel_values": pixels,
        "image_sizes": torch.tensor(sizes),
        "original_sizes": torch.tensor(originals),
        **texts,
    }


@pytest.fixture(params=[None, 900])
def small_tiles(request, monkeypatch):
    """Maps in one tile or in several, and few queries at a time; called when the full path is done."""

    def cut():
        if request.param:
            monkeypatch.setattr("itaclip_hf.modeling.query_maps.PIXELS_PER_TILE", request.param)
        monkeypatch.setattr("itaclip_hf.modeling.query_maps.MAP_ELEMENTS_PER_CHUNK", 2 * 900)

    return cut


@pytest.mark.parametrize("thresholds", [{}, {"area_threshold": 0.3}, {"score_threshold": 0.45, "area_threshold": 0.6}])
@torch.inference_mode()
def test_labels_alone_equal_the_full_path_pixel_by_pixel(tiny_model, texts, thresholds, small_tiles):
    model, processor = tiny_model(similarity_scale=20.0), ITACLIPImageProcessor(**thresholds)
    inputs = _inputs(texts)
    full = processor.post_process_semantic_segmentation(model(**inputs), return_segmentation_scores=True)
    small_tiles()
    outputs = model.predict_labels(processor, **inputs)
    assert len({*full[0]["segmentation"].unique().tolist(), *full[1]["segmentation"].unique().tolist()}) > 1
    for expected, labels, confidence in zip(full, *outputs, strict=True):
        assert torch.equal(labels, expected["segmentation"])
        torch.testing.assert_close(confidence, expected["segmentation_scores"].amax(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("thresholds", [{}, {"score_threshold": 0.45, "area_threshold": 0.6}])
@torch.inference_mode()
def test_the_runner_up_is_the_best_of_the_other_classes(tiny_model, texts, thresholds, small_tiles):
    model, processor = tiny_model(similarity_scale=20.0), ITACLIPImageProcessor(**thresholds)
    inputs = _inputs(texts)
    full = processor.post_process_semantic_segmentation(model(**inputs), return_segmentation_scores=True)
    small_tiles()
    outputs = model.predict_ranked_labels(processor, **inputs)
    for expected, labels, confidence, others, scores in zip(full, *outputs, strict=True):
        assert torch.equal(labels, expected["segmentation"])
        torch.testing.assert_close(confidence, expected["segmentation_scores"].amax(0), atol=1e-5, rtol=1e-4)
        without = expected["segmentation_scores"].scatter(0, labels[None], 0)  # dropped classes have no score there
        best = without.amax(0)
        torch.testing.assert_close(scores, best, atol=1e-5, rtol=1e-4)
        assert torch.equal(others, without.argmax(0).masked_fill(best == 0, -1))


@torch.inference_mode()
def test_a_runner_up_far_behind_is_one_though_its_score_rounds_to_0(tiny_model, texts):
    outputs = tiny_model(similarity_scale=1e6).predict_ranked_labels(ITACLIPImageProcessor(), **_inputs(texts))
    assert any((scores == 0).any() for scores in outputs.runner_up_confidence)
    assert all((others >= 0).all() for others in outputs.runner_up)


@torch.inference_mode()
def test_class_scores_by_tiles_equal_those_in_one_piece(tiny_model, texts, monkeypatch):
    model, inputs = tiny_model(), _inputs(texts)
    expected = model(**inputs).logits
    monkeypatch.setattr("itaclip_hf.modeling.query_maps.PIXELS_PER_TILE", 900)
    for found, whole in zip(model(**inputs).logits, expected, strict=True):
        torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("size", "halo", "pixels"), [((50, 70), 4, 400), ((50, 70), 0, 33), ((9, 200), 20, 100)])
def test_tiles_cover_each_pixel_once_and_reach_beyond_by_the_halo(size, halo, pixels):
    covered = torch.zeros(size, dtype=torch.int)
    for tile in plan_tiles(size, halo, pixels):
        covered[tile.core] += 1
        for core, reach, length in zip(tile.core, tile.reach, size, strict=True):
            assert reach == slice(max(core.start - halo, 0), min(core.stop + halo, length))
        assert torch.equal(tile.crop(covered[tile.reach]), covered[tile.core])
    assert (covered == 1).all()


def test_small_results_are_one_tile():
    assert len(plan_tiles((20, 20), 160, 400)) == 1


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_best_classes_of_plain_softmax_scores_first_of_equals(chunk):
    maps = 5 * torch.randn(6, 7, 8, generator=torch.Generator().manual_seed(0))
    maps[..., 5] = maps[..., 1]  # the same word in two classes
    queries = Queries.sort(torch.zeros(8, 1), torch.tensor([0, 0, 1, 1, 1, 2, 2, 4]))
    scores = maps.softmax(-1)
    by_class = torch.stack([scores[..., [0, 1]].amax(-1), scores[..., 2:5].amax(-1), scores[..., 5:7].amax(-1)])
    by_class = torch.cat([by_class, torch.zeros(1, 6, 7), scores[None, ..., 7]])
    labels, best = compute_best_classes(maps.split(chunk, dim=-1), queries, (6, 7))
    assert torch.equal(labels, by_class.argmax(0))
    torch.testing.assert_close(best, by_class.amax(0))
    by_class[[0, 2]] = 0
    labels, best = compute_best_classes(
        maps.split(chunk, dim=-1), queries, (6, 7), torch.tensor([1, 0, 1, 0, 0]).bool()
    )
    assert torch.equal(labels, by_class.argmax(0))
    torch.testing.assert_close(best, by_class.amax(0))


def test_unknown_inputs_are_named(tiny_model):
    with pytest.raises(TypeError, match="but got 'pixels'"):
        tiny_model().predict_labels(ITACLIPImageProcessor(), pixels=torch.zeros(1))
    with pytest.raises(TypeError, match="but got no `pixel_values`"):
        tiny_model().predict_labels(ITACLIPImageProcessor())


SCRIPT = """
import resource, sys, torch
from tests.modeling.conftest import make_tiny_config
from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPImageProcessor
torch.set_num_threads(1)
classes, width = map(int, sys.argv[1:])
model = ITACLIPForSemanticSegmentation(make_tiny_config(pamr_steps=1)).eval()
embeddings = torch.nn.functional.normalize(torch.randn(classes, 24), dim=-1)
with open("/proc/self/statm") as memory:  # what imports leave varies by 100 MiB
    before = int(memory.read().split()[1]) * resource.getpagesize() // 1024
outputs = model.predict_labels(
    ITACLIPImageProcessor(area_threshold=0.001, closing=False),
    pixel_values=torch.randn(1, 3, 16, 32),
    original_sizes=torch.tensor([[1000, width]]),
    query_embeddings=embeddings,
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only")
def test_peak_memory_grows_neither_with_classes_nor_much_with_pixels():
    peaks = []
    for classes, width in ((20, 1200), (120, 1200), (20, 4800)):  # all maps: 92, 549 and 366 MiB
        command = [sys.executable, "-c", SCRIPT, str(classes), str(width)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 250, f"peaks in MiB: {peaks}"
    # Labels, scores and which of them are lost take some 20 bytes for each of 3.6 million more pixels.
    assert peaks[2] - peaks[0] < 300, f"peaks in MiB: {peaks}"
