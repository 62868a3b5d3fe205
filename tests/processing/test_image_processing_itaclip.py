import json
import pickle
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from itaclip_hf.processing import ITACLIPImageProcessor

MEAN = np.array([122.771, 116.746, 104.094]) / 255
STD = np.array([68.501, 66.632, 70.323]) / 255

STOCK_CLIP = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "resample": 3,
    "size": 224,
}


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def normalize(pixels):
    """(height, width, 3) of 0...255 -> (3, height, width) as CLIP wants it."""
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)


@pytest.fixture
def small():
    return ITACLIPImageProcessor(size={"shortest_edge": 32, "longest_edge": 96})


class TestInputs:
    def test_data_contract(self, small):
        inputs = small([random_image(40, 60), random_image(50, 50)], return_tensors="pt")
        assert {key: (tuple(value.shape), value.dtype) for key, value in inputs.items()} == {
            "pixel_values": ((2, 3, 32, 48), torch.float32),
            "image_sizes": ((2, 2), torch.int64),
            "original_sizes": ((2, 2), torch.int64),
            "augmentation_color": ((2, 5, 3, 3), torch.float32),
            "augmentation_blur": ((2, 5, 11), torch.float32),
            "augmentation_flip": ((2, 5, 2), torch.bool),
            "augmentation_weight": ((2, 5), torch.float32),
        }
        assert inputs["image_sizes"].tolist() == [[32, 48], [32, 32]]
        assert inputs["original_sizes"].tolist() == [[40, 60], [50, 50]]
        assert list(inputs) == small.model_input_names

    def test_padding_is_zero_right_and_below(self, small):
        wide, tall = random_image(32, 64), random_image(64, 32)
        pixels = small([wide, tall], return_tensors="pt")["pixel_values"]
        assert pixels.shape == (2, 3, 64, 64)
        np.testing.assert_allclose(pixels[0, :, :32], normalize(wide), atol=1e-6)
        np.testing.assert_allclose(pixels[1, :, :, :32], normalize(tall), atol=1e-6)
        assert pixels[0, :, 32:].abs().max() == 0
        assert pixels[1, :, :, 32:].abs().max() == 0

    def test_without_image_engineering_there_are_no_augmentations(self, small):
        inputs = small(random_image(32, 32), image_engineering=False)
        assert list(inputs) == ["pixel_values", "image_sizes", "original_sizes"]
        plain = ITACLIPImageProcessor(image_engineering=False)
        assert plain.model_input_names == ["pixel_values", "image_sizes", "original_sizes"]

    def test_batch_equals_single_images(self, small):
        images = [random_image(40, 60, seed) for seed in range(3)]
        batch = small(images, return_tensors="pt")["pixel_values"]
        single = [small(image, return_tensors="pt")["pixel_values"] for image in images]
        assert torch.equal(batch, torch.cat(single))

    def test_all_kinds_of_input_give_the_same(self, small, tmp_path):
        pixels = random_image(40, 60)
        path = tmp_path / "image.png"
        PIL.Image.fromarray(pixels).save(path)
        reference = small(pixels, return_tensors="np")["pixel_values"]
        kinds = [
            PIL.Image.fromarray(pixels),
            pixels.transpose(2, 0, 1),
            torch.from_numpy(pixels),
            torch.from_numpy(pixels).permute(2, 0, 1),
            pixels.astype(np.int64),
            path,
            str(path),
            [pixels],
            [[pixels]],
            pixels[None],
        ]
        for image in kinds:
            np.testing.assert_array_equal(small(image, return_tensors="np")["pixel_values"], reference)
        assert len(small(kinds[:5], return_tensors="np")["pixel_values"]) == 5

    def test_gray_arrays_may_be_as_wide_as_colors_are_many(self, small):
        pixels = random_image(32, 3)[..., 0]
        for image, form in ((pixels, None), (pixels, "channels_first"), (torch.from_numpy(pixels), "channels_last")):
            inputs = small(image, do_resize=False, do_normalize=False, input_data_format=form, return_tensors="np")
            np.testing.assert_allclose(inputs["pixel_values"][0], np.stack([pixels / 255] * 3), rtol=1e-6)

    @pytest.mark.parametrize("span", [(-1, 1), (0, 10000), (-9999, 200)])
    def test_floats_of_another_range_are_told(self, small, span):
        pixels = np.linspace(*span, 32 * 32).reshape(32, 32)
        with pytest.warns(UserWarning, match=f"floats from {span[0]} to {span[1]}. Scale them"):
            small(pixels)
        small(pixels, do_rescale=False, do_normalize=False)

    def test_floats_are_resized_without_rounding(self, small):
        pixels = random_image(40, 60).astype(np.float32)
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(planes, (32, 48), mode="bilinear")[0].permute(1, 2, 0)
        found = small(pixels, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(found, normalize(resized.numpy()), atol=1e-5)

    def test_gray_arrays_without_channel_axis(self, small):
        pixels = random_image(32, 40)[..., 0]
        for images in (pixels, [pixels], torch.from_numpy(pixels)):
            inputs = small(images, do_normalize=False, return_tensors="np")
            np.testing.assert_allclose(inputs["pixel_values"][0], np.stack([pixels / 255] * 3), rtol=1e-6)

    def test_files_keep_sixteen_bits_and_transparency(self, small, tmp_path):
        deep = np.full((32, 32), 32896, dtype=np.uint16)
        PIL.Image.fromarray(deep).save(tmp_path / "deep.png")
        PIL.Image.new("RGBA", (32, 32)).save(tmp_path / "clear.png")
        inputs = small([tmp_path / "deep.png", tmp_path / "clear.png"], do_normalize=False, return_tensors="np")
        np.testing.assert_allclose(inputs["pixel_values"][0], 128 / 255)
        np.testing.assert_allclose(inputs["pixel_values"][1], 1.0)

    def test_original_size_is_that_of_the_upright_image(self, small):
        image = PIL.Image.fromarray(random_image(40, 60))
        image.getexif()[0x0112] = 8
        assert small(image)["original_sizes"].tolist() == [[60, 40]]

    def test_scaled_floats_need_do_rescale_false(self, small):
        pixels = random_image(32, 32)
        scaled = small(pixels / 255, do_rescale=False, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(scaled[0], normalize(pixels), atol=1e-5)
        with pytest.warns(UserWarning, match="floats that are all between 0 and 1"):
            small(pixels / 255)
        with pytest.warns(UserWarning, match="between 0 and 1 with `do_rescale=False`, .* but got up to 25"):
            small(pixels, do_rescale=False)
        small(pixels, do_rescale=False, image_mean=[127.5] * 3, image_std=[127.5] * 3)  # a mean of such pixels

    def test_without_any_step_pixels_come_out_as_they_are(self, small):
        pixels = random_image(33, 35)
        inputs = small(pixels, do_resize=False, do_rescale=False, do_normalize=False, return_tensors="np")
        assert inputs["pixel_values"].dtype == np.float32
        np.testing.assert_array_equal(inputs["pixel_values"][0], pixels.transpose(2, 0, 1))
        assert inputs["image_sizes"].tolist() == [[33, 35]]

    def test_four_channels_without_conversion(self, small):
        image = np.zeros((32, 32, 4), dtype=np.uint8)
        inputs = small(image, do_convert_rgb=False, image_mean=[0.0] * 4, image_std=[1.0] * 4)
        assert inputs["pixel_values"].shape == (1, 4, 32, 32)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            ([random_image(9, 9), PIL.Image.new("RGB", (0, 5))], "Image 1: .*empty image"),
            ([np.full((9, 9, 3), np.nan)], "Image 0: .*NaN or infinity"),
            ([], "at least one image"),
            ([[]], "at least one image"),
        ],
    )
    def test_unusable_images_are_named(self, small, images, message):
        with pytest.raises(ValueError, match=message):
            small(images)

    def test_unreadable_files_are_named(self, small, tmp_path):
        PIL.Image.fromarray(random_image(64, 64)).save(tmp_path / "cut.png")
        content = (tmp_path / "cut.png").read_bytes()
        (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
        (tmp_path / "words.png").write_text("no image")
        for name in ("cut.png", "words.png", "missing.png"):
            with pytest.raises(OSError, match=name):
                small(tmp_path / name)


class TestResize:
    def test_recorded_images(self, golden):
        longest, shortest = golden["spec"]["scale"][0], golden["spec"]["scale"][1]
        processor = ITACLIPImageProcessor(size={"shortest_edge": shortest, "longest_edge": longest})
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        resized = processor(golden["image"], **options)["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_array_equal(resized, golden["resized"])

    @pytest.mark.parametrize(
        ("original", "size", "expected"),
        [
            ((100, 301), {"shortest_edge": 50}, (50, 151)),
            ((301, 100), {"shortest_edge": 50}, (151, 50)),
            ((100, 300), {"shortest_edge": 50, "longest_edge": 90}, (30, 90)),
            ((100, 300), {"longest_edge": 60}, (20, 60)),
            ((100, 300), {"height": 20, "width": 30}, (20, 30)),
            ((5000, 1), {"shortest_edge": 50, "longest_edge": 100}, (100, 1)),
            ((100, 200), 50, (50, 100)),
        ],
    )
    def test_sizes(self, original, size, expected):
        inputs = ITACLIPImageProcessor(size=size)(random_image(*original))
        assert tuple(inputs["image_sizes"][0]) == expected

    @pytest.mark.parametrize(
        ("fields", "error", "message"),
        [
            ({"size": {"shortest_edge": 0}}, ValueError, "at least 1 pixel, but got 0 as 'shortest_edge'"),
            ({"size": {"shortest_edge": 64, "longest_edge": 0}}, ValueError, "but got 0 as 'longest_edge'"),
            ({"size": {"height": 20, "width": -5}}, ValueError, "but got -5 as 'width'"),
            ({"size": {"shortest_edge": "64"}}, TypeError, "whole pixels, but got '64' as 'shortest_edge'"),
            ({"size": {"shortest_edge": 64.5}}, TypeError, "whole pixels, but got 64.5"),
            ({"size": {"shortest_edge": True}}, TypeError, "whole pixels, but got True"),
            ({"rescale_factor": 0}, ValueError, r"`rescale_factor` from 1e-06 to 1e\+06, but got 0"),
            ({"rescale_factor": 1e-310}, ValueError, r"`rescale_factor` from 1e-06 to 1e\+06, but got 1e-310"),
            ({"rescale_factor": "x"}, TypeError, "Expected another `rescale_factor`, .* with value 'x'"),
            ({"image_std": 0}, ValueError, r"`image_std` from 1e-06 to 1e\+06, but got 0"),
            ({"image_std": [1, 1e-300, 1.0]}, ValueError, r"`image_std` from 1e-06 to 1e\+06"),
            ({"image_std": "abc"}, TypeError, "Expected another `image_std`, .* with value 'abc'"),
            ({"image_mean": float("nan")}, ValueError, r"`image_mean` from -1e\+06 to 1e\+06, but got nan"),
            ({"image_mean": 1e300}, ValueError, r"`image_mean` from -1e\+06 to 1e\+06, but got 1e\+300"),
        ],
    )
    def test_sizes_and_scales_out_of_range_are_refused(self, fields, error, message):
        with pytest.raises(error, match=message):
            ITACLIPImageProcessor(**fields)(random_image(32, 32))

    def test_is_not_antialiased(self):
        stripes = np.zeros((64, 64, 3), dtype=np.uint8)
        stripes[:, 1::4] = stripes[:, 2::4] = 255
        resized = ITACLIPImageProcessor(size={"height": 16, "width": 16})(
            stripes, do_rescale=False, do_normalize=False
        )
        assert (resized["pixel_values"] == 255).all()

    def test_nearest_makes_no_new_colors(self, small):
        image = random_image(77, 99)
        inputs = small(image, resample=0, do_rescale=False, do_normalize=False)
        assert np.isin(inputs["pixel_values"][0, 0], image[..., 0]).all()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"resample": 1}, "`resample` to be nearest"),
            ({"size": {"max_height": 9, "max_width": 9}}, "`size` to have"),
            ({"do_center_crop": True, "crop_size": 9}, "`do_center_crop`"),
            ({"do_pad": False}, "`do_pad=True`"),
        ],
    )
    def test_what_is_not_supported_is_refused(self, small, options, message):
        with pytest.raises(ValueError, match=message):
            small([random_image(40, 60), random_image(60, 40)], **options)


