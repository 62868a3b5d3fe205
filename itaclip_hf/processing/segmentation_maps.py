"""From class scores to a label map: area threshold, score threshold and closing, in this order.

In go the class scores of one image (classes, height, width), out comes a map of class ids. Class 0 is the background:
what is too small or too unsure becomes class 0, as in the published method.
"""

import torch
import torch.nn.functional as F

__all__ = ["apply_area_threshold_", "assign_labels", "close_label_map", "find_small_classes"]


def find_small_classes(labels: torch.Tensor, num_classes: int, area_threshold: float) -> torch.Tensor:
    """Find the foreground classes that cover too little of an image's foreground.

    Args:
        labels: Class ids (height, width), before any threshold.
        num_classes: Number of classes, the background included.
        area_threshold: A class 1, 2, ... is small if it covers at most this share of all pixels of such classes.

    Returns:
        Which classes are small, bool (num_classes,); class 0 never is.
    """
    counts = torch.bincount(labels.flatten(), minlength=num_classes)
    counts[0] = 0
    is_small = counts <= area_threshold * counts.sum().double()
    is_small[0] = False
    return is_small


def apply_area_threshold_(scores: torch.Tensor, area_threshold: float) -> torch.Tensor:
    """Set the scores of small foreground classes to zero, in place, since the scores of an image are large.

    Args:
        scores: Class scores (classes, height, width).
        area_threshold: Largest share of the foreground that counts as small; see `find_small_classes`.

    Returns:
        The same tensor.
    """
    scores[find_small_classes(scores.argmax(dim=0), len(scores), area_threshold)] = 0
    return scores


def assign_labels(scores: torch.Tensor, score_threshold: float = 0.0) -> torch.Tensor:
    """Give each pixel the class with the highest score, or class 0 where that score is below the threshold.

    Args:
        scores: Class scores (classes, height, width).
        score_threshold: Lowest score that a pixel of any class needs.

    Returns:
        Class ids (height, width), int64.
    """
    best_scores, labels = scores.max(dim=0)
    return labels.masked_fill_(best_scores < score_threshold, 0)


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
