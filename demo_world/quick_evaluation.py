"""A cheap look at a checkpoint while it trains: mIoU on a few scenes, for plain patches and an ITACLIP last block.

Stand-alone on purpose (one 224 px window, a few templates, no refinement): figures to steer a run by, not to report.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from .losses import encode_texts
from .scenes import Scene, SceneComposer
from .sprites import load_sprites
from .training_scenes import normalize_pixels
from .vocabulary import WorldClasses

__all__ = ["compose_scenes", "evaluate_quickly"]

TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "a picture of a {}.", "a {}", "art of the {}.", "a cartoon {}.")
INTERMEDIATE_LAYERS = (7, 8, 10)


def compose_scenes(world: WorldClasses, styles: Sequence[str], count: int, seed: int) -> list[Scene]:
    """A fixed set of 224 px scenes in the given styles, of the nouns that these draw."""
    sprites = load_sprites(styles, [noun.label for noun in world.nouns], needs_all=False)
    composer = SceneComposer(world.labels, sprites, [entry.label for entry in world.stuff])
    return [composer.compose(np.random.default_rng([seed, index]), 224, 224) for index in range(count)]


@torch.inference_mode()
def evaluate_quickly(
    model: CLIPModel, tokenizer: CLIPTokenizer, world: WorldClasses, scenes: Sequence[Scene]
) -> dict[str, float]:
    """MIoU in percent for `plain` patches, the `itaclip` last block and the `value` path."""
    device = model.logit_scale.device
    queries = _encode_classes(model, tokenizer, world, device)
    pixels = torch.stack([torch.from_numpy(normalize_pixels(scene.image)).permute(2, 0, 1) for scene in scenes])
    truth = torch.from_numpy(np.stack([scene.label for scene in scenes])).long()
    confusions: dict[str, Tensor] = {}
    for start in range(0, len(scenes), 8):
        for name, features in _encode_patches(model, pixels[start : start + 8].to(device)).items():
            prediction = _segment(model, features, queries).cpu()
            pairs = truth[start : start + 8].flatten() * len(queries) + prediction.flatten()
            counts = torch.bincount(pairs, minlength=len(queries) ** 2).view(len(queries), -1)
            confusions[name] = confusions.get(name, 0) + counts
    return {name: _mean_iou(confusion) for name, confusion in confusions.items()}


def _encode_classes(model: CLIPModel, tokenizer: CLIPTokenizer, world: WorldClasses, device: torch.device) -> Tensor:
    texts = [template.format(label) for label in world.labels for template in TEMPLATES]
    embeddings = encode_texts(model, tokenizer(texts, padding=True, return_tensors="pt").input_ids.to(device))
    return F.normalize(embeddings.unflatten(0, (-1, len(TEMPLATES))).mean(1), dim=-1)


def _encode_patches(model: CLIPModel, pixels: Tensor) -> dict[str, Tensor]:
    """Hidden states after each last-block variant. (batch, patches, dim)."""
    vision = model.vision_model
    states = vision(pixels, output_hidden_states=True).hidden_states
    last = vision.encoder.layers[-1]
    value = _heads(last.self_attn.v_proj(last.layer_norm1(states[-2])), last)
    # Layers count from 1, and state n is what comes after n blocks.
    maps = [_self_map(vision.encoder.layers[layer - 1], states[layer - 1]) for layer in INTERMEDIATE_LAYERS]
    blended = (torch.stack(maps).mean(0) + _self_map(last, states[-2])) / 2
    mixed = {"itaclip": blended @ value, "value": value}
    patched = {
        name: states[-2] + last.self_attn.out_proj(state.transpose(1, 2).flatten(2)) for name, state in mixed.items()
    }
    return {name: state[:, 1:] for name, state in {"plain": states[-1], **patched}.items()}


def _heads(state: Tensor, block: CLIPEncoderLayer) -> Tensor:
    return state.unflatten(-1, (block.self_attn.num_heads, -1)).transpose(1, 2)


def _self_map(block: CLIPEncoderLayer, hidden: Tensor) -> Tensor:
    """softmax(qq) + softmax(kk), per head. (batch, heads, tokens, tokens)."""
    normed = block.layer_norm1(hidden)
    attention = block.self_attn
    query, key = _heads(attention.q_proj(normed), block), _heads(attention.k_proj(normed), block)
    scale = query.shape[-1] ** -0.5
    return (query @ query.mT * scale).softmax(-1) + (key @ key.mT * scale).softmax(-1)


def _segment(model: CLIPModel, features: Tensor, queries: Tensor) -> Tensor:
    """Label ids at 224 px. (batch, patches, dim) -> (batch, 224, 224)."""
    features = F.normalize(model.visual_projection(model.vision_model.post_layernorm(features)), dim=-1)
    grid = round(features.shape[1] ** 0.5)
    logits = (features @ queries.T).transpose(1, 2).unflatten(2, (grid, grid))
    return F.interpolate(logits, size=(224, 224), mode="bilinear", align_corners=False).argmax(1)


def _mean_iou(confusion: Tensor) -> float:
    confusion = confusion.double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float((confusion.diagonal() / union)[union > 0].mean() * 100)