class TestFields:
    def test_defaults_are_the_papers(self):
        processor = ITACLIPImageProcessor()
        assert dict(processor.size) == {"shortest_edge": 336, "longest_edge": 2048}
        assert (processor.image_engineering, processor.photometric_weight) == (True, 0.75)
        assert (processor.score_threshold, processor.area_threshold, processor.closing) == (0.0, None, True)
        np.testing.assert_allclose(processor.image_mean, OPENAI_CLIP_MEAN, rtol=1e-5)
        np.testing.assert_allclose(processor.image_std, OPENAI_CLIP_STD, rtol=1e-5)

    def test_a_call_overrides_a_field_once(self, small):
        first = small(random_image(32, 32), photometric_weight=0.6)
        assert first["augmentation_weight"][0].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.2])
        assert small(random_image(32, 32))["augmentation_weight"][0, 0] == pytest.approx(0.25)

    def test_save_and_load(self, tmp_path):
        fields = {"photometric_weight": 0.7, "score_threshold": 0.1, "area_threshold": 0.2, "closing": False}
        saved = ITACLIPImageProcessor(size={"shortest_edge": 448}, image_engineering=False, **fields)
        saved.save_pretrained(tmp_path)
        loaded = ITACLIPImageProcessor.from_pretrained(tmp_path)
        assert loaded.to_dict() == saved.to_dict()
        assert {name: getattr(loaded, name) for name in fields} == fields
        assert dict(loaded.size) == {"shortest_edge": 448}
        assert ITACLIPImageProcessor.from_pretrained(tmp_path, closing=True).closing is True

    def test_is_loaded_without_its_type_too(self, tmp_path):
        ITACLIPImageProcessor(size={"shortest_edge": 448}).save_pretrained(tmp_path)
        path = tmp_path / "preprocessor_config.json"
        fields = json.loads(path.read_text())
        del fields["image_processor_type"]
        path.write_text(json.dumps(fields))
        assert dict(ITACLIPImageProcessor.from_pretrained(tmp_path).size) == {"shortest_edge": 448}

    @pytest.mark.parametrize("kind", ["feature extractor", "image processor", "nested"])
    def test_stock_clip_gives_its_colors_but_not_its_crop(self, tmp_path, kind):
        fields = dict(STOCK_CLIP)
        if kind != "feature extractor":
            del fields["feature_extractor_type"]
            fields |= {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}}
        name = "processor_config.json" if kind == "nested" else "preprocessor_config.json"
        (tmp_path / name).write_text(json.dumps({"image_processor": fields} if kind == "nested" else fields))
        loaded = ITACLIPImageProcessor.from_pretrained(tmp_path)
        assert tuple(loaded.image_mean) == (0.1, 0.2, 0.3)
        assert tuple(loaded.image_std) == (0.4, 0.5, 0.6)
        expected = ITACLIPImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
        assert loaded.to_dict() == expected.to_dict()
        asked = ITACLIPImageProcessor.from_pretrained(tmp_path, size={"shortest_edge": 448})
        assert dict(asked.size) == {"shortest_edge": 448}

    def test_survives_pickling(self, small):
        assert pickle.loads(pickle.dumps(small)).to_dict() == small.to_dict()

    @pytest.mark.parametrize("name", ["photometric_weight", "score_threshold", "area_threshold"])
    @pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
    def test_shares_are_between_0_and_1(self, small, name, value):
        with pytest.raises(ValueError, match=f"`{name}` to be a number from 0 to 1"):
            ITACLIPImageProcessor(**{name: value})
        with pytest.raises(ValueError, match=f"`{name}`" if name == "photometric_weight" else "about label maps"):
            small(random_image(32, 32), **{name: value})

    @pytest.mark.parametrize("name", ["do_resize", "do_rescale", "do_normalize", "do_pad", "do_convert_rgb"])
    @pytest.mark.parametrize("value", ["false", 0, "no"])
    def test_a_switch_is_true_or_false_when_made_set_or_given_to_a_call(self, small, name, value):
        message = f"Expected another `{name}`"
        with pytest.raises(TypeError, match=message):
            ITACLIPImageProcessor(**{name: value})
        with pytest.raises(TypeError, match=message):
            setattr(small, name, value)
        with pytest.raises(TypeError, match=message):
            small(random_image(32, 32), **{name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [("score_threshold", 0.5), ("area_threshold", 0.1), ("region_vote", True), ("closing", False)],
    )
    def test_a_call_with_images_refuses_what_is_about_label_maps(self, small, name, value):
        with pytest.raises(ValueError, match=f"but got '{name}', which is about label maps. Pass it to `post_process"):
            small(random_image(32, 32), **{name: value})

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("score_thresh", 0.5, "Expected the option 'score_threshold', but got 'score_thresh'"),
            ("shortest_edge", 64, r"Expected `size`, but got `shortest_edge` alone. Pass `size=\{'shortest_edge'"),
            ("window_stride", 56, "but got `window_stride`, a setting of another part. Pass it to the model"),
        ],
    )
    def test_keywords_of_other_parts_are_refused(self, small, tmp_path, name, value, message):
        small.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=message):
            ITACLIPImageProcessor(**{name: value})
        with pytest.raises(ValueError, match=message):
            ITACLIPImageProcessor.from_pretrained(tmp_path, **{name: value})

    def test_keywords_that_nobody_knows_are_warned_of(self):
        with pytest.warns(UserWarning, match="but got 'nonsense', which changes nothing"):
            ITACLIPImageProcessor(nonsense=1)

    @pytest.mark.parametrize("threshold", [True, -3, 7, float("nan"), "0.5"])
    def test_scores_of_segments_have_a_threshold_from_0_to_1(self, small, threshold):
        outputs = SimpleNamespace(logits=torch.zeros(1, 2, 4, 4).log_softmax(1))
        with pytest.raises(ValueError, match="Expected `threshold` to be a number from 0 to 1, but got"):
            small.post_process_panoptic_segmentation(outputs, threshold=threshold)
        with pytest.raises(ValueError, match="Expected no `mask_threshold` and no `overlap_mask_area_threshold`"):
            small.post_process_panoptic_segmentation(outputs, mask_threshold=0.7)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    def test_logits_are_floating_point_numbers(self, small, dtype):
        outputs = SimpleNamespace(logits=torch.zeros(1, 2, 4, 4).to(dtype))
        with pytest.raises(TypeError, match=f"logits as floating point numbers, but got {dtype}"):
            small.post_process_semantic_segmentation(outputs)

    def test_a_factor_for_deeper_integers_is_told(self, small):
        image = np.full((32, 32), 60000, dtype=np.uint16)
        with pytest.warns(
            UserWarning, match="integers of every depth are brought to 0...255 before, but got 1.5259e-05"
        ):
            small(image, rescale_factor=1 / 65535)
        floats = image.astype(np.float32)
        expected = small(image)["pixel_values"]
        np.testing.assert_allclose(small(floats, rescale_factor=1 / 65535)["pixel_values"], expected, atol=0.02)

    @pytest.mark.parametrize("value", ["no", 1, None])
    def test_switches_of_calls_are_true_or_false(self, small, value):
        with pytest.raises(TypeError, match=f"Expected `do_reduce_labels` to be true or false, but got {value!r}"):
            small(random_image(32, 32), do_reduce_labels=value)
        outputs = SimpleNamespace(logits=torch.zeros(1, 2, 4, 4).log_softmax(1))
        for name in ("return_segmentation_scores", "return_regions"):
            with pytest.raises(TypeError, match=f"Expected `{name}` to be true or false"):
                small.post_process_semantic_segmentation(outputs, **{name: value})

    def test_image_engineering_needs_a_weight(self, small):
        with pytest.raises(TypeError, match="Expected `photometric_weight` to be a number"):
            small(random_image(32, 32), photometric_weight=None)

    def test_wrong_types_are_refused(self, small):
        with pytest.raises(Exception, match="image_engineering"):
            small(random_image(32, 32), image_engineering="yes")


