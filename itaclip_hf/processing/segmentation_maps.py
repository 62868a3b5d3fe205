"""From the model's logits to a label map: scores, small classes, lowest score, regions and closing, in this order.

In go the logits of one image (classes, height, width), out comes a map of class ids. Class 0 is the background: what
is too small or too unsure becomes class 0, as in the published method. Regions are ids of pixels, 0 for none, of any
segmenter; their vote is that of CorrCLIP (ICCV 2025).
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

__all__ = [
    "RegionVotes",
    "assign_labels",
    "close_label_map",
    "compute_scores",
    "compute_segment_scores",
    "count_votes",
    "drop_small_classes_",
    "find_small_classes",
    "find_small_counts",
    "make_region_map",
    "pair_with_regions",
    "pair_with_target_sizes",
    "resize_region_map",
    "stack_label_maps",
    "stack_region_maps",
]

IGNORED = 255  # what the model's loss leaves out
LARGEST_MAP = 2**28  # pixels; memory for one score of each is 1 GiB
MASKS = ("masks", "segmentation")  # where the outputs of Transformers' segmenters hold theirs
COLOR_FACTORS = (1, 2**8, 2**16)  # by which COCO's panoptic PNGs write an id as a colour


def pair_with_target_sizes(
    logits: torch.Tensor | Sequence[torch.Tensor], target_sizes: Sequence[tuple[int, int]] | torch.Tensor | None
) -> list[tuple[torch.Tensor, tuple[int, int]]]:
    """Put each image's logits and the size of its map together; by default they have one size.

    Raises:
        TypeError: If logits are no tensors of floating point numbers.
        ValueError: If there is not one target size an image, a target size is not two whole numbers above 0, or an
            image's logits have not three dimensions.
    """
    if not isinstance(logits, torch.Tensor | list | tuple):
        raise TypeError(f"Expected logits as tensors, but got {type(logits).__name__}. Pass the model's outputs.")
    for image_logits in logits:
        if not isinstance(image_logits, torch.Tensor) or image_logits.ndim != 3 or 0 in image_logits.shape:
            found: Any = tuple(getattr(image_logits, "shape", ())) or type(image_logits).__name__
            raise ValueError(
                "Expected logits (batch, classes, height, width) or a list of (classes, height, width), but got "
                f"{found} for an image. Pass the model's outputs as they are."
            )
        if not image_logits.is_floating_point():
            raise TypeError(
                f"Expected logits as floating point numbers, but got {image_logits.dtype}. Pass the model's outputs."
            )
    if target_sizes is None:
        return [(image_logits, tuple(image_logits.shape[-2:])) for image_logits in logits]
    sizes: Any = target_sizes.tolist() if isinstance(target_sizes, torch.Tensor | np.ndarray) else target_sizes
    if not isinstance(sizes, list | tuple) or len(sizes) != len(logits):
        came = len(sizes) if isinstance(sizes, list | tuple) else type(sizes).__name__
        raise ValueError(
            f"Expected a list of one target size per image ({len(logits)}), but got {came}. Give (height, width) for "
            "each."
        )
    return [(each, _read_size(size)) for each, size in zip(logits, sizes, strict=True)]


def _read_size(size: Any) -> tuple[int, int]:
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(
            f"Expected every target size as (height, width) in whole pixels, but got {size!r}. Give two numbers "
            "above 0."
        )
    if height * width > LARGEST_MAP:
        raise ValueError(f"Expected label maps of at most {LARGEST_MAP} pixels, but got more. Give smaller sizes.")
    return height, width


def compute_scores(logits: torch.Tensor, target_size: tuple[int, int]) -> torch.Tensor:
    """Class scores at the target size, in a new tensor: (classes, h, w) -> (classes, height, width)."""
    # What is converted is a copy already and may be overwritten; the scores of an image are large.
    scores = logits.exp() if logits.dtype == torch.float32 else logits.float().exp_()
    if target_size == tuple(scores.shape[-2:]):
        return scores
    return F.interpolate(scores[None], target_size, mode="bilinear", align_corners=False)[0]


def compute_segment_scores(labels: torch.Tensor, confidence: torch.Tensor) -> dict[int, float]:
    """How sure a label map is of each class in it.

    Args:
        labels: Class ids (height, width); those below 0 belong to no class.
        confidence: Highest score of each pixel, (height, width).

    Returns:
        By class id, ascending, the mean confidence of its pixels.
    """
    is_class = labels >= 0
    ids = labels[is_class]
    # In double precision: sums over millions of pixels lose digits in single.
    counts, sums = torch.bincount(ids), torch.bincount(ids, weights=confidence[is_class].double())
    return {index: float(sums[index] / counts[index]) for index in counts.nonzero().flatten().tolist()}


def stack_label_maps(maps: Any, sizes: Sequence[Sequence[int]], do_reduce_labels: bool) -> np.ndarray:
    """Label maps of a batch, (batch, height, width) int64.

    Args:
        maps: One map (height, width) of class ids, or a list: arrays, tensors or PIL images.
        sizes: (height, width) of each image.
        do_reduce_labels: Whether 0 becomes 255, and every other id one less.

    Raises:
        TypeError: If a map holds other things than whole numbers.
        ValueError: If there is not one map of its image's size for each image, or sizes differ.
    """
    arrays = [np.asarray(each) for each in (maps if isinstance(maps, list | tuple) else [maps])]
    if any(array.dtype.kind not in "bui" for array in arrays):
        raise TypeError("Expected segmentation maps of class ids, but got other values. Pass whole numbers.")
    arrays = [part for array in arrays for part in (array if array.ndim == 3 else [array])]
    shapes = [tuple(array.shape) for array in arrays]
    if shapes != [tuple(size) for size in sizes] or len(set(shapes)) > 1:
        raise ValueError(
            f"Expected a segmentation map for each image, all of one size (height, width) as the images have "
            f"{[tuple(size) for size in sizes]}, but got {shapes}. Use batches of one size."
        )
    labels = np.stack(arrays).astype(np.int64)
    return np.where((labels == 0) | (labels == IGNORED), IGNORED, labels - 1) if do_reduce_labels else labels


def make_region_map(source: Any) -> np.ndarray:
    """Make a region map of what segmenters give.

    Args:
        source: A map (height, width) of whole numbers: an array, a tensor or a PIL image, also a colour one in which
            COCO's panoptic PNGs write ids; or masks, (masks, height, width) bool or a list of (height, width) bool; or
            a dictionary with either, as `pipeline("mask-generation")` (`masks`) and
            `post_process_panoptic_segmentation` (`segmentation`) return. Of masks, small ones lie on top.

    Returns:
        (height, width) int64: the ids that a map has, those below 0 as 0; of masks their numbers from 1. Pixels of 0
        are in no region.

    Raises:
        TypeError: If there are other things than whole numbers and masks.
        ValueError: If there are no pixels, masks differ in size, or an id is beyond 63 bits.

    Example:
        >>> make_region_map([[[True, True]], [[False, True]]]).tolist()
        [[1, 2]]
    """
    if isinstance(source, Mapping):
        source = next((source[name] for name in MASKS if name in source), None)
    try:
        array = np.stack([_to_array(each) for each in source]) if isinstance(source, list) else _to_array(source)
    except ValueError:
        raise ValueError("Expected masks of one size, but got none or several. Pass those of one image.") from None
    if array.dtype.kind not in "bui" or (array.dtype == np.uint64 and array.size and array.max() > 2**63 - 1):
        raise (ValueError if array.dtype.kind == "u" else TypeError)(
            f"Expected regions as whole numbers of up to 63 bits, or masks of true and false, but got {array.dtype}. "
            "Number the regions from 1."
        )
    if hasattr(source, "getbands") and array.ndim == 3 and array.shape[2] >= len(COLOR_FACTORS):
        array = array[..., : len(COLOR_FACTORS)].astype(np.int64) @ np.array(COLOR_FACTORS)
    if array.dtype == bool and array.ndim == 3 and array.shape[1] * array.shape[2]:
        return _paint_masks(array)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"Expected a region map (height, width), or masks of true and false, but got the shape {array.shape}. "
            "Pass one map for each image."
        )
    return np.maximum(array.astype(np.int64), 0)


def _to_array(source: Any) -> np.ndarray:
    return np.asarray(source.cpu() if isinstance(source, torch.Tensor) else source)


def _paint_masks(masks: np.ndarray) -> np.ndarray:
    painted = np.zeros(masks.shape[1:], dtype=np.int64)
    # Stable: of masks of one size the later one lies on top, on every machine.
    for index in np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist():
        painted[masks[index]] = index + 1
    return painted


def resize_region_map(region_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The region map (height, width) at another size: each pixel gets the id at its centre, none are blended."""
    # In whole numbers: floats would round a centre on a border to either side.
    rows, columns = (
        (2 * np.arange(length) + 1) * own // (2 * length) for length, own in zip(size, region_map.shape, strict=True)
    )
    return region_map if tuple(region_map.shape) == tuple(size) else region_map[np.ix_(rows, columns)]


