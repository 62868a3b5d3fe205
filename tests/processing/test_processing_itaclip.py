import json
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import CLIPImageProcessor, CLIPProcessor
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from itaclip_hf.processing import IMAGENET_TEMPLATES, ITACLIPImageProcessor, ITACLIPProcessor, Vocabulary

END = 49407
TEXT = ["cat", ["dog", "puppy"]]
AUXILIARY = ["a small pet that purrs", "a loyal pet"]
BACKGROUND = ["sky", "wall"]


def decode(tokenizer, ids):
    """The prompt between start and end token; words outside the tokenizer's vocabulary are spelled."""
    return tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "")


class TestTexts:
    def test_data_contract(self, processor):
        inputs = processor(text=TEXT, auxiliary_text=AUXILIARY, background=BACKGROUND)
        tokens = inputs["input_ids"].shape[2]
        assert {key: (tuple(value.shape), value.dtype) for key, value in inputs.items()} == {
            "input_ids": ((7, 2, tokens), torch.int64),
            "attention_mask": ((7, 2, tokens), torch.int64),
            "text_weight": ((5, 7), torch.float32),
            "query_classes": ((5,), torch.int64),
        }
        assert inputs["query_classes"].tolist() == [0, 0, 1, 2, 2]

    def test_texts_are_names_then_auxiliary_texts_in_every_template(self, processor):
        inputs = processor(text=TEXT, auxiliary_text=AUXILIARY, background=BACKGROUND)
        for text, prompts in zip(
            [*BACKGROUND, "cat", "dog", "puppy", *AUXILIARY], inputs["input_ids"].tolist(), strict=True
        ):
            expected = [f"a photo of a {text}.".replace(" ", ""), text.replace(" ", "")]
            assert [decode(processor.tokenizer, prompt) for prompt in prompts] == expected

    def test_recorded_token_ids(self, golden, tokenizer):
        spec = golden["spec"]
        classes, background = spec["classes"], None
        if spec["background"]:
            background, *classes = classes
        processor = ITACLIPProcessor(ITACLIPImageProcessor(), tokenizer)
        inputs = processor(
            text=classes,
            auxiliary_text=spec["auxiliary"],
            background=background,
            padding="max_length",
            return_tensors="np",
        )
        recorded = np.concatenate([golden[key] for key in ("name_ids", "auxiliary_ids") if key in golden])
        np.testing.assert_array_equal(inputs["input_ids"] * inputs["attention_mask"], recorded)
        np.testing.assert_array_equal(inputs["query_classes"], golden["query_to_class"])

    def test_weights_mix_names_with_the_texts_of_their_class(self, processor):
        processor.auxiliary_weight = 0.3
        inputs = processor(
            text=["cat", ["dog", "puppy"], "bird"],
            auxiliary_text=["purrs", ["loyal", "barks"], None],
            background=["sky"],
        )
        expected = [
            # sky, cat, dog, puppy, bird, purrs, loyal, barks
            [1, 0, 0, 0, 0, 0, 0, 0],
            [0, 0.7, 0, 0, 0, 0.3, 0, 0],
            [0, 0, 0.7, 0, 0, 0, 0.15, 0.15],
            [0, 0, 0, 0.7, 0, 0, 0.15, 0.15],
            [0, 0, 0, 0, 1, 0, 0, 0],
        ]
        torch.testing.assert_close(inputs["text_weight"], torch.tensor(expected))

    def test_auxiliary_texts_without_weight_are_not_encoded(self, processor):
        processor.auxiliary_weight = 0
        inputs = processor(text=TEXT, auxiliary_text=AUXILIARY)
        assert torch.equal(inputs["text_weight"], torch.eye(3))
        assert len(inputs["input_ids"]) == 3

    def test_a_vocabulary_says_the_same_as_its_words(self, processor):
        vocabulary = Vocabulary(TEXT, BACKGROUND).with_auxiliary_texts(AUXILIARY)
        expected = processor(text=TEXT, auxiliary_text=AUXILIARY, background=BACKGROUND)
        mapping = {"puppy": "a loyal pet", "cat": "a small pet that purrs"}
        for inputs in (
            processor(vocabulary=vocabulary),
            processor(vocabulary=vocabulary.to_dict()),
            processor(text=TEXT, auxiliary_text=mapping, background=BACKGROUND),
        ):
            assert all(torch.equal(inputs[key], expected[key]) for key in expected)

    def test_a_single_string_is_one_class(self, processor):
        inputs = processor(text="cat", auxiliary_text="a pet")
        assert inputs["text_weight"].tolist() == [pytest.approx([0.8, 0.2])]

    def test_prompts_are_padded_to_the_longest_or_on_request_further(self, processor):
        lengths = processor(text=TEXT)["attention_mask"].sum(-1)
        assert processor(text=TEXT)["input_ids"].shape[-1] == lengths.max()
        assert processor(text=TEXT, padding=False)["input_ids"].shape[-1] == lengths.max()
        assert processor(text=TEXT, padding="max_length")["input_ids"].shape[-1] == 77
        assert processor(text=TEXT, padding="max_length", max_length=30)["input_ids"].shape[-1] == 30
        assert processor(text=TEXT, pad_to_multiple_of=8, max_length=72)["input_ids"].shape[-1] % 8 == 0

    def test_braces_in_names_are_no_templates(self, processor):
        assert processor(text=["{x} {}"])["input_ids"].shape[:2] == (1, 2)

    def test_long_texts_are_cut_with_one_warning_that_names_the_classes(self, processor):
        message = r"at most 77 tokens, but those of 'y{40}\.\.\.', 'dog' are longer"
        with pytest.warns(UserWarning, match=message) as record:
            ids = processor(text=["y" * 300, ["dog", "z" * 300]], auxiliary_text=["short", "x" * 200])["input_ids"]
        assert len(record) == 1
        assert record[0].filename == __file__
        assert ids.shape[-1] == 77
        assert (ids[[0, -1], :, -1] == END).all()

    def test_many_long_texts_are_counted(self, processor):
        with pytest.warns(UserWarning, match="'bird4' and 2 more are longer"):
            processor(text=[f"bird{index}" for index in range(7)], auxiliary_text=["x" * 200] * 7)

    def test_texts_that_just_fit_are_not_warned_about(self, processor):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ids = processor(text=["z " * 70])["input_ids"]
        assert ids.shape[-1] == 77

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "`images`, `text` or `vocabulary`, but got none"),
            ({"background": ["sky"]}, "`text` with `auxiliary_text` or `background`"),
            ({"text": TEXT, "auxiliary_text": ["a pet"]}, r"one auxiliary text per class \(2\), but got 1"),
            ({"text": TEXT, "auxiliary_text": {"dgo": "a pet"}}, "Did you mean 'dog'"),
            ({"text": ["cat", "cat"]}, "every name once"),
            ({"text": ["cat"], "background": ["sky", "Sky"]}, "every name once"),
            ({"text": ["cat", ""]}, "no empty class name"),
            ({"text": []}, "at least one class"),
            ({"text": TEXT, "vocabulary": {"classes": ["cat"]}}, "`vocabulary` alone"),
            ({"vocabulary": {"clases": ["cat"]}}, "the key 'classes'"),
        ],
    )
    def test_wrong_words_are_refused(self, processor, arguments, message):
        with pytest.raises(ValueError, match=message):
            processor(**arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"vocabulary": ["cat"]}, "`vocabulary` to be a Vocabulary, but got list"),
            ({"text": TEXT, "background": "sky"}, "list of background words, but got str"),
            ({"text": TEXT, "background": ""}, "list of background words, but got str"),
            ({"text": [3]}, "but got int"),
        ],
    )
    def test_wrong_types_are_refused(self, processor, arguments, message):
        with pytest.raises(TypeError, match=message):
            processor(**arguments)


