"""Where in an image a CLIP tower sees a text: Grad-CAM of the last block, refined along the tower's own attention.

Source: Lin et al., "CLIP is Also an Efficient Segmenter" (CVPR 2023), as TagCLIP and CaR use it: the image as a whole
at its own size, gradients of the last block alone, and maps spread to patches that attend to each other, from inside
the boxes around what is active. The tower has to be loaded with `attn_implementation="eager"`, which tells attention.
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

__all__ = [
    "Tokens",
    "add_background",
    "compute_activation_maps",
    "compute_affinity",
    "embed_patches",
    "encode_image",
    "mask_boxes",
    "normalize_maps",
    "refine_maps",
    "resize_maps",
    "resize_to_patches",
    "run_block",
    "run_blocks",
]


class Tokens(NamedTuple):
    """What one image leaves in the tower.

    Attributes:
        last_input: (1 + patches, width), input of the last block.
        attention: (patches, patches), mean over heads and the chosen blocks.
        grid: Rows and columns of patches.
    """

    last_input: torch.Tensor
    attention: torch.Tensor
    grid: tuple[int, int]


def resize_to_patches(image: np.ndarray, patch_size: int) -> np.ndarray:
    """Stretch an image, (height, width, 3) uint8, bicubically up to whole patches on both sides."""
    height, width = (-(-length // patch_size) * patch_size for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def embed_patches(vision: nn.Module, pixel_values: torch.Tensor, always_rounds: bool = False) -> torch.Tensor:
    """Input of the first block, (batch, 1 + patches, width), of (batch, 3, height, width) whole patches.

    At another than the native grid, positions are stretched bilinearly and the whole table is rounded to half
    precision as by the published programs, which differs from what Transformers does.

    Args:
        vision: CLIP's vision tower.
        pixel_values: (batch, 3, height, width).
        always_rounds: Whether the native grid's table is rounded, too.
    """
    embeddings: Any = vision.embeddings
    patches = embeddings.patch_embedding(pixel_values)
    grid, table = patches.shape[-2:], embeddings.position_embedding.weight
    side = round((len(table) - 1) ** 0.5)
    is_native = grid == (side, side)
    if not is_native:
        square = table[1:].T.unflatten(1, (side, side))[None].float()
        stretched = F.interpolate(square, grid, mode="bilinear", align_corners=False)[0].flatten(1).T
        table = torch.cat([table[:1].float(), stretched])
    if always_rounds or not is_native:
        table = table.half().to(embeddings.position_embedding.weight.dtype)
    first = embeddings.class_embedding.expand(len(patches), 1, -1)
    tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + table
    embedded: torch.Tensor = vision.pre_layrnorm(tokens)  # type: ignore[operator]  # Transformers' spelling
    return embedded


def run_block(
    block: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (batch, tokens, width) of a block and its attention (batch, tokens, tokens), the mean over heads."""
    attended, attention = block.self_attn(block.layer_norm1(hidden_states), attention_mask=attention_mask)
    hidden_states = hidden_states + attended
    return hidden_states + block.mlp(block.layer_norm2(hidden_states)), attention.mean(1)


