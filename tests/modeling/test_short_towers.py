"""Stock towers of few blocks, such as TinyCLIP's, get intermediate layers at the published depth."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from itaclip_hf import ITACLIPConfig, Settings, ZeroShotImageSegmentationPipeline, load, load_method
from itaclip_hf.loading import DEMO_CHECKPOINT


@pytest.fixture
def stock_folder(tmp_path):
    """A function that writes the configuration of a stock CLIP of so many vision blocks."""

    def write(blocks):
        CLIPConfig(vision_config={"num_hidden_layers": blocks}).save_pretrained(tmp_path)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("blocks", "layers"),
    [(1, ()), (2, (1,)), (3, (2,)), (6, (4, 5)), (8, (5, 7)), (10, (6, 7, 8)),
     *((blocks, (7, 8, 10)) for blocks in (11, 12, 24))],
)  # fmt: skip
def test_layers_keep_their_depth_where_the_paper_has_none(stock_folder, blocks, layers):
    assert ITACLIPConfig.from_pretrained(stock_folder(blocks)).intermediate_layers == layers


def test_it_is_said_once(stock_folder, caplog):
    folder = stock_folder(9)
    for _ in range(2):
        ITACLIPConfig.from_pretrained(folder)
    said = [record.getMessage() for record in caplog.records if "has 9 blocks, too few" in record.getMessage()]
    assert len(said) == 1 and "blocks (5, 6, 8) take their place" in said[0]


def test_it_is_not_said_where_the_file_names_layers(stock_folder, caplog):
    file = stock_folder(7) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "intermediate_layers": [3]}))
    assert ITACLIPConfig.from_pretrained(file.parent).intermediate_layers == (3,)
    assert "has 7 blocks" not in caplog.text


def test_layers_that_somebody_named_are_refused_as_ever(stock_folder):
    folder = stock_folder(10)
    assert ITACLIPConfig.from_pretrained(folder, intermediate_layers=(1, 2)).intermediate_layers == (1, 2)
    with pytest.raises(ValueError, match="`intermediate_layers` to count blocks from 1 to 9"):
        ITACLIPConfig.from_pretrained(folder, intermediate_layers=(7, 8, 10))
    with pytest.raises(ValueError, match="`intermediate_layers` to count blocks from 1 to 9"):
        ITACLIPConfig(vision_config={"num_hidden_layers": 10})
    saved = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**saved, "model_type": "itaclip"}))
    with pytest.raises(ValueError, match="`intermediate_layers` to count blocks from 1 to 9"):
        ITACLIPConfig.from_pretrained(folder)


@pytest.fixture
def stock_checkpoint(tmp_path):
    """A function that writes a stock CLIP of so many vision blocks, with weights and tokenizer."""

    def write(blocks):
        config = CLIPConfig.from_pretrained(DEMO_CHECKPOINT)
        narrow = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        text = {**config.text_config.to_dict(), **narrow, "num_hidden_layers": 1}
        vision = {**narrow, "num_hidden_layers": blocks, "image_size": 32, "patch_size": 16}
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(tmp_path)
        for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
            shutil.copy(DEMO_CHECKPOINT / name, tmp_path)
        return tmp_path

    return write


def test_the_method_by_name_is_the_checkpoint_as_it_loads(stock_checkpoint, caplog):
    folder = stock_checkpoint(7)
    plain, by_name = load(folder), load_method("itaclip", folder)
    assert by_name.model.config.intermediate_layers == (4, 5, 6)
    assert Settings.of(*by_name) == Settings.of(*plain)
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    segment = ZeroShotImageSegmentationPipeline(*plain, device="cpu", preset="live", output="map", shortest_edge=32)
    found = [segment(image, ["cat", "dog"], **asked)["confidence"] for asked in ({}, {"method": "itaclip"})]
    assert torch.equal(*found)
    assert [record.getMessage()[:30] for record in caplog.records].count("The vision tower has 7 blocks,") == 1


def test_the_method_by_name_replaces_the_layers_of_another(stock_checkpoint, tmp_path):
    for part in load_method("sclip", stock_checkpoint(7)):
        part.save_pretrained(tmp_path / "sclip")
    assert load(tmp_path / "sclip").model.config.intermediate_layers == ()
    assert load_method("itaclip", tmp_path / "sclip").model.config.intermediate_layers == (4, 5, 6)


def test_methods_and_users_that_name_layers_have_these_or_none(stock_checkpoint, caplog):
    folder = stock_checkpoint(5)
    assert load_method("sclip", folder).model.config.intermediate_layers == ()
    asked = {"intermediate_layers": (1, 2)}
    assert load_method("itaclip", folder, **asked).model.config.intermediate_layers == (1, 2)
    assert not [record for record in caplog.records if "has 5 blocks" in record.getMessage()]
    with pytest.raises(ValueError, match="`intermediate_layers` to count blocks from 1 to 4"):
        load_method("itaclip", folder, intermediate_layers=(7, 8, 10))
    with pytest.raises(ValueError, match="`intermediate_layers` to count blocks from 1 to 4"):
        load_method("resclip_rcs", folder)
    with pytest.raises(ValueError, match="`fused_layers` to count blocks from 1 to 4"):
        load_method("scclip", folder)
    segment = ZeroShotImageSegmentationPipeline(*load(folder), device="cpu")
    with pytest.raises(ValueError, match="`intermediate_layers` to count blocks from 1 to 4"):
        segment(np.zeros((32, 32, 3), dtype=np.uint8), ["cat"], method="itaclip", intermediate_layers=(7, 8, 10))
