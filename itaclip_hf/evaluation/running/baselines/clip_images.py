"""Images as a CLIP tower takes them, and one vector for each."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .activation_maps import embed_patches, run_block

__all__ = [
    "CLIP_NORMALIZATION",
    "Normalization",
    "embed_images",
    "make_pixel_values",
    "normalize_colors",
    "shrink_image",
]


class Normalization(TypedDict):
    """Mean and standard deviation of each colour, of values from 0 to 1; named as image processors name them."""

    image_mean: Sequence[float]
    image_std: Sequence[float]


CLIP_NORMALIZATION = Normalization(image_mean=OPENAI_CLIP_MEAN, image_std=OPENAI_CLIP_STD)


def shrink_image(image: np.ndarray, longest_edge: int) -> np.ndarray:
    """The image, (height, width, 3) uint8, with a longest side of at most `longest_edge` pixels."""
    height, width = image.shape[:2]
    factor = longest_edge / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def normalize_colors(
    images: Sequence[np.ndarray],
    image_mean: Sequence[float],
    image_std: Sequence[float],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """(height, width, 3) uint8 images of one size -> (images, 3, height, width) float32."""
    # What is moved to the device are bytes, a quarter of the floats.
    colors = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255
    means, deviations = (colors.new_tensor(values)[:, None, None] for values in (image_mean, image_std))
    return (colors - means) / deviations


def make_pixel_values(
    model: Any, images: Sequence[np.ndarray], normalization: Normalization = CLIP_NORMALIZATION
) -> torch.Tensor:
    """[`normalize_colors`] on the model's device and in its number format."""
    return normalize_colors(images, **normalization, device=model.device).to(model.dtype)


def embed_images(
    model: Any, pixel_values: torch.Tensor, blocks_left_out: int = 0, always_rounds: bool = False
) -> torch.Tensor:
    """The class token of each image, (images, projection_dim) unit vectors of (images, 3, side, side).

    Positions are those of [`embed_patches`].
    """
    vision = model.vision_model
    hidden_states = embed_patches(vision, pixel_values, always_rounds)
    for block in vision.encoder.layers[: len(vision.encoder.layers) - blocks_left_out]:
        hidden_states, _ = run_block(block, hidden_states)
    features = model.visual_projection(vision.post_layernorm(hidden_states[:, 0]))
    return F.normalize(features.float(), dim=-1)
