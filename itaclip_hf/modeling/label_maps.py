"""Label maps of whole images, tile by tile: one label and one score a pixel, whatever the number of classes."""

from collections.abc import Sequence

import torch

from .class_scores import Queries, compute_best_classes
from .query_maps import QueryMaps

__all__ = ["find_best_classes", "find_small_classes", "reassign_classes_"]


def find_best_classes(maps: QueryMaps, queries: Queries) -> tuple[torch.Tensor, torch.Tensor]:
    """The best class of each pixel and its score: (H₀, W₀) int64 and (H₀, W₀) float32."""
    device = queries.embeddings.device
    labels = torch.empty(maps.size, dtype=torch.int64, device=device)
    confidence = torch.empty(maps.size, device=device)
    for tile in maps.tiles:
        tile_maps = maps.compute(tile, queries.embeddings)
        labels[tile.core], confidence[tile.core] = compute_best_classes(tile_maps, queries, tile.size)
    return labels, confidence


def find_small_classes(labels: torch.Tensor, num_classes: int, area_threshold: float) -> list[int]:
    """Classes 1, 2, … that cover at most that share of all pixels of such classes, absent ones included."""
    counts = torch.bincount(labels.flatten(), minlength=num_classes).tolist()
    limit = area_threshold * sum(counts[1:])
    return [class_id for class_id, count in enumerate(counts) if class_id > 0 and count <= limit]


def reassign_classes_(
    labels: torch.Tensor, confidence: torch.Tensor, maps: QueryMaps, queries: Queries, dropped: Sequence[int]
) -> None:
    """Give the pixels of dropped classes to the best of the others, in place; tiles without such are left alone."""
    is_lost = torch.isin(labels, torch.tensor(dropped, dtype=labels.dtype, device=labels.device))
    for tile in maps.tiles:
        lost = is_lost[tile.core]
        if lost.any():
            tile_maps = maps.compute(tile, queries.embeddings)
            other_labels, other_confidence = compute_best_classes(tile_maps, queries, tile.size, dropped)
            labels[tile.core] = torch.where(lost, other_labels, labels[tile.core])
            confidence[tile.core] = torch.where(lost, other_confidence, confidence[tile.core])
