"""ITACLIP as its description reads, without any shortcut: one window and one view at a time.

What the package is measured against, for speed and for its results. Attention maps are stored as matrices, every
window's cosines are upsampled by themselves, the refinement gathers all neighbours of all maps in every step, and
scores are one tensor over all queries. It runs in float32 on the weights of any CLIP model.

    python -m benchmarks.naive_itaclip --size 320x240 --stride 56

runs it beside the package and says how far the two agree.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import CLIPModel

from itaclip_hf import ITACLIPConfig

from .output import format_table
from .workload import Workload, add_workload_arguments, make_workload

__all__ = ["Agreement", "NaiveITACLIP", "compare_results", "main", "refine", "resize", "weigh_neighbours"]

GRAYSCALE = (0.2989, 0.587, 0.114)
BLUR_SIZE, BLUR_SIGMA = 11, 5.0

Box = tuple[slice, slice]


class NaiveITACLIP:
    """The method with the weights of a model.

    Args:
        model: Any CLIP model with a ViT; only its weights are used.
        method: The method's numbers. The last block must be the paper's: qq + kk, residual kept, no feed-forward.
        photometric_weight: Share λ of the original, grayscale and blurred view.
        score_threshold: Lowest score of a pixel's class; below, the pixel gets class 0.
        area_threshold: Foreground classes of at most this share of the foreground are dropped.
        closing: Whether to close label maps.

    Raises:
        ValueError: If the last block is configured in another way.
    """

    def __init__(
        self,
        model: CLIPModel,
        method: ITACLIPConfig,
        photometric_weight: float = 0.75,
        score_threshold: float = 0.0,
        area_threshold: float | None = None,
        closing: bool = True,
    ) -> None:
        if method.attention_maps != ("qq", "kk") or method.last_feed_forward or not method.last_residual:
            raise ValueError("Expected the last block of the paper: maps (qq, kk), residual kept, no feed-forward.")
        self.model = model
        self.method = method
        self.photometric_weight = photometric_weight
        self.score_threshold = score_threshold
        self.area_threshold = area_threshold
        self.closing = closing

    @classmethod
    def for_workload(cls, workload: Workload) -> "NaiveITACLIP":
        """With the model and settings of a workload."""
        processor = workload.image_processor
        return cls(
            workload.model,
            workload.model.config,
            processor.photometric_weight,
            processor.score_threshold,
            processor.area_threshold,
            processor.closing,
        )

    def segment(
        self, image: torch.Tensor, output_size: tuple[int, int], queries: torch.Tensor, query_classes: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All of it for one image.

        Args:
            image: (3, height, width) resized and normalised.
            output_size: (H₀, W₀) of the original image.
            queries: (queries, dim) embeddings.
            query_classes: Class of each.

        Returns:
            Class scores (classes, H₀, W₀) before thresholds, and the label map (H₀, W₀).
        """
        maps = self.compute_maps(image, output_size, queries)
        weights = weigh_neighbours(resize(image, output_size), self.method.pamr_dilations)
        maps = refine(maps, weights, self.method.pamr_steps, self.method.pamr_dilations)
        scores = self.score(maps, query_classes)
        return scores, self.label(scores)

    def boxes(self, image: torch.Tensor) -> Iterator[Box]:
        """Every window, row by row; the last one of an axis is shifted back inside."""
        size, stride = self.method.window_size, self.method.window_stride
        for top in _starts(image.shape[1], size, stride):
            for left in _starts(image.shape[2], size, stride):
                yield slice(top, top + size), slice(left, left + size)

    def compute_maps(
        self, image: torch.Tensor, output_size: tuple[int, int], queries: torch.Tensor, boxes: Sequence[Box] = ()
    ) -> torch.Tensor:
        """Cosine maps of all queries: every window upsampled, summed, divided by the cover, resized.

        Args:
            image: (3, height, width)
            output_size: (H₀, W₀)
            queries: (queries, dim)
            boxes: Some of the windows, to measure a sample; all by default.

        Returns:
            (queries, H₀, W₀)
        """
        sums = image.new_zeros(len(queries), *image.shape[1:])
        cover = image.new_zeros(1, *image.shape[1:])
        for rows, columns in boxes or self.boxes(image):
            sums[:, rows, columns] += self.compare_window(image[:, rows, columns], queries)
            cover[:, rows, columns] += 1
        return resize(sums / cover, output_size)

    def compare_window(self, window: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """(3, height, width) -> (queries, height, width)."""
        original, gray, blurred = (self.encode(view) for view in (window, _to_gray(window), _blur(window)))
        upside_down = self.encode(window.flip(1)).flip(0)
        mirrored = self.encode(window.flip(2)).flip(1)
        photometric = (original + gray + blurred) / 3
        geometric = (upside_down + mirrored) / 2
        features = self.photometric_weight * photometric + (1 - self.photometric_weight) * geometric
        return resize((features @ queries.T).permute(2, 0, 1), (window.shape[1], window.shape[2]))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unit feature of each patch of one picture: (3, height, width) -> (grid_h, grid_w, dim)."""
        vision: Any = self.model.vision_model
        patches = vision.embeddings.patch_embedding(pixels[None])
        grid = (patches.shape[2], patches.shape[3])
        tokens = torch.cat([vision.embeddings.class_embedding[None], patches[0].flatten(1).T])
        hidden = vision.pre_layrnorm(tokens + self._positions(grid))
        *blocks, last = vision.encoder.layers
        maps = []
        for number, block in enumerate(blocks, start=1):
            query, key, value = _project(block, hidden)
            if number in self.method.intermediate_layers:
                maps.append(_self_map(query, key))
            hidden = hidden + _merge(block, _softmax_map(query, key) @ value)
            hidden = hidden + block.mlp(block.layer_norm2(hidden))
        query, key, value = _project(last, hidden)
        attention = _self_map(query, key)
        if maps:
            share = self.method.intermediate_weight
            attention = share * torch.stack(maps).mean(0) + (1 - share) * attention
        hidden = hidden + _merge(last, attention @ value)
        features = self.model.visual_projection(vision.post_layernorm(hidden))
        return (features / features.norm(dim=-1, keepdim=True))[1:].unflatten(0, grid)

    def _positions(self, grid: tuple[int, int]) -> torch.Tensor:
        positions = self.model.vision_model.embeddings.position_embedding.weight
        side = math.isqrt(len(positions) - 1)
        if grid == (side, side):
            return positions
        table = positions[1:].T.reshape(1, -1, side, side)
        scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
        table = F.interpolate(table, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([positions[:1], table[0].flatten(1).T])

    def score(self, maps: torch.Tensor, query_classes: Sequence[int]) -> torch.Tensor:
        """(queries, H₀, W₀) -> (classes, H₀, W₀): softmax over queries, best query of each class."""
        shares = (maps * self.method.similarity_scale).softmax(0)
        classes = torch.as_tensor(query_classes, device=maps.device)
        return torch.stack([shares[classes == number].amax(0) for number in range(int(classes.max()) + 1)])

    def label(self, scores: torch.Tensor) -> torch.Tensor:
        """(classes, H₀, W₀) -> (H₀, W₀): area threshold, argmax, score threshold, closing."""
        if self.area_threshold is not None:
            scores = _drop_small_classes(scores, self.area_threshold)
        best, labels = scores.max(0)
        labels = torch.where(best < self.score_threshold, 0, labels)
        if not self.closing:
            return labels
        grown = F.max_pool2d(labels[None].float(), 3, stride=1, padding=1)
        return -F.max_pool2d(-grown, 3, stride=1, padding=1)[0].long()


def resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear, half-pixel centres, not antialiased: (channels, h, w) -> (channels, height, width)."""
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def refine(maps: torch.Tensor, weights: torch.Tensor, steps: int, dilations: Sequence[int]) -> torch.Tensor:
    """PAMR by convolution: in every step each map is unfolded into its neighbours, which are then averaged.

    Args:
        maps: (queries, height, width)
        weights: (8 * dilations, height, width) of [`weigh_neighbours`].
        steps: Number of averages.
        dilations: Distances of the neighbours.
    """
    for _ in range(steps):
        maps = (_unfold(maps, dilations, centre=False) * weights).sum(1)
    return maps


def weigh_neighbours(guide: torch.Tensor, dilations: Sequence[int]) -> torch.Tensor:
    """Weight of each neighbour by its likeness: (3, height, width) -> (8 * dilations, height, width)."""
    deviation = _unfold(guide, dilations, centre=True).std(1, keepdim=True)
    difference = (_unfold(guide, dilations, centre=False) - guide[:, None]).abs()
    return (-difference / (1e-8 + 0.1 * deviation)).mean(0).softmax(0)


def _unfold(maps: torch.Tensor, dilations: Sequence[int], centre: bool) -> torch.Tensor:
    """(channels, height, width) -> (channels, neighbours, height, width), a kernel with a single 1 for each place."""
    kernels = torch.eye(9, device=maps.device).view(9, 1, 3, 3)
    if not centre:
        kernels = torch.cat([kernels[:4], kernels[5:]])
    unfolded = [
        F.conv2d(F.pad(maps[:, None], (dilation,) * 4, mode="replicate"), kernels, dilation=dilation)
        for dilation in dilations
    ]
    return torch.cat(unfolded, 1)


def _starts(length: int, window: int, stride: int) -> list[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - window), 0) for index in range(count)]


