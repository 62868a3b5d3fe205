"""Attention maps of the last block: softmax maps among queries, keys and values, summed and blended over blocks.

ITACLIP weighs the last block's values by softmax(q qᵀ) + softmax(k kᵀ), half from the last block, half the mean of
some intermediate blocks. A blend of maps times the values is the blend of ordinary attentions that share the values,
so no (tokens, tokens) map is ever stored and any attention kernel of Transformers will do.
"""

from collections.abc import Sequence
from functools import reduce

import torch

from .attention_map_registry import Attend, HeadProjections, get_attention_map

__all__ = ["HeadProjections", "attend_by_maps", "compute_neighbourhood_prior", "weigh_blocks"]


def attend_by_maps(
    attend: Attend,
    blocks: Sequence[tuple[float, HeadProjections]],
    attention_maps: Sequence[str],
    value: torch.Tensor,
) -> torch.Tensor:
    """Weigh `value` by the blended attention map of several blocks.

    Args:
        attend: Ordinary attention: (query, key, value), each (batch, heads, tokens, head_dim), to
            (batch, tokens, heads, head_dim).
        blocks: Weight and projections of each block whose map takes part.
        attention_maps: Names of the registered maps that are summed.
        value: Values of the last block, (batch, heads, tokens, head_dim).

    Returns:
        (batch, tokens, heads, head_dim): the sum over blocks b and maps m of `weight_b * m_b @ value`, where a map
        named xy is `softmax(x_b y_bᵀ / √d)`.

    Raises:
        ValueError: If a name is not registered.
    """
    terms = []
    for weight, projections in blocks:
        for name in attention_maps:
            term = get_attention_map(name)(attend, projections, value)
            terms.append(term if weight == 1 else weight * term)
    return reduce(torch.add, terms)


def weigh_blocks(
    last: HeadProjections, intermediate: Sequence[HeadProjections], intermediate_weight: float
) -> list[tuple[float, HeadProjections]]:
    """Give the last block the weight `1 - w` and each of n intermediate ones `w / n`; the last one alone gets 1."""
    if not intermediate:
        return [(1.0, last)]
    share = intermediate_weight / len(intermediate)
    return [(1.0 - intermediate_weight, last), *((share, projections) for projections in intermediate)]


def compute_neighbourhood_prior(grid: tuple[int, int], std: float, like: torch.Tensor) -> torch.Tensor:
    """Gaussian of the distance between patches, added to the scaled products so that near patches see each other.

    Source: NACLIP, "Pay Attention to Your Neighbours" (WACV 2025): `exp(-distance² / (2 std²))`, peak 1, zero where
    the class token is one of the two.

    Args:
        grid: Patch grid (height, width).
        std: Standard deviation in patches, above 0.
        like: Tensor whose device and dtype the result takes.

    Returns:
        (1, 1, 1 + height * width, 1 + height * width)
    """
    height, width = grid
    rows = torch.arange(height, device=like.device, dtype=torch.float32).repeat_interleave(width)
    columns = torch.arange(width, device=like.device, dtype=torch.float32).repeat(height)
    squared_distance = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
    prior = torch.nn.functional.pad(torch.exp(-squared_distance / (2 * std**2)), (1, 0, 1, 0))
    return prior[None, None].to(like.dtype)
