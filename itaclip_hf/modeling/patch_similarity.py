"""Which patches of a window are alike: by one of CLIP's own blocks or by another backbone, the proxy.

The similarity becomes an attention map that all heads share (`gate_similarity`), it smooths features before and after
the last block (`smooth_patches`), and regions, where there are some, bound it (`limit_to_regions`). Patches that stand
out from all others are replaced by their neighbours first (`find_outliers`, `clean_patches`). Means and quantiles are
those of one window, never of the batch, so a batch gives what its images give one by one.

Sources: SC-CLIP (TIP 2025) for cleaning by local outlier factors, smoothing and the gate; SFP (ICCV 2025) for cleaning
by the class token's attention; ProxyCLIP (ECCV 2024) for another backbone's similarity; CorrCLIP (ICCV 2025) for
regions.
"""

from typing import Any, cast

import torch
from torch import nn

from .attention_maps import HeadProjections

__all__ = [
    "check_proxy",
    "clean_patches",
    "compute_cosines",
    "encode_proxy",
    "find_outliers",
    "gate_similarity",
    "join_regions",
    "limit_to_regions",
    "resize_patches",
    "sample_regions",
    "smooth_patches",
]

NEIGHBOURS = 30  # of a patch, in the space of features, that its local outlier factor looks at
INLIER_SHARE = 0.95
CLASS_ROW_FACTOR = 1.5  # by how much the class token's attention is scaled before a patch's own must exceed it
MOST_CLASS_ROW_OUTLIERS = 10
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TINY = 1e-6


