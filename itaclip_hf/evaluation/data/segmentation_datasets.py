"""Datasets of images with label maps: from folders, from `datasets` tables, from streams.

Each gives samples by a global index: an image and a map of class ids. What is wrong with a sample is raised as a
`SampleError` that names the file, so that the runner can stop or go on and list it.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ...processing import open_image
from .benchmarks import Benchmark
from .dataset_layouts import ImageLabelPair, find_layout, pair_folders
from .label_mapping import LabelIdError, LabelMapping

if TYPE_CHECKING:
    import datasets

__all__ = [
    "FolderDataset",
    "Sample",
    "SampleError",
    "SegmentationDataset",
    "StreamedDataset",
    "TableDataset",
    "load_benchmark_dataset",
    "load_folder_dataset",
]


_FILE_TYPES = (Path, io.BytesIO)
"""What is decoded; other values are pixels or ids themselves."""


class SampleError(ValueError):
    """Something is wrong with one sample.

    Args:
        kind: "missing image", "missing label", "unreadable image", "unreadable label", "label id", "size mismatch",
            "unusable regions", or "unusable image".
        path: The file, or the row of a table.
        message: What was expected and what came.
    """

    def __init__(self, kind: str, path: str | os.PathLike[str], message: str) -> None:
        super().__init__(f"{kind}: {path}: {message}")
        self.kind = kind
        self.path = str(path)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:  # exceptions with arguments of their own do not cross processes otherwise
        return type(self), (self.kind, self.path, self.message)


@dataclass(frozen=True)
class Sample:
    """One image with its truth.

    Args:
        index: Position in the dataset.
        name: Unique name, the same on every machine.
        image: Image of any mode, upright.
        labels: (height, width) class ids, `IGNORED` where not scored.
        regions: (height, width) regions, 0 for none, where they are asked for.
    """

    index: int
    name: str
    image: Image.Image
    labels: NDArray[np.int32]
    regions: NDArray[np.int64] | None = None


@runtime_checkable
class SegmentationDataset(Protocol):
    """A dataset whose samples are reached by index; it travels to worker processes, so it must pickle."""

    @property
    def title(self) -> str:
        """What reports call it."""
        ...

    @property
    def mapping(self) -> LabelMapping:
        """What the ids in its labels mean."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def load(self, index: int) -> Sample:
        """One sample; raises `SampleError`."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the dataset is, as JSON values that are the same on every machine."""
        ...


@dataclass(frozen=True)
class FolderDataset:
    """Images and label files by path.

    Args:
        title: What reports call it.
        pairs: The files.
        mapping: What the ids in the label files mean.
    """

    title: str
    pairs: Sequence[ImageLabelPair]
    mapping: LabelMapping

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> Sample:
        """One sample; raises `SampleError`."""
        pair = self.pairs[index]
        labels = _read_labels(pair.label, self.mapping, pair.label)
        image = _fit_orientation(_read_file("image", pair.image, pair.image), labels.shape, pair.image)
        return Sample(index, pair.name, image, labels)

    def describe(self) -> dict[str, Any]:
        """Title, number of images, hash of their names, label mapping."""
        lines = "".join(f"{pair.name}\n" for pair in self.pairs)  # file names need not be UTF-8
        return {
            "title": self.title,
            "images": len(self.pairs),
            "names_sha256": hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest(),
            "label_mapping": self.mapping.describe(),
        }


class TableDataset:
    """A `datasets.Dataset` with an image and a label column.

    The label column holds images (palette or greyscale, ids kept as they are) or integer arrays.

    Args:
        table: The table.
        mapping: What the ids in the labels mean.
        image_column: Its name.
        label_column: Its name.
        title: What reports call it.

    Raises:
        ValueError: A column is missing, or would change label ids on reading.
    """

    def __init__(
        self,
        table: "datasets.Dataset",
        mapping: LabelMapping,
        image_column: str = "image",
        label_column: str = "label",
        title: str = "dataset",
    ) -> None:
        self.mapping = mapping
        self.title = title
        self._columns = (image_column, label_column)
        self._table = _undecoded(table, self._columns)

    def __len__(self) -> int:
        return len(self._table)

    def load(self, index: int) -> Sample:
        """One sample; raises `SampleError`."""
        return _sample_from_row(index, self._table[index], self._columns, self.mapping, self.title)

    def describe(self) -> dict[str, Any]:
        """Title, number of images, hash of some rows, columns, label mapping."""
        return {
            "title": self.title,
            "images": len(self),
            "rows_sha256": self._hash_rows(),
            "columns": list(self._columns),
            "label_mapping": self.mapping.describe(),
        }

    def _hash_rows(self) -> str:
        """Tells tables of one size apart by a few rows; all of them might be terabytes."""
        digest = hashlib.sha256()
        for index in np.unique(np.linspace(0, len(self) - 1, num=min(len(self), 16), dtype=int)).tolist():
            for column in self._columns:
                value = self._table[index][column]
                is_file = isinstance(value, Mapping) and value.get("bytes") is None
                digest.update(Path(value["path"]).name.encode() if is_file else repr(value).encode())
        return digest.hexdigest()