class TestPostProcessing:
    @pytest.fixture
    def outputs(self):
        """Two images, four classes; the scores of a pixel add up to 1."""
        logits = torch.randn(2, 4, 20, 30, generator=torch.Generator().manual_seed(0)) * 2
        return SimpleNamespace(logits=logits.log_softmax(dim=1))

    def test_maps_of_the_best_classes(self, outputs):
        maps = ITACLIPImageProcessor(closing=False).post_process_semantic_segmentation(outputs)
        assert [(tuple(each.shape), each.dtype) for each in maps] == [((20, 30), torch.int64)] * 2
        assert torch.equal(torch.stack(maps), outputs.logits.argmax(dim=1))

    def test_steps_in_the_published_order(self, outputs):
        processor = ITACLIPImageProcessor(score_threshold=0.5, area_threshold=0.3)
        maps = processor.post_process_semantic_segmentation(outputs)
        for labels, logits in zip(maps, outputs.logits.numpy(), strict=True):
            scores = np.exp(logits)
            counts = np.bincount(scores.argmax(0).flatten(), minlength=4)
            for index in range(1, 4):
                if counts[index] <= 0.3 * counts[1:].sum():
                    scores[index] = 0
            expected = np.where(scores.max(0) < 0.5, 0, scores.argmax(0))
            unclosed = processor.post_process_semantic_segmentation(outputs, closing=False)
            assert any(np.array_equal(expected, each.numpy()) for each in unclosed)
            assert (labels.numpy() >= expected).all()
            assert (labels.numpy() != expected).any()

    def test_arguments_override_fields(self, outputs):
        strict = ITACLIPImageProcessor(score_threshold=1.0, area_threshold=1.0, closing=True)
        plain = ITACLIPImageProcessor(closing=False).post_process_semantic_segmentation(outputs)
        assert torch.stack(strict.post_process_semantic_segmentation(outputs)).sum() == 0
        maps = strict.post_process_semantic_segmentation(outputs, score_threshold=0, area_threshold=0, closing=False)
        assert torch.equal(torch.stack(maps), torch.stack(plain))

    def test_scores_on_request(self, outputs):
        before = outputs.logits.clone()
        processor = ITACLIPImageProcessor(area_threshold=0.3)
        results = processor.post_process_semantic_segmentation(outputs, return_segmentation_scores=True)
        maps = processor.post_process_semantic_segmentation(outputs)
        for result, labels, logits in zip(results, maps, outputs.logits, strict=True):
            assert torch.equal(result.segmentation, labels)
            kept = result.segmentation_scores.flatten(1).amax(1) > 0
            torch.testing.assert_close(result.segmentation_scores[kept], logits.exp()[kept])
        assert torch.equal(outputs.logits, before)

    def test_scores_and_not_their_logarithms_are_resized(self, outputs):
        processor = ITACLIPImageProcessor(closing=False)
        sizes = [(7, 41), (20, 30)]
        results = processor.post_process_semantic_segmentation(outputs, sizes, return_segmentation_scores=True)
        expected = torch.nn.functional.interpolate(outputs.logits[:1].exp(), (7, 41), mode="bilinear")[0]
        torch.testing.assert_close(results[0].segmentation_scores, expected)
        assert torch.equal(results[0].segmentation, expected.argmax(0))
        assert [tuple(result.segmentation.shape) for result in results] == sizes
        tensor_sizes = processor.post_process_semantic_segmentation(outputs, torch.tensor(sizes))
        assert [tuple(labels.shape) for labels in tensor_sizes] == sizes

    def test_logits_of_different_sizes_in_a_list(self, outputs):
        listed = SimpleNamespace(logits=[outputs.logits[0], outputs.logits[1, :, :11, :12]])
        maps = ITACLIPImageProcessor().post_process_semantic_segmentation(listed)
        assert [tuple(labels.shape) for labels in maps] == [(20, 30), (11, 12)]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precisions(self, outputs, dtype):
        logits = SimpleNamespace(logits=outputs.logits.to(dtype))
        processor = ITACLIPImageProcessor(closing=False)
        result = processor.post_process_semantic_segmentation(logits, return_segmentation_scores=True)[0]
        assert result.segmentation_scores.dtype == torch.float32
        assert torch.equal(result.segmentation, logits.logits[0].float().exp().argmax(0))

    def test_impossible_classes_have_no_score(self):
        logits = torch.tensor([-torch.inf, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
        result = ITACLIPImageProcessor().post_process_semantic_segmentation(
            SimpleNamespace(logits=logits), [(5, 5)], return_segmentation_scores=True
        )[0]
        assert result.segmentation.tolist() == [[1] * 5] * 5
        assert result.segmentation_scores[0].sum() == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target_sizes": [(3, 3)]}, r"one target size per image \(2\), but got 1"),
            ({"target_sizes": [(0, 5), (3, 3)]}, r"whole pixels, but got \(0, 5\)"),
            ({"target_sizes": [(3, 3), (3, 5.5)]}, r"whole pixels, but got \(3, 5.5\)"),
            ({"target_sizes": [(3, 3), 4]}, "whole pixels, but got 4"),
            ({"target_sizes": [(3, 3), "ab"]}, "whole pixels, but got 'ab'"),
            ({"score_threshold": 2.0}, "`score_threshold` to be a number from 0 to 1"),
            ({"area_threshold": -1.0}, "`area_threshold` to be a number from 0 to 1"),
        ],
    )
    def test_wrong_arguments_are_refused(self, outputs, options, message):
        with pytest.raises(ValueError, match=message):
            ITACLIPImageProcessor().post_process_semantic_segmentation(outputs, **options)

    def test_logits_without_a_batch_are_refused(self, outputs):
        with pytest.raises(ValueError, match=r"logits \(batch, classes, height, width\)"):
            ITACLIPImageProcessor().post_process_semantic_segmentation(SimpleNamespace(logits=outputs.logits[0]))


