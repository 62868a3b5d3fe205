"""Folders of checkpoints, whole and broken; and files of the text cache."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file, save, save_file
from transformers import CLIPTokenizer

from itaclip_hf import ITACLIPForSemanticSegmentation, ITACLIPProcessor, load
from itaclip_hf.loading import DEMO_CHECKPOINT
from itaclip_hf.text_cache import TextCache

from ..modeling.conftest import make_tiny_config
from . import strategies as ours
from .conftest import WORDS
from .outcomes import attempt

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 598641023\n"
JSON_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
)
FILES = (*JSON_FILES, "model.safetensors")
ODD_JSON = [None, [], {}, "x", "", 0, -1, 1, 1.5, 7, 512, 10**6, True, [1, 2], ["qq"], {"x": 1}]
ODD_PLACES = ["/no/such/folder", "no-such", "./no-such", "~/no", "a/b/c", "", ".", "/", "demo/"]
ODD_WEIGHTS = ["zero", "nan", "inf", "one inf", "int8", "bool", "huge", "shape", "gone", "name"]


@pytest.fixture(scope="session")
def intact(tmp_path_factory):
    """A small whole checkpoint: random towers with the embedded checkpoint's tokenizer."""
    folder = tmp_path_factory.mktemp("intact")
    processor = ITACLIPProcessor.from_pretrained(DEMO_CHECKPOINT, templates=["{}", "a {}."])
    processor.image_processor.size = {"shortest_edge": 16, "longest_edge": 64}
    config = make_tiny_config()
    config.text_config.vocab_size = len(processor.tokenizer)
    config.text_config.eos_token_id = processor.tokenizer.eos_token_id
    config.text_config.bos_token_id = processor.tokenizer.bos_token_id
    torch.manual_seed(0)
    ITACLIPForSemanticSegmentation(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor.image_processor.to_dict()))
    return folder


