"""Two disjoint parts of a dataset: one to choose settings on, one that only the final result sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .label_mapping import LabelMapping
from .segmentation_datasets import Sample, SegmentationDataset

__all__ = ["SubsetDataset", "split_dataset"]

SMALLEST_PART = 2


@dataclass(frozen=True)
class SubsetDataset:
    """Some samples of a dataset, in its order.

    Args:
        source: The whole dataset.
        indices: Which of its samples, by position.
        part: What reports call the part.
    """

    source: SegmentationDataset
    indices: Sequence[int]
    part: str

    @property
    def title(self) -> str:
        """What reports call it."""
        return f"{self.source.title}, {self.part}"

    @property
    def mapping(self) -> LabelMapping:
        """What the ids in its labels mean."""
        return self.source.mapping

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Sample:
        """One sample by its position in the part; raises `SampleError`."""
        return replace(self.source.load(self.indices[index]), index=index)

    def describe(self) -> dict[str, Any]:
        """The whole dataset, and the positions that belong to the part."""
        return {**self.source.describe(), "title": self.title, "indices": list(self.indices)}


def split_dataset(
    dataset: SegmentationDataset, held_out: float = 0.5, limit: int | None = None, seed: int = 0
) -> tuple[SubsetDataset, SubsetDataset]:
    """Deal the samples of a dataset out at random, without reading any.

    Args:
        dataset: The samples.
        held_out: Share of the second part.
        limit: Only so many samples, drawn at random.
        seed: Seed of the drawing.

    Returns:
        The part to tune on and the part that is held out; no sample is in both.

    Raises:
        ValueError: If the share is not between 0 and 1, or a part has fewer than two samples.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"Expected a held-out share between 0 and 1, but got {held_out}. Use 0.5, for example.")
    order = np.random.default_rng(seed).permutation(len(dataset))[:limit].tolist()
    count = round(held_out * len(order))
    parts = order[count:], order[:count]
    if min(map(len, parts)) < SMALLEST_PART:
        raise ValueError(
            f"Expected at least {SMALLEST_PART} labelled images to tune on and {SMALLEST_PART} held out, but got "
            f"{len(parts[0])} and {len(parts[1])}. Label more images, or move the held-out share."
        )
    tuning, other = (sorted(part) for part in parts)
    return SubsetDataset(dataset, tuning, "tuning part"), SubsetDataset(dataset, other, "held-out part")
