"""Text embeddings on the disk: the same bits with and without, shared by content, and never in the way."""

import hashlib
import logging
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from transformers import CLIPTokenizer

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPImageProcessor, ITACLIPProcessor, Vocabulary
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.text_cache import CACHE_VARIABLE, TextCache

from .modeling.conftest import make_tiny_config

PETS = Vocabulary.from_dict(
    {"background": ["sky", "wall"], "classes": [{"names": ["cat"], "auxiliary_texts": ["a pet"]}, {"names": ["dog"]}]}
)
STREET = Vocabulary(["dog", "car", ["road", "street"]])


@pytest.fixture(scope="module")
def processor():
    tokenizer = CLIPTokenizer.from_pretrained(DEMO_CHECKPOINT)
    return ITACLIPProcessor(ITACLIPImageProcessor(), tokenizer, templates=["{}", "a photo of a {}.", "the {}."])


@pytest.fixture
def model(processor):
    torch.manual_seed(0)
    config = make_tiny_config()
    config.text_config.vocab_size = len(processor.tokenizer)
    config.text_config.eos_token_id = processor.tokenizer.eos_token_id
    return ITACLIPForSemanticSegmentation(config).eval()


@pytest.fixture
def encoded(model, monkeypatch):
    """Shapes of the token ids that the model is asked to encode."""
    shapes = []
    encode_texts = model.encode_texts

    def encode(input_ids, attention_mask):
        shapes.append(tuple(input_ids.shape[:2]))
        return encode_texts(input_ids, attention_mask)

    monkeypatch.setattr(model, "encode_texts", encode)
    return shapes


def make_file(path, embeddings):
    """What a whole file of that name with a right checksum holds."""
    digest = hashlib.sha256(embeddings.numpy().tobytes()).hexdigest()
    return save({"embeddings": embeddings}, metadata={"name": path.stem, "sha256": digest})


def bake(model, processor, vocabulary, cache):
    model.set_vocabulary(processor, vocabulary, None if cache is None else TextCache(cache))
    return model.query_embeddings.clone()


def test_results_are_the_same_bits_with_and_without_and_from_the_cache(model, processor, tmp_path):
    for vocabulary in (PETS, STREET):
        without, first, second = (
            bake(model, processor, vocabulary, cache) for cache in (None, tmp_path / "a", tmp_path / "a")
        )
        assert torch.equal(without, first)
        assert torch.equal(without, second)


def test_a_known_vocabulary_is_not_encoded_again(model, processor, encoded, tmp_path):
    bake(model, processor, PETS, tmp_path)
    bake(model, processor, PETS, tmp_path)
    assert encoded == [(5, 3)]
    bake(model, processor, STREET, tmp_path)
    assert encoded == [(5, 3), (4, 3)]


def test_other_templates_are_other_texts(model, processor, encoded, tmp_path):
    bake(model, processor, PETS, tmp_path)
    one = ITACLIPProcessor(ITACLIPImageProcessor(), processor.tokenizer, templates=["{}"])
    bake(model, one, PETS, tmp_path)
    assert encoded == [(5, 3), (5, 1)]


@pytest.mark.parametrize("what", ["weights", "number format", "configuration"])
def test_another_text_tower_has_a_file_of_its_own(what, model, processor, tmp_path):
    first = bake(model, processor, PETS, tmp_path)
    if what == "weights":
        model.text_model.final_layer_norm.weight.data[0] += 1
    elif what == "number format":
        model.to(torch.bfloat16)
    else:
        model.config.text_config.layer_norm_eps *= 2
    second = bake(model, processor, PETS, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert what == "configuration" or not torch.equal(first.float(), second.float())


def test_changes_outside_the_text_tower_share_the_file(model, processor, encoded, tmp_path):
    bake(model, processor, PETS, tmp_path)
    model.config.window_stride = 4
    model.visual_projection.weight.data += 1
    bake(model, processor, PETS, tmp_path)
    assert len(encoded) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "other dimension", "not finite"])
def test_a_damaged_file_is_said_and_replaced(damage, model, processor, encoded, tmp_path, caplog):
    expected = bake(model, processor, PETS, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    damaged = {
        "cut": content[:-10],
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
        "foreign": b"not a file of tensors",
        "empty": b"",
        "other dimension": make_file(path, torch.eye(5, 7)),
        "not finite": make_file(path, torch.full((5, model.config.projection_dim), torch.nan)),
    }
    path.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING, logger="itaclip_hf"):
        assert torch.equal(bake(model, processor, PETS, tmp_path), expected)
    (message,) = caplog.messages
    assert "damaged or foreign" in message
    assert len(encoded) == 2
    assert torch.equal(bake(model, processor, PETS, tmp_path), expected)
    assert len(encoded) == 2


def test_a_file_of_other_texts_under_this_name_is_not_used(model, processor, encoded, tmp_path, caplog):
    expected = bake(model, processor, PETS, tmp_path / "pets")
    bake(model, processor, Vocabulary(["oak", "elm", "ash", "fir", "yew"]), tmp_path / "trees")
    (path,), (other,) = (list((tmp_path / name).iterdir()) for name in ("pets", "trees"))
    shutil.copy(other, path)
    with caplog.at_level(logging.WARNING, logger="itaclip_hf"):
        assert torch.equal(bake(model, processor, PETS, tmp_path / "pets"), expected)
    assert "damaged or foreign" in caplog.text


def test_a_folder_whose_name_is_too_long_is_useless_at_worst(model, processor, tmp_path, caplog):
    expected = bake(model, processor, PETS, None)
    with caplog.at_level(logging.WARNING, logger="itaclip_hf"):
        assert torch.equal(bake(model, processor, PETS, tmp_path / ("long" * 100)), expected)
    assert "cannot be kept" in caplog.messages[-1]


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop_the_work(model, processor, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    expected = bake(model, processor, PETS, None)
    with caplog.at_level(logging.WARNING, logger="itaclip_hf"):
        assert torch.equal(bake(model, processor, PETS, tmp_path / "file"), expected)
    assert "cannot be kept" in caplog.messages[-1]


def test_the_environment_moves_the_cache_or_turns_it_off(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert TextCache().folder == tmp_path
    assert TextCache(tmp_path / "other").folder == tmp_path / "other"
    for off in ("off", "0", ""):
        monkeypatch.setenv(CACHE_VARIABLE, off)
        assert TextCache().folder is None
    monkeypatch.setenv(CACHE_VARIABLE, "~nobody-of-this-name/cache")
    assert TextCache().folder is None
    assert "names no folder" in caplog.messages[-1]
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    assert TextCache().folder == tmp_path / "itaclip_hf" / "text_embeddings"


def test_turned_off_nothing_is_written(model, processor, monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    model.set_vocabulary(processor, PETS, TextCache())
    assert not list(tmp_path.iterdir())
