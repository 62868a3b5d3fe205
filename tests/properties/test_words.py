"""Words of every kind: names, texts, vocabularies and their files."""

import numpy as np
import torch
from hypothesis import given, strategies as st

from itaclip_hf import Vocabulary
from itaclip_hf.processing.vocabulary import straighten_text

from . import strategies as ours
from .outcomes import attempt


def check_vocabulary(vocabulary):
    """What holds for every vocabulary."""
    assert len(vocabulary.labels) == len(vocabulary.classes) + bool(vocabulary.background)
    assert len(vocabulary.query_names) == len(vocabulary.query_classes)
    assert len(set(vocabulary.labels)) == len(vocabulary.labels) == len(vocabulary.label2id)
    assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary
    assert all(name.strip() == name != "" for name in vocabulary.query_names)
    str(vocabulary.to_dict()).encode("utf-8")


def check_tokens(processor, vocabulary, inputs):
    """Every query has tokens of its own, between the start and the end token."""
    ids, mask, weight = inputs["input_ids"], inputs["attention_mask"], inputs["text_weight"]
    tokenizer = processor.tokenizer
    assert ids.shape == mask.shape and ids.shape[1] == len(processor.templates) and ids.shape[-1] <= 77
    assert (ids[..., 0] == tokenizer.bos_token_id).all()
    plain = ids[: len(vocabulary.query_names), 0]  # the template that is the name alone
    lengths = mask[: len(vocabulary.query_names), 0].sum(-1)
    assert (lengths > 2).all(), "a name without a token"
    for row, length in zip(plain, lengths, strict=True):
        inner = row[1 : length - 1]
        assert row[length - 1] == tokenizer.eos_token_id
        assert not ((inner == tokenizer.eos_token_id) | (inner == tokenizer.bos_token_id)).any(), "special tokens"
    # A word may be of the background and a class at once.
    names = {" ".join(straighten_text(name).lower().split()) for name in vocabulary.query_names}
    assert len({tuple(row.tolist()) for row in plain}) == len(names), "two names with the same tokens"
    assert torch.allclose(weight.sum(1), torch.ones(len(weight))), "weights that do not sum to 1"
    assert inputs["query_classes"].tolist() == list(vocabulary.query_classes)


@given(ours.CLASSES, ours.BACKGROUNDS, st.one_of(st.none(), st.none(), ours.VALUES))
def test_names(classes, background, metadata):
    attempt("names", lambda: Vocabulary(classes, background, metadata), check_vocabulary, (classes, background))


@given(
    st.lists(ours.TEXTS, min_size=1, max_size=4), st.lists(ours.TEXTS, max_size=2), st.lists(ours.TEXTS, max_size=2)
)
def test_tokens(loaded, names, texts, background):
    processor = loaded.processor

    def call():
        vocabulary = Vocabulary([(names[0], *names[2:]), *names[1:2]], background)
        vocabulary = vocabulary.with_auxiliary_texts({vocabulary.classes[0].label: texts})
        return vocabulary, processor(vocabulary=vocabulary)

    attempt("tokens", call, lambda result: check_tokens(processor, *result), (names, texts, background))


@given(ours.CLASSES, ours.VALUES, st.one_of(st.none(), ours.BACKGROUNDS), st.one_of(st.none(), ours.VOCABULARY_DICTS))
def test_words_of_a_call(loaded, text, auxiliary_text, background, vocabulary):
    processor = loaded.processor

    def check(inputs):
        assert torch.isfinite(inputs["text_weight"]).all()
        assert int(inputs["input_ids"].max()) < loaded.model.config.text_config.vocab_size

    words = {"text": text, "auxiliary_text": auxiliary_text, "background": background, "vocabulary": vocabulary}
    words = {name: value for name, value in words.items() if value is not None}
    attempt("words of a call", lambda: processor(**words), check, words)


@given(ours.VOCABULARY_DICTS)
def test_dictionaries(content):
    attempt("vocabularies as JSON values", lambda: Vocabulary.from_dict(content), check_vocabulary, content)


@given(ours.vocabulary_files(), st.sampled_from(["json", "txt", "TXT"]), st.booleans())
def test_vocabulary_files(tmp_path_factory, content, suffix, background_first_line):
    path = tmp_path_factory.getbasetemp() / f"words.{suffix}"
    path.write_bytes(content)

    def check(vocabulary):
        check_vocabulary(vocabulary)
        assert path.read_bytes() == content, "the file has changed"
        text = content.decode("utf-8-sig")
        if suffix != "json" and not text.lstrip().startswith("{"):
            lines = [line for line in text.rstrip("\n\r\t ").split("\n") if not line.lstrip().startswith("#")]
            assert len(vocabulary.labels) == len(lines)
            assert all(name in text for name in vocabulary.query_names)

    def call():
        return Vocabulary.from_file(path, background_first_line=background_first_line)

    attempt("vocabulary files", call, check, repr(content[:80]))


OPTION_NAMES = """
    max_length padding truncation padding_side return_tensors pad_to_multiple_of auxilary_weight score_treshold size
    do_resize do_rescale image_std image_mean rescale_factor do_pad resample do_center_crop image_engineering
    photometric_weight input_data_format device add_special_tokens return_length stride do_reduce_labels
"""
OPTIONS = st.dictionaries(st.sampled_from(OPTION_NAMES.split()), ours.VALUES, min_size=1, max_size=2)


@given(OPTIONS, st.booleans())
def test_options_of_a_call(loaded, options, with_image):
    model, processor = loaded

    def call():
        image = np.full((20, 24, 3), 100, dtype=np.uint8) if with_image else None
        inputs = processor(images=image, text=["dog", "sky"], **options)
        if not isinstance(inputs["input_ids"], torch.Tensor):
            inputs = inputs.convert_to_tensors("pt")
        if with_image and inputs["pixel_values"].numel() < 3 * 600**2:
            return inputs, model(**inputs).logits
        return inputs, model.encode_queries(inputs["input_ids"], inputs["attention_mask"], inputs["text_weight"])

    def check(result):
        inputs, found = result
        assert not {*options} & {"auxilary_weight", "score_treshold"}, "an unknown keyword is ignored"
        assert all(torch.isfinite(each).all() for each in found), "not finite"
        assert inputs["input_ids"].shape[-1] <= 77
        if not with_image:
            assert not torch.equal(*found), "two names, one embedding"

    attempt("options of a call", call, check, options)
