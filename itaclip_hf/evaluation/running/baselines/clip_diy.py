"""CLIP-DIY: windows of three sizes classified like images, and a saliency that says where there are objects.

Wysoczańska et al., "CLIP-DIY: CLIP Dense Inference Yields Open-Vocabulary Semantic Segmentation For-Free" (WACV 2024).
59 small images are cut from a picture that was stretched to a square; their similarities to the names make three
coarse maps, whose mean is stretched to the picture. A saliency map, FOUND's in the published figures, takes the
similarity to "background" where there are objects and that to the classes elsewhere. The figures were made with
`laion/CLIP-ViT-B-32-laion2B-s34B-b79K`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ....loading import load
from ....processing import BACKGROUND_LABEL, Vocabulary, VocabularyClass, read_rgb_image
from ....processing.pixels import resize_image
from ....text_cache import TextCache
from ..predictor import Prediction, hash_weights
from .clip_images import embed_images, normalize_colors
from .saliency import Found

__all__ = ["ClipDIY", "average_grids", "compare_windows", "cut_windows", "weigh_by_saliency"]

TEMPLATE = "a photo of a {}"
SIDE = 256  # pixels of the square
WINDOWS = (256, 128, 64)  # half of a window is the stride
WINDOWS_PER_BATCH = 64


class ClipDIY:
    """CLIP-DIY as `Predictor`.

    The background, where the vocabulary has one, is the very word; lists of background words are not used. A class
    with synonyms counts as its best name. Without a background there is nothing to weigh, and saliency is not used.
    Without saliency at all it is not the published system. Maps of one's own, (height, width) from 0 to 1 for each
    image, may be added to what `prepare_images` returns as `saliency_maps`.

    Args:
        checkpoint: Folder or hub id of a CLIP checkpoint, or "demo".
        vocabulary: The classes.
        benchmark: Not used: the method has no settings that differ.
        settings: Where FOUND is, as `second_checkpoint`: its published file, or a folder with that and a DINO.
        dtype: Number format, as for `choose_dtype`; FOUND runs in float32.
        device: Where it shall run.

    Raises:
        ValueError: If a checkpoint lacks weights, a setting does not apply, or a name is too long.
        OSError: If a checkpoint cannot be loaded.
    """

    accepted: tuple[str, ...] = ("second_checkpoint",)

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        vocabulary: Vocabulary,
        benchmark: str | None = None,
        settings: Mapping[str, Any] | None = None,
        dtype: str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        settings = settings or {}
        refused = [name for name in settings if name not in self.accepted]
        if refused:
            raise ValueError(
                f"Expected settings out of {', '.join(self.accepted)} for CLIP-DIY, but got {', '.join(refused)}. "
                "Leave them out."
            )
        classes = [VocabularyClass(entry.names) for entry in vocabulary.classes]
        self.vocabulary = Vocabulary(classes, [BACKGROUND_LABEL] if vocabulary.background else [], vocabulary.metadata)
        self.name = os.fspath(checkpoint)
        self.prepare_images = _prepare_images
        self._model, processor = load(checkpoint, method="clip", dtype=dtype, device=device)
        self._weights_sha256 = hash_weights(self._model)
        place = settings.get("second_checkpoint")
        self._found = None if place is None else Found(place, self._model.device)
        processor.templates = [TEMPLATE]
        inputs = processor(text=list(self.vocabulary.query_names)).to(self._model.device)
        self._texts = TextCache().encode_texts(self._model, inputs["input_ids"], inputs["attention_mask"])
        self._model.set_attn_implementation({"vision_config": "eager"})

    @torch.inference_mode()
    def predict(self, prepared: Mapping[str, Any]) -> list[Prediction]:
        """Label and confidence maps of a batch; the confidence is the softmax over classes, at temperature 1."""
        images = prepared["images"]
        maps = prepared.get("saliency_maps") or [None] * len(images)
        return [self._predict_one(image, saliency) for image, saliency in zip(images, maps, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Weights, prompts, windows, saliency, number format and device kind."""
        saliency: Any = "none, which is not the published system"
        if self._found is not None:
            saliency = {"found": self._found.backbone, "weights_sha256": hash_weights(self._found.state())}
        return {
            "method": "CLIP-DIY" if self._found is not None else "CLIP-DIY without saliency",
            "model": self.name,
            "weights_sha256": self._weights_sha256,
            "template": TEMPLATE,
            "synonyms": "best name",
            "auxiliary_texts": "not used",
            "background_words": "not used",
            "side": SIDE,
            "windows": list(WINDOWS),
            "saliency": saliency,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": self._model.device.type,
        }

    def _predict_one(self, image: np.ndarray, saliency: Any) -> Prediction:
        square = stretch_to_square(image)
        grids = [compare_windows(self._model, square, window, self._texts) for window in WINDOWS]
        scores = average_grids([self._pick_best_names(grid) for grid in grids])
        if self.vocabulary.background:
            if saliency is None and self._found is not None:
                saliency = self._found(image)
            if saliency is not None:
                scores = weigh_by_saliency(scores, torch.as_tensor(saliency).to(scores))
        best, labels = scores.softmax(0).max(0)
        height, width = image.shape[:2]
        return Prediction(_stretch(labels, height, width).long(), _stretch(best, height, width))

    def _pick_best_names(self, grid: torch.Tensor) -> torch.Tensor:
        """(names, rows, columns) -> (classes, rows, columns)."""
        names_per_class = [len(entry.names) for entry in self.vocabulary.classes]
        if self.vocabulary.background:
            names_per_class = [1, *names_per_class]
        return torch.stack([names.amax(0) for names in grid.split(names_per_class)])


