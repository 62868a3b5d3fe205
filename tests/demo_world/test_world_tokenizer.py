"""The tokenizer: small, of CLIP's kind, and at a loss for no text."""

import pytest
from transformers import CLIPTokenizer

from demo_world.captions import PROMPT_TEMPLATES
from demo_world.tokenizer import _train_byte_pairs, build_tokenizer
from demo_world.vocabulary import load_world_classes


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer()


def test_end_token_has_the_largest_id_and_pads(tokenizer):
    assert tokenizer.eos_token_id == max(tokenizer.get_vocab().values()) == len(tokenizer) - 1
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert tokenizer.bos_token_id == tokenizer.eos_token_id - 1
    assert tokenizer.model_max_length == 77


@pytest.mark.parametrize(
    "text", ["a photo of a dog", "zebra crossing", "ein großer bär", "漢字", "😀", "x² + y²", "\x07"]
)
def test_any_text_survives_the_round_trip(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    # The end token doubles as unknown token: it may stand at the end only.
    assert tokenizer.eos_token_id not in ids[:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_every_byte_has_a_token_alone_and_at_the_end_of_a_word(tokenizer):
    vocabulary = tokenizer.get_vocab()
    single = [token for token in vocabulary if len(token) == 1]
    assert len(single) == 256 and all(token + "</w>" in vocabulary for token in single)


def test_the_most_frequent_pair_is_merged_first_and_ties_follow_the_alphabet():
    _, merges = _train_byte_pairs(["dc ba ba", "dc xyz xyz xyz"], vocabulary_size=600)
    assert merges == [("x", "y"), ("xy", "z</w>"), ("b", "a</w>"), ("d", "c</w>")]


def test_words_of_the_world_are_single_tokens(tokenizer):
    words = {word for entry in load_world_classes().classes for word in entry.label.split()}
    split = [word for word in words if len(tokenizer(word, add_special_tokens=False).input_ids) > 1]
    assert not split


def test_every_definition_fits_the_longest_template(tokenizer):
    longest = max(PROMPT_TEMPLATES, key=lambda template: len(tokenizer(template).input_ids))
    for entry in load_world_classes().classes:
        assert len(tokenizer(longest.format(entry.definition)).input_ids) <= 77


def test_saved_folder_loads_and_gives_the_same_ids(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    text = "a drawing of a Cat, a bus and a ø over the sea"
    assert loaded(text).input_ids == tokenizer(text).input_ids == tokenizer(text.lower()).input_ids
