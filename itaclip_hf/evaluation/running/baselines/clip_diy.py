"""CLIP-DIY: windows of three sizes classified like images, and a saliency that says where there are objects.

Wysoczańska et al., "CLIP-DIY: CLIP Dense Inference Yields Open-Vocabulary Semantic Segmentation For-Free" (WACV 2024).
59 small images are cut from a picture that was stretched to a square; their similarities to the names make three
coarse maps, whose mean is stretched to the picture. A saliency map, FOUND's in the published figures, takes the
similarity to "background" where there are objects and that to the classes elsewhere. The figures were made with
`laion/CLIP-ViT-B-32-laion2B-s34B-b79K`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ....processing import Vocabulary
from ....processing.pixels import resize_image
from ...data.benchmarks import get_benchmark
from ..predictor import Prediction, hash_weights
from .clip_images import CLIP_NORMALIZATION, Normalization, embed_images, make_pixel_values
from .saliency import Found
from .system import System, encode_names, find_normalization, load_clip, prepare_arrays

__all__ = ["ClipDIY", "average_grids", "compare_windows", "cut_windows", "weigh_by_saliency"]

TEMPLATE = "a photo of a {}"
SIDE = 256  # pixels of the square
WINDOWS = (256, 128, 64)  # half of a window is the stride
WINDOWS_PER_BATCH = 64
VOC_NAMES = {"dining table": "diningtable", "tv monitor": "tv/monitor"}
"""What the published program calls those classes of Pascal VOC that the benchmark calls otherwise."""


class ClipDIY(System):
    """CLIP-DIY; see [`System`].

    The background, where the vocabulary has one, is the very word; lists of background words are not used. A class
    with synonyms counts as its best name; on Pascal VOC and COCO-Object with the benchmark's own words, each class has
    the published one alone. Without a background there is nothing to weigh, and saliency is not used.
    Without saliency at all it is not the published system. Maps of one's own, (height, width) from 0 to 1 for each
    image, may be added to what `prepare_images` returns as `saliency_maps`. The confidence is the softmax over
    classes, at temperature 1. Settings: where FOUND is, as `second_checkpoint`: its published file, or a folder with
    that and a DINO; it runs in float32.
    """

    title = "CLIP-DIY"
    accepted = ("second_checkpoint",)
    takes_background_words = False

    def _load(self, settings: Mapping[str, Any], dtype: torch.dtype | str, device: torch.device) -> None:
        self.prepare_images = prepare_arrays
        self._model, self._processor = load_clip(self.name, dtype, device)
        self._pixels = find_normalization(self._processor)
        place = settings.get("second_checkpoint")
        self._found = None if place is None else Found(place, device)

    def _encode_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._words = choose_words(vocabulary, self._benchmark)
        self._texts = encode_names(self._model, self._processor, self._words.query_names, [TEMPLATE])

    def _describe(self) -> dict[str, Any]:
        saliency: Any = "none, which is not the published system"
        if self._found is not None:
            saliency = {"found": self._found.backbone, "weights_sha256": hash_weights(self._found.state())}
        return {
            "method": self.title if self._found is not None else f"{self.title} without saliency",
            "template": TEMPLATE,
            "synonyms": "best name",
            "words": "the vocabulary's" if self._words is self.vocabulary else self._words.to_dict(),
            "side": SIDE,
            "windows": list(WINDOWS),
            **self._pixels,
            "saliency": saliency,
        }

    def _part_batch(self, prepared: Mapping[str, Any]) -> Iterable[tuple[Any, ...]]:
        images = prepared["images"]
        maps = prepared.get("saliency_maps")
        return zip(images, [None] * len(images) if maps is None else check_saliency(maps, len(images)), strict=True)

    def _predict_one(self, vocabulary: Vocabulary, image: np.ndarray, saliency: Any) -> Prediction:
        square = stretch_to_square(image)
        grids = [compare_windows(self._model, square, window, self._texts, self._pixels) for window in WINDOWS]
        scores = average_grids([pick_best_names(grid, self._words) for grid in grids])
        if vocabulary.background:
            if saliency is None and self._found is not None:
                saliency = self._found(image)
            if saliency is not None:
                scores = weigh_by_saliency(scores, torch.as_tensor(saliency).to(scores))
        labels, best = choose_labels(scores, is_weighed=bool(vocabulary.background) and saliency is not None)
        return Prediction(*(stretch_nearest(values, image.shape[:2]) for values in (labels, best)))


def check_saliency(maps: Any, count: int) -> list[np.ndarray]:
    """Maps of one's own, one for each image.

    Raises:
        ValueError: If there are more or fewer, or one is no (height, width) of numbers from 0 to 1.
    """
    if not isinstance(maps, list | tuple | np.ndarray | torch.Tensor) or len(maps) != count:
        found = len(maps) if hasattr(maps, "__len__") else type(maps).__name__
        raise ValueError(f"Expected `saliency_maps` of {count} images, but got {found}. Pass a list, one for each.")
    arrays = [each.detach().cpu().numpy() if isinstance(each, torch.Tensor) else np.asarray(each) for each in maps]
    for number, array in enumerate(arrays):
        is_right = array.ndim == 2 and array.size > 0 and array.dtype.kind in "fiub"
        # Written so that NaN fails.
        if not (is_right and array.min() >= 0 and array.max() <= 1):
            span = f" from {array.min():g} to {array.max():g}" if is_right else ""
            raise ValueError(
                f"Expected saliency map {number} as (height, width) of numbers from 0 to 1, but got {array.dtype} of "
                f"the shape {array.shape}{span}. Scale it, or take one channel."
            )
    return arrays


def choose_words(vocabulary: Vocabulary, benchmark: str | None) -> Vocabulary:
    """One published name for each class if these are Pascal VOC's or COCO-Object's own, else the vocabulary itself."""
    if benchmark not in ("voc21", "voc20", "coco_object"):
        return vocabulary
    if vocabulary.classes != get_benchmark(benchmark).vocabulary("none").classes:
        return vocabulary
    # The labels of both are the published names but for these.
    names = [VOC_NAMES.get(entry.label, entry.label) for entry in vocabulary.classes]
    return Vocabulary(names, vocabulary.background, vocabulary.metadata)


def pick_best_names(grid: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """(names, rows, columns) -> (classes, rows, columns), the background's one name first."""
    names_per_class = [len(entry.names) for entry in vocabulary.classes]
    if vocabulary.background:
        names_per_class = [1, *names_per_class]
    return torch.stack([names.amax(0) for names in grid.split(names_per_class)])


