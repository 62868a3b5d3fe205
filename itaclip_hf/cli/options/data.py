"""Options that name a labelled dataset."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ...evaluation.data.benchmarks import Benchmark
    from ...evaluation.data.label_mapping import LabelMapping
    from ...evaluation.data.segmentation_datasets import SegmentationDataset, StreamedDataset

__all__ = ["BENCHMARKS_HELP", "DataOptions", "StreamedDataOptions"]

BENCHMARKS_HELP = (
    "voc21, voc20, context60, context59, coco_stuff, coco_object, cityscapes or ade20k. "
    "Without it, name a dataset by --images and --labels or by --dataset."
)

_READ_WITH = {
    "BENCHMARK with --data": ("data", "split", "regions"),
    "--images with --labels": ("images", "labels", "ignore_index", "reduce_labels", "regions"),
    "--dataset": (
        "dataset",
        "dataset_config",
        "split",
        "image_column",
        "label_column",
        "streaming",
        "ignore_index",
        "reduce_labels",
        "regions",
    ),
}


@dataclass(frozen=True)
class DataOptions:
    """Where images and their labels are: a benchmark's folder, two folders, or a `datasets` dataset."""

    panel = "Data"

    data: Annotated[Path | None, typer.Option(help="Folder of the benchmark.")] = None
    split: Annotated[str, typer.Option(help="Split of the benchmark or dataset.")] = "val"
    images: Annotated[Path | None, typer.Option(help="Folder of images, subfolders included.")] = None
    labels: Annotated[Path | None, typer.Option(help="Folder of PNG label maps of the same names.")] = None
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the Hub, or a folder written by `Dataset.save_to_disk`.")
    ] = None
    dataset_config: Annotated[str | None, typer.Option(help="Configuration of that dataset.")] = None
    image_column: Annotated[str, typer.Option(help="Its column of images.")] = "image"
    label_column: Annotated[str, typer.Option(help="Its column of label maps.")] = "label"
    ignore_index: Annotated[
        int | None,
        typer.Option(help="Label id that is not scored, where --data is not given; default: 255 if it is no class."),
    ] = None
    reduce_labels: Annotated[
        bool, typer.Option("--reduce-labels", help="Label id 0 is not scored either, and classes begin at 1.")
    ] = False

    def open_dataset(self, benchmark: "Benchmark | None", num_labels: int) -> "SegmentationDataset | StreamedDataset":
        """The one dataset that the options name.

        Args:
            benchmark: The benchmark that the command names, if any.
            num_labels: Number of classes, the background included.

        Raises:
            ValueError: If they name none or several.
            OSError: If it is not there.
        """
        from ...evaluation.data.segmentation_datasets import load_benchmark_dataset, load_folder_dataset

        named = {
            "BENCHMARK with --data": benchmark is not None and self.data is not None,
            "--images with --labels": self.images is not None and self.labels is not None,
            "--dataset": self.dataset is not None,
        }
        found = [way for way, is_named in named.items() if is_named]
        if len(found) != 1:
            raise ValueError(f"Expected one of {', '.join(named)}, but got {' and '.join(found) or 'none of them'}.")
        self._refuse_others(found[0])
        if benchmark is not None and self.data is not None:
            return load_benchmark_dataset(benchmark, self.data, self.split)
        mapping = self._map_labels(num_labels)
        if self.images is not None and self.labels is not None:
            title = Path(os.path.abspath(self.images)).name  # also of "." and ".."
            return load_folder_dataset(self.images, self.labels, mapping, title)
        return self._load_table(mapping)

    def _refuse_others(self, way: str) -> None:
        """Options about other ways to name a dataset would be ignored in silence."""
        defaults = type(self)()
        ignored = [
            f"--{field.name.replace('_', '-')}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(defaults, field.name) and field.name not in _READ_WITH[way]
        ]
        if ignored:
            raise ValueError(
                f"Expected no {', '.join(ignored)} with {way.replace(' with ', ' and ')}, but got "
                f"{'them' if len(ignored) > 1 else 'it'}. Leave out what does not belong together."
            )

    def _map_labels(self, num_labels: int) -> "LabelMapping":
        """Label ids that are class ids, but for those that are not scored."""
        from ...evaluation.data.label_mapping import LabelMapping

        first = 1 if self.reduce_labels else 0
        ignored = {0} if self.reduce_labels else set()
        if self.ignore_index is not None:
            ignored.add(self.ignore_index)
        elif not first <= 255 < first + num_labels:
            ignored.add(255)
        return LabelMapping.shifted(num_labels, first=first, ignored=ignored)

    def _load_table(self, mapping: "LabelMapping") -> "SegmentationDataset | StreamedDataset":
        import datasets

        from ...evaluation.data.segmentation_datasets import StreamedDataset, TableDataset

        place, is_stream = Path(self.dataset or ""), getattr(self, "streaming", False)
        if place.is_dir() and any((place / file).is_file() for file in ("state.json", "dataset_dict.json")):
            table: Any = datasets.load_from_disk(str(place))
            if isinstance(table, datasets.DatasetDict):
                if self.split not in table:
                    raise ValueError(
                        f"Expected a split out of {', '.join(table)} in {place}, but got {self.split!r}. Use --split."
                    )
                table = table[self.split]
            table = table.to_iterable_dataset() if is_stream else table
        else:
            table = datasets.load_dataset(self.dataset, self.dataset_config, split=self.split, streaming=is_stream)
        kind = StreamedDataset if is_stream else TableDataset
        return kind(table, mapping, self.image_column, self.label_column, title=Path(os.path.abspath(place)).name)


@dataclass(frozen=True)
class StreamedDataOptions(DataOptions):
    """The same for commands that look at every image once, and at its regions, where there are any."""

    streaming: Annotated[bool, typer.Option("--streaming", help="Read the dataset as a stream.")] = False
    regions: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|felzenszwalb",
            help="Regions of each image, for methods that look at them and for the vote: a folder with NAME.png or "
            "NAME.npy of ids (0: none) for each image NAME, or superpixels.",
        ),
    ] = None

    def open_dataset(self, benchmark: "Benchmark | None", num_labels: int) -> "SegmentationDataset | StreamedDataset":
        """As that of `DataOptions`; samples have regions where options say so."""
        from ...evaluation.data.regions import DatasetWithRegions
        from ...evaluation.data.segmentation_datasets import StreamedDataset

        samples = super().open_dataset(benchmark, num_labels)
        if self.regions is None:
            return samples
        if isinstance(samples, StreamedDataset):
            raise ValueError("Expected no --streaming with --regions, but got both. Leave one of them out.")
        return DatasetWithRegions(samples, self.regions)
