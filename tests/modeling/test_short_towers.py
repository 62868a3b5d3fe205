"""Stock towers of few blocks, such as TinyCLIP's, get intermediate layers at the published depth."""

import json

import pytest
from transformers import CLIPConfig

from itaclip_hf import ITACLIPConfig


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
