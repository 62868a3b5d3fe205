"""Terms of the last block by name: new ones, and what is refused."""

import subprocess
import sys

import pytest
import torch

from itaclip_hf import ITACLIPConfig
from itaclip_hf.modeling import attention_maps
from itaclip_hf.modeling.attention_maps import (
    attention_map_names,
    get_attention_map,
    register_attention_map,
)


@pytest.fixture(autouse=True)
def separate_registry(monkeypatch):
    monkeypatch.setattr(attention_maps, "_MAPS", dict(attention_maps._MAPS))


def attend_doubly(attend, projections, value):
    return 2 * attend(projections.query, projections.query, value)


def test_built_in_are_all_pairs_of_letters_and_those_beyond():
    pairs = [x + y for x in "qkv" for y in "qkv"]
    assert sorted(attention_map_names()) == sorted([*pairs, "identity", "similarity", "procrustes"])


@torch.inference_mode()
def test_a_new_term_is_one_function_and_takes_part_in_the_sum(tiny_model):
    register_attention_map("twice_qq", attend_doubly)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    found = tiny_model(attention_maps=("kk", "twice_qq")).vision_model(pixels).last_hidden_state
    expected = tiny_model(attention_maps=("kk", "qq", "qq")).vision_model(pixels).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_a_registered_term_can_be_replaced_when_asked_for():
    register_attention_map("mine", attend_doubly)
    with pytest.raises(ValueError, match=r"'mine' is taken\. Choose another, or pass `exist_ok=True`"):
        register_attention_map("mine", attend_doubly)
    register_attention_map("mine", print, exist_ok=True)
    assert get_attention_map("mine") is print


@pytest.mark.parametrize("name", ["qq", "identity"])
def test_built_in_terms_stay_what_they_are(name):
    with pytest.raises(ValueError, match=f"'{name}' is taken. Choose another name"):
        register_attention_map(name, attend_doubly, exist_ok=True)


def test_unknown_terms_name_the_known_ones_and_the_cure():
    with pytest.raises(ValueError, match=r"name one or more of \('qq'.*register_attention_map"):
        ITACLIPConfig(attention_maps=("qq", "mine"))
    with pytest.raises(ValueError, match=r"Expected an attention map out of .*'identity'.*register_attention_map"):
        get_attention_map("mine")
    with pytest.raises(ValueError, match="Expected a name for the attention map like 'kk_cosine', but got 'my map'"):
        register_attention_map("my map", attend_doubly)


def test_methods_and_terms_need_no_torch():
    code = "import sys, itaclip_hf.methods, itaclip_hf.modeling.attention_maps; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