class TestImagesAndTexts:
    def test_both_in_one_call(self, processor):
        image = PIL.Image.new("RGB", (40, 30))
        both = processor(images=image, text=TEXT)
        assert list(both) == processor.model_input_names
        parts = {**processor.image_processor(image, return_tensors="pt"), **processor(text=TEXT)}
        assert all(torch.equal(both[key], parts[key]) for key in both)

    def test_images_alone(self, processor):
        inputs = processor(images=[PIL.Image.new("RGB", (40, 30))] * 2, size={"shortest_edge": 16})
        assert tuple(inputs["pixel_values"].shape) == (2, 3, 16, 21)
        assert "input_ids" not in inputs

    @pytest.mark.parametrize(("kind", "expected"), [("np", np.ndarray), ("pt", torch.Tensor), (None, np.ndarray)])
    def test_return_tensors(self, processor, kind, expected):
        inputs = processor(images=PIL.Image.new("RGB", (40, 30)), text=TEXT, return_tensors=kind)
        assert all(isinstance(value, expected) for value in inputs.values())

    def test_precision_of_floats_can_be_changed(self, processor):
        inputs = processor(images=PIL.Image.new("RGB", (40, 30)), text=TEXT).to(torch.float16)
        assert inputs["pixel_values"].dtype == inputs["text_weight"].dtype == torch.float16
        assert inputs["image_sizes"].dtype == inputs["input_ids"].dtype == torch.int64

    def test_post_processing_is_the_image_processors(self, processor):
        outputs = SimpleNamespace(logits=torch.randn(1, 3, 8, 8).log_softmax(1))
        own = processor.post_process_semantic_segmentation(outputs, target_sizes=[(4, 4)])
        other = processor.image_processor.post_process_semantic_segmentation(outputs, target_sizes=[(4, 4)])
        assert torch.equal(own[0], other[0])


