"""A dataset whose samples come with the regions of their images, for methods that ask for them."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...regions import open_regions
from .label_mapping import LabelMapping
from .segmentation_datasets import Sample, SampleError, SegmentationDataset

__all__ = ["DatasetWithRegions"]


@dataclass(frozen=True)
class DatasetWithRegions:
    """Another dataset, with regions.

    Args:
        dataset: The dataset.
        place: A folder with a region map for each name of a sample, or "felzenszwalb"; see `open_regions`.
    """

    dataset: SegmentationDataset
    place: str

    def __post_init__(self) -> None:
        open_regions(self.place)  # a wrong place is told before the work

    @property
    def title(self) -> str:
        """That of the dataset."""
        return self.dataset.title

    @property
    def mapping(self) -> LabelMapping:
        """That of the dataset."""
        return self.dataset.mapping

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, index: int) -> Sample:
        """One sample; raises `SampleError`, also where its regions are missing."""
        sample = self.dataset.load(index)
        try:
            name = PurePosixPath(sample.name).with_suffix("")
            return replace(sample, regions=open_regions(self.place)(name, sample.image))
        except ValueError as error:
            raise SampleError("unusable regions", sample.name, str(error)) from None

    def describe(self) -> dict[str, Any]:
        """The dataset, and where the regions are from."""
        return {**self.dataset.describe(), "regions": Path(self.place).name}
