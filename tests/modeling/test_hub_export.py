"""Folders that are written and read again: plain ones, and ones that bring their code."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    AutoProcessor,
    CLIPTokenizer,
    logging,
    pipeline,
)

from itaclip_hf import (
    ITACLIPConfig,
    ITACLIPForSemanticSegmentation,
    ITACLIPImageProcessor,
    ITACLIPProcessor,
    Vocabulary,
    save_with_code,
)
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.methods import get_method

from .conftest import make_tiny_config

VOCABULARY = Vocabulary.from_dict(
    {"background": ["sky", "wall"], "classes": [{"names": ["cat"]}, {"names": ["dog", "puppy"]}]}
)


@pytest.fixture(scope="module")
def baked():
    """A tiny model with a baked vocabulary, and its processor with the embedded checkpoint's tokenizer."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(DEMO_CHECKPOINT)
    config = make_tiny_config()
    config.text_config.vocab_size = len(tokenizer)
    config.text_config.bos_token_id, config.text_config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    processor = ITACLIPProcessor(
        ITACLIPImageProcessor(size={"shortest_edge": 24, "longest_edge": 64}), tokenizer, templates=["{}", "a {}."]
    )
    model = ITACLIPForSemanticSegmentation(config).eval()
    model.set_vocabulary(processor, VOCABULARY)
    return model, processor


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def test_baking_equals_the_same_texts_per_call(baked, image):
    model, processor = baked
    with torch.inference_mode():
        per_call = model(**processor(images=image, vocabulary=VOCABULARY)).logits
        found = model(**processor(images=image)).logits
    torch.testing.assert_close(found, per_call)
    assert model.config.id2label == {0: "background", 1: "cat", 2: "dog"}
    assert model.config.label2id == {"background": 0, "cat": 1, "dog": 2}


def test_pipeline_runs_a_plain_folder_without_a_word(baked, image, tmp_path, capfd):
    model, processor = baked
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    capfd.readouterr()
    logging.disable_progress_bar()
    segment = pipeline("image-segmentation", model=str(tmp_path))
    results = segment(image)
    logging.enable_progress_bar()
    assert capfd.readouterr().err == ""
    assert {result["label"] for result in results} <= {"background", "cat", "dog"}
    with torch.inference_mode():
        outputs = model(**processor(images=image))
    (labels,) = processor.post_process_semantic_segmentation(outputs)
    for result in results:
        mask = labels == model.config.label2id[result["label"]]
        np.testing.assert_array_equal(np.array(result["mask"]) > 0, mask)
    assert sum((np.array(result["mask"]) > 0).sum() for result in results) == labels.numel()