class TestFields:
    def test_defaults_are_the_papers(self, tokenizer):
        processor = ITACLIPProcessor(ITACLIPImageProcessor(), tokenizer)
        assert processor.auxiliary_weight == 0.2
        assert tuple(processor.templates) == IMAGENET_TEMPLATES
        assert len(set(IMAGENET_TEMPLATES)) == 80

    @pytest.mark.parametrize("fields", [{}, {"auxiliary_weight": 0.05, "templates": ["{}", "a {}."]}])
    def test_save_and_load(self, tokenizer, tmp_path, fields):
        saved = ITACLIPProcessor(ITACLIPImageProcessor(photometric_weight=0.7), tokenizer, **fields)
        saved.save_pretrained(tmp_path)
        loaded = ITACLIPProcessor.from_pretrained(tmp_path)
        assert loaded.to_dict() == saved.to_dict()
        assert loaded.templates == saved.templates
        assert loaded.image_processor.photometric_weight == 0.7
        assert torch.equal(loaded(text=TEXT)["input_ids"], saved(text=TEXT)["input_ids"])

    def test_fields_can_be_given_when_loading(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        loaded = ITACLIPProcessor.from_pretrained(tmp_path, auxiliary_weight=0.5, photometric_weight=0.6)
        assert (loaded.auxiliary_weight, loaded.image_processor.photometric_weight) == (0.5, 0.6)
        assert loaded.templates == processor.templates
        assert "auxiliary_weight" not in loaded.tokenizer.init_kwargs

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("template", ["{}"], "Expected the option 'templates', but got 'template'"),
            ("pamr_steps", 0, "but got `pamr_steps`, a setting of another part. Pass it to the model"),
            ("longest_edge", 64, "Expected `size`, but got `longest_edge` alone"),
        ],
    )
    def test_keywords_of_other_parts_are_refused_when_loading(self, processor, tmp_path, name, value, message):
        processor.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=message):
            ITACLIPProcessor.from_pretrained(tmp_path, **{name: value})
        with pytest.warns(UserWarning, match="but got 'nonsense', which changes nothing"):
            ITACLIPProcessor.from_pretrained(tmp_path, nonsense=1)
        loaded = ITACLIPProcessor.from_pretrained(tmp_path, model_max_length=20, local_files_only=True)
        assert loaded.tokenizer.model_max_length == 20

    @pytest.mark.parametrize("name", ["image_std", "rescale_factor", "image_mean"])
    def test_whole_numbers_are_numbers_in_a_call_too(self, processor, name):
        image = np.full((20, 30, 3), 1, dtype=np.uint8)
        expected = processor.image_processor(image, **{name: 1.0})["pixel_values"]
        for options in ({name: 1}, {"images_kwargs": {name: 1}}):
            np.testing.assert_array_equal(
                processor(images=image, return_tensors="np", **options)["pixel_values"], expected
            )
        np.testing.assert_array_equal(processor.image_processor(image, **{name: 1})["pixel_values"], expected)
        if name != "image_mean":
            with pytest.raises(ValueError, match=f"Expected `{name}` from 1e-06"):
                processor(images=image, **{name: 0})

    @pytest.mark.parametrize("template", ["<|endoftext|>{}", "{}\0", "\ud800{}", "a\n{}"])
    def test_templates_have_readable_signs(self, processor, template):
        with pytest.raises(ValueError, match=r"Expected templates (of readable characters|without special tokens)"):
            processor.templates = [template]

    @pytest.mark.parametrize("templates", [0, [0], {"{}", "a {}"}, iter(["{}"]), "a {}"])
    def test_templates_are_a_list_of_texts_when_made_and_set(self, processor, tokenizer, templates):
        with pytest.raises(TypeError, match="Expected a list of templates, but got"):
            ITACLIPProcessor(processor.image_processor, tokenizer, templates=templates)
        with pytest.raises(TypeError, match="Expected a list of templates, but got"):
            processor.templates = templates

    @pytest.mark.parametrize("kind", ["original", "saved by CLIPProcessor"])
    def test_loads_from_a_stock_clip_folder(self, tokenizer, tokenizer_content, tmp_path, kind):
        if kind == "original":
            self._write_openai_folder(tmp_path, tokenizer_content)
        else:
            CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(tmp_path)
        loaded = ITACLIPProcessor.from_pretrained(tmp_path)
        assert isinstance(loaded.image_processor, ITACLIPImageProcessor)
        assert loaded.image_processor.to_dict() == ITACLIPImageProcessor().to_dict()
        assert len(loaded.templates) == 80
        expected = ITACLIPProcessor(ITACLIPImageProcessor(), tokenizer)
        assert torch.equal(loaded(text=TEXT)["input_ids"], expected(text=TEXT)["input_ids"])

    @staticmethod
    def _write_openai_folder(folder, content):
        """The files that OpenAI's repositories hold, with a vocabulary of letters and a few words."""
        preprocessor = {"size": 224, "crop_size": 224, "resample": 3, "do_center_crop": True, "do_resize": True}
        preprocessor |= {"do_normalize": True, "image_mean": OPENAI_CLIP_MEAN, "image_std": OPENAI_CLIP_STD}
        files = {
            "vocab.json": json.dumps(content["vocab"]),
            "merges.txt": "\n".join(["#version: 0.2", *content["merges"]]) + "\n",
            "tokenizer_config.json": json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}),
            "config.json": json.dumps({"model_type": "clip"}),
            "preprocessor_config.json": json.dumps(preprocessor | {"feature_extractor_type": "CLIPFeatureExtractor"}),
        }
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")

    @pytest.mark.parametrize(
        ("fields", "error", "message"),
        [
            ({"auxiliary_weight": 1.2}, ValueError, "`auxiliary_weight` to be a number from 0 to 1"),
            ({"templates": ["a photo."]}, ValueError, "one pair of braces"),
            ({"templates": ["a {} of {}."]}, ValueError, "one pair of braces"),
            ({"templates": ["a {name}."]}, ValueError, "one pair of braces"),
            ({"templates": []}, ValueError, "at least one template"),
            ({"templates": "a {}."}, TypeError, "list of templates"),
        ],
    )
    def test_wrong_fields_are_refused(self, tokenizer, fields, error, message):
        with pytest.raises(error, match=message):
            ITACLIPProcessor(ITACLIPImageProcessor(), tokenizer, **fields)

    def test_survives_pickling(self, processor):
        copy = pickle.loads(pickle.dumps(processor))
        assert torch.equal(copy(text=TEXT)["input_ids"], processor(text=TEXT)["input_ids"])