class StreamedDataset:
    """A `datasets.IterableDataset` with an image and a label column, of unknown length.

    Samples have the index of their place in the stream. Those that a process skips are read, but not decoded.
    """

    def __init__(
        self,
        stream: "datasets.IterableDataset",
        mapping: LabelMapping,
        image_column: str = "image",
        label_column: str = "label",
        title: str = "stream",
    ) -> None:
        self.mapping = mapping
        self.title = title
        self._columns = (image_column, label_column)
        self._stream = _undecoded(stream, self._columns)

    def iterate_rows(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """(index, undecoded row) of every sample, in the stream's order."""
        # Iterated directly, a stream deals its shards out to the loader's workers: indices would differ between them.
        for index, batch in enumerate(self._stream.iter(batch_size=1)):
            yield index, {column: values[0] for column, values in batch.items()}

    def load_row(self, index: int, row: Mapping[str, Any]) -> Sample:
        """One sample from its row; raises `SampleError`."""
        return _sample_from_row(index, row, self._columns, self.mapping, self.title)

    def describe(self) -> dict[str, Any]:
        """Title, columns and label mapping; a stream has no length."""
        return {
            "title": self.title,
            "images": None,
            "columns": list(self._columns),
            "label_mapping": self.mapping.describe(),
        }


def load_benchmark_dataset(benchmark: Benchmark, folder: str | os.PathLike[str], split: str = "val") -> FolderDataset:
    """A benchmark's images and labels under a folder.

    Raises:
        FileNotFoundError: Its folders are not there; the message lists what was looked for.
    """
    found = find_layout(folder, benchmark.layouts, split, benchmark.title)
    return FolderDataset(f"{benchmark.title}, {split}", found.pairs, found.layout.mapping)


def load_folder_dataset(
    images: str | os.PathLike[str], labels: str | os.PathLike[str], mapping: LabelMapping, title: str | None = None
) -> FolderDataset:
    """Any folder of images with a folder of PNG label maps of the same names.

    Raises:
        FileNotFoundError: A folder is missing or empty.
    """
    return FolderDataset(title or Path(images).name, pair_folders(images, labels), mapping)


def _undecoded(table: Any, columns: tuple[str, str]) -> Any:
    """The table with undecoded images: decoding is ours, so that a broken file has a name and ids stay."""
    from datasets import Image as ImageFeature

    features = table.features
    if features is None:  # streams of unknown schema show it in their first row
        table = table._resolve_features()
        features = table.features
    missing = [column for column in columns if column not in features]
    if missing:
        raise ValueError(
            f"Expected the columns {list(columns)}, but {missing} is not among {list(features)}. Name the columns."
        )
    for column in columns:
        feature = features[column]
        if not isinstance(feature, ImageFeature):
            continue
        if column == columns[1] and feature.mode not in (None, "P"):
            raise ValueError(
                f"Expected label column {column!r} as `Image()`, but it is `Image(mode={feature.mode!r})`, which "
                "changes the ids of palette files. Cast the column to `Image()`."
            )
        table = table.cast_column(column, ImageFeature(decode=False))
    return table


def _sample_from_row(
    index: int, row: Mapping[str, Any], columns: tuple[str, str], mapping: LabelMapping, title: str
) -> Sample:
    (image_source, image_path), (label_source, label_path) = (
        _find_source(what, row[column], f"{title}, row {index}, column {column}")
        for what, column in zip(("image", "label"), columns, strict=True)
    )
    labels = _read_labels(label_source, mapping, label_path)
    if isinstance(image_source, _FILE_TYPES):
        image = _read_file("image", image_source, image_path)
    else:
        image = _image_from_array(np.asarray(image_source), image_path)
    return Sample(index, f"{index:08d}", _fit_orientation(image, labels.shape, image_path), labels)


def _find_source(what: str, value: Any, place: str) -> tuple[Any, str]:
    """What a value of a row is read from, its file or itself, and what errors call it."""
    if value is None:
        raise SampleError(f"missing {what}", place, "expected a value, but there is none")
    if not isinstance(value, Mapping):
        return value, place
    path, content = value.get("path"), value.get("bytes")
    source = Path(value["path"]) if content is None else io.BytesIO(content)
    return source, f"{place} ({path})" if path else place


def _image_from_array(array: NDArray[Any], path: str) -> Image.Image:
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255 and array.ndim in (2, 3):
        return Image.fromarray(array.astype(np.uint8)).convert("RGB")
    raise SampleError("unreadable image", path, f"expected 8-bit pixels, but got {array.dtype} of shape {array.shape}")


def _read_file(what: str, source: Any, path: str | os.PathLike[str]) -> Image.Image:
    """The decoded image or label file in its own mode: palette files give their indices, not their colours."""
    try:
        return open_image(source)
    except FileNotFoundError:
        raise SampleError(f"missing {what}", path, "expected a file, but there is none") from None
    except OSError as error:
        raise SampleError(f"unreadable {what}", path, str(error)) from None


def _read_labels(source: Any, mapping: LabelMapping, path: str | os.PathLike[str]) -> NDArray[np.int32]:
    """Class ids of a label map: of a file in any of its formats, or of integers as they are."""
    if isinstance(source, _FILE_TYPES):
        source = _read_file("label", source, path)
    try:
        return mapping.apply(np.asarray(source))
    except LabelIdError as error:
        raise SampleError("label id", path, str(error)) from None
    except ValueError as error:  # rows of different lengths
        raise SampleError("unreadable label", path, str(error)) from None


def _fit_orientation(image: Image.Image, label_shape: tuple[int, ...], path: str | os.PathLike[str]) -> Image.Image:
    """The image as viewers show it, or as it is stored where only that has the size of the label map; without EXIF."""
    stored = image.copy()
    for key in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
        stored.info.pop(key, None)  # later steps must not turn it again
    for candidate in (ImageOps.exif_transpose(image), stored):
        if (candidate.height, candidate.width) == tuple(label_shape):
            return candidate
    raise SampleError(
        "size mismatch",
        path,
        f"expected an image of the label map's height × width {label_shape[0]} × {label_shape[1]}, "
        f"but got {stored.height} × {stored.width}",
    )
