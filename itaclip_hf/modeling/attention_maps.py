"""Attention maps by name, and their blend in the last block: softmax maps among queries, keys and values.

Built in are `softmax(x yᵀ / √d)` for any two letters x, y out of q, k, v, and the identity. A new term is a function
and a name; configurations then accept that name. ITACLIP weighs the last block's values by softmax(q qᵀ) +
softmax(k kᵀ), half from the last block, half the mean of some intermediate blocks. A blend of maps times the values is
the blend of ordinary attentions that share the values, so no (tokens, tokens) map is ever stored and any attention
kernel of Transformers will do. Configurations read names here, so torch is not imported before a map is computed.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = [
    "Attend",
    "AttentionMap",
    "HeadProjections",
    "attend_by_maps",
    "attention_map_names",
    "compute_neighbourhood_prior",
    "get_attention_map",
    "register_attention_map",
    "weigh_blocks",
]

LETTERS = "qkv"


class HeadProjections(NamedTuple):
    """Queries, keys and values of one block, each (batch, heads, tokens, head_dim)."""

    query: "torch.Tensor"
    key: "torch.Tensor"
    value: "torch.Tensor"


Attend = Callable[["torch.Tensor", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Ordinary attention by the configured kernel, `softmax(query keyᵀ / √d + prior) @ value`, with the last block's
neighbourhood prior where there is one: query, key, value (batch, heads, tokens, head_dim) -> (batch, tokens, heads,
head_dim)."""

AttentionMap = Callable[[Attend, HeadProjections, "torch.Tensor"], "torch.Tensor"]
"""One term: an attention map of a block, already multiplied by the values of the last block.

It gets ordinary attention (calling that with other queries and keys is all that most terms need), the projections of
the block whose map takes part (the last one or an intermediate one) and the values of the last block, (batch, heads,
tokens, head_dim), class token first. It returns (batch, tokens, heads, head_dim)."""


def register_attention_map(name: str, attention_map: AttentionMap, exist_ok: bool = False) -> None:
    """Make a new term known by a name, for `ITACLIPConfig.attention_maps`.

    A configuration stores the name alone: whoever loads it registers the term first.

    Args:
        name: What configurations call it; a Python name.
        attention_map: The function.
        exist_ok: Whether to replace a term that was registered before, as when the cell of a notebook runs again.

    Raises:
        ValueError: If the name is no Python name, is built in, or is taken and `exist_ok` is off.

    Example:
    ```python
    >>> from itaclip_hf import ITACLIPConfig
    >>> from itaclip_hf.modeling import register_attention_map

    >>> def attend_sharply(attend, projections, value):
    ...     return attend(2 * projections.key, projections.key, value)
    >>> register_attention_map("sharp_kk", attend_sharply)
    >>> ITACLIPConfig(attention_maps=("qq", "sharp_kk")).attention_maps
    ('qq', 'sharp_kk')

    ```
    """
    if not name.isidentifier():
        raise ValueError(f"Expected a name for the attention map like 'kk_cosine', but got {name!r}.")
    if name in _BUILT_IN or (name in _MAPS and not exist_ok):
        advice = "Choose another name." if name in _BUILT_IN else "Choose another, or pass `exist_ok=True`."
        raise ValueError(f"Expected a new name for the attention map, but {name!r} is taken. {advice}")
    _MAPS[name] = attention_map


def get_attention_map(name: str) -> AttentionMap:
    """The term of that name.

    Raises:
        ValueError: If none of that name is registered.
    """
    if name not in _MAPS:
        raise ValueError(
            f"Expected an attention map out of {attention_map_names()}, but got {name!r}. Make a new one known by "
            "`register_attention_map`."
        )
    return _MAPS[name]


def attention_map_names() -> tuple[str, ...]:
    """Names of all terms, the built-in ones first."""
    return tuple(_MAPS)


def attend_by_maps(
    attend: Attend,
    blocks: Sequence[tuple[float, HeadProjections]],
    names: Sequence[str],
    value: "torch.Tensor",
) -> "torch.Tensor":
    """Weigh `value` by the blended attention map of several blocks.

    Args:
        attend: Ordinary attention: (query, key, value), each (batch, heads, tokens, head_dim), to
            (batch, tokens, heads, head_dim).
        blocks: Weight and projections of each block whose map takes part.
        names: Of the registered maps that are summed.
        value: Values of the last block, (batch, heads, tokens, head_dim).

    Returns:
        (batch, tokens, heads, head_dim): the sum over blocks b and maps m of `weight_b * m_b @ value`, where a map
        named xy is `softmax(x_b y_bᵀ / √d)`.

    Raises:
        ValueError: If a name is not registered.
    """
    terms = []
    for weight, projections in blocks:
        for name in names:
            term = get_attention_map(name)(attend, projections, value)
            terms.append(term if weight == 1 else weight * term)
    return reduce(operator.add, terms)


def weigh_blocks(
    last: HeadProjections, intermediate: Sequence[HeadProjections], intermediate_share: float
) -> list[tuple[float, HeadProjections]]:
    """Give the last block the weight `1 - share` and each of n others `share / n`; the last one alone gets 1."""
    if not intermediate:
        return [(1.0, last)]
    share = intermediate_share / len(intermediate)
    return [(1.0 - intermediate_share, last), *((share, projections) for projections in intermediate)]


def compute_neighbourhood_prior(grid: tuple[int, int], std: float, like: "torch.Tensor") -> "torch.Tensor":
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
    import torch

    height, width = grid
    rows = torch.arange(height, device=like.device, dtype=torch.float32).repeat_interleave(width)
    columns = torch.arange(width, device=like.device, dtype=torch.float32).repeat(height)
    squared_distance = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
    prior = torch.nn.functional.pad(torch.exp(-squared_distance / (2 * std**2)), (1, 0, 1, 0))
    return prior[None, None].to(like.dtype)


def _attend_by_pair(
    first: int, second: int, attend: Attend, projections: HeadProjections, value: "torch.Tensor"
) -> "torch.Tensor":
    return attend(projections[first], projections[second], value)


def _keep_own_value(attend: Attend, projections: HeadProjections, value: "torch.Tensor") -> "torch.Tensor":
    """Each token keeps its own value: the identity map."""
    return value.transpose(1, 2)


_MAPS: dict[str, AttentionMap] = {
    x + y: partial(_attend_by_pair, LETTERS.index(x), LETTERS.index(y)) for x in LETTERS for y in LETTERS
}
_MAPS["identity"] = _keep_own_value
_BUILT_IN = attention_map_names()