def pair_with_regions(region_maps: Any, count: int) -> list[np.ndarray]:
    """One region map for each of so many images; see `make_region_map` for what they may be.

    Raises:
        TypeError: If one holds other things than regions.
        ValueError: If there are more or fewer, or one is no map.
    """
    is_many = isinstance(region_maps, list | tuple) or getattr(region_maps, "ndim", 2) > 2
    sources = list(region_maps) if is_many and len(region_maps) == count else [region_maps]
    if len(sources) != count:
        raise ValueError(
            f"Expected a region map for each image ({count}), but got "
            f"{len(region_maps) if is_many else type(region_maps).__name__}. Pass a list."
        )
    made = []
    for index, source in enumerate(sources):
        try:
            made.append(make_region_map(list(source) if isinstance(source, tuple) else source))
        except (TypeError, ValueError) as error:
            raise type(error)(f"Regions of image {index}: {error}") from None
    return made


def stack_region_maps(
    maps: Sequence[np.ndarray], sizes: Sequence[Sequence[int]], shape: tuple[int, int] | None = None
) -> np.ndarray:
    """Region maps of a batch, (batch, height, width) int64.

    Args:
        maps: One for each image.
        sizes: (height, width) of each, which they are brought to.
        shape: (height, width) of all, 0 right of and below the smaller ones; by default that of the largest.
    """
    stacked = np.zeros((len(maps), *(shape or np.max(sizes, axis=0))), dtype=np.int64)
    for place, each, (height, width) in zip(stacked, maps, sizes, strict=True):
        place[:height, :width] = resize_region_map(each, (height, width))
    return stacked


