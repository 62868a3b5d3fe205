"""The model's door: what goes in, checked and taken apart into one entry for each image, and what comes out.

Keys, shapes and meanings of the inputs are the data contract between processor and model; see
[`ITACLIPForSemanticSegmentation`].
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers.utils.generic import ModelOutput

from .configuration_itaclip import ITACLIPConfig
from .windows import PLAIN_VIEW, WindowedImage, WindowView, plan_windows, read_views

__all__ = [
    "ITACLIPLabelMapsOutput",
    "ITACLIPRankedLabelMapsOutput",
    "ITACLIPRegionLabelMapsOutput",
    "ITACLIPSemanticSegmenterOutput",
    "ImageInputs",
    "TextInputs",
    "are_embeddings",
    "check_classes",
    "check_labels",
    "check_tensors",
    "compute_loss",
    "expect_shape",
    "fit_region_maps",
    "group_prompts",
    "merge_hidden_states",
    "pack_inputs",
    "read_images",
    "read_prompts",
    "read_voting_regions",
    "stack_logits",
]

WHOLE_NUMBERS = ("input_ids", "attention_mask", "query_classes", "region_maps", "original_region_maps")
LARGEST_INPUT = 1e6  # normalised pixels are about 3 at most; sums of larger ones may leave the model's number format
SHORTEST_QUERY, LONGEST_QUERY = 0.01, 1.1
LARGEST_RESULT = 2**28  # pixels; memory for one score of each is 1 GiB
MOST_CLASSES = 2**16
MOST_PROMPTS = 1024  # that are encoded at once

Size = tuple[int, int]


class ImageInputs(NamedTuple):
    """Images and their views, as `forward` takes them."""

    pixel_values: torch.Tensor
    image_sizes: torch.Tensor | None = None
    original_sizes: torch.Tensor | None = None
    augmentation_color: torch.Tensor | None = None
    augmentation_blur: torch.Tensor | None = None
    augmentation_flip: torch.Tensor | None = None
    augmentation_weight: torch.Tensor | None = None
    region_maps: torch.Tensor | None = None
    original_region_maps: torch.Tensor | None = None


class TextInputs(NamedTuple):
    """Texts, or the queries made of them, as `forward` takes them; nothing for the baked vocabulary."""

    input_ids: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    text_weight: torch.Tensor | None = None
    query_embeddings: torch.Tensor | None = None
    query_classes: torch.Tensor | None = None


@dataclass
class ITACLIPSemanticSegmenterOutput(ModelOutput):
    """Output of [`ITACLIPForSemanticSegmentation`].

    Attributes:
        loss: Mean negative log class score over labelled pixels, returned when `labels` are given.
        logits: (batch, classes, H₀, W₀) float32, log class scores at the original size; a list of (classes, H₀, W₀)
            where the sizes of a batch differ.
        hidden_states: Before the first vision block and after each one, (window views, tokens, dim), images in order,
            windows row by row, then views; a list of such tensors, one per encoder batch, where window sizes differ.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | list[torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | tuple[list[torch.Tensor], ...] | None = None


class ITACLIPLabelMapsOutput(NamedTuple):
    """Output of [`~ITACLIPForSemanticSegmentation.predict_labels`], one entry for each image.

    Attributes:
        labels: (H₀, W₀) int64, final class ids, as the processor finishes them.
        confidence: (H₀, W₀) float32, highest score of the classes that the area threshold leaves, between 0 and 1;
            nothing that comes after that threshold changes it.
    """

    labels: list[torch.Tensor]
    confidence: list[torch.Tensor]


class ITACLIPRegionLabelMapsOutput(NamedTuple):
    """Output of [`~ITACLIPForSemanticSegmentation.predict_regions`], one entry for each image.

    Attributes:
        labels: As in [`ITACLIPLabelMapsOutput`].
        confidence: As there.
        regions: A dictionary for each region, by ascending id: its `id`, `label_id` (the label that most of its pixels
            have before the vote), `share` (of its pixels that have it) and `score` (their mean confidence).
    """

    labels: list[torch.Tensor]
    confidence: list[torch.Tensor]
    regions: list[list[dict[str, Any]]]


class ITACLIPRankedLabelMapsOutput(NamedTuple):
    """Output of [`~ITACLIPForSemanticSegmentation.predict_ranked_labels`], one entry for each image.

    Attributes:
        labels: As in [`ITACLIPLabelMapsOutput`].
        confidence: As there.
        runner_up: (H₀, W₀) int64, the best class beside the final one; -1 where no other is left.
        runner_up_confidence: (H₀, W₀) float32, its score. Where post-processing decided, it may be higher.
    """

    labels: list[torch.Tensor]
    confidence: list[torch.Tensor]
    runner_up: list[torch.Tensor]
    runner_up_confidence: list[torch.Tensor]


def pack_inputs(inputs: Mapping[str, Any]) -> tuple[ImageInputs, TextInputs]:
    """Tell inputs about images and views from those about texts.

    Raises:
        TypeError: If there are no images, or a name is none of the data contract.
    """
    known = (*ImageInputs._fields, *TextInputs._fields)
    unknown = sorted(set(inputs) - {*known})
    if unknown or "pixel_values" not in inputs:
        found = f"{unknown[0]!r}" if unknown else "no `pixel_values`"
        raise TypeError(
            f"Expected inputs out of {known}, `pixel_values` among them, but got {found}. Pass what the processor "
            "made."
        )
    images, texts = (
        {name: inputs[name] for name in packed._fields if name in inputs} for packed in (ImageInputs, TextInputs)
    )
    return ImageInputs(**images), TextInputs(**texts)


def are_embeddings(queries: torch.Tensor) -> torch.Tensor:
    """Whether all rows may be means of unit vectors, which are shorter than these, but not nothing; false for NaN."""
    lengths = queries.float().norm(dim=-1)
    return ((lengths > SHORTEST_QUERY) & (lengths < LONGEST_QUERY)).all()


def check_tensors(inputs: ImageInputs | TextInputs) -> None:
    """Make sure that what is given are tensors, and their numbers finite; those are not read in a compiled graph.

    Raises:
        TypeError: If one is no tensor, or one of other numbers.
        ValueError: If one is empty, or holds numbers that are not finite or far too large.
    """
    for name, tensor in inputs._asdict().items():
        if name.endswith("_sizes") or (tensor is None and name != "pixel_values"):  # sizes may be lists, too
            continue
        _expect_numbers(name, tensor, name in WHOLE_NUMBERS)
        if tensor.numel() == 0:
            raise ValueError(
                f"Expected `{name}` with numbers in it, but got the shape {tuple(tensor.shape)}. Fill it."
            )
        if tensor.is_floating_point() and tensor.device.type != "meta" and not torch.compiler.is_compiling():
            lowest, highest = (float(value) for value in torch.aminmax(tensor.detach()))
            if not max(-lowest, highest) <= LARGEST_INPUT:  # written so that NaN is refused
                raise ValueError(
                    f"Expected finite `{name}` of at most {LARGEST_INPUT:g}, but got {lowest:g} to {highest:g}. Scale "
                    "or repair the input."
                )


def read_images(inputs: ImageInputs, config: ITACLIPConfig) -> list[WindowedImage]:
    """Check images and views, and place the windows.

    Args:
        inputs: Images and views.
        config: Says how large windows are and how far apart.

    Raises:
        ValueError: If shapes are wrong, an image is smaller than a patch or larger than `pixel_values`, or only some
            of the augmentation tensors are given.
    """
    check_tensors(inputs)
    images = _crop_images(inputs, smallest=cast(int, config.vision_config.patch_size))
    views, output_sizes = _choose_views(inputs), _choose_output_sizes(images, inputs.original_sizes)
    placing = config.window_size, config.window_stride, config.window_multiple
    layouts = [plan_windows(_size(image), *placing) for image in images]
    regions: list[torch.Tensor | None] = [None] * len(images)
    if inputs.region_maps is not None and config.uses_regions:
        maps = _read_region_maps(inputs.region_maps, inputs.pixel_values)
        regions = [
            of_image[: _size(image)[0], : _size(image)[1]] for of_image, image in zip(maps, images, strict=True)
        ]
    return [WindowedImage(*parts) for parts in zip(images, layouts, views, output_sizes, regions, strict=True)]


def fit_region_maps(region_maps: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
    """Region maps of any size at that of the images: each pixel gets the id at its centre.

    Not for images that were padded to one size.

    Args:
        region_maps: (batch, any height, any width) ids.
        pixel_values: (batch, 3, height, width)

    Returns:
        (batch, height, width) int64, on the device of the pixels.

    Raises:
        TypeError: If they are no tensor of whole numbers.
        ValueError: If there is not one for each image.
    """
    check_tensors(ImageInputs(pixel_values, region_maps=region_maps))
    if region_maps.ndim == 3:
        # In whole numbers: ⌊(place + ½) · own / length⌋ has no rounding that could take the neighbour.
        rows, columns = (
            (2 * torch.arange(length, device=region_maps.device) + 1) * own // (2 * length)
            for length, own in zip(_size(pixel_values), region_maps.shape[1:], strict=True)
        )
        region_maps = region_maps[:, rows[:, None], columns]
    return _read_region_maps(region_maps, pixel_values)


def read_voting_regions(inputs: ImageInputs, sizes: Sequence[Size]) -> list[torch.Tensor] | None:
    """The regions of each image that vote on its labels: those at original sizes, or else those of the pixels.

    Args:
        inputs: Images that [`read_images`] has checked.
        sizes: (height, width) of each result.

    Raises:
        ValueError: If there is not a map for each image, or one is smaller than its image.
    """
    if inputs.original_region_maps is not None:
        name, maps = "original_region_maps", inputs.original_region_maps
    elif inputs.region_maps is not None:
        name, maps = "region_maps", _read_region_maps(inputs.region_maps, inputs.pixel_values)
        sizes = [_size(image) for image in _crop_images(inputs, smallest=1)]
    else:
        return None
    shape = len(sizes), max(height for height, _ in sizes), max(width for _, width in sizes)
    if maps.ndim != 3 or len(maps) != len(sizes) or maps.shape[-2] < shape[-2] or maps.shape[-1] < shape[-1]:
        expect_shape(name, maps, shape)  # larger ones were padded, as images of a batch are
    return [of_image[:height, :width] for of_image, (height, width) in zip(maps, sizes, strict=True)]


def read_prompts(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, config: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Check prompts, as `forward` takes them, and give them three axes: (texts, prompts, tokens).

    Raises:
        TypeError: If they are no tensors of whole numbers.
        ValueError: If the shapes are others, or a token or the length is beyond the text tower's of that `config`.
    """
    check_tensors(TextInputs(input_ids, attention_mask))
    if input_ids.ndim == 2:
        input_ids = input_ids[:, None]
        attention_mask = None if attention_mask is None else attention_mask[:, None]
    if input_ids.ndim != 3:
        raise ValueError(
            f"Expected `input_ids` of shape (texts, prompts, tokens) or (texts, tokens), but got "
            f"{tuple(input_ids.shape)}. Pass what the processor made."
        )
    if attention_mask is not None:
        expect_shape("attention_mask", attention_mask, tuple(input_ids.shape))
        _expect_between("attention_mask", attention_mask, 0, 1)
        _expect_between("attention_mask[..., 0]", attention_mask[..., 0], 1, 1)
    if input_ids.shape[-1] > config.max_position_embeddings:
        raise ValueError(
            f"Expected at most {config.max_position_embeddings} tokens, as the text tower has so many positions, but "
            f"got {input_ids.shape[-1]}. Set the tokenizer's `model_max_length`, or pass `max_length`."
        )
    _expect_between("input_ids", input_ids, 0, config.vocab_size - 1)
    return input_ids.long(), attention_mask


def group_prompts(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, tokens_per_batch: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Share out prompts among encoder batches: equal ones once, those of similar length together, padding cut off.

    CLIP's text tower is causal and reads its result at the end token, so what stands after that changes nothing.

    Args:
        input_ids: (prompts, tokens)
        attention_mask: Same shape, 1 for tokens and 0 for padding at the end; all tokens if `None`.
        tokens_per_batch: Largest batch in tokens, padding to its longest prompt counted; a longer prompt is alone.

    Returns:
        Token ids of each batch, (n, length of its longest prompt); and for each prompt its row in all batches one
        after the other.
    """
    lengths = torch.full_like(input_ids[:, 0], input_ids.shape[1]) if attention_mask is None else attention_mask.sum(1)
    # The length comes first, so that the sorted unique rows are sorted by length.
    rows, places = torch.cat([lengths[:, None].to(input_ids.dtype), input_ids], dim=1).unique(
        dim=0, return_inverse=True
    )
    counts = list(_count_rows_of_batches(rows[:, 0].tolist(), tokens_per_batch))
    return [batch[:, 1 : 1 + int(batch[-1, 0])] for batch in rows.split(counts)], places


def check_classes(query_classes: torch.Tensor, num_queries: int) -> None:
    """Make sure that there is one class id for each query.

    Raises:
        TypeError: If they are no tensor of whole numbers.
        ValueError: If there are more or fewer, or one is no class id.
    """
    check_tensors(TextInputs(query_classes=query_classes))
    expect_shape("query_classes", query_classes, (num_queries,))
    _expect_between("query_classes", query_classes, 0, MOST_CLASSES - 1)


def check_labels(
    labels: torch.Tensor, images: Sequence[WindowedImage], num_classes: int, ignore_index: int
) -> torch.Tensor:
    """Labels for the loss, (batch, H₀, W₀) int64.

    Raises:
        TypeError: If they are no tensor of whole numbers.
        ValueError: If results are of several sizes, or labels of another, or one is no class, or the index to ignore
            is one.
    """
    _expect_numbers("labels", labels, is_whole=True, advice="Pass class ids.")
    if 0 <= ignore_index < num_classes:
        raise ValueError(
            f"Expected no class to be ignored, but {ignore_index} is one of {num_classes}. Set the configuration's "
            "`semantic_loss_ignore_index` to -100, and mark pixels without a class so."
        )
    sizes = {image.output_size for image in images}
    if len(sizes) > 1:
        raise ValueError(
            "Expected results of one size for a loss, but got several. Pass images of one original size, or leave out "
            "`labels`."
        )
    expect_shape("labels", labels, (len(images), *sizes.pop()))
    labels = labels.long()
    lowest, highest = torch.aminmax(labels.masked_fill(labels == ignore_index, 0))
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"Expected `labels` from 0 to {num_classes - 1}, or {ignore_index} to ignore, but got "
            f"{int(lowest if lowest < 0 else highest)}. Name as many classes as there are labels, or set the "
            "configuration's `semantic_loss_ignore_index`."
        )
    return labels


def _expect_numbers(name: str, tensor: Any, is_whole: bool, advice: str = "Pass what the processor made.") -> None:
    if not isinstance(tensor, torch.Tensor) or tensor.is_complex() or (is_whole and tensor.is_floating_point()):
        kind = "whole" if is_whole else "real"
        found = tensor.dtype if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"Expected `{name}` to be a tensor of {kind} numbers, but got {found}. {advice}")


def _expect_between(name: str, numbers: torch.Tensor, low: int, high: int) -> None:
    if torch.compiler.is_compiling() or numbers.device.type == "meta":  # no numbers to be read
        return
    lowest, highest = (int(value) for value in torch.aminmax(numbers))
    if lowest < low or highest > high:
        raise ValueError(
            f"Expected `{name}` from {low} to {high}, but got {lowest} to {highest}. Pass what the processor made."
        )


def expect_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise a `ValueError` that names the tensor if its shape is another one."""
    if tuple(tensor.shape) != shape:
        raise ValueError(
            f"Expected `{name}` of shape {shape}, but got {tuple(tensor.shape)}. Pass what the processor made."
        )


def stack_logits(logits: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    """One tensor where sizes are equal; a batch of one is not copied."""
    if len({of_image.shape for of_image in logits}) > 1:
        return logits
    return torch.stack(logits) if len(logits) > 1 else logits[0][None]


def compute_loss(logits: torch.Tensor | list[torch.Tensor], labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Mean negative log score of the labels of [`check_labels`], which sees to it that the logits are one tensor.

    It is 0, and not NaN, where all are ignored.
    """
    total = nn.functional.nll_loss(cast(torch.Tensor, logits), labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)


def merge_hidden_states(batches: Sequence[tuple[torch.Tensor | None, ...] | None]) -> tuple | None:
    """One entry for each layer, over all encoder batches; `None` where a layer was not asked for, or none was."""
    if len(batches) == 1 or batches[0] is None:
        return batches[0]  # as they are, so that gradients can be asked of them
    return tuple(_merge_layer(layer) for layer in zip(*filter(None, batches), strict=True))


def _crop_images(inputs: ImageInputs, smallest: int) -> list[torch.Tensor]:
    """The valid part of each image, (3, height, width), as a view of it."""
    pixel_values = inputs.pixel_values
    if pixel_values.ndim != 4 or pixel_values.shape[1] != 3 or len(pixel_values) == 0:
        raise ValueError(
            f"Expected `pixel_values` of shape (batch, 3, height, width), but got {tuple(pixel_values.shape)}. Use "
            "the processor, or add the batch axis."
        )
    full = _size(pixel_values)
    sizes = [full] * len(pixel_values)
    if inputs.image_sizes is not None:
        sizes = _read_sizes("image_sizes", inputs.image_sizes, len(pixel_values))
    for index, (height, width) in enumerate(sizes):
        if not (smallest <= height <= full[0] and smallest <= width <= full[1]):
            raise ValueError(
                f"Expected image {index} to be between one patch ({smallest} x {smallest}) and `pixel_values` "
                f"({full[0]} x {full[1]}), but got {height} x {width}. Cut or pad a very long strip before the "
                "processor, or raise the longest edge of its `size`."
            )
    return [image[:, :height, :width] for image, (height, width) in zip(pixel_values, sizes, strict=True)]


def _read_region_maps(region_maps: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
    """(batch, height, width) int64, of the size of the images and on their device; 0 for none."""
    expect_shape("region_maps", region_maps, (len(pixel_values), *_size(pixel_values)))
    return region_maps.to(pixel_values.device, torch.int64).clamp(min=0)


def _choose_output_sizes(images: Sequence[torch.Tensor], original_sizes: torch.Tensor | None) -> list[Size]:
    """Size (height, width) of each result: the original one, or the image's own where none is given."""
    if original_sizes is None:
        return [_size(image) for image in images]
    sizes = _read_sizes("original_sizes", original_sizes, len(images))
    if min(map(min, sizes)) < 1:
        raise ValueError(f"Expected `original_sizes` to be positive, but got {sizes}. Use pixels.")
    if max(height * width for height, width in sizes) > LARGEST_RESULT:
        raise ValueError(f"Expected results of at most {LARGEST_RESULT} pixels, but got {sizes}. Cut the image.")
    return sizes


def _choose_views(inputs: ImageInputs) -> list[list[WindowView]]:
    """Views of each image; the plain one where there are no augmentation tensors."""
    tensors = {name: tensor for name, tensor in inputs._asdict().items() if name.startswith("augmentation_")}
    given = {name: tensor.cpu() for name, tensor in tensors.items() if tensor is not None}  # read number by number
    batch = len(inputs.pixel_values)
    if not given:
        return [[PLAIN_VIEW]] * batch
    if len(given) < len(tensors):
        missing = ", ".join(name for name in tensors if name not in given)
        raise ValueError(
            f"Expected all of {tuple(tensors)} or none, but got no {missing}. Pass all that the processor made."
        )
    color, blur, flip, weight = given.values()  # in the order of the fields
    for (name, tensor), tail in zip(given.items(), ((3, 3), blur.shape[2:], (2,), ()), strict=True):
        expect_shape(name, tensor, (batch, weight.shape[-1], *tail))
    if blur.shape[2] % 2 == 0:
        raise ValueError(f"Expected `augmentation_blur` kernels of odd length, but got {blur.shape[2]}. Add a 0.")
    return [read_views(*of_image) for of_image in zip(color, blur, flip, weight, strict=True)]


def _read_sizes(name: str, sizes: torch.Tensor | Sequence[Sequence[int]], batch: int) -> list[Size]:
    try:
        sizes = torch.as_tensor(sizes)
    except (RuntimeError, TypeError, ValueError):
        sizes = torch.empty(0)  # whatever it is, it has not the shape that is asked for next
    expect_shape(name, sizes, (batch, 2))
    if sizes.is_floating_point() or sizes.is_complex():
        raise TypeError(f"Expected `{name}` in whole pixels, but got {sizes.dtype}. Pass what the processor made.")
    return [(height, width) for height, width in sizes.tolist()]


def _size(pixels: torch.Tensor) -> Size:
    return pixels.shape[-2], pixels.shape[-1]


def _count_rows_of_batches(lengths: list[int], tokens_per_batch: int) -> Iterator[int]:
    """Fill one batch after the other with rows of increasing length."""
    count = 0
    for length in lengths:  # the longest so far, to which all of the batch are padded
        if count == MOST_PROMPTS or (count and (count + 1) * length > tokens_per_batch):
            yield count
            count = 0
        count += 1
    yield count


def _merge_layer(batches: Sequence[torch.Tensor | None]) -> torch.Tensor | list[torch.Tensor] | None:
    kept = [batch for batch in batches if batch is not None]
    if not kept:
        return None
    return torch.cat(kept) if len({batch.shape[1] for batch in kept}) == 1 else kept