def test_padding_on_the_left_is_refused(processor):
    with pytest.raises(ValueError, match="Expected padding on the right"):
        processor(text=["cat"], padding="max_length", padding_side="left")


def test_typography_does_not_change_the_tokens(processor):
    curly, straight = (processor(text=[text])["input_ids"] for text in ("a dog’s “bed”", 'a dog\'s "bed"'))
    assert curly.tolist() == straight.tolist()


@pytest.mark.filterwarnings("ignore:Expected prompts of at most")
def test_names_that_are_cut_to_the_same_tokens_are_refused(processor):
    with pytest.raises(ValueError, match="differ in their tokens, but got 'cat cat cat"):
        processor(text=["cat " * 30 + "one", "cat " * 30 + "two"], max_length=20)


def test_a_class_that_is_a_background_word_keeps_both_queries(processor):
    words = {"text": ["bed", "dog"], "background": ["sky", "bed"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = processor(**words, auxiliary_text={"bed": "a place to sleep"})
    assert inputs["query_classes"].tolist() == [0, 0, 1, 2]
    assert torch.equal(inputs["input_ids"][1], inputs["input_ids"][2])
    with pytest.warns(UserWarning, match="got 'bed' in both without an auxiliary text"):
        assert processor(**words)["query_classes"].tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"auxilary_weight": 0.5},
            ValueError,
            "Expected options out of .*, but got 'auxilary_weight'",
        ),
        ({"score_treshold": 0.5}, ValueError, "Expected options out of .*, but got 'score_treshold'"),
        ({"text_kwargs": {"stride": 3}}, ValueError, "Expected options out of .*, but got 'stride'"),
        ({"text_kwargs": 3}, TypeError, "Expected `text_kwargs` to be a dictionary, but got int"),
        ({"truncation": False}, ValueError, "Expected no `truncation=False`, as the model needs it"),
        ({"max_length": 200}, ValueError, "Expected `max_length` from 3 to 77, .*, but got 200"),
        ({"max_length": 2}, ValueError, "Expected `max_length` from 3 to 77, .*, but got 2"),
        ({"pad_to_multiple_of": 50}, ValueError, "Expected `pad_to_multiple_of` to divide 77, .*, but got 50"),
        ({"padding": "left"}, ValueError, "Expected `padding` out of longest, max_length, do_not_pad, but got 'left'"),
        ({"return_tensors": 3}, TypeError, "Expected another `return_tensors`"),
    ],
)
def test_options_that_nobody_would_heed_are_refused(processor, options, error, message):
    with pytest.raises(error, match=message):
        processor(text=["cat"], **options)


@pytest.mark.parametrize("name", ["auxilary_weight", "score_treshold", "image_enginering", "template"])
def test_a_misspelled_option_of_loading_is_refused(name, tmp_path, processor):
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"Expected the option '\w+', but got '{name}'. Correct the spelling"):
        ITACLIPProcessor.from_pretrained(tmp_path, **{name: 0.5})