class RegionVotes(NamedTuple):
    """What the pixels of each region of an image say.

    Attributes:
        ids: (regions,) ids above 0, ascending.
        places: (height, width) place of each pixel's region in them, -1 for none.
        labels: (regions,) label that most pixels have; of equally many the lowest.
        votes: (regions,) number of these pixels.
        sizes: (regions,) number of all pixels.
    """

    ids: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    votes: torch.Tensor
    sizes: torch.Tensor

    def overrule(self, labels: torch.Tensor) -> torch.Tensor:
        """The label map (height, width) after the vote; pixels of no region keep theirs."""
        is_inside = self.places >= 0
        voted = labels.clone()
        voted[is_inside] = self.labels[self.places[is_inside]]
        return voted

    def describe(self, labels: torch.Tensor, confidence: torch.Tensor) -> list[dict[str, Any]]:
        """Which class each region is.

        Args:
            labels: The label map that was counted, (height, width).
            confidence: Highest score of each pixel, (height, width).

        Returns:
            For each region `id`, `label_id`, `share` (of its pixels that have that label) and `score` (their mean
            confidence).
        """
        chosen = self.places >= 0
        chosen[chosen.clone()] = labels[chosen] == self.labels[self.places[chosen]]
        sums = torch.bincount(self.places[chosen], confidence[chosen].double(), minlength=len(self.ids))
        columns = self.ids, self.labels, self.votes.double() / self.sizes, sums / self.votes
        names = ("id", "label_id", "share", "score")
        return [dict(zip(names, row, strict=True)) for row in zip(*(each.tolist() for each in columns), strict=True)]