def stretch_to_square(image: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 -> (256, 256, 3), bilinearly, not antialiased."""
    return np.moveaxis(resize_image(np.moveaxis(image, -1, 0), (SIDE, SIDE)), 0, -1)


def cut_windows(square: np.ndarray, window: int) -> list[np.ndarray]:
    """Windows of (256, 256, 3), row by row, half a window apart."""
    starts = range(0, SIDE - window + 1, window // 2)
    return [square[top : top + window, left : left + window] for top in starts for left in starts]


def compare_windows(
    model: Any,
    square: np.ndarray,
    window: int,
    text_features: torch.Tensor,
    normalization: Normalization = CLIP_NORMALIZATION,
) -> torch.Tensor:
    """Cosines of each text, (texts, dim) unit vectors, with the windows of one size: (texts, rows, columns)."""
    side = model.config.vision_config.image_size
    resized = [
        np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC))
        for part in cut_windows(square, window)
    ]
    features = [
        embed_images(model, make_pixel_values(model, resized[start : start + WINDOWS_PER_BATCH], normalization))
        for start in range(0, len(resized), WINDOWS_PER_BATCH)
    ]
    rows = round(len(resized) ** 0.5)
    return (text_features @ torch.cat(features).T).unflatten(1, (rows, rows))


def average_grids(grids: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of grids of windows, (classes, rows, columns) each, all stretched bilinearly: (classes, 256, 256)."""
    stretched = [F.interpolate(grid[None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0] for grid in grids]
    return torch.stack(stretched).mean(0)


def choose_labels(scores: torch.Tensor, is_weighed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Best class and its probability, (rows, columns) each, of scores (classes, rows, columns).

    The published program takes the softmax of scores that saliency has weighed alone. In single precision it makes
    ties of scores that differ by less than 6e-8, which go to the first class.
    """
    probabilities = scores.softmax(0)
    labels = (probabilities if is_weighed else scores).argmax(0)
    return labels, probabilities.gather(0, labels[None])[0]


def stretch_nearest(values: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """A map of the square, (256, 256), at (height, width): the nearest value, its place rounded down, as in OpenCV."""
    # Torch's "nearest" multiplies in single precision, and takes the value beside at some sizes.
    rows, columns = (
        np.minimum(np.floor(np.arange(length) * (1 / (length / SIDE))), SIDE - 1).astype(np.int64) for length in size
    )
    return values[torch.from_numpy(rows)[:, None], torch.from_numpy(columns)]


def weigh_by_saliency(scores: torch.Tensor, saliency: torch.Tensor) -> torch.Tensor:
    """Scores (classes, rows, columns), the background first, times what is no object there, the others times what is.

    The saliency is (height, width) from 0 to 1, of any size.
    """
    is_object = F.interpolate(saliency[None, None], scores.shape[1:], mode="bilinear", align_corners=False)[0]
    return scores * torch.cat([1 - is_object, is_object.expand(len(scores) - 1, -1, -1)])
