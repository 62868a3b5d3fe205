"""What tuning looks at instead of whole images: exact query values at a random sample of pixels, encoded once.

Everything before the softmax is linear in the weights to tune. So the refined cosine maps of a basis (the unflipped
and the flipped views, each with every class name, background word and mean auxiliary text) give the maps of any λ, α
and choice of background words by weighted sums, and scale and thresholds follow from those. Pixels are drawn uniformly
from each whole image: areas and confusion counts estimate the image's without bias. Closing needs neighbours, and is
left to the final evaluation.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ...methods import Settings
from ...modeling import ITACLIPForSemanticSegmentation
from ...modeling.data_contract import ImageInputs, read_images
from ...modeling.query_maps import QueryMaps
from ...modeling.windows import DenseFeatures
from ...processing import ITACLIPProcessor, Vocabulary
from ...processing.segmentation_maps import find_small_classes
from ..ablation.dense_variants import DenseVariant, encode_variants
from ..data.segmentation_datasets import SegmentationDataset
from ..metrics.confusion_matrix import IGNORED

__all__ = [
    "MixedSample",
    "PixelSample",
    "QueryBasis",
    "TunableSettings",
    "collect_sample",
    "collect_samples",
    "count_confusion",
]

UNFLIPPED, FLIPPED = (1 / 3, 1 / 3, 1 / 3, 0.0, 0.0), (0.0, 0.0, 0.0, 0.5, 0.5)
"""Weights of the processor's five views: λ times the first plus 1 - λ times the second."""

LARGEST_CACHE_BYTES = 2**31


@dataclass(frozen=True)
class TunableSettings(Settings):
    """One point of the search: all settings, and the words that form class 0.

    Args:
        background: The words.
    """

    background: tuple[str, ...] = ()

    @property
    def cost_order(self) -> tuple[float, float, tuple[str, ...]]:
        """Settings that are alike in this share work when they are neighbours."""
        return self.photometric_weight, self.auxiliary_weight, self.background