def stretch_to_square(image: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 -> (256, 256, 3), bilinearly, not antialiased."""
    return np.moveaxis(resize_image(np.moveaxis(image, -1, 0), (SIDE, SIDE)), 0, -1)


def cut_windows(square: np.ndarray, window: int) -> list[np.ndarray]:
    """Windows of (256, 256, 3), row by row, half a window apart."""
    starts = range(0, SIDE - window + 1, window // 2)
    return [square[top : top + window, left : left + window] for top in starts for left in starts]


def compare_windows(model: Any, square: np.ndarray, window: int, text_features: torch.Tensor) -> torch.Tensor:
    """Cosines of the windows of one size with each text.

    Args:
        model: `CLIPModel` with eager attention.
        square: (256, 256, 3) uint8.
        window: Its side in pixels.
        text_features: (texts, dim) unit vectors.

    Returns:
        (texts, rows, columns).
    """
    side = model.config.vision_config.image_size
    resized = [
        np.asarray(Image.fromarray(part).resize((side, side), Image.Resampling.BICUBIC))
        for part in cut_windows(square, window)
    ]
    features = [
        embed_images(model, normalize_colors(resized[start : start + WINDOWS_PER_BATCH], model))
        for start in range(0, len(resized), WINDOWS_PER_BATCH)
    ]
    rows = round(len(resized) ** 0.5)
    return (text_features @ torch.cat(features).T).unflatten(1, (rows, rows))


def average_grids(grids: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of grids of windows, (classes, rows, columns) each, all stretched bilinearly: (classes, 256, 256)."""
    stretched = [F.interpolate(grid[None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0] for grid in grids]
    return torch.stack(stretched).mean(0)


def weigh_by_saliency(scores: torch.Tensor, saliency: torch.Tensor) -> torch.Tensor:
    """Scores (classes, rows, columns), the background first, times what is no object there, the others times what is.

    Args:
        scores: The scores.
        saliency: (height, width) from 0 to 1, of any size.
    """
    is_object = F.interpolate(saliency[None, None], scores.shape[1:], mode="bilinear", align_corners=False)[0]
    return scores * torch.cat([1 - is_object, is_object.expand(len(scores) - 1, -1, -1)])


def _stretch(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Nearest value for each pixel, the place rounded down as the published evaluation has it."""
    return F.interpolate(values[None, None].float(), (height, width), mode="nearest")[0, 0]


def _prepare_images(images: list[Image.Image]) -> dict[str, Any]:
    """`images`, a list of (height, width, 3) uint8 arrays of any sizes."""
    return {"images": [np.asarray(read_rgb_image(image)) for image in images]}