def compute_cosines(patches: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of each two patches: (batch, patches, dim) -> (batch, patches, patches) float32."""
    unit = nn.functional.normalize(patches.float(), dim=-1)
    return unit @ unit.mT


def gate_similarity(
    similarity: torch.Tensor, sharpness: float, threshold: float | None, allowed: torch.Tensor | None = None
) -> torch.Tensor:
    """An attention map: softmax over each row of what stands out.

    Args:
        similarity: (batch, patches, patches) cosines.
        sharpness: Factor before the softmax, γ in ProxyCLIP.
        threshold: Entries below this many times the window's mean get no weight, β in ProxyCLIP; `None`: all count.
        allowed: (batch, patches, patches) bool, which patch may see which; all by default.

    Returns:
        (batch, patches, patches) float32, rows add up to 1. A patch always sees itself, or a row of a window whose
        mean lies above `1 / threshold`, such as a flat one, would have nothing left.
    """
    is_kept = torch.ones_like(similarity, dtype=torch.bool)
    if threshold is not None:
        # Published as a softmax of γ (S - β mean); what is taken off every entry of a row alike changes no softmax.
        is_kept = sharpness * (similarity - threshold * similarity.mean((-2, -1), keepdim=True)) >= 0
    if allowed is not None:
        is_kept = is_kept & allowed
    is_kept = is_kept | torch.eye(similarity.shape[-1], dtype=torch.bool, device=similarity.device)
    return (sharpness * similarity).masked_fill(~is_kept, -torch.inf).softmax(-1)


def smooth_patches(patches: torch.Tensor, similarity: torch.Tensor, threshold: float) -> torch.Tensor:
    """Average of the patches that are at least so much alike, weighted by how much they are.

    Args:
        patches: (batch, patches, dim)
        similarity: (batch, patches, patches)
        threshold: Lowest similarity that counts.
    """
    weights = similarity.masked_fill(similarity < threshold, 0.0)
    weights = weights / (weights.sum(-1, keepdim=True) + TINY)
    return (weights @ patches.float()).to(patches.dtype)


def find_outliers(kind: str, patches: torch.Tensor, projections: HeadProjections | None = None) -> torch.Tensor:
    """Patches that stand out from all others, as those do that carry global information.

    Args:
        kind: "lof": by the local outlier factor of the features, those above the 0.95-quantile of the window;
            "class_row": at most ten that the class token looks at more than they at themselves.
        patches: (batch, patches, dim) after the last block but one.
        projections: Of that block, for "class_row"; class token first.

    Returns:
        (batch, patches) bool
    """
    if kind == "lof":
        factors = _compute_outlier_factors(patches.float())
        return factors > torch.quantile(factors, INLIER_SHARE, dim=-1, keepdim=True)
    query, key = cast(HeadProjections, projections)[:2]
    # The map of all heads is needed as numbers, which fused kernels do not give; queries times keys, mean over heads.
    attention = (query.float() @ key.float().mT * query.shape[-1] ** -0.5).softmax(-1).mean(1)
    of_class, of_self = CLASS_ROW_FACTOR * attention[:, 0, 1:], attention.diagonal(dim1=-2, dim2=-1)[:, 1:]
    candidates = of_class.masked_fill(of_class <= of_self, 0.0)
    highest = candidates.topk(min(MOST_CLASS_ROW_OUTLIERS, candidates.shape[-1]))
    return torch.zeros_like(candidates, dtype=torch.bool).scatter(-1, highest.indices, highest.values > 0)


def _compute_outlier_factors(patches: torch.Tensor) -> torch.Tensor:
    """Local outlier factor of each patch, (batch, patches); the reach of a patch is that of its 30th neighbour.

    The published code takes the larger of a distance and the patch's *own* reach, so densities reduce to reaches.
    """
    norms = patches.square().sum(-1)
    neighbour_count = min(NEIGHBOURS, patches.shape[1] - 1)
    if neighbour_count == 0:  # a single patch stands out from nothing
        return torch.zeros_like(norms)
    # Squared, as published; rounding may fall below 0.
    distances = (norms[..., None] + norms[:, None] - 2 * patches @ patches.mT).clamp(min=0)
    nearest = distances.topk(neighbour_count + 1, dim=-1, largest=False)
    reach, neighbours = nearest.values[..., -1], nearest.indices[..., 1:]  # the first is the patch itself
    tiny = torch.finfo(reach.dtype).tiny  # equal patches, as in a flat image, are no outliers
    of_neighbours = reach[:, None].expand_as(distances).gather(-1, neighbours)
    return ((reach[..., None] + tiny) / (of_neighbours + tiny)).mean(-1)


def clean_patches(patches: torch.Tensor, is_outlier: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Replace outliers by the mean of those of their eight neighbours that are none; one without any stays.

    Args:
        patches: (batch, patches, dim)
        is_outlier: (batch, patches) bool
        grid: (grid_h, grid_w)
    """
    is_sound = (~is_outlier).unflatten(1, grid)[:, None].to(patches.dtype)
    values = patches.mT.unflatten(2, grid) * is_sound
    kernel = torch.ones(1, 1, 3, 3, dtype=patches.dtype, device=patches.device)  # an outlier's own value counts 0
    channels = values.shape[1]
    sums = nn.functional.conv2d(values, kernel.expand(channels, 1, 3, 3), padding=1, groups=channels)
    counts = nn.functional.conv2d(is_sound, kernel, padding=1)
    means = (sums / counts.clamp(min=1)).flatten(2).mT
    is_replaced = is_outlier & (counts.flatten(1) > 0)
    return torch.where(is_replaced[..., None], means, patches)


def resize_patches(patches: torch.Tensor, grid: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
    """Patches of one grid as those of another, bilinear: (batch, grid_h * grid_w, dim) -> (batch, H * W, dim)."""
    if grid == target:
        return patches
    maps = patches.mT.unflatten(2, grid)
    return nn.functional.interpolate(maps, target, mode="bilinear", align_corners=False).flatten(2).mT


def sample_regions(regions: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Region of each patch, that of its upper left pixel: (batch, height, width) -> (batch, grid_h * grid_w)."""
    rows, columns = (
        torch.arange(patches, device=regions.device) * length // patches
        for patches, length in zip(grid, regions.shape[-2:], strict=True)
    )
    return regions[:, rows[:, None], columns].flatten(1)


def join_regions(features: torch.Tensor, regions: torch.Tensor, distance: float) -> torch.Tensor:
    """Join regions whose mean features are nearly as alike as any, and those joined with them.

    Args:
        features: (batch, patches, dim)
        regions: (batch, patches) region of each patch, 0 for none.
        distance: Regions are joined where their cosine is at most so much below the highest one.

    Returns:
        (batch, patches) joined region of each patch, counted from 1, 0 for none.
    """
    unit = nn.functional.normalize(features.float(), dim=-1)
    return torch.stack(
        [_join_regions_of_window(*of_window, distance) for of_window in zip(unit, regions, strict=True)]
    )


def _join_regions_of_window(features: torch.Tensor, regions: torch.Tensor, distance: float) -> torch.Tensor:
    ids, places = regions.unique(return_inverse=True)
    found = (ids != 0).nonzero()  # (regions, 1)
    numbers = torch.zeros_like(ids)
    if len(found):
        members = (places == found).float()
        means = nn.functional.normalize((members @ features) / members.sum(1, keepdim=True), dim=-1)
        cosines = means @ means.mT
        # The highest cosine is that of a region with itself, about 1.
        numbers[found.flatten()] = _number_connected(cosines.max() - cosines <= distance).to(numbers)
    return numbers[places]


def _number_connected(is_joined: torch.Tensor) -> torch.Tensor:
    """A number, from 1, for each entry; entries that can be reached from each other have the same."""
    is_joined = is_joined.cpu()  # is read one by one
    numbers = torch.zeros(len(is_joined), dtype=torch.int64)
    for start in range(len(numbers)):
        number, waiting = numbers.max() + 1, [start]
        while waiting:
            index = waiting.pop()
            if not numbers[index]:
                numbers[index] = number
                waiting += is_joined[index].nonzero().flatten().tolist()
    return numbers


def limit_to_regions(similarity: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Which patch may see which: those of its own region; where one is in none, those more alike than the mean.

    Args:
        similarity: (batch, patches, patches)
        regions: (batch, patches), 0 for none.

    Returns:
        (batch, patches, patches) bool
    """
    is_inside = regions != 0
    both = is_inside[..., None] & is_inside[:, None]
    is_same = regions[..., None] == regions[:, None]
    return torch.where(both, is_same, similarity > similarity.mean((-2, -1), keepdim=True))


def check_proxy(proxy: Any) -> None:
    """Make sure that a backbone can serve as proxy.

    Raises:
        TypeError: If it is no model with square patches.
    """
    patch_size = getattr(getattr(proxy, "config", None), "patch_size", None)
    if not isinstance(proxy, nn.Module) or not isinstance(patch_size, int):
        raise TypeError(
            f"Expected a vision backbone with square patches as proxy, but got {type(proxy).__name__}. Use a ViT such "
            'as "facebook/dino-vitb8" or "facebook/dinov2-with-registers-base".'
        )


def encode_proxy(proxy: nn.Module, pixel_values: torch.Tensor, kind: str) -> tuple[torch.Tensor, tuple[int, int]]:
    """Features that a proxy has of each of its patches.

    Args:
        proxy: A ViT, DINOv2 (with or without registers), DINOv3 or RADIO model of Transformers; whatever stands before
            the patches (class token, registers) is dropped.
        pixel_values: (batch, 3, height, width) CLIP-normalised; brought to the proxy's normalisation here.
        kind: "hidden": the last hidden state, after the final norm; "query_key": queries plus keys of the last block.

    Returns:
        (batch, patches, dim) float32, and the patch grid.
    """
    config: Any = proxy.config
    grid = tuple(length // config.patch_size for length in pixel_values.shape[-2:])
    weight = next(proxy.parameters())
    pixels = _normalize_for_proxy(pixel_values.to(weight.device), config).to(weight.dtype)
    # What is left over at the lower and right edge is cut off, as CLIP's tower does.
    pixels = pixels[..., : grid[0] * config.patch_size, : grid[1] * config.patch_size]
    # ViT alone has to be asked to take images of another size than it was trained on.
    options = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}
    kept: dict[str, torch.Tensor] = {}
    hooks = [] if kind == "hidden" else _keep_projections(proxy, kept)
    try:
        hidden = proxy(pixels, **options).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    features = hidden if kind == "hidden" else kept["query"] + kept["key"]
    return features[:, -grid[0] * grid[1] :].float(), cast(tuple[int, int], grid)


def _keep_projections(proxy: nn.Module, kept: dict[str, torch.Tensor]) -> list[Any]:
    hooks = []
    for letter, name in (("q", "query"), ("k", "key")):
        found = [module for path, module in proxy.named_modules() if path.endswith((f".{letter}_proj", f".{name}"))]
        if not found:
            raise TypeError(
                f"Expected a proxy with separate queries and keys, but got {type(proxy).__name__}. Use a ViT or "
                "DINOv2, or compare hidden states."
            )

        # A default is bound now; the name by itself would be that of the last round for both.
        def keep(module: nn.Module, inputs: Any, output: torch.Tensor, name: str = name) -> None:
            kept[name] = output

        hooks.append(found[-1].register_forward_hook(keep))
    return hooks


def _normalize_for_proxy(pixel_values: torch.Tensor, config: Any) -> torch.Tensor:
    """From CLIP's normalisation to ImageNet's; a model that normalises by itself, as RADIO does, gets 0 to 1."""
    constants = (CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD)
    clip_mean, clip_std, mean, std = (pixel_values.new_tensor(values).view(3, 1, 1) for values in constants)
    pixels = pixel_values * clip_std + clip_mean
    return pixels if hasattr(config, "norm_mean") else (pixels - mean) / std
