"""Region maps: what is taken for one, how it goes to the model, and the vote against a loop and published results."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from itaclip_hf import ITACLIPImageProcessor, load_demo
from itaclip_hf.processing import close_label_map
from itaclip_hf.processing.segmentation_maps import count_votes, make_region_map, resize_region_map

GOLDEN = Path(__file__).parents[1] / "goldens_beyond" / "corrclip_partial_regions.npz"
SMALL = {"size": {"shortest_edge": 32}, "image_engineering": False, "closing": False}


def vote_in_a_loop(labels, regions):
    voted = labels.copy()
    for region in np.unique(regions[regions > 0]):
        voted[regions == region] = np.bincount(labels[regions == region]).argmax()
    return voted


def draw(seed, height=37, width=53, ids=9, classes=5):
    random = np.random.default_rng(seed)
    return random.integers(0, classes, (height, width)), random.integers(0, ids, (height, width))


def outputs_of(*label_maps, classes=5):
    """Outputs of a model that is sure of these labels, but for the borders of its scores."""
    one_hot = [torch.nn.functional.one_hot(torch.from_numpy(labels), classes) for labels in label_maps]
    return SimpleNamespace(logits=[(each * 0.6 + 0.1).log().permute(2, 0, 1) for each in one_hot])


def test_the_vote_is_that_of_the_published_code():
    golden = np.load(GOLDEN)
    labels, regions = (torch.from_numpy(golden[name].astype(np.int64)) for name in ("labels", "regions"))
    assert torch.equal(count_votes(labels, regions).overrule(labels), torch.from_numpy(golden["voted"]).long())
    processor = ITACLIPImageProcessor(region_vote=True, closing=False)
    outputs = outputs_of(golden["labels"].astype(np.int64), classes=6)
    voted = processor.post_process_semantic_segmentation(outputs, region_maps=golden["regions"])
    np.testing.assert_array_equal(voted[0], golden["voted"])


@pytest.mark.parametrize("seed", range(5))
def test_the_vote_is_that_of_a_loop(seed):
    labels, regions = draw(seed, ids=60)
    votes = count_votes(torch.from_numpy(labels), torch.from_numpy(regions))
    np.testing.assert_array_equal(votes.overrule(torch.from_numpy(labels)), vote_in_a_loop(labels, regions))
    for row in votes.describe(torch.from_numpy(labels), torch.from_numpy(labels / 8 + 0.1)):
        inside = labels[regions == row["id"]]
        assert row["share"] == np.mean(inside == row["label_id"])
        assert row["score"] == pytest.approx(row["label_id"] / 8 + 0.1)
    assert votes.ids.tolist() == np.unique(regions[regions > 0]).tolist()


def test_the_smallest_label_wins_a_tie_and_pixels_of_no_region_keep_theirs():
    labels, regions = torch.tensor([[3, 2, 4, 4, 1]]), torch.tensor([[7, 7, 0, -1, 2**62]])
    assert count_votes(labels, regions).overrule(labels).tolist() == [[2, 2, 4, 4, 1]]
    nobody = count_votes(labels, torch.zeros(1, 5, dtype=torch.int64))
    assert torch.equal(nobody.overrule(labels), labels) and nobody.describe(labels, labels / 9) == []


def test_the_vote_comes_after_the_score_threshold_and_before_closing():
    labels, regions = draw(3)
    processor = ITACLIPImageProcessor(score_threshold=0.75, region_vote=True)
    outputs = outputs_of(labels)
    outputs.logits[0][1:] -= 0.2  # class 0 alone is sure enough
    assert not processor.post_process_semantic_segmentation(outputs, region_maps=regions)[0].any()
    processor = ITACLIPImageProcessor(region_vote=True)
    expected = close_label_map(torch.from_numpy(vote_in_a_loop(labels, regions)))
    assert torch.equal(
        processor.post_process_semantic_segmentation(outputs_of(labels), region_maps=regions)[0], expected
    )


def test_regions_are_returned_with_or_without_a_vote():
    (first, regions), (second, others) = draw(1), draw(2, height=20)
    found = [
        ITACLIPImageProcessor(**SMALL).post_process_semantic_segmentation(
            outputs_of(first, second), region_maps=[regions, others], region_vote=vote, return_regions=True
        )
        for vote in (False, True)
    ]
    assert [each["regions"] for each in found[0]] == [each["regions"] for each in found[1]]
    np.testing.assert_array_equal(found[0][0]["segmentation"], first)
    np.testing.assert_array_equal(found[1][1]["segmentation"], vote_in_a_loop(second, others))
    assert found[0][0]["regions"][0].keys() == {"id", "label_id", "share", "score"}


def test_a_batch_of_sizes_goes_to_the_model_by_nearest_pixels_and_is_padded_with_0():
    regions = [np.arange(1, 20 * 31 + 1).reshape(20, 31), np.array([[5, -3], [2**62, 0]])]
    images = [Image.new("RGB", (90, 40)), Image.new("RGB", (50, 60))]
    inputs = ITACLIPImageProcessor(**SMALL)(images, region_maps=regions, return_tensors="pt")
    assert inputs["region_maps"].shape == (2, *inputs["pixel_values"].shape[-2:])
    assert inputs["region_maps"].dtype == torch.int64
    for index, (height, width) in enumerate(inputs["image_sizes"].tolist()):
        given = Image.fromarray(np.arange(regions[index].size, dtype=np.int32).reshape(regions[index].shape))
        nearest = np.asarray(given.resize((width, height), Image.Resampling.NEAREST))
        expected = np.zeros(inputs["region_maps"].shape[1:], dtype=np.int64)
        expected[:height, :width] = np.maximum(regions[index], 0).ravel()[nearest]
        np.testing.assert_array_equal(inputs["region_maps"][index], expected)
    assert inputs["original_region_maps"].shape == (2, 60, 90)
    assert set(inputs["original_region_maps"][1].unique().tolist()) == {0, 5, 2**62}


def test_a_map_of_any_size_votes_at_the_size_of_the_image():
    labels, _ = draw(4, height=33, width=47)
    small = np.arange(1, 13).reshape(3, 4)
    processor = ITACLIPImageProcessor(**SMALL, region_vote=True)
    found = processor.post_process_semantic_segmentation(outputs_of(labels), region_maps=[small])[0]
    np.testing.assert_array_equal(found, vote_in_a_loop(labels, resize_region_map(small, (33, 47))))


def test_whatever_segmenters_give_is_a_region_map():
    masks = np.array([[[1, 0, 0, 0]], [[1, 1, 1, 0]]], dtype=bool)  # the smaller one lies on top
    expected = [[1, 2, 2, 0]]
    generated = {"masks": [torch.from_numpy(mask) for mask in masks], "scores": torch.ones(2)}
    for source in (masks, list(masks), torch.from_numpy(masks), generated, {"masks": list(masks)}):
        assert make_region_map(source).tolist() == expected
    panoptic = {"segmentation": torch.tensor([[1, 2, 2, -1]], dtype=torch.int32), "segments_info": []}
    for source in (panoptic, expected, np.uint8(expected), Image.fromarray(np.uint16(expected))):
        assert make_region_map(source).tolist() == expected
    colors = Image.fromarray(np.array([[[1, 2, 3]]], dtype=np.uint8))
    assert make_region_map(colors).tolist() == [[1 + 2 * 256 + 3 * 256**2]]


def test_masks_of_one_image_and_of_many_are_told_apart():
    mask = np.ones((8, 8), dtype=bool)
    processor, image = ITACLIPImageProcessor(**SMALL), Image.new("RGB", (8, 8))
    one = processor(image, region_maps=[~mask, mask, ~mask])
    assert np.unique(one["original_region_maps"]).tolist() == [2]
    two = processor([image, image], region_maps=[mask, [~mask, mask]])
    assert [np.unique(each).tolist() for each in two["original_region_maps"]] == [[1], [2]]


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        (np.zeros((4, 4)), TypeError, "Regions of image 0: Expected regions as whole numbers .* but got float64"),
        ("cat", TypeError, "Expected regions as whole numbers"),
        (np.full((4, 4), 2**63, dtype=np.uint64), ValueError, "up to 63 bits"),
        (np.zeros((4, 4, 4), dtype=int), ValueError, r"Expected a region map \(height, width\)"),
        (np.zeros((0, 4), dtype=int), ValueError, r"Expected a region map \(height, width\)"),
        ({"masks": []}, ValueError, "Expected masks of one size, but got none or several"),
        ([np.ones((2, 2), bool), np.ones((2, 3), bool)], ValueError, "Expected masks of one size"),
    ],
)
def test_what_is_no_region_map_is_refused(source, error, match):
    with pytest.raises(error, match=match):
        ITACLIPImageProcessor(**SMALL)(Image.new("RGB", (4, 4)), region_maps=source)


def test_missing_maps_are_said():
    processor, image = ITACLIPImageProcessor(**SMALL), Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match=r"Expected a region map for each image \(2\), but got 3"):
        processor([image, image], region_maps=[np.ones((4, 4), int)] * 3)
    with pytest.raises(ValueError, match="Expected `region_maps`, as regions are asked for, but got none"):
        processor.post_process_semantic_segmentation(outputs_of(draw(0)[0]), region_vote=True)
    with pytest.raises(ValueError, match="Expected `images` with `region_maps`"):
        load_demo().processor(text=["cat"], region_maps=np.ones((4, 4), int))


def test_label_maps_of_the_model_are_those_of_its_scores():
    model, processor = load_demo()
    model.config.window_size = 0
    processor.image_processor = ITACLIPImageProcessor(size={"shortest_edge": 64}, region_vote=True)
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in ((50, 70), (90, 80))]
    regions = [draw(5, 11, 13)[1], draw(6, 90, 80)[1]]
    inputs = processor(images=images, region_maps=regions, return_tensors="pt")
    found = model.predict_regions(processor, **inputs)
    with torch.no_grad():
        expected = processor.post_process_semantic_segmentation(
            model(**inputs), region_maps=regions, return_regions=True
        )
    for index, of_image in enumerate(expected):
        assert torch.equal(found.labels[index], of_image["segmentation"])
        assert [row["label_id"] for row in found.regions[index]] == [row["label_id"] for row in of_image["regions"]]
        alone = processor(images=images[index], region_maps=regions[index], return_tensors="pt")
        assert torch.equal(model.predict_labels(processor, **alone).labels[0], found.labels[index])
    with pytest.raises(ValueError, match="Expected `original_region_maps` of shape"):
        model.predict_labels(processor, **{**inputs, "original_region_maps": inputs["original_region_maps"][:, :9]})
    del inputs["original_region_maps"]  # those of the pixels do as well, with less detail
    for index, labels in enumerate(model.predict_labels(processor, **inputs).labels):
        assert (labels == found.labels[index]).float().mean() > 0.5
