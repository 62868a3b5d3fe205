"""Confusion counts of every image, stored compactly: what progress files, reports and the bootstrap are made of.

An image's confusion matrix has a few dozen entries that are not zero. They are kept as (code, count) pairs strung
together over the images, so that 5000 images of 171 classes take a few megabytes and their sum is the exact matrix of
the set.
"""

import io
import itertools
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files import run_uninterrupted, write_atomically
from .confusion_matrix import decode_pair_counts, divide_counts

__all__ = ["ImageCounts"]


@dataclass(frozen=True)
class ImageCounts:
    """Sparse confusion matrices of N images.

    Args:
        num_classes: Number of classes C.
        indices: (N,) position in the dataset.
        names: (N,) names of the images.
        offsets: (N + 1,) image n owns the pairs `offsets[n]:offsets[n + 1]`.
        codes: (pairs,) label * C + prediction.
        counts: (pairs,) pixels.
    """

    num_classes: int
    indices: NDArray[np.int64]
    names: NDArray[np.str_]
    offsets: NDArray[np.int64]
    codes: NDArray[np.uint32]
    counts: NDArray[np.uint32]

    @classmethod
    def from_images(
        cls, num_classes: int, images: Sequence[tuple[int, str, NDArray[np.int64], NDArray[np.int64]]]
    ) -> "ImageCounts":
        """From (index, name, codes, counts) of each image."""
        return cls(
            num_classes,
            indices=np.array([index for index, *_ in images], dtype=np.int64),
            names=np.array([name for _, name, *_ in images], dtype=np.str_),
            offsets=np.cumsum([0, *(len(codes) for *_, codes, _ in images)], dtype=np.int64),
            codes=_concatenate([codes for *_, codes, _ in images]),
            counts=_concatenate([counts for *_, counts in images]),
        )

    @classmethod
    def merge(cls, num_classes: int, parts: Iterable["ImageCounts"]) -> "ImageCounts":
        """All images of several parts, in the dataset's order, each once.

        A process that outlived its run may have counted an image that the next run counted again; equal counts are
        taken once.

        Raises:
            ValueError: An image occurs twice with other counts, or a part has another number of classes.
        """
        images: list[tuple[int, str, NDArray[Any], NDArray[Any]]] = []
        for part in parts:
            if part.num_classes != num_classes:
                raise ValueError(f"Expected counts of {num_classes} classes, but got {part.num_classes}.")
            images.extend((int(part.indices[n]), str(part.names[n]), *part.pairs(n)) for n in range(len(part)))
        images.sort(key=lambda image: image[0])
        once = images[:1]
        for image, after in itertools.pairwise(images):
            if image[0] != after[0]:
                once.append(after)
            elif not (np.array_equal(image[2], after[2]) and np.array_equal(image[3], after[3])):
                raise ValueError(f"Expected one result for every image, but {after[1]} has two that differ.")
        return cls.from_images(num_classes, once)

    def __len__(self) -> int:
        return len(self.indices)

    def pairs(self, position: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Codes and counts of one image."""
        owned = slice(self.offsets[position], self.offsets[position + 1])
        return self.codes[owned], self.counts[owned]

    def confusion(self) -> NDArray[np.int64]:
        """(C, C) matrix of all images together."""
        return decode_pair_counts(self.codes, self.counts, self.num_classes)

    def areas(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Intersection, predicted area and labelled area of every image and class, (N, C) each."""
        image = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        label, prediction = np.divmod(self.codes.astype(np.int64), self.num_classes)
        counts = self.counts.astype(np.int64)
        agree = label == prediction
        intersection, predicted, labelled = (np.zeros((len(self), self.num_classes), dtype=np.int64) for _ in range(3))
        np.add.at(intersection, (image[agree], label[agree]), counts[agree])
        np.add.at(predicted, (image, prediction), counts)
        np.add.at(labelled, (image, label), counts)
        return intersection, predicted, labelled

    def image_scores(self) -> NDArray[np.float64]:
        """(N,) mIoU of every image over the classes in its label or prediction; nan where nothing is scored."""
        intersection, predicted, labelled = self.areas()
        iou = divide_counts(intersection, predicted + labelled - intersection)
        # Not `np.nanmean`, which warns of images without a scored pixel.
        return divide_counts(np.nan_to_num(iou).sum(axis=1), (~np.isnan(iou)).sum(axis=1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an `.npz` file: a reader sees all of it or nothing."""
        content = run_uninterrupted(self._pack)
        with write_atomically(path) as file:
            file.write(content)

    def _pack(self) -> bytes:
        """What the file holds."""
        content = io.BytesIO()
        np.savez_compressed(
            content,
            num_classes=np.int64(self.num_classes),
            indices=self.indices,
            names=self.names,
            offsets=self.offsets,
            codes=self.codes,
            counts=self.counts,
        )
        return content.getvalue()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ImageCounts":
        """Reads a file of `save`.

        Raises:
            ValueError: It is no such file.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as arrays:
                fields = {name: arrays[name] for name in ("indices", "names", "offsets", "codes", "counts")}
                return cls(int(arrays["num_classes"]), **fields)
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"Expected per-image counts in {path}, but could not read them: {error}.") from error


def _concatenate(arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.uint32]:
    return np.concatenate([np.zeros(0, dtype=np.uint32), *(array.astype(np.uint32) for array in arrays)])