def run_blocks(
    vision: Any, pixel_values: torch.Tensor, always_rounds: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Block by block for one image, its input (1, 1 + patches, width) and attention (patches, patches) in float32."""
    hidden_states = embed_patches(vision, pixel_values, always_rounds)
    for block in vision.encoder.layers:
        block_input = hidden_states
        hidden_states, attention = run_block(block, block_input)
        yield block_input, attention[0, 1:, 1:].float()


def encode_image(vision: Any, pixel_values: torch.Tensor, blocks: range, always_rounds: bool = False) -> Tokens:
    """Run all blocks on (1, 3, height, width) of whole patches, and average the attention of some, counted from 0.

    Positions are those of [`embed_patches`].
    """
    rows, columns = (length // vision.config.patch_size for length in pixel_values.shape[-2:])
    attention = torch.zeros(rows * columns, rows * columns, device=pixel_values.device)
    for index, (block_input, of_patches) in enumerate(run_blocks(vision, pixel_values, always_rounds)):
        last_input = block_input
        if index in blocks:
            attention += of_patches / len(blocks)
    return Tokens(last_input[0], attention, (rows, columns))


def compute_activation_maps(
    model: Any, tokens: Tokens, text_features: torch.Tensor, count: int, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Grad-CAM of the last block for each of the first texts.

    The leaf is the block's normalised input; the residual is constant, so gradients reach it through attention alone.
    What is derived is a text's probability for the mean of all patches. Works under the caller's `inference_mode`.

    Args:
        model: `CLIPModel` whose parameters need no gradient.
        tokens: Of [`encode_image`].
        text_features: (texts, projection_dim) unit vectors.
        count: For how many of the texts; the others only take part in the softmax.
        epsilon: Added to maxima before dividing by them.

    Returns:
        Maps (count, rows, columns) from 0 to 1, and the probabilities (texts,).
    """
    vision = model.vision_model
    with torch.inference_mode(False), torch.enable_grad():
        parts = vision.encoder.layers[-1], vision.post_layernorm, model.visual_projection
        # Gradients of 1e-8 and less are usual, which are 0 in half precision; bfloat16 has room for them.
        block, post_layernorm, projection = _copy_as_float32(*parts) if model.dtype == torch.float16 else parts
        # Tensors that were made in inference mode cannot enter a graph; copies can.
        last_input, text_features = tokens.last_input.to(projection.weight.dtype, copy=True), text_features.clone()
        normalized = block.layer_norm1(last_input)[None].detach().requires_grad_()
        attended, _ = block.self_attn(normalized, attention_mask=None)
        hidden_states = last_input + attended
        hidden_states = hidden_states + block.mlp(block.layer_norm2(hidden_states))
        pooled = projection(post_layernorm(hidden_states[:, 1:]).mean(1))
        cosine = F.normalize(pooled.float(), dim=-1) @ text_features.float().T
        probabilities = (model.logit_scale.detach().float().exp() * cosine)[0].softmax(-1)
        # Probabilities one by one, as each text's gradient is needed by itself; they share the graph.
        gradients = [
            torch.autograd.grad(probability, normalized, retain_graph=True)[0][0, 1:].float().mean(0)
            for probability in probabilities[:count]
        ]
    activations = normalized.detach()[0, 1:].float()
    maps = (torch.stack(gradients) @ activations.T).relu().unflatten(1, tokens.grid)
    # Twice as published, each layer's and then the mean of all layers, of which there is one; epsilon makes it differ.
    return normalize_maps(normalize_maps(maps, epsilon), epsilon), probabilities.detach()


def _copy_as_float32(*modules: nn.Module) -> tuple[Any, ...]:
    return tuple(copy.deepcopy(module).float() for module in modules)


def normalize_maps(maps: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Stretch each map of (maps, rows, columns) to 0 ... 1."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / (epsilon + maps.amax((1, 2), keepdim=True))


def compute_affinity(attention: torch.Tensor) -> torch.Tensor:
    """How much patches belong together: attention (patches, patches), balanced, made symmetric and squared."""
    for _ in range(3):  # Sinkhorn's balancing, as far as published
        attention = attention / attention.sum(0, keepdim=True)
        attention = attention / attention.sum(1, keepdim=True)
    symmetric = (attention + attention.T) / 2
    return symmetric @ symmetric


def mask_boxes(maps: torch.Tensor, threshold: float | torch.Tensor) -> torch.Tensor:
    """Boxes around the active regions of each map.

    Regions are 8-connected patches above `threshold` times the map's maximum, in steps of 1/255. As published, boxes
    leave the last row and the last column of the grid out.

    Args:
        maps: (maps, rows, columns) from 0 to 1.
        threshold: Share of the maximum; one for all maps, or (maps,).

    Returns:
        (maps, rows, columns) bool.
    """
    levels = (255 * maps).to(torch.uint8).cpu().int()
    # In double precision and cut off, as Python multiplies in the published program.
    limits = (torch.as_tensor(threshold, dtype=torch.float64).cpu() * levels.amax((1, 2))).int()
    masks = torch.zeros_like(levels, dtype=torch.bool)
    for mask, regions in zip(masks, _label_regions(levels > limits[:, None, None]), strict=True):
        numbers = regions.unique()
        for region in numbers[numbers > 0]:
            rows, columns = torch.where(regions == region)
            last_row, last_column = (length - 1 for length in mask.shape)
            mask[rows.min() : min(rows.max() + 1, last_row), columns.min() : min(columns.max() + 1, last_column)] = (
                True
            )
    return masks.to(maps.device)


def _label_regions(is_active: torch.Tensor) -> torch.Tensor:
    """Number of the 8-connected region of each patch, 0 elsewhere: (maps, rows, columns)."""
    # float32 counts exactly to 2²⁴, and no image has as many patches.
    numbers = torch.arange(1, is_active[0].numel() + 1, dtype=torch.float32).view(is_active[0].shape) * is_active
    while True:  # the largest number of a region spreads over it
        spread = F.max_pool2d(numbers[:, None], 3, stride=1, padding=1)[:, 0] * is_active
        if torch.equal(spread, numbers):
            return numbers
        numbers = spread


def refine_maps(maps: torch.Tensor, affinity: torch.Tensor, threshold: float) -> torch.Tensor:
    """Spread each map, (maps, rows, columns), from within its boxes along the affinity (patches, patches)."""
    sources = (maps * mask_boxes(maps, threshold)).flatten(1)
    return (sources @ affinity.T).view_as(maps)


def resize_maps(maps: torch.Tensor, size: tuple[int, int], epsilon: float) -> torch.Tensor:
    """Stretch maps to 0 ... 1, then bilinearly to (height, width): (maps, rows, columns) -> (maps, *size)."""
    return F.interpolate(normalize_maps(maps, epsilon)[None], size, mode="bilinear", align_corners=False)[0]


def add_background(maps: torch.Tensor, exponent: float = 1.0) -> torch.Tensor:
    """(n, height, width) -> (1 + n, height, width), before the maps a power of what they leave of 1."""
    return torch.cat([(1 - maps.amax(0, keepdim=True)) ** exponent, maps])
