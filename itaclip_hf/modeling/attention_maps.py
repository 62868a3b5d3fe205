"""Attention maps by name, and their blend in the last block: softmax maps among queries, keys and values.

Built in are `softmax(x yᵀ / √d)` for any two letters x, y out of q, k, v, the identity, `procrustes` (queries and keys
rotated onto each other) and `similarity` (of patches, see `patch_similarity.py`). A new term is a function and a name;
configurations then accept that name. ITACLIP weighs the last block's values by softmax(q qᵀ) +
softmax(k kᵀ), half from the last block, half the mean of some intermediate blocks. A blend of maps times the values is
the blend of ordinary attentions that share the values, so no (tokens, tokens) map is ever stored and any attention
kernel of Transformers will do. Configurations read names here, so torch is not imported before a map is computed.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = [
    "AttentionMap",
    "BlockContext",
    "HeadProjections",
    "MapTerm",
    "attend_by_maps",
    "attention_map_names",
    "compute_neighbourhood_prior",
    "get_attention_map",
    "register_attention_map",
]

LETTERS = "qkv"


class HeadProjections(NamedTuple):
    """Queries, keys and values of one block, each (batch, heads, tokens, head_dim)."""

    query: "torch.Tensor"
    key: "torch.Tensor"
    value: "torch.Tensor"


class BlockContext(NamedTuple):
    """What a term may use beside its block's projections; calling it is ordinary attention.

    Attributes:
        kernel: Attention by the configured kernel, of query, key, value and prior.
        settings: The configuration, for terms with numbers of their own.
        has_class_token: Whether the first token is the class token; the others are the patches, row by row.
        prior: Added to the scaled products before the softmax; the last block's neighbourhood prior.
        similarity: (batch, tokens, tokens) attention map of how much patches are alike, where one was asked for.
    """

    kernel: Callable[..., "torch.Tensor"]
    settings: Any
    has_class_token: bool = True
    prior: "torch.Tensor | None" = None
    similarity: "torch.Tensor | None" = None

    def __call__(self, query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
        """`softmax(query keyᵀ / √d + prior) @ value`.

        Each is (batch, heads, tokens, head_dim); the result is (batch, tokens, heads, head_dim).
        """
        return self.kernel(query, key, value, self.prior)


AttentionMap = Callable[[BlockContext, HeadProjections, "torch.Tensor"], "torch.Tensor"]
"""One term: an attention map of a block, already multiplied by the values of the last block.

It gets the context (calling that with other queries and keys is all that most terms need), the projections of the
block whose map takes part (the last one or an intermediate one) and the values of the last block, (batch, heads,
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


class MapTerm(NamedTuple):
    """One summand of the blended attention map.

    Attributes:
        weight: Its share.
        name: Of the registered map.
        projections: Of the block whose map it is.
        context: What the map may use beside these.
    """

    weight: float
    name: str
    projections: HeadProjections
    context: BlockContext


def attend_by_maps(terms: Sequence[MapTerm], value: "torch.Tensor") -> "torch.Tensor":
    """Weigh `value` by the blended attention map of several blocks.

    Args:
        terms: What is summed.
        value: Values of the last block, (batch, heads, tokens, head_dim).

    Returns:
        (batch, tokens, heads, head_dim): the sum over terms of `weight * map @ value`, where a map named xy is
        `softmax(x yᵀ / √d)` of its block.

    Raises:
        ValueError: If a name is not registered.
    """
    attended = []
    for weight, name, projections, context in terms:
        term = get_attention_map(name)(context, projections, value)
        attended.append(term if weight == 1 else weight * term)  # the same bits, without a pass over the term
    return reduce(operator.add, attended)


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

    std = max(std, 1e-3)  # narrower ones are the same in float32, which their squares would leave
    height, width = grid
    rows = torch.arange(height, device=like.device, dtype=torch.float32).repeat_interleave(width)
    columns = torch.arange(width, device=like.device, dtype=torch.float32).repeat(height)
    squared_distance = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
    prior = torch.nn.functional.pad(torch.exp(-squared_distance / (2 * std**2)), (1, 0, 1, 0))
    return prior[None, None].to(like.dtype)


def _attend_by_pair(
    first: int, second: int, attend: BlockContext, projections: HeadProjections, value: "torch.Tensor"
) -> "torch.Tensor":
    return attend(projections[first], projections[second], value)


def _keep_own_value(attend: BlockContext, projections: HeadProjections, value: "torch.Tensor") -> "torch.Tensor":
    """Each token keeps its own value: the identity map."""
    return value.transpose(1, 2)


def _attend_by_similarity(attend: BlockContext, projections: HeadProjections, value: "torch.Tensor") -> "torch.Tensor":
    """Patches see those that are alike; the class token keeps itself."""
    if attend.similarity is None:
        raise ValueError("Expected the map 'similarity' in the last block alone, but got it in an intermediate one.")
    return (attend.similarity.to(value)[:, None] @ value).transpose(1, 2)


def _attend_by_rotation(attend: BlockContext, projections: HeadProjections, value: "torch.Tensor") -> "torch.Tensor":
    """Keys are turned onto the queries by the best rotation, after orthogonal Procrustes analysis.

    Source: PEARL (CVPR 2026): `softmax((q (k R)ᵀ + α k' k'ᵀ) / √d)`, where k' is k less its mean, all means weighed by
    the length of the patches' queries. R comes from a few Newton-Schulz steps; their number is part of the method.
    """
    import torch

    query, key = projections.query.float(), projections.key.float()
    weight = query.norm(dim=-1, keepdim=True)
    if attend.has_class_token:  # means are the patches' alone
        weight[..., :1, :] = 0
    weight = weight / (weight.sum(-2, keepdim=True) + 1e-6)
    centred_query, centred_key = (tokens - (weight * tokens).sum(-2, keepdim=True) for tokens in (query, key))
    rotation = _find_rotation(centred_key.mT @ centred_query, attend.settings.procrustes_steps)
    # One ordinary attention of twice the width: the products of both halves add up.
    queries = torch.cat([query, attend.settings.procrustes_key_share * centred_key], dim=-1)
    keys = torch.cat([key @ rotation, centred_key], dim=-1)
    return attend(queries.to(value), keys.to(value), value)


def _find_rotation(matrix: "torch.Tensor", steps: int) -> "torch.Tensor":
    """M (MᵀM)^(-1/2) by coupled Newton-Schulz steps: (..., d, d) -> the same."""
    import torch

    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    gram = matrix.mT @ matrix
    # The steps converge for a norm of at most 1; that of Frobenius is never below the largest singular value.
    scale = gram.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
    root, inverse = gram / scale + 1e-6 * identity, identity
    for _ in range(steps):
        step = 0.5 * (3 * identity - inverse @ root)
        root, inverse = root @ step, step @ inverse
    return matrix @ inverse / scale.sqrt()


_MAPS: dict[str, AttentionMap] = {
    x + y: partial(_attend_by_pair, LETTERS.index(x), LETTERS.index(y)) for x in LETTERS for y in LETTERS
}
_MAPS["identity"] = _keep_own_value
_MAPS["similarity"] = _attend_by_similarity
_MAPS["procrustes"] = _attend_by_rotation
_BUILT_IN = attention_map_names()