@pytest.fixture(scope="session")
def foreign_tokenizer(tmp_path_factory):
    """A tokenizer of other words."""
    content = json.loads((Path(__file__).parents[1] / "goldens" / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [tuple(merge.split()) for merge in content["merges"]]
    folder = tmp_path_factory.mktemp("foreign")
    CLIPTokenizer(vocab=content["vocab"], merges=merges, model_max_length=77).save_pretrained(folder)
    return folder


def hash_folder(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in sorted(folder.iterdir())}


def use(folder):
    """Load it and segment."""
    model, processor = load(folder, WORDS)
    with torch.inference_mode():
        outputs = model(**processor(images=PICTURE))
    return model, outputs.logits, processor.post_process_semantic_segmentation(outputs)


def attempt_folder(area, folder, may_be_right, about):
    before = hash_folder(folder)

    def check(result):
        model, logits, maps = result
        assert may_be_right, "taken for a checkpoint"
        assert hash_folder(folder) == before, "the folder has changed"
        assert torch.isfinite(logits).all() and logits.exp().max() <= 1 + 1e-5, "scores"
        assert len({tuple(query.tolist()) for query in model.query_embeddings}) == len(WORDS.query_names), "one query"
        assert maps[0].shape == PICTURE.shape[:2] and maps[0].min() >= 0 and maps[0].max() < 3

    attempt(area, lambda: use(folder), check, about)


def copy_of(intact, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(intact, folder))


@given(st.data())
def test_broken_files(intact, tmp_path_factory, data):
    folder = copy_of(intact, tmp_path_factory)
    path = folder / data.draw(st.sampled_from(FILES))
    content = path.read_bytes()
    how = data.draw(st.sampled_from(["missing", "empty", "cut", "pointer", "folder", "bytes", "header", "fifo"]))
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
        path.unlink() if data.draw(st.booleans()) else None
    elif how == "header":
        end = min(len(content), 400)
        path.write_bytes(data.draw(ours.damaged(content[:end])) + content[end:])
    elif how != "missing":
        cut = content[: data.draw(st.integers(0, len(content) - 1))]
        path.write_bytes({"empty": b"", "cut": cut, "pointer": POINTER, "bytes": b"\x00\xff\x13" * 40}[how])
    # Without its own file, a part may be found in another one or have CLIP's defaults.
    needed = path.name in ("config.json", "model.safetensors", "tokenizer.json")
    may_be_right = how == "header" or not needed
    attempt_folder("broken files of a folder", folder, may_be_right, f"{path.name} {how}")


@given(st.data())
def test_json_of_other_content(intact, tmp_path_factory, data):
    folder = copy_of(intact, tmp_path_factory)
    path = folder / data.draw(st.sampled_from(JSON_FILES))
    content = json.loads(path.read_text())
    if data.draw(st.integers(0, 3)) == 0:
        content = data.draw(st.sampled_from([[], None, 3, "x", {}, [1], True, {"model_type": "vit"}]))
        about = repr(content)
    else:
        part = content
        key = data.draw(st.sampled_from(sorted(part)))
        if isinstance(part[key], dict) and part[key] and data.draw(st.booleans()):
            part, key = part[key], data.draw(st.sampled_from(sorted(part[key])))
        value = data.draw(st.sampled_from(ODD_JSON))
        about = f"{key}={value!r} for {part[key]!r:.60}"
        part[key] = value
        if data.draw(st.integers(0, 3)) == 0:
            del part[key]
    path.write_text(json.dumps(content))
    attempt_folder("other JSON in a folder", folder, True, f"{path.name} {about}")


@given(st.data())
def test_weights_that_cannot_be_right(intact, tmp_path_factory, data):
    folder = copy_of(intact, tmp_path_factory)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    matrices = sorted(name for name, tensor in tensors.items() if tensor.ndim > 1)
    names = data.draw(st.sampled_from([sorted(tensors), matrices])) if data.draw(st.booleans()) else None
    names = names or [data.draw(st.sampled_from(matrices))]
    how = data.draw(st.sampled_from(ODD_WEIGHTS))
    for name in names:
        tensor = tensors.pop(name)
        if how in ("zero", "nan", "inf", "huge"):
            tensors[name] = torch.full_like(tensor, {"zero": 0, "nan": torch.nan, "inf": torch.inf, "huge": 1e30}[how])
        elif how == "one inf":
            tensors[name] = tensor.clone()
            tensors[name].view(-1)[-1] = torch.inf
        elif how in ("int8", "bool"):
            tensors[name] = tensor.to(torch.int8 if how == "int8" else torch.bool)
        elif how == "shape":
            tensors[name] = tensor.repeat(2, *[1] * (tensor.ndim - 1)) if tensor.ndim else tensor.repeat(2)
        elif how == "name":
            tensors[f"{name}_of_mine"] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
    attempt_folder("weights that cannot be right", folder, False, f"{names[:2]} {how}")


@given(st.sampled_from(["foreign", "length", "end", "start", "pieces", "short tower", "added"]), st.integers(0, 600))
def test_tokenizers(intact, foreign_tokenizer, tmp_path_factory, how, number):
    folder = copy_of(intact, tmp_path_factory)
    config = json.loads((folder / "config.json").read_text())
    about = json.loads((folder / "tokenizer_config.json").read_text())
    pieces = json.loads((folder / "tokenizer.json").read_text())
    if how == "foreign":
        for path in foreign_tokenizer.iterdir():
            shutil.copy(path, folder)
        about = json.loads((folder / "tokenizer_config.json").read_text())
        pieces = json.loads((folder / "tokenizer.json").read_text())
    elif how == "length":
        about["model_max_length"] = number
    elif how in ("end", "start"):
        config["text_config"]["eos_token_id" if how == "end" else "bos_token_id"] = number
    elif how == "short tower":
        config["text_config"]["vocab_size"] = number + 1
    elif how == "pieces":
        pieces["model"]["merges"] = pieces["model"]["merges"][:number]
    else:
        pieces["added_tokens"].append({**pieces["added_tokens"][0], "id": 5000 + number, "content": "dog"})
    for name, content in (("config", config), ("tokenizer_config", about), ("tokenizer", pieces)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    # OpenAI's configurations say 2 and mean the last token.
    may_be_right = how in ("length", "pieces", "start") or (how == "end" and number in (2, 2022))
    attempt_folder("tokenizers of others", folder, may_be_right, f"{how} {number}")


@given(
    st.one_of(
        ours.VALUES,
        st.sampled_from(ODD_PLACES),
    )
)
def test_names_of_checkpoints(name):
    attempt("names of checkpoints", lambda: load(name), about=(name,))


@given(st.data())
def test_text_cache(loaded, tmp_path_factory, data):
    """Whatever lies in the cache, embeddings are those without it, and nothing is said but in the log."""
    model, processor = loaded
    folder = tmp_path_factory.mktemp("cache")
    inputs = processor(text=["dog", "sky"])
    texts = inputs["input_ids"], inputs["attention_mask"]
    with torch.inference_mode():
        expected = model.encode_texts(*texts)
        TextCache(folder).encode_texts(model, *texts)
    (path,) = folder.iterdir()
    how = data.draw(st.sampled_from(["bytes", "fifo", "folder", "scaled", "shape", "dtype", "nan", "loop", "gone"]))
    content = path.read_bytes()
    crafted = {
        "shape": expected[:1],
        "dtype": expected.half(),
        "nan": expected * torch.nan,
        "scaled": expected.flip(0) * 0.5,
    }
    path.unlink()
    if how == "bytes":
        path.write_bytes(data.draw(ours.damaged(content)))
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path)
    elif how == "gone":
        shutil.rmtree(folder)
        folder.write_bytes(b"x")
    else:
        digest = hashlib.sha256(crafted[how].contiguous().numpy().tobytes()).hexdigest()
        path.write_bytes(save({"embeddings": crafted[how].contiguous()}, metadata={"sha256": digest}))

    def call():
        with torch.inference_mode():
            return TextCache(folder).encode_texts(model, *texts)

    def check(found):
        assert torch.equal(found, expected), "other embeddings"

    attempt("text cache", call, check, how)