@dataclass(frozen=True)
class QueryBasis:
    """The texts that every query is mixed from.

    Args:
        embeddings: (texts, dim) unit vectors of the query names, then one mean of auxiliary texts for each class that
            has any.
        query_names: Name of each query, background words first.
        query_classes: Class of each query.
        auxiliary_rows: Row of the mean auxiliary text for each query; of its own name if its class has none.
        num_background: Number of queries that are background words.
    """

    embeddings: torch.Tensor
    query_names: tuple[str, ...]
    query_classes: tuple[int, ...]
    auxiliary_rows: tuple[int, ...]
    num_background: int

    @classmethod
    def encode(
        cls, model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, vocabulary: Vocabulary
    ) -> "QueryBasis":
        """Encode a vocabulary whose background holds every word that may be chosen."""
        auxiliary_alone = copy.copy(processor)
        auxiliary_alone.auxiliary_weight = 1.0
        inputs = auxiliary_alone(vocabulary=vocabulary, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            texts = model.encode_texts(inputs["input_ids"], inputs["attention_mask"])
        names, mixing = vocabulary.query_names, inputs["text_weight"]
        rows = list(range(len(names)))
        means: list[torch.Tensor] = []
        for _, members in groupby(range(len(names)), key=vocabulary.query_classes.__getitem__):
            queries = list(members)
            if mixing[queries[0], queries[0]] == 0:  # with α = 1 nothing is left of a name where there are such texts
                for query in queries:
                    rows[query] = len(names) + len(means)
                means.append(mixing[queries[0]].to(texts) @ texts)
        return cls(
            torch.stack([*texts[: len(names)], *means]),
            names,
            vocabulary.query_classes,
            tuple(rows),
            len(vocabulary.background),
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, the background included."""
        return self.query_classes[-1] + 1

    @property
    def has_auxiliary_texts(self) -> bool:
        """Whether α changes anything."""
        return len(self.embeddings) > len(self.query_names)

    def choose_queries(self, background: Sequence[str]) -> list[int]:
        """Queries of these background words and of all classes."""
        chosen = set(background)
        return [query for query, name in enumerate(self.query_names) if query >= self.num_background or name in chosen]


@dataclass(frozen=True)
class PixelSample:
    """Values at some pixels of one image.

    Args:
        values: (bases, texts, pixels) float32 refined cosines, of the unflipped views, then of the flipped ones; of
            the plain view alone without image engineering.
        labels: (pixels,) int64 class ids, or `IGNORED`.
        weight: Pixels of the image that each sampled one stands for.
    """

    values: torch.Tensor
    labels: torch.Tensor
    weight: float

    def mix(self, basis: QueryBasis, photometric_weight: float, auxiliary_weight: float) -> torch.Tensor:
        """(queries, pixels) cosines of all queries, views and texts mixed by weight."""
        names = self._mix_views(range(len(basis.query_names)), photometric_weight)
        if not basis.has_auxiliary_texts:
            return names
        return names.lerp_(self._mix_views(basis.auxiliary_rows, photometric_weight), auxiliary_weight)

    def _mix_views(self, texts: Sequence[int], photometric_weight: float) -> torch.Tensor:
        """(texts, pixels), a new tensor."""
        rows = torch.tensor(texts, device=self.values.device)
        if len(self.values) == 1:
            return self.values[0].index_select(0, rows)
        unflipped, flipped = (view.index_select(0, rows) for view in self.values)
        return flipped.lerp_(unflipped, photometric_weight)


def collect_samples(
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    basis: QueryBasis,
    dataset: SegmentationDataset,
    pixels: int,
    seed: int,
) -> Iterator[PixelSample]:
    """Encode each image of a dataset once and keep values at some of its pixels, drawn at random.

    There are `pixels` of each image, fewer if all images together would take more than 2 GiB.

    Raises:
        SampleError: If an image or a label map cannot be used.
    """
    bytes_per_pixel = 2 * 4 * len(basis.embeddings)  # two bases in float32
    affordable = LARGEST_CACHE_BYTES // (bytes_per_pixel * len(dataset))
    for index in range(len(dataset)):
        sample = dataset.load(index)
        rng = np.random.default_rng([seed, index])  # an image's pixels depend on no other image
        yield collect_sample(model, processor, basis, sample.image, sample.labels, min(pixels, affordable), rng)


@torch.inference_mode()
def collect_sample(
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    basis: QueryBasis,
    image: Image.Image,
    labels: NDArray[np.int32],
    pixels: int,
    rng: np.random.Generator,
) -> PixelSample:
    """Encode one image; see `collect_samples`."""
    chosen = rng.permutation(labels.size)[:pixels]
    places = torch.from_numpy(np.sort(chosen)).to(model.device)
    # All five views must come, whatever λ is; their weights are replaced by those of the basis.
    inputs = processor.image_processor(image, photometric_weight=0.5, return_tensors="pt").to(model.device)
    views = (UNFLIPPED, FLIPPED) if "augmentation_weight" in inputs else (None,)
    variants = [DenseVariant(model.config, weights) for weights in views]
    encoded = encode_variants(model, read_images(ImageInputs(**inputs), model.config), variants)
    values = torch.stack([_pick_values(model, features, basis.embeddings, places) for (features,) in encoded])
    flat_labels = torch.from_numpy(labels.reshape(-1).astype(np.int64)).to(model.device)
    return PixelSample(values, flat_labels[places], weight=labels.size / len(places))


class MixedSample:
    """One image's pixels with one choice of background words: labels and scores for any scale and thresholds.

    Args:
        mixed: (queries, pixels) of `PixelSample.mix`.
        basis: What the queries are.
        background: Words that form class 0.
    """

    def __init__(self, mixed: torch.Tensor, basis: QueryBasis, background: Sequence[str]) -> None:
        queries = torch.tensor(basis.choose_queries(background), device=mixed.device)
        self._cosines = mixed if len(queries) == len(mixed) else mixed.index_select(0, queries)
        self._classes = torch.tensor(basis.query_classes, device=mixed.device)[queries]
        best, winners = self._cosines.max(0)
        self._best = {0.0: (best, self._classes[winners])}
        self._sums: dict[float, torch.Tensor] = {}

    def label(self, settings: TunableSettings) -> torch.Tensor:
        """(pixels,) class ids after both thresholds."""
        labels = self._find_best(settings.area_threshold or 0.0)[1]
        if not settings.score_threshold:
            return labels
        return labels.masked_fill(self.score(settings) < settings.score_threshold, 0)

    def score(self, settings: TunableSettings) -> torch.Tensor:
        """(pixels,) score of the best class that the area threshold leaves: softmax over all queries."""
        # The highest cosine is taken off before the exponentials, which would overflow at a large scale.
        scale, highest = settings.similarity_scale, self._best[0.0][0]
        if scale not in self._sums:
            self._sums[scale] = (self._cosines - highest).mul_(scale).exp_().sum(0)
        best = self._find_best(settings.area_threshold or 0.0)[0]
        return (scale * (best - highest)).exp_() / self._sums[scale]

    def _find_best(self, area_threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and class of each pixel's best query; what small classes had goes to the next best class."""
        if area_threshold not in self._best:
            self._best[area_threshold] = self._drop_small(*self._best[0.0], area_threshold)
        return self._best[area_threshold]

    def _drop_small(
        self, best: torch.Tensor, labels: torch.Tensor, area_threshold: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        is_small = find_small_classes(labels, int(self._classes[-1]) + 1, area_threshold)
        # The next best is looked for where a class was lost alone: small classes cover few pixels.
        lost, others = is_small[labels], ~is_small[self._classes]
        next_best, winners = self._cosines[others][:, lost].max(0)
        return best.masked_scatter(lost, next_best), labels.masked_scatter(lost, self._classes[others][winners])


def count_confusion(
    samples: Iterable[PixelSample], basis: QueryBasis, settings: Sequence[TunableSettings]
) -> NDArray[np.float64]:
    """Estimated confusion matrix of each of some settings over all images.

    Args:
        samples: The images.
        basis: As in `collect_samples`.
        settings: Points of the search; neighbours with the same λ and α share the mixing, and those with the same
            background, too, the best queries.

    Returns:
        (settings, C, C) pixels, rows are labels.
    """
    num_classes = basis.num_classes
    totals = np.zeros((len(settings), num_classes, num_classes))
    for sample in samples:
        is_scored = sample.labels != IGNORED
        codes = sample.labels[is_scored] * num_classes
        for position, predicted in enumerate(_label_each(sample, basis, settings)):
            counts = torch.bincount(codes + predicted[is_scored], minlength=num_classes**2)
            totals[position] += sample.weight * counts.view(num_classes, num_classes).cpu().numpy()
    return totals


def _label_each(sample: PixelSample, basis: QueryBasis, settings: Sequence[TunableSettings]) -> Iterator[torch.Tensor]:
    for weights, members in groupby(settings, key=lambda point: (point.photometric_weight, point.auxiliary_weight)):
        mixed = sample.mix(basis, *weights)
        for background, points in groupby(members, key=lambda point: point.background):
            yield from map(MixedSample(mixed, basis, background).label, points)


def _pick_values(
    model: ITACLIPForSemanticSegmentation, features: DenseFeatures, embeddings: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """(texts, pixels) refined cosines, not scaled, at places that count row by row."""
    unscaled = copy.copy(model.config)
    unscaled.similarity_scale = 1.0  # which is tuned later: maps come as plain cosines
    maps = QueryMaps(features, unscaled)
    width = maps.size[1]
    rows, columns = places // width, places % width
    values = torch.empty(len(embeddings), len(places), device=places.device)
    for tile in maps.tiles:
        core_rows, core_columns = tile.core
        inside = (rows >= core_rows.start) & (rows < core_rows.stop)
        inside &= (columns >= core_columns.start) & (columns < core_columns.stop)
        at = rows[inside] - core_rows.start, columns[inside] - core_columns.start
        first = 0
        for chunk in maps.compute(tile, embeddings):
            values[first : first + chunk.shape[-1], inside] = chunk[at].T
            first += chunk.shape[-1]
    return values
