"""Refined maps of texts, from which those of all queries are mixed, and label maps of classes whose queries change.

Stitching, refinement and scale are linear, and a query is a weighted sum of texts; so is its map. An image is stitched
and refined once, and a class that is looked for in other words changes nothing of the others' maps.
"""

import torch

from ..modeling import ITACLIPConfig
from ..modeling.class_scores import Queries
from ..modeling.query_maps import QueryMaps
from ..modeling.windows import DenseFeatures
from ..processing import ITACLIPProcessor, Vocabulary

__all__ = ["ClassMaps", "EncodedTexts", "compute_text_maps"]


class EncodedTexts:
    """The texts of a vocabulary, and how to mix queries of any part of them.

    Args:
        processor: Mixes them.
        vocabulary: The whole vocabulary.
        embeddings: (texts, dim) unit vectors, in the processor's order.
    """

    def __init__(self, processor: ITACLIPProcessor, vocabulary: Vocabulary, embeddings: torch.Tensor) -> None:
        self.embeddings = embeddings
        self._processor = processor
        self._rows = {text: row for row, text in enumerate(processor.mix_texts(vocabulary)[0])}

    def mix(self, vocabulary: Vocabulary) -> Queries:
        """Queries of a part of the vocabulary; in the place of embeddings, the weights of all texts."""
        texts, _, mixing = self._processor.mix_texts(vocabulary)
        columns = torch.tensor([self._rows[text] for text in texts])
        # Added up, as a text may come twice: as a name and as a definition.
        weights = torch.zeros(len(mixing), len(self.embeddings), dtype=torch.float32).index_add_(
            1, columns, torch.from_numpy(mixing)
        )
        return Queries(weights.to(self.embeddings.device), list(vocabulary.query_classes), len(vocabulary.labels))


def compute_text_maps(features: DenseFeatures, config: ITACLIPConfig, embeddings: torch.Tensor) -> torch.Tensor:
    """(height, width, texts) float32 scaled maps of an encoded image, for (texts, dim) embeddings."""
    maps = QueryMaps(features, config)
    of_texts = torch.empty(*maps.size, len(embeddings), dtype=torch.float32, device=maps.device)
    for tile in maps.tiles:
        of_texts[tile.core] = torch.cat([*maps.compute(tile, embeddings)], -1)
    return of_texts


class ClassMaps:
    """What each class makes of its queries, and the label map that comes of it, for the processor to finish.

    Args:
        best: (height, width, classes) map of each class's best query.
        sums: (height, width, classes) log-sum-exp over its queries.

    Attributes:
        labels: (height, width) int64, the class with the best query.
        confidence: (height, width) float32, its score.
        num_classes: Number of classes.
    """

    def __init__(self, best: torch.Tensor, sums: torch.Tensor) -> None:
        self._best, self._sums, self._log_sum = best, sums, sums.logsumexp(-1)
        highest, self.labels = best.max(-1)
        self.confidence = (highest - self._log_sum).exp_()
        self.num_classes = best.shape[-1]

    @classmethod
    def of_queries(cls, maps: torch.Tensor, queries: Queries) -> "ClassMaps":
        """Of (height, width, queries) in the order of their classes, with a query at least for every class."""
        parts = maps.split([queries.classes.count(index) for index in range(queries.num_classes)], -1)
        return cls(
            torch.stack([part.amax(-1) for part in parts], -1), torch.stack([part.logsumexp(-1) for part in parts], -1)
        )

    def with_class(self, index: int, maps: torch.Tensor) -> "ClassMaps":
        """The same, with one class looked for by other queries: (height, width, queries)."""
        best, sums = self._best.clone(), self._sums.clone()
        best[..., index], sums[..., index] = maps.amax(-1), maps.logsumexp(-1)
        return ClassMaps(best, sums)

    def drop_classes_(self, is_dropped: torch.Tensor) -> None:
        """Give the pixels of some classes, (classes,) bool, to the best of the others, in place."""
        lost = is_dropped[self.labels]
        highest, self.labels[lost] = self._best[lost].masked_fill(is_dropped, -torch.inf).max(-1)
        self.confidence[lost] = (highest - self._log_sum[lost]).exp()

    def score(self) -> torch.Tensor:
        """(height, width, classes) class scores: softmax over all queries, then each class's best."""
        return (self._best - self._log_sum[..., None]).exp_()