def test_auto_classes_find_the_packages_classes(baked, tmp_path):
    for saved in baked:
        saved.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is ITACLIPConfig
    assert type(AutoModelForSemanticSegmentation.from_pretrained(tmp_path)) is ITACLIPForSemanticSegmentation
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is ITACLIPImageProcessor
    assert type(AutoProcessor.from_pretrained(tmp_path)) is ITACLIPProcessor
    assert not list(tmp_path.glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


ISOLATED = """
import sys, numpy as np, torch
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, AutoProcessor, logging, pipeline
logging.disable_progress_bar()
assert "itaclip_hf" not in sys.modules
folder, image_path, result_path = sys.argv[1:]
try:
    import itaclip_hf
except ImportError:
    pass
else:
    raise SystemExit("the package is there: this proves nothing")
model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
image = Image.open(image_path)
with torch.inference_mode():
    logits = model(**processor(images=image, text=["cat", ["dog", "puppy"]], background=["sky", "wall"])).logits
np.save(result_path, logits.numpy())
results = pipeline("image-segmentation", model=folder, trust_remote_code=True)(image)
assert results and all(result["label"] in model.config.label2id for result in results)
"""


@pytest.fixture(scope="module")
def proxied(baked, proxy):
    """The same, with what CorrCLIP's last block does."""
    model, processor = copy.deepcopy(baked)
    get_method("corrclip").settings().replace(fused_layers=[1], window_size=24, window_stride=12).apply(
        model, processor
    )
    model.attach_proxy(proxy)
    return model, processor


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["baked", "proxied"])
def test_folder_with_code_runs_where_the_package_is_missing(request, parts, image, tmp_path):
    model, processor = request.getfixturevalue(parts)
    folder, image_path, result_path = tmp_path / "model", tmp_path / "image.png", tmp_path / "logits.npy"
    save_with_code(folder, model, processor)
    image.save(image_path)
    # -I leaves out the working directory; the finder of an editable installation is taken out by name.
    hide = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
    hide += "sys.path = [p for p in sys.path if not __import__('os').path.isdir(p + '/itaclip_hf')]\n"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", hide + ISOLATED, folder, image_path, result_path],
        env={"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with torch.inference_mode():
        expected = model(**processor(images=image)).logits
    np.testing.assert_allclose(np.load(result_path), expected.numpy(), atol=1e-5)


def test_folder_with_code_loads_as_an_ordinary_one_beside_the_package(baked, tmp_path):
    save_with_code(tmp_path, *baked)
    assert len([*tmp_path.glob("*.py")]) <= 15  # whoever reads them before trusting them shall come to an end
    # Without `trust_remote_code`: no question is asked and no copied code runs.
    assert type(AutoModelForSemanticSegmentation.from_pretrained(tmp_path)) is ITACLIPForSemanticSegmentation
    assert type(AutoProcessor.from_pretrained(tmp_path)) is ITACLIPProcessor
    assert ITACLIPConfig._auto_class is None


def test_saving_plainly_after_saving_with_code_is_plain(baked, tmp_path):
    save_with_code(tmp_path / "code", *baked)
    for saved in baked:
        saved.save_pretrained(tmp_path / "plain")
    assert not [path.name for path in (tmp_path / "plain").iterdir() if "auto_map" in path.read_text(errors="ignore")]


def test_half_precision_survives_saving(baked, image, tmp_path):
    model, processor = baked
    model = copy.deepcopy(model).to(torch.bfloat16)
    model.set_vocabulary(processor, VOCABULARY)
    model.save_pretrained(tmp_path)
    loaded = ITACLIPForSemanticSegmentation.from_pretrained(tmp_path, dtype="auto").eval()
    assert loaded.query_embeddings.dtype == torch.bfloat16
    with torch.inference_mode():
        inputs = processor(images=image)
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_another_vocabulary_takes_the_place_of_the_first(baked, image):
    model, processor = copy.deepcopy(baked[0]), baked[1]
    other = Vocabulary(["tree", "car", "bus", "road", "house"])
    model.set_vocabulary(processor, other)
    with torch.inference_mode():
        logits = model(**processor(images=image)).logits
        per_call = baked[0](**processor(images=image, vocabulary=other)).logits
    assert model.config.num_labels == 5
    torch.testing.assert_close(logits, per_call)


def test_baking_something_else_is_refused_and_changes_nothing(baked):
    model, processor = baked
    with pytest.raises(TypeError, match=r"Expected a Vocabulary, but got dict\. Make one with"):
        model.set_vocabulary(processor, {"classes": [{"names": ["tree"]}]})
    assert len(model.query_embeddings) == len(model.config.query_classes) == 5


def test_pipeline_takes_many_images(baked, image, tmp_path):
    for saved in baked:
        saved.save_pretrained(tmp_path)
    segment = pipeline("image-segmentation", model=str(tmp_path))
    alone, both = segment(image), segment([image, image.rotate(90, expand=True)])
    assert len(both) == 2
    assert [result["label"] for result in both[0]] == [result["label"] for result in alone]


def test_file_names_are_unique_over_both_packages():
    root = Path(sys.modules["itaclip_hf"].__file__).parent
    modeling, processing = ({path.name for path in (root / part).glob("*.py")} for part in ("modeling", "processing"))
    assert modeling & processing == {"__init__.py"}
