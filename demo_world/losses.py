"""Losses that make a small CLIP segment: captions for the CLS token, image-level tags for CLS and patches.

Patches are trained on the last block's *value path*, `h + out_proj(v_proj(layer_norm1(h)))`: no loss ever reaches the
patches' query-key attention and feed-forward of that block, as in CLIP itself, whose patch outputs nobody trained.

Patches learn from tags pooled over the picture. A further loss that asks every patch to belong to some class of its
picture was tried and dropped: stuff is in every picture, so it became the safe answer for the pixels of objects, too.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionEmbeddings

from .training_scenes import TrainingBatch

__all__ = ["TrainingLosses", "compute_losses", "encode_views"]

CAPTION_WEIGHT = 0.5
TEXT_GROUPS = 4


@dataclass(frozen=True)
class TrainingLosses:
    """Each term, and the weighted sum that is minimised."""

    caption: Tensor
    image_tags: Tensor
    patch_tags: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum."""
        return CAPTION_WEIGHT * self.caption + self.image_tags + self.patch_tags


def compute_losses(model: CLIPModel, batch: TrainingBatch) -> TrainingLosses:
    """All terms for one batch."""
    image, patches = encode_views(model, batch.pixel_values, batch.positions)
    captions, prompts = encode_texts(model, batch.captions), encode_texts(model, batch.prompts)
    scale = model.logit_scale.exp().clamp(max=100)
    patch_logits = scale * patches @ prompts.T  # (batch, patches, classes)
    return TrainingLosses(
        _contrast_captions(scale * image @ captions.T, batch.tags),
        _match_tags(scale * image @ prompts.T, batch.tags),
        _match_tags(patch_logits.logsumexp(dim=1), batch.tags),
    )


def encode_texts(model: CLIPModel, input_ids: Tensor) -> Tensor:
    """Unit embeddings. (texts, length) -> (texts, dim).

    Texts are encoded in groups of similar length, each cut to its longest: a few definitions would otherwise make
    every caption three times as long. The end token pads as well; attention is causal and does not see what follows.
    """
    lengths = (input_ids != input_ids.max()).sum(dim=1) + 1
    order = lengths.argsort()
    groups = [input_ids[rows, : lengths[rows[-1]]] for rows in order.chunk(TEXT_GROUPS)]
    embeddings = torch.cat([model.get_text_features(group).pooler_output for group in groups])
    return F.normalize(embeddings[order.argsort()], dim=-1)


def encode_views(model: CLIPModel, pixel_values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the CLS token (whole last block) and of the patches (its value path).

    Args:
        model: The CLIP to train.
        pixel_values: (batch, 3, side, side)
        positions: Place of each patch in the full grid. (batch, patches)

    Returns:
        (batch, dim) and (batch, patches, dim).
    """
    vision = model.vision_model
    hidden = vision.pre_layrnorm(_embed_patches(vision.embeddings, pixel_values, positions))
    *blocks, last = vision.encoder.layers
    for block in blocks:
        hidden = _run_block(block, hidden, hidden.shape[1])
    image = _run_block(last, hidden, 1)[:, 0]
    patches = _value_path(last, hidden[:, 1:])
    image, patches = (model.visual_projection(vision.post_layernorm(state)) for state in (image, patches))
    return F.normalize(image, dim=-1), F.normalize(patches, dim=-1)


def _embed_patches(embeddings: CLIPVisionEmbeddings, pixel_values: Tensor, positions: Tensor) -> Tensor:
    batch = len(pixel_values)
    size = embeddings.patch_embedding.kernel_size
    # A product instead of a convolution: (batch, 3, grid * size, grid * size) -> (batch, grid * grid, 3 * size * size)
    columns = F.unfold(pixel_values, (size[0], size[1]), stride=(size[0], size[1])).transpose(1, 2)
    patches = columns @ embeddings.patch_embedding.weight.flatten(1).T
    table = embeddings.position_embedding.weight
    patches = patches + table[1:][positions]
    cls = (embeddings.class_embedding + table[0]).expand(batch, 1, -1)
    return torch.cat([cls, patches], dim=1)


def _run_block(block: CLIPEncoderLayer, hidden: Tensor, queries: int) -> Tensor:
    """One pre-norm transformer block for the first `queries` tokens (all keys). (batch, tokens, dim)."""
    attention = block.self_attn
    normed = block.layer_norm1(hidden)
    query = _split_heads(attention.q_proj(normed[:, :queries]), attention.num_heads)
    key, value = (
        _split_heads(project(normed), attention.num_heads) for project in (attention.k_proj, attention.v_proj)
    )
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    hidden = hidden[:, :queries] + attention.out_proj(mixed)
    return hidden + block.mlp(block.layer_norm2(hidden))


def _split_heads(state: Tensor, heads: int) -> Tensor:
    """(batch, tokens, dim) -> (batch, heads, tokens, dim / heads)."""
    return state.unflatten(-1, (heads, -1)).transpose(1, 2)


def _value_path(block: CLIPEncoderLayer, hidden: Tensor) -> Tensor:
    attention = block.self_attn
    return hidden + attention.out_proj(attention.v_proj(block.layer_norm1(hidden)))


def _contrast_captions(logits: Tensor, tags: Tensor) -> Tensor:
    """InfoNCE in both directions; pictures of the same things are no negatives of each other. (batch, batch)."""
    is_same = (tags[:, None] == tags[None]).all(-1) & ~torch.eye(len(tags), dtype=torch.bool, device=tags.device)
    logits = logits.masked_fill(is_same, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _match_tags(logits: Tensor, tags: Tensor) -> Tensor:
    """Softmax of every present class against the absent ones, averaged over the present. (batch, classes)."""
    absent = logits.masked_fill(tags != 0, float("-inf")).logsumexp(dim=-1, keepdim=True)
    is_present = tags == 1
    loss = F.softplus(absent - logits) * is_present
    return (loss.sum(-1) / is_present.sum(-1).clamp(min=1)).mean()
