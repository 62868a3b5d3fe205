"""What stands behind each pixel of a label map: the word that won, its score, and the class that comes next."""

from typing import NamedTuple

import torch

from ..modeling.class_scores import Queries
from .text_maps import ClassMaps

__all__ = ["PixelEvidence", "find_evidence"]


class PixelEvidence(NamedTuple):
    """What stands behind each pixel of a finished label map; all (height, width).

    Attributes:
        labels: Class ids int64, as the processor finishes them.
        queries: The best of that class's names or words, int64, its position in the vocabulary's `query_names`.
        scores: Score of the class, float32, between 0 and 1.
        runners_up: The best other class, int64; the class itself where there is no other.
        margins: How much lower that one scores, float32; negative where finishing the map chose the class.
    """

    labels: torch.Tensor
    queries: torch.Tensor
    scores: torch.Tensor
    runners_up: torch.Tensor
    margins: torch.Tensor


def find_evidence(maps: torch.Tensor, queries: Queries, classes: ClassMaps, labels: torch.Tensor) -> PixelEvidence:
    """What stands behind each pixel of a finished label map."""
    own = labels[..., None]
    is_own = torch.tensor(queries.classes, device=maps.device) == own
    scores = classes.score()
    score = scores.gather(-1, own)[..., 0]
    best, runners_up = scores.scatter(-1, own, -1).max(-1)  # below every score, so that another class is found
    margins = score - best.clamp(min=0)  # a single class has no other
    found = (labels, maps.masked_fill(~is_own, -torch.inf).argmax(-1), score, runners_up, margins)
    return PixelEvidence(*(each.cpu() for each in found))
