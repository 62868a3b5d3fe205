"""From the options about data and words to a dataset and its vocabulary, for every command that scores a method."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..evaluation.data.benchmarks import Benchmark
    from ..evaluation.data.label_mapping import LabelMapping
    from ..evaluation.data.segmentation_datasets import SegmentationDataset, StreamedDataset
    from ..processing import Vocabulary

__all__ = [
    "BackgroundFirstLineOption",
    "DataOption",
    "DatasetChoice",
    "DatasetConfigOption",
    "DatasetOption",
    "DefinitionsOption",
    "IgnoreIndexOption",
    "ImageColumnOption",
    "ImagesOption",
    "LabelColumnOption",
    "LabelsOption",
    "ReduceLabelsOption",
    "SplitOption",
    "StreamingOption",
    "Texts",
    "TextsOption",
    "VocabularyOption",
]


class Texts(str, Enum):
    """Which of a benchmark's texts enrich its class names."""

    definitions = "definitions"
    synonyms = "synonyms"
    none = "none"


DataOption = Annotated[Path | None, typer.Option(help="Folder of the benchmark.")]
SplitOption = Annotated[str, typer.Option(help="Split of the benchmark or dataset.")]
ImagesOption = Annotated[Path | None, typer.Option(help="Folder of images, subfolders included.")]
LabelsOption = Annotated[Path | None, typer.Option(help="Folder of PNG label maps of the same names.")]
DatasetOption = Annotated[
    str | None, typer.Option(help="Dataset of the Hub, or a folder written by `Dataset.save_to_disk`.")
]
DatasetConfigOption = Annotated[str | None, typer.Option(help="Configuration of that dataset.")]
ImageColumnOption = Annotated[str, typer.Option(help="Its column of images.")]
LabelColumnOption = Annotated[str, typer.Option(help="Its column of label maps.")]
StreamingOption = Annotated[bool, typer.Option("--streaming", help="Read the dataset as a stream.")]
IgnoreIndexOption = Annotated[
    int | None,
    typer.Option(help="Label id that is not scored, where --data is not given; default: 255 if it is no class."),
]
ReduceLabelsOption = Annotated[
    bool, typer.Option("--reduce-labels", help="Label id 0 is not scored either, and classes begin at 1.")
]
VocabularyOption = Annotated[Path | None, typer.Option(help="Class names as JSON or in the published text formats.")]
BackgroundFirstLineOption = Annotated[
    bool, typer.Option("--background-first-line", help="The first line of the vocabulary lists background words.")
]
DefinitionsOption = Annotated[
    Path | None, typer.Option(help="Texts about the classes: 'name >=text' a line, instead of the benchmark's.")
]
TextsOption = Annotated[Texts | None, typer.Option(help="Which of the benchmark's texts to use; default: its own.")]


@dataclass(frozen=True)
class DatasetChoice:
    """What the options of these names say about data and words.

    Args:
        benchmark: The benchmark of the argument or option of that name, or `None`.
    """

    benchmark: "Benchmark | None" = None
    data: Path | None = None
    split: str = "val"
    images: Path | None = None
    labels: Path | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    streaming: bool = False
    ignore_index: int | None = None
    reduce_labels: bool = False
    vocabulary: Path | None = None
    background_first_line: bool = False
    definitions: Path | None = None
    texts: Texts | None = None

    def read_vocabulary(self, method: str | None = None) -> "Vocabulary":
        """The benchmark's words, or those of a file, with the texts that were asked for.

        Args:
            method: The method that will be used; a benchmark's texts are left out if it gives them no weight.

        Raises:
            ValueError: If no words are named, or they are named twice.
            OSError: If a file cannot be read.
        """
        from ..processing import Vocabulary, load_auxiliary_texts

        if self.vocabulary is None and self.benchmark is None:
            raise ValueError("Expected a benchmark or `--vocabulary`, but got neither. Name the classes in a file.")
        if self.vocabulary is not None and self.texts is not None:
            raise ValueError(
                "Expected `--vocabulary` or `--texts`, but got both. Texts of a file go with `--definitions`."
            )
        if self.vocabulary is not None:
            has_background = self.background_first_line or (
                self.benchmark is not None and self.benchmark.has_background
            )
            words = Vocabulary.from_file(self.vocabulary, background_first_line=has_background)
        else:
            assert self.benchmark is not None
            words = self.benchmark.vocabulary(self._choose_texts(method))
        return (
            words if self.definitions is None else words.with_auxiliary_texts(load_auxiliary_texts(self.definitions))
        )

    def _choose_texts(self, method: str | None) -> Any:
        from ..methods import get_method

        if self.texts is not None:
            return self.texts.value
        return None if method is None or get_method(method).settings().auxiliary_weight else "none"

    def open_dataset(self, num_labels: int) -> "SegmentationDataset | StreamedDataset":
        """The one dataset that the options name.

        Args:
            num_labels: Number of classes, the background included.

        Raises:
            ValueError: If they name none or several.
            OSError: If it is not there.
        """
        from ..evaluation.data.segmentation_datasets import load_benchmark_dataset, load_folder_dataset

        named = {
            "BENCHMARK with --data": self.benchmark is not None and self.data is not None,
            "--images with --labels": self.images is not None and self.labels is not None,
            "--dataset": self.dataset is not None,
        }
        found = [way for way, is_named in named.items() if is_named]
        if len(found) != 1:
            raise ValueError(f"Expected one of {', '.join(named)}, but got {' and '.join(found) or 'none of them'}.")
        if self.benchmark is not None and self.data is not None:
            return load_benchmark_dataset(self.benchmark, self.data, self.split)
        mapping = self._mapping(num_labels)
        if self.images is not None and self.labels is not None:
            return load_folder_dataset(self.images, self.labels, mapping)
        return self._load_table(mapping)

    def _mapping(self, num_labels: int) -> "LabelMapping":
        """Label ids that are class ids, but for those that are not scored."""
        from ..evaluation.data.label_mapping import LabelMapping

        first = 1 if self.reduce_labels else 0
        ignored = {0} if self.reduce_labels else set()
        if self.ignore_index is not None:
            ignored.add(self.ignore_index)
        elif not first <= 255 < first + num_labels:
            ignored.add(255)
        return LabelMapping.shifted(num_labels, first=first, ignored=ignored)

    def _load_table(self, mapping: "LabelMapping") -> "SegmentationDataset | StreamedDataset":
        import datasets

        from ..evaluation.data.segmentation_datasets import StreamedDataset, TableDataset

        place = Path(self.dataset or "")
        if place.is_dir() and any((place / file).is_file() for file in ("state.json", "dataset_dict.json")):
            table: Any = datasets.load_from_disk(str(place))
            table = table[self.split] if isinstance(table, datasets.DatasetDict) else table
            table = table.to_iterable_dataset() if self.streaming else table
        else:
            table = datasets.load_dataset(
                self.dataset, self.dataset_config, split=self.split, streaming=self.streaming
            )
        kind = StreamedDataset if self.streaming else TableDataset
        return kind(table, mapping, self.image_column, self.label_column, title=place.name)