def count_votes(labels: torch.Tensor, regions: torch.Tensor) -> RegionVotes:
    """Count which labels the pixels of each region have.

    Args:
        labels: Class ids (height, width).
        regions: Region of each pixel, (height, width); 0 and below for none.

    Returns:
        The votes; memory grows with the pixels, not with regions times classes.
    """
    is_inside = regions > 0
    ids, members = regions[is_inside].unique(return_inverse=True)
    places = torch.full_like(labels, -1)
    places[is_inside] = members
    num_classes = int(labels.max()) + 1
    # A number for each pair of region and label; only those that occur are counted.
    pairs, counts = (members * num_classes + labels[is_inside]).unique(return_counts=True)
    owners, candidates = pairs // num_classes, pairs % num_classes
    votes = torch.zeros_like(ids).scatter_reduce_(0, owners, counts, "amax")
    is_winner = counts == votes[owners]
    winners = torch.full_like(ids, num_classes).scatter_reduce_(0, owners[is_winner], candidates[is_winner], "amin")
    return RegionVotes(ids, places, winners, votes, torch.bincount(members, minlength=len(ids)))


def find_small_classes(labels: torch.Tensor, num_classes: int, area_threshold: float) -> torch.Tensor:
    """Find the foreground classes that cover too little of an image's foreground.

    Args:
        labels: Class ids (height, width), before any threshold.
        num_classes: Number of classes, the background included.
        area_threshold: A class 1, 2, ... is small if it covers at most this share of all pixels of such classes.

    Returns:
        Which classes are small, bool (num_classes,); class 0 never is.
    """
    return find_small_counts(torch.bincount(labels.flatten(), minlength=num_classes), area_threshold)


def find_small_counts(counts: torch.Tensor, area_threshold: float) -> torch.Tensor:
    """As `find_small_classes`, from the number of pixels of each class, (num_classes,)."""
    counts = counts.clone()
    counts[0] = 0
    is_small = counts <= area_threshold * counts.sum().double()  # single precision ends at 2**24 pixels
    is_small[0] = False
    return is_small


def drop_small_classes_(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Set the scores of small foreground classes to zero, in place, since the scores of an image are large.

    Args:
        scores: Class scores (classes, height, width).
        share: Largest share of the foreground that counts as small; see `find_small_classes`.

    Returns:
        The same tensor.
    """
    scores[find_small_classes(scores.argmax(dim=0), len(scores), share)] = 0
    return scores


def assign_labels(scores: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """Give each pixel the class with the highest score, or class 0 where that score is below the threshold.

    Args:
        scores: Class scores (classes, height, width).
        threshold: Lowest score that a pixel of any class needs.

    Returns:
        Class ids (height, width), int64.
    """
    best_scores, labels = scores.max(dim=0)
    if not torch.isfinite(best_scores).all():
        raise ValueError("Expected scores, but got NaN or infinity. Pass the logits of the model, unchanged.")
    return labels.masked_fill_(best_scores < threshold, 0)


def close_label_map(labels: torch.Tensor) -> torch.Tensor:
    """Close a map of class ids: maximum, then minimum, over 3x3 neighbourhoods.

    Neighbours outside the image do not count. The operation takes ids for grey values, so that small holes are filled
    from neighbours with higher ids; that is how the published results were made.

    Args:
        labels: Class ids (height, width).

    Returns:
        Class ids of the same shape and dtype.
    """
    # Pooling pads with minus infinity, which ignores the border; float32 holds every id up to 2**24.
    dilated = F.max_pool2d(labels[None, None].float(), kernel_size=3, stride=1, padding=1)
    closed = -F.max_pool2d(-dilated, kernel_size=3, stride=1, padding=1)
    return closed[0, 0].to(labels.dtype)
