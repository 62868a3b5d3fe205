"""Makes the starting model and writes the finished one: a float16 `CLIPModel`, its tokenizer and its vocabulary."""

import copy
import json
import math
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .vocabulary import WorldClasses, to_vocabulary_dict

__all__ = ["build_model", "export_checkpoint", "warm_start"]

GRID, WIDTH = 14, 128
# What any CLIP folder on the Hub says of its pictures.
PREPROCESSING = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 16 * GRID},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 16 * GRID, "width": 16 * GRID},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": OPENAI_CLIP_MEAN,
    "image_std": OPENAI_CLIP_STD,
}


def build_model(tokenizer: CLIPTokenizer, width: int = WIDTH, layers: int = 12, text_layers: int = 3) -> CLIPModel:
    """A fresh model: patch 16 at 224 px, heads of 64, two-dimensional sin-cos positions to start from."""
    shared = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": max(1, width // 64)}
    text = {**shared, "hidden_act": "gelu", "num_hidden_layers": text_layers, "vocab_size": len(tokenizer)}
    text |= {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    vision = {**shared, "hidden_act": "gelu", "num_hidden_layers": layers, "patch_size": 16, "image_size": 16 * GRID}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    with torch.no_grad():
        model.vision_model.embeddings.position_embedding.weight[1:] = 0.4 * _sin_cos_positions(width)
    return model


def _sin_cos_positions(width: int) -> Tensor:
    """(196, width)."""
    frequencies = torch.exp(-math.log(100) * torch.arange(width // 4) / (width // 4))
    angles = torch.arange(GRID)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = axis[:, None].expand(GRID, GRID, -1), axis[None].expand(GRID, GRID, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def warm_start(model: CLIPModel, tokenizer: CLIPTokenizer, checkpoint: Path) -> None:
    """Copies all weights of a checkpoint of the same shape; token rows are matched by the token's string."""
    weights = CLIPModel.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    old_vocabulary = CLIPTokenizer.from_pretrained(checkpoint).get_vocab()
    rows = model.text_model.embeddings.token_embedding.weight.detach().clone()
    old_rows = weights["text_model.embeddings.token_embedding.weight"]
    for token, index in tokenizer.get_vocab().items():
        if token in old_vocabulary:
            rows[index] = old_rows[old_vocabulary[token]]
    model.load_state_dict({**weights, "text_model.embeddings.token_embedding.weight": rows})


def export_checkpoint(model: CLIPModel, tokenizer: CLIPTokenizer, world: WorldClasses, folder: Path) -> None:
    """Writes the checkpoint folder in one step: a reader sees the old one or the new one, never half of it."""
    fresh, stale = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    copy.deepcopy(model).cpu().half().save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    contents = {"preprocessor_config.json": PREPROCESSING, "vocabulary.json": to_vocabulary_dict(world.classes)}
    for name, content in contents.items():
        (fresh / name).write_text(json.dumps(content, indent=2) + "\n")
    (fresh / "model.safetensors").chmod(0o644)
    shutil.rmtree(stale, ignore_errors=True)
    if folder.exists():  # no system puts a folder in the place of one with files
        os.replace(folder, stale)
    os.replace(fresh, folder)
    shutil.rmtree(stale, ignore_errors=True)
