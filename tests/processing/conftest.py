"""The recorded cases, and a CLIP tokenizer cut down to their words, with CLIP's own token ids."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import CLIPTokenizer

from itaclip_hf.processing import ITACLIPImageProcessor, ITACLIPProcessor

TESTS = Path(__file__).parents[1]
GOLDEN_CASES = sorted((TESTS / "goldens").glob("*.npz"))


@pytest.fixture(scope="session")
def tokenizer_content():
    """Those entries of CLIP's vocab.json and merges.txt that the recorded texts need, and all letters."""
    return json.loads((TESTS / "goldens" / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tokenizer(tokenizer_content):
    """Spells every word that is not in a recorded text."""
    merges = [tuple(merge.split()) for merge in tokenizer_content["merges"]]
    return CLIPTokenizer(vocab=tokenizer_content["vocab"], merges=merges, model_max_length=77)


@pytest.fixture
def processor(tokenizer):
    """Two templates, so that outputs stay small."""
    image_processor = ITACLIPImageProcessor(size={"shortest_edge": 32, "longest_edge": 96})
    return ITACLIPProcessor(image_processor, tokenizer, templates=["a photo of a {}.", "{}"])


@pytest.fixture(params=GOLDEN_CASES, ids=lambda path: path.stem)
def golden(request):
    """One recorded case: arrays by name, and its settings as `spec`."""
    with np.load(request.param) as arrays:
        case = {name: arrays[name] for name in arrays.files}
    case["spec"] = json.loads(bytes(case["spec"]))
    return case