class TestSegmentationMaps:
    def test_labels_come_out_at_original_size(self):
        maps = [
            np.array([[0, 1, 255], [2, 3, 4]]),
            PIL.Image.fromarray(np.array([[1, 1, 1], [2, 2, 2]], dtype=np.uint8)),
        ]
        inputs = ITACLIPImageProcessor()([np.zeros((2, 3, 3), dtype=np.uint8)] * 2, maps, return_tensors="pt")
        assert inputs["labels"].dtype == torch.int64
        assert inputs["labels"].tolist() == [[[0, 1, 255], [2, 3, 4]], [[1, 1, 1], [2, 2, 2]]]

    def test_reduced_labels_begin_at_the_first_class(self):
        image, labels = np.zeros((2, 2, 3), dtype=np.uint8), torch.tensor([[0, 1], [150, 255]])
        inputs = ITACLIPImageProcessor()(
            images=image, segmentation_maps=labels, do_reduce_labels=True, return_tensors="np"
        )
        assert inputs["labels"].tolist() == [[[255, 0], [149, 255]]]

    @pytest.mark.parametrize(
        ("maps", "error", "message"),
        [
            (np.zeros((3, 2), dtype=int), ValueError, r"the images have \[\(2, 3\)\], but got \[\(3, 2\)\]"),
            ([np.zeros((2, 3), dtype=int)] * 2, ValueError, r"but got \[\(2, 3\), \(2, 3\)\]"),
            (np.zeros((2, 3)), TypeError, "maps of class ids, but got other values"),
        ],
    )
    def test_other_maps_are_refused(self, maps, error, message):
        with pytest.raises(error, match=message):
            ITACLIPImageProcessor()(np.zeros((2, 3, 3), dtype=np.uint8), maps)


def test_lengths_and_images_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="Expected `size` of at most 65536, but got more as 'shortest_edge'"):
        ITACLIPImageProcessor(size={"shortest_edge": 10**6})
    with pytest.raises(ValueError, match="Expected 1, 3 or 4 channels, but got 8"):
        ITACLIPImageProcessor()(np.zeros((4, 5, 8), dtype=np.uint8), input_data_format="channels_last")
    with pytest.raises(ValueError, match="out of 'channels_first' and 'channels_last', but got 'up'"):
        ITACLIPImageProcessor()(np.zeros((4, 5, 3), dtype=np.uint8), input_data_format="up")
    with pytest.raises(ValueError, match="Expected scores, but got NaN"):
        ITACLIPImageProcessor().post_process_semantic_segmentation(
            SimpleNamespace(logits=torch.full((1, 2, 3, 3), torch.nan))
        )
    with pytest.raises(TypeError, match="Expected logits as tensors, but got NoneType"):
        ITACLIPImageProcessor().post_process_semantic_segmentation(SimpleNamespace(logits=None))
