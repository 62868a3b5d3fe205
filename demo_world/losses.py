"""Losses that make a small CLIP segment: captions and tags for the CLS token, tags and areas for patches.

Patches are trained on the last block's *value path*, `h + out_proj(v_proj(layer_norm1(h)))`: no loss ever reaches the
patches' query-key attention and feed-forward of that block, as in CLIP itself, whose patch outputs nobody trained.

Patches learn from the tags of their picture, pooled, and from the share of each class in their own area, which the
composer knows. Blocks are run here and not by `transformers`: plain products are twice as fast as its fused attention
on processors, where the backward pass of the latter is slow in bfloat16.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionEmbeddings

from .training_scenes import TrainingBatch

__all__ = ["TrainingLosses", "compute_losses", "encode_views"]

CAPTION_WEIGHT, IMAGE_TAG_WEIGHT, PATCH_TAG_WEIGHT, PATCH_LABEL_WEIGHT = 0.25, 0.5, 0.5, 2.0
TEXT_GROUPS = 4


@dataclass(frozen=True)
class TrainingLosses:
    """Each term, and the weighted sum that is minimised."""

    caption: Tensor
    image_tags: Tensor
    patch_tags: Tensor
    patch_labels: Tensor

    @property
    def total(self) -> Tensor:
        """The weighted sum."""
        return (
            CAPTION_WEIGHT * self.caption
            + IMAGE_TAG_WEIGHT * self.image_tags
            + PATCH_TAG_WEIGHT * self.patch_tags
            + PATCH_LABEL_WEIGHT * self.patch_labels
        )


def compute_losses(model: CLIPModel, batch: TrainingBatch) -> TrainingLosses:
    """All terms for one batch."""
    image, patches = encode_views(model, batch.pixel_values, batch.positions)
    captions, prompts = encode_texts(model, batch.captions), encode_texts(model, batch.prompts)
    scale = model.logit_scale.float().exp().clamp(max=100)
    captioned = len(captions)
    patch_logits = scale * patches @ prompts.T  # (batch, patches, classes)
    return TrainingLosses(
        _contrast_captions(scale * image[:captioned] @ captions.T, batch.tags[:captioned]),
        _match_tags(scale * image @ prompts.T, batch.tags),
        _match_tags(patch_logits.logsumexp(dim=1), batch.tags),
        F.cross_entropy(patch_logits.flatten(0, 1), batch.patch_labels.flatten(0, 1)),
    )


def encode_texts(model: CLIPModel, input_ids: Tensor) -> Tensor:
    """Unit embeddings, float32. (texts, length) -> (texts, dim).

    Texts are encoded in groups of similar length, each cut to its longest: a few definitions would otherwise make
    every caption three times as long. The end token pads as well; attention is causal and does not see what follows.
    """
    lengths = (input_ids != input_ids.max()).sum(dim=1) + 1
    order = lengths.argsort()
    groups = [input_ids[rows, : lengths[rows[-1]]] for rows in order.chunk(TEXT_GROUPS)]
    embeddings = torch.cat([_encode_text_group(model, group) for group in groups])
    return F.normalize(embeddings[order.argsort()].float(), dim=-1)


def _encode_text_group(model: CLIPModel, input_ids: Tensor) -> Tensor:
    text = model.text_model
    length = input_ids.shape[1]
    hidden = text.embeddings(input_ids=input_ids)
    mask = torch.full((length, length), float("-inf"), dtype=hidden.dtype, device=hidden.device).triu(1)
    for block in text.encoder.layers:
        hidden = _run_block(block, hidden, length, mask)
    ends = input_ids.argmax(dim=1)  # the end token has the largest id
    hidden = text.final_layer_norm(hidden[torch.arange(len(hidden), device=hidden.device), ends])
    return model.text_projection(hidden)


def encode_views(model: CLIPModel, pixel_values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the CLS token (whole last block) and of the patches (its value path).

    Args:
        model: The CLIP to train.
        pixel_values: (batch, 3, side, side)
        positions: Place of each patch in the full grid. (batch, patches)

    Returns:
        (batch, dim) and (batch, patches, dim), float32.
    """
    vision = model.vision_model
    pixel_values = pixel_values.to(model.dtype)
    hidden = vision.pre_layrnorm(_embed_patches(vision.embeddings, pixel_values, positions))
    *blocks, last = vision.encoder.layers
    for block in blocks:
        hidden = _run_block(block, hidden, hidden.shape[1])
    image = _run_block(last, hidden, 1)[:, 0]
    patches = _value_path(last, hidden[:, 1:])
    image, patches = (model.visual_projection(vision.post_layernorm(state)) for state in (image, patches))
    return F.normalize(image.float(), dim=-1), F.normalize(patches.float(), dim=-1)


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


def _run_block(block: CLIPEncoderLayer, hidden: Tensor, queries: int, mask: Tensor | None = None) -> Tensor:
    """One pre-norm transformer block for the first `queries` tokens (all keys). (batch, tokens, dim)."""
    attention = block.self_attn
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    # One product instead of three. (batch, tokens, 3 * dim) -> 3 x (batch, heads, tokens, dim / heads)
    weight = torch.cat([projection.weight for projection in projections])
    bias = torch.cat([projection.bias for projection in projections])
    projected = F.linear(block.layer_norm1(hidden), weight, bias).unflatten(-1, (3, attention.num_heads, -1))
    query, key, value = projected.permute(2, 0, 3, 1, 4)
    scores = query[:, :, :queries] * query.shape[-1] ** -0.5 @ key.mT
    if mask is not None:
        scores = scores + mask
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    hidden = hidden[:, :queries] + attention.out_proj(mixed)
    return hidden + block.mlp(block.layer_norm2(hidden))


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
