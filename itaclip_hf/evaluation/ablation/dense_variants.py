"""Several ways to end the encoding of the same windows: their views and all blocks but the last are run once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ...methods.settings import stage_setting_names
from ...modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from ...modeling.windows import DenseFeatures, WindowedImage, WindowFeatures

__all__ = ["DenseVariant", "encode_variants"]


class DenseVariant(NamedTuple):
    """One way to end the encoding.

    Attributes:
        config: Says what the last block does; only its fields about that block are read.
        view_weights: Weight of each view; those that come with the images if `None`.
    """

    config: ITACLIPConfig
    view_weights: tuple[float, ...] | None = None


@torch.inference_mode()
def encode_variants(
    model: ITACLIPForSemanticSegmentation, images: Sequence[WindowedImage], variants: Sequence[DenseVariant]
) -> list[list[DenseFeatures]]:
    """Encode images under several variants; each gets the very features of a model that is configured like it.

    Args:
        model: The model.
        images: Of `read_images`.
        variants: What differs between the results; equal last blocks run once.

    Returns:
        For each variant, the features of each image.

    Raises:
        ValueError: If a configuration is out of range, or there are not as many weights as views.
    """
    for variant in variants:
        variant.config.validate_settings()
    tower, last_block = model.vision_model, stage_setting_names("last_block")
    configs = [variant.config for variant in variants]
    gathered = [WindowFeatures(images, variant.view_weights) for variant in variants]
    for batch in model.batch_windows(images):
        proxied = model.encode_proxy_of_views(batch, configs)
        blocks = tower.encode_blocks(batch.pixel_values, configs, regions=batch.regions, proxied=proxied)
        done: dict[tuple[Any, ...], torch.Tensor] = {}  # by what the last block reads
        for variant, features in zip(variants, gathered, strict=True):
            key = tuple(getattr(variant.config, name) for name in last_block)
            if key not in done:
                done[key] = model.project_patches(tower.run_last_block(blocks, variant.config))
            features.add(batch, done[key])
    return [features.lay_out() for features in gathered]