def _to_gray(pixels: torch.Tensor) -> torch.Tensor:
    red, green, blue = (weight * channel for weight, channel in zip(GRAYSCALE, pixels, strict=True))
    return (red + green + blue).expand_as(pixels)


def _blur(pixels: torch.Tensor) -> torch.Tensor:
    places = torch.arange(BLUR_SIZE, device=pixels.device) - BLUR_SIZE // 2
    kernel = (-0.5 * (places / BLUR_SIGMA) ** 2).exp()
    kernel = (kernel / kernel.sum()).outer(kernel / kernel.sum())
    padded = F.pad(pixels[:, None], (BLUR_SIZE // 2,) * 4, mode="reflect")
    return F.conv2d(padded, kernel[None, None])[:, 0]


def _project(block: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(tokens, width) -> queries, keys and values, (heads, tokens, head width); queries and keys share the scale."""
    attention = block.self_attn
    normed = block.layer_norm1(hidden)
    heads = attention.num_heads
    query, key, value = (
        layer(normed).unflatten(-1, (heads, -1)).transpose(0, 1)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return query, key, value


def _softmax_map(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left @ right.transpose(1, 2) * left.shape[-1] ** -0.5).softmax(-1)


def _self_map(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return _softmax_map(query, query) + _softmax_map(key, key)


def _merge(block: Any, attended: torch.Tensor) -> torch.Tensor:
    """(heads, tokens, head width) -> (tokens, width)."""
    return block.self_attn.out_proj(attended.transpose(0, 1).flatten(1))


def _drop_small_classes(scores: torch.Tensor, area_threshold: float) -> torch.Tensor:
    labels = scores.argmax(0)
    foreground = int((labels > 0).sum())
    kept = [
        number == 0 or int((labels == number).sum()) > area_threshold * foreground for number in range(len(scores))
    ]
    return scores * torch.tensor(kept, device=scores.device)[:, None, None]


class Agreement(NamedTuple):
    """How far two results agree.

    Attributes:
        largest_difference: Of the class scores, anywhere.
        equal_labels: Share of pixels.
        classes: Number of classes in the first label map: with one class alone, agreement says nothing.
    """

    largest_difference: float
    equal_labels: float
    classes: int


def compare_results(first: tuple[torch.Tensor, torch.Tensor], second: tuple[torch.Tensor, torch.Tensor]) -> Agreement:
    """Compare two pairs of class scores (classes, H₀, W₀) and label maps (H₀, W₀)."""
    return Agreement(
        float((first[0] - second[0]).abs().max()),
        float((first[1] == second[1]).double().mean()),
        len(first[1].unique()),
    )


@torch.inference_mode()
def compare_with_package(options: argparse.Namespace) -> Agreement:
    """Run both on one image, in float32."""
    workload = make_workload(options, torch.float32)
    processor = workload.image_processor
    naive = NaiveITACLIP.for_workload(workload)
    first = naive.segment(
        workload.inputs["pixel_values"][0],
        (workload.image.height, workload.image.width),
        workload.query_embeddings,
        workload.query_classes.tolist(),
    )
    outputs = workload.model(**workload.inputs, **workload.queries)
    labels: Any = processor.post_process_semantic_segmentation(outputs)[0]
    return compare_results(first, (outputs.logits[0].exp(), labels))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the naive loop with the package."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.naive_itaclip", description=main.__doc__)
    add_workload_arguments(parser, size="320x240")
    options = parser.parse_args(arguments)
    agreement = compare_with_package(options)
    row = (f"{agreement.largest_difference:.1e}", f"{100 * agreement.equal_labels:.4f} %", str(agreement.classes))
    print(format_table(("", "largest difference of a score", "equal labels", "classes seen"), [("naive", *row)]))


if __name__ == "__main__":
    main()
