"""A tiny random CLIP checkpoint in a folder, as a user has it on disk, and small pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel
from typer.testing import CliRunner

from itaclip_hf.cli.main import app
from itaclip_hf.loading import DEMO_CHECKPOINT


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Stock `CLIPModel` weights of twelve narrow layers, so that every default of the method applies."""
    folder = tmp_path_factory.mktemp("clip")
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(DEMO_CHECKPOINT / name, folder)
    text_config = CLIPConfig.from_pretrained(DEMO_CHECKPOINT).text_config.to_dict()
    narrow = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    vision = {**narrow, "num_hidden_layers": 12, "image_size": 224, "patch_size": 32}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**text_config, **narrow, "num_hidden_layers": 1}, vision_config=vision, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def itaclip():
    """Runs `itaclip` with arguments."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photo(tmp_path) -> Path:
    """A picture of 40 x 60 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"
