"""Class scores from query maps: softmax over all queries, then the best query of each class.

Queries arrive in chunks, so that memory does not grow with their number: a running log-sum-exp stands for the
softmax's denominator. Either every class is written out once its last query has come, as logarithms, or the best class
of each pixel alone is kept. Large images go by tiles.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from .query_maps import QueryMaps, Tile

__all__ = ["BestClasses", "Queries", "compute_best_classes", "compute_class_logits", "score_classes"]


class Queries(NamedTuple):
    """What pixels are compared with, those of a class next to one another.

    Attributes:
        embeddings: (queries, dim) float32.
        classes: Class of each query, ascending.
        num_classes: Number of classes; those without a query never win.
    """

    embeddings: torch.Tensor
    classes: list[int]
    num_classes: int

    @classmethod
    def sort(cls, embeddings: torch.Tensor, query_classes: torch.Tensor, num_classes: int | None = None) -> "Queries":
        """Bring queries, (queries, dim) with their classes (queries,), into the order that scoring needs."""
        classes, order = query_classes.to(embeddings.device).sort(stable=True)
        listed = classes.tolist()  # once, as each number that is read from a GPU waits for it
        return cls(embeddings[order], listed, listed[-1] + 1 if num_classes is None else num_classes)


class BestClasses:
    """The best class of each pixel of one image, whatever the number of classes, and on demand the best of the others.

    Attributes:
        labels: (H₀, W₀) int64, the class with the highest score.
        confidence: (H₀, W₀) float32, that score, between 0 and 1.
        num_classes: Number of classes.
    """

    def __init__(self, maps: QueryMaps, queries: Queries) -> None:
        self.labels = torch.empty(maps.size, dtype=torch.int64, device=maps.device)
        self.confidence = torch.empty(maps.size, dtype=torch.float32, device=maps.device)
        self.num_classes = queries.num_classes
        self._maps, self._queries = maps, queries
        self._is_dropped: torch.Tensor | None = None
        for tile in maps.tiles:
            self.labels[tile.core], self.confidence[tile.core] = self._compute(tile)

    def drop_classes_(self, is_dropped: torch.Tensor) -> None:
        """Give the pixels of some classes to the best of the others, in place; other pixels stay as they are.

        Args:
            is_dropped: (classes,) bool.
        """
        self._is_dropped = is_dropped  # for `find_others`, which must not bring them back
        is_lost = is_dropped[self.labels]
        for tile in self._maps.tiles:
            lost = is_lost[tile.core]
            if lost.any():  # a second look at such tiles alone
                labels, confidence = self._compute(tile, is_dropped)
                self.labels[tile.core] = torch.where(lost, labels, self.labels[tile.core])
                self.confidence[tile.core] = torch.where(lost, confidence, self.confidence[tile.core])

    def find_others(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The best class beside a given one of each pixel, such as the runner-up to the final label.

        Args:
            labels: (H₀, W₀) class ids.

        Returns:
            Class ids int64, -1 where no other class is left, and their scores float32, both (H₀, W₀).
        """
        others, scores = torch.empty_like(self.labels), torch.empty_like(self.confidence)
        for tile in self._maps.tiles:
            others[tile.core], scores[tile.core] = self._compute(tile, self._is_dropped, labels[tile.core])
        return others, scores

    @torch.no_grad()
    def _compute(
        self, tile: Tile, is_dropped: torch.Tensor | None = None, barred: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(self.labels.device.type, enabled=False):  # sums of many terms need float32
            maps = self._maps.compute(tile, self._queries.embeddings)
            return compute_best_classes(maps, self._queries, tile.size, is_dropped, barred)


def score_classes(maps: QueryMaps, queries: Queries) -> torch.Tensor:
    """Log class scores of one image, (classes, H₀, W₀) float32; see [`compute_class_logits`]."""
    if len(maps.tiles) == 1:  # nothing to put together, and no copy
        return compute_class_logits(maps.compute(maps.tiles[0], queries.embeddings), queries, maps.size)
    logits = torch.empty(queries.num_classes, *maps.size, dtype=torch.float32, device=maps.device)
    for tile in maps.tiles:
        rows, columns = tile.core
        tile_maps = maps.compute(tile, queries.embeddings)
        logits[:, rows, columns] = compute_class_logits(tile_maps, queries, tile.size)
    return logits


def compute_class_logits(maps: Iterable[torch.Tensor], queries: Queries, size: tuple[int, int]) -> torch.Tensor:
    """Log of each class's score: `log max over its queries of softmax over all queries`.

    Args:
        maps: Chunks of scaled cosine maps, (height, width, n) each, in the order of `queries`.
        queries: The queries; a class without one gets `-inf`, a score of 0.
        size: (height, width) of the maps.

    Returns:
        (classes, height, width) float32
    """
    device = queries.embeddings.device
    classes = queries.classes
    logits = torch.full((queries.num_classes, *size), -torch.inf, dtype=torch.float32, device=device)
    log_sum = torch.full(size, -torch.inf, dtype=torch.float32, device=device)
    class_id, best = classes[0], log_sum  # of the class that is open, as its queries may go on in the next chunk
    position = 0
    for chunk in maps:
        log_sum = torch.logaddexp(log_sum, chunk.logsumexp(-1))
        for next_id, candidate in _best_per_class(chunk, classes[position : position + chunk.shape[-1]]):
            if next_id == class_id:
                best = torch.maximum(best, candidate)
            else:
                logits[class_id] = best
                class_id, best = next_id, candidate
        position += chunk.shape[-1]
    logits[class_id] = best
    return logits.sub_(log_sum)


def compute_best_classes(
    maps: Iterable[torch.Tensor],
    queries: Queries,
    size: tuple[int, int],
    is_dropped: torch.Tensor | None = None,
    barred: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The class with the highest score of each pixel, and that score; never holds one map for every class.

    Args:
        maps: Chunks of scaled cosine maps, (height, width, n) each, in the order of `queries`.
        queries: The queries.
        size: (height, width) of the maps.
        is_dropped: (classes,) bool, classes that cannot win. Their queries stay in the softmax, so other scores stay
            as they are.
        barred: (height, width), a class for each pixel that cannot win there.

    Returns:
        Class ids int64 (of equal scores the lowest), and scores float32, both (height, width). Where no class is left,
        class 0, or -1 if `barred` is given, with a score of 0.
    """
    device = queries.embeddings.device
    class_of_query = torch.tensor(queries.classes, device=device)
    is_out = None if is_dropped is None else is_dropped[class_of_query]
    # A score of 0 does not tell where no class is left: that of a class far behind rounds to 0, too.
    labels = torch.full(size, 0 if barred is None else -1, dtype=torch.int64, device=device)
    best = torch.full(size, -torch.inf, dtype=torch.float32, device=device)
    log_sum = torch.full(size, -torch.inf, dtype=torch.float32, device=device)
    position = 0
    for chunk in maps:
        part = slice(position, position + chunk.shape[-1])
        position = part.stop
        log_sum = torch.logaddexp(log_sum, chunk.logsumexp(-1))  # before any is left out: the softmax is of all
        if is_out is not None:
            chunk = chunk.masked_fill(is_out[part], -torch.inf)
        if barred is not None:
            chunk = chunk.masked_fill(class_of_query[part] == barred[..., None], -torch.inf)
        candidate, index = chunk.max(-1)
        is_better = candidate > best  # not equal: the first of equals stays, and a chunk that is all out never wins
        labels = torch.where(is_better, class_of_query[part][index], labels)
        best = torch.where(is_better, candidate, best)
    return labels, (best - log_sum).exp_()


def _best_per_class(maps: torch.Tensor, classes: list[int]) -> Iterator[tuple[int, torch.Tensor]]:
    start = 0
    while start < len(classes):
        stop = start + classes[start:].count(classes[start])
        yield classes[start], maps[..., start:stop].amax(-1)
        start = stop
