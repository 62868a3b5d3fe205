"""The model's door: what the processor made, checked and taken apart into one entry for each image.

Keys, shapes and meanings are the data contract between processor and model; see [`ITACLIPForSemanticSegmentation`].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .window_views import PLAIN_VIEW, View, read_views

__all__ = ["choose_output_sizes", "choose_views", "crop_images", "expect_shape", "split_inputs"]

AUGMENTATION_NAMES = ("augmentation_color", "augmentation_blur", "augmentation_flip", "augmentation_weight")
IMAGE_NAMES = ("pixel_values", "image_sizes", "original_sizes", *AUGMENTATION_NAMES)
TEXT_NAMES = ("input_ids", "attention_mask", "text_weight", "query_embeddings", "query_classes")

Size = tuple[int, int]


def split_inputs(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell inputs about images and views from those about texts.

    Raises:
        TypeError: If there are no images, or a name is none of the data contract.
    """
    unknown = sorted(set(inputs) - {*IMAGE_NAMES, *TEXT_NAMES})
    if unknown or "pixel_values" not in inputs:
        found = f"{unknown[0]!r}" if unknown else "no `pixel_values`"
        raise TypeError(
            f"Expected inputs out of {(*IMAGE_NAMES, *TEXT_NAMES)}, `pixel_values` among them, but got {found}. Pass "
            "what the processor made."
        )
    images = {name: inputs[name] for name in IMAGE_NAMES if name in inputs}
    return images, {name: inputs[name] for name in TEXT_NAMES if name in inputs}


def crop_images(pixel_values: torch.Tensor, image_sizes: torch.Tensor | None, smallest: int) -> list[torch.Tensor]:
    """Views of the valid part of each image, (3, height, width).

    Args:
        pixel_values: (batch, 3, height, width), padded right and below.
        image_sizes: (batch, 2) valid (height, width) of each; all of it if `None`.
        smallest: Shortest side that can be encoded, one patch.

    Raises:
        ValueError: If shapes are wrong, or an image is smaller than a patch or larger than `pixel_values`.
    """
    if pixel_values.ndim != 4 or pixel_values.shape[1] != 3 or len(pixel_values) == 0:
        raise ValueError(
            f"Expected `pixel_values` of shape (batch, 3, height, width), but got {tuple(pixel_values.shape)}. Use "
            "the processor, or add the batch axis."
        )
    full = (pixel_values.shape[2], pixel_values.shape[3])
    sizes = (
        [full] * len(pixel_values) if image_sizes is None else _read_sizes("image_sizes", image_sizes, pixel_values)
    )
    for index, (height, width) in enumerate(sizes):
        if not (smallest <= height <= full[0] and smallest <= width <= full[1]):
            raise ValueError(
                f"Expected image {index} to be between one patch ({smallest} x {smallest}) and `pixel_values` "
                f"({full[0]} x {full[1]}), but got {height} x {width}. Cut or pad a very long strip before the "
                "processor, or raise the `longest_edge` of its `size`."
            )
    return [image[:, :height, :width] for image, (height, width) in zip(pixel_values, sizes, strict=True)]


def choose_output_sizes(images: Sequence[torch.Tensor], original_sizes: torch.Tensor | None) -> list[Size]:
    """Size (height, width) of each result: the original one, or the image's own where none is given."""
    if original_sizes is None:
        return [(image.shape[-2], image.shape[-1]) for image in images]
    sizes = _read_sizes("original_sizes", original_sizes, images)
    if min(map(min, sizes)) < 1:
        raise ValueError(f"Expected `original_sizes` to be positive, but got {sizes}. Use pixels.")
    return sizes


def choose_views(images: Sequence[torch.Tensor], *augmentation: torch.Tensor | None) -> list[list[View]]:
    """Views of each image from the four augmentation tensors; the plain one where there are none.

    Raises:
        ValueError: If only some of the four are given, or their shapes do not fit.
    """
    if all(tensor is None for tensor in augmentation):
        return [[PLAIN_VIEW]] * len(images)
    given = {
        name: tensor.cpu()  # small, and read number by number
        for name, tensor in zip(AUGMENTATION_NAMES, augmentation, strict=True)
        if tensor is not None
    }
    if len(given) < len(AUGMENTATION_NAMES):
        missing = ", ".join(name for name in AUGMENTATION_NAMES if name not in given)
        raise ValueError(
            f"Expected all of {AUGMENTATION_NAMES} or none, but got no {missing}. Pass all that the processor made."
        )
    color, blur, flip, weight = given.values()
    views = weight.shape[-1]
    for (name, tensor), tail in zip(given.items(), ((3, 3), blur.shape[2:], (2,), ()), strict=True):
        expect_shape(name, tensor, (len(images), views, *tail))
    if blur.shape[2] % 2 == 0:
        raise ValueError(f"Expected `augmentation_blur` kernels of odd length, but got {blur.shape[2]}. Add a 0.")
    return [read_views(*tensors) for tensors in zip(color, blur, flip, weight, strict=True)]


def expect_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise a `ValueError` that names the tensor if its shape is another one."""
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"Expected `{name}` of shape {shape}, but got {tuple(tensor.shape)}. Pass what the processor made."
        )


def _read_sizes(
    name: str, sizes: torch.Tensor | Sequence[Sequence[int]], images: torch.Tensor | Sequence[torch.Tensor]
) -> list[Size]:
    sizes = torch.as_tensor(sizes)
    expect_shape(name, sizes, (len(images), 2))
    return [(height, width) for height, width in sizes.tolist()]
