"""Batches of prepared samples, made in worker processes: which images go together and which process gets them.

Batch b holds the images with indices b·B … b·B + B − 1 and belongs to process b modulo N. Images that are done are
left out; samples that cannot be used become errors in the batch.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ...image_errors import find_image_error
from ..data.segmentation_datasets import Sample, SampleError, SegmentationDataset, StreamedDataset

__all__ = ["PreparedBatch", "batch_source", "be_quiet_when_left"]

PrepareImages = Callable[..., Mapping[str, Any]]  # a list of images, and `region_maps` where samples have regions


@dataclass
class PreparedBatch:
    """Samples that are predicted together.

    Args:
        indices: Positions in the dataset.
        names: Names of the images.
        labels: (height, width) class ids of each.
        inputs: What the predictor's `prepare_images` made of the images; None if no sample is usable.
        errors: (index, error) of the unusable ones.
    """

    indices: list[int]
    names: list[str]
    labels: list[NDArray[np.int32]]
    inputs: Mapping[str, Any] | None
    errors: list[tuple[int, SampleError]]

    def pin_memory(self) -> "PreparedBatch":
        """Called by the `DataLoader` where a GPU is used: pinned tensors are copied while the host goes on."""
        if self.inputs is not None:
            self.inputs = _pin(self.inputs)
        return self

    def split(self) -> Iterator["PreparedBatch"]:
        """A batch for each image."""
        for place, (index, name, labels) in enumerate(zip(self.indices, self.names, self.labels, strict=True)):
            yield PreparedBatch([index], [name], [labels], _pick(self.inputs, place), [])


def batch_source(
    dataset: SegmentationDataset | StreamedDataset,
    prepare_images: PrepareImages,
    batch_size: int,
    limit: int | None,
    done: frozenset[int],
    process_index: int,
    num_processes: int,
) -> tuple["Dataset[PreparedBatch] | IterableDataset[PreparedBatch]", int | None]:
    """The batches of one process, for a `DataLoader` with `batch_size=None`, and its number of images.

    Only indices below the limit come, without those that are done. Nobody knows the number of images of a stream.
    """
    if isinstance(dataset, StreamedDataset):
        return _StreamedBatches(dataset, prepare_images, batch_size, limit, done, process_index, num_processes), None
    size = len(dataset) if limit is None else min(limit, len(dataset))
    batches = []
    for first in range(process_index * batch_size, size, num_processes * batch_size):
        indices = [index for index in range(first, min(first + batch_size, size)) if index not in done]
        if indices:
            batches.append(indices)
    return _IndexedBatches(dataset, prepare_images, batches), sum(map(len, batches))


@dataclass
class _IndexedBatches(Dataset[PreparedBatch]):
    """Batches of samples that are reached by index."""

    dataset: SegmentationDataset
    prepare_images: PrepareImages
    batches: Sequence[list[int]]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> PreparedBatch:
        loaders = [(index, functools.partial(self.dataset.load, index)) for index in self.batches[position]]
        return _prepare_batch(loaders, self.prepare_images)


@dataclass
class _StreamedBatches(IterableDataset[PreparedBatch]):
    """Batches of a stream; every worker reads all of it and decodes its own batches."""

    dataset: StreamedDataset
    prepare_images: PrepareImages
    batch_size: int
    limit: int | None
    done: frozenset[int]
    process_index: int
    num_processes: int

    def __iter__(self) -> Iterator[PreparedBatch]:
        worker = get_worker_info()
        worker_index, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # Numbers that leave this rest are the process's modulo N, dealt out among its workers.
        mine = self.process_index + self.num_processes * worker_index
        all_workers = self.num_processes * num_workers
        batch: list[tuple[int, Callable[[], Sample]]] = []
        batch_number = -1
        for index, row in self.dataset.iterate_rows():
            if self.limit is not None and index >= self.limit:
                break
            if index // self.batch_size != batch_number:
                if batch:
                    yield _prepare_batch(batch, self.prepare_images)
                batch, batch_number = [], index // self.batch_size
            if batch_number % all_workers == mine and index not in self.done:
                batch.append((index, functools.partial(self.dataset.load_row, index, row)))
        if batch:
            yield _prepare_batch(batch, self.prepare_images)


def be_quiet_when_left(worker: int) -> None:
    """For the start of a `DataLoader`'s worker: who asked for its tensors may be gone, and has told why itself."""
    report = sys.excepthook  # where the thread that hands tensors over tells its errors; others reach the main process

    def report_others(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConnectionError | EOFError):
            report(kind, error, trace)

    sys.excepthook = report_others


def _pin(value: Any) -> Any:
    """The value with its tensors pinned, in mappings of mappings, too."""
    if isinstance(value, Mapping):
        return {key: _pin(item) for key, item in value.items()}
    return value.pin_memory() if isinstance(value, torch.Tensor) else value


def _pick(value: Any, place: int) -> Any:
    """The entry of one image, still as a batch."""
    if isinstance(value, Mapping):
        return {key: _pick(item, place) for key, item in value.items()}
    return value[place : place + 1]


def _prepare_batch(
    loaders: Sequence[tuple[int, Callable[[], Sample]]], prepare_images: PrepareImages
) -> PreparedBatch:
    samples, errors = [], []
    for index, load in loaders:
        try:
            samples.append(load())
        except SampleError as error:
            errors.append((index, error))
    try:
        inputs = _prepare(samples, prepare_images)
    except SampleError:  # of one of them: the others do without it
        samples, unusable = _part_unusable(samples, prepare_images)
        errors += unusable
        inputs = _prepare(samples, prepare_images)
    return PreparedBatch(
        indices=[sample.index for sample in samples],
        names=[sample.name for sample in samples],
        labels=[sample.labels for sample in samples],
        inputs=inputs,
        errors=errors,
    )


def _part_unusable(
    samples: Sequence[Sample], prepare_images: PrepareImages
) -> tuple[list[Sample], list[tuple[int, SampleError]]]:
    """The samples whose images can be prepared, and the errors of the others."""
    usable, errors = [], []
    for sample in samples:
        try:
            _prepare([sample], prepare_images)
            usable.append(sample)
        except SampleError as error:
            errors.append((sample.index, error))
    return usable, errors


def _prepare(samples: Sequence[Sample], prepare_images: PrepareImages) -> Mapping[str, Any] | None:
    try:
        if not samples:
            return None
        regions = [sample.regions for sample in samples]
        of_regions = {} if regions[0] is None else {"region_maps": regions}
        return prepare_images([sample.image for sample in samples], **of_regions)
    except Exception as error:
        reason = find_image_error(error)
        if reason is None:
            raise
        raise SampleError("unusable image", samples[0].name, reason) from None
