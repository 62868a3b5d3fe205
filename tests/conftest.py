"""Keeps tests off the user's cache, and to one number format whatever the machine is fast in; a backbone for all."""

import pytest
import torch
from transformers import ViTConfig, ViTModel

from itaclip_hf import loading


@pytest.fixture(scope="session", autouse=True)
def _text_cache_of_this_run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ITACLIP_TEXT_CACHE", str(tmp_path_factory.mktemp("text_embeddings")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _float32_wherever_the_device_chooses():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "computes_fast_in_bfloat16", lambda device: False)
        yield


@pytest.fixture(scope="session")
def proxy(tmp_path_factory):
    """The folder of a tiny backbone, whose patches a method may compare."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("proxy")
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(folder)
    return folder
