"""GroupViT with the rules of its published evaluation: pixels belong to groups, groups to classes.

Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision" (CVPR 2022). It knows neither auxiliary
texts nor lists of background words: class names are prompts, and the background, where the vocabulary has one, is what
no class claims. The paper gives every class one name. Here a class with synonyms counts as its best name: the largest
similarity of its names stands for it before anything is normalised over classes. So thresholds keep their meaning,
and classes of one name are treated exactly as published.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, GroupViTModel

from ....loading import choose_dtype
from ....processing import BACKGROUND_LABEL, Vocabulary, VocabularyClass, read_image
from ..predictor import Prediction, hash_weights

__all__ = ["GroupViT"]

Size = tuple[int, int]

PROMPT_TEMPLATE = "a photo of a {}."
SHORTEST_EDGE, LONGEST_EDGE = 448, 2048
LARGEST_SCALE = 100.0
CLASSES_PER_IMAGE = 5
BACKGROUND_THRESHOLDS = {"voc21": 0.95, "context60": 0.35, "coco_object": 0.95}
BACKGROUND_THRESHOLD = 0.95  # the published code's default, for anything but its three benchmarks


class GroupViT:
    """A GroupViT checkpoint as `Predictor`.

    Each pixel belongs to the group with the largest soft assignment (of all stages multiplied, interpolated
    bilinearly); a group's class probability is the softmax over all classes times that over the five classes that are
    likeliest for the whole image; and a pixel is background if its best probability is below the threshold or, where
    no group reaches that, below the best group's.
    Differently from there, both sides of the resized image are rounded to whole patches, so that nothing is cut off.

    Args:
        checkpoint: Folder or hub id.
        vocabulary: The classes; of a list of background words it only matters that there is one.
        benchmark: Name of the benchmark, for the paper's background threshold.
        settings: Another background threshold, as `score_threshold`, and another image size, as `shortest_edge`.
        dtype: Number format, as for `choose_dtype`.
        device: Where it shall run.

    Raises:
        ValueError: If the checkpoint lacks weights, a setting does not apply, or a class name is too long.
        OSError: If the checkpoint cannot be loaded.
    """

    accepted: tuple[str, ...] = ("score_threshold", "shortest_edge")

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        vocabulary: Vocabulary,
        benchmark: str | None = None,
        settings: Mapping[str, Any] | None = None,
        dtype: str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        threshold, self._shortest_edge = self._read_settings(settings or {}, vocabulary)
        usual = BACKGROUND_THRESHOLDS.get(benchmark or "", BACKGROUND_THRESHOLD)
        self._threshold = usual if threshold is None else threshold
        classes = [VocabularyClass(entry.names) for entry in vocabulary.classes]
        self.vocabulary = Vocabulary(classes, [BACKGROUND_LABEL] if vocabulary.background else [], vocabulary.metadata)
        self.name = os.fspath(checkpoint)
        self._model = _load_complete(checkpoint, dtype, torch.device(device))
        # Projections keep statistics in buffers.
        self._weights_sha256 = hash_weights(self._model, with_buffers=True)
        self._text_features = self._encode_names(AutoTokenizer.from_pretrained(checkpoint))
        self._patch_size: int = self._model.config.vision_config.patch_size
        image_processor = AutoImageProcessor.from_pretrained(checkpoint)
        self._pixels = {"image_mean": list(image_processor.image_mean), "image_std": list(image_processor.image_std)}
        self.prepare_images = functools.partial(_prepare_images, self._patch_size, self._shortest_edge, **self._pixels)

    @torch.inference_mode()
    def predict(self, prepared: Mapping[str, Any]) -> list[Prediction]:
        """Label and confidence maps of a batch; the confidence is the best class's score, before the threshold."""
        predictions = []
        for pixels, size in zip(prepared["pixel_values"], prepared["original_sizes"].tolist(), strict=True):
            groups, features = self._encode_groups(pixels[None].to(self._model.device, self._model.dtype))
            labels, scores, least = self._claim_pixels(groups, features, size)
            if self.vocabulary.background:
                labels = (labels + 1).masked_fill(scores < least, 0)
            predictions.append(Prediction(labels, scores))
        return predictions

    def describe(self) -> dict[str, Any]:
        """Weights, configuration, prompts, rules and thresholds, number format and device kind."""
        config = self._model.config.to_diff_dict()
        for derived in ("transformers_version", "_name_or_path", "dtype"):
            config.pop(derived, None)
        return {
            "method": "GroupViT",
            "model": self.name,
            "weights_sha256": self._weights_sha256,
            "config": config,
            "template": PROMPT_TEMPLATE,
            "synonyms": "best name",
            "auxiliary_texts": "not used",
            "background_words": "not used",
            "background_threshold": self._threshold if self.vocabulary.background else None,
            "shortest_edge": self._shortest_edge,
            "largest_side": LONGEST_EDGE,
            "classes_per_image": CLASSES_PER_IMAGE,
            **self._pixels,
            "resample": int(Image.Resampling.BILINEAR),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": self._model.device.type,
        }

    def _read_settings(self, settings: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[float | None, int]:
        refused = [name for name in settings if name not in self.accepted]
        if refused:
            raise ValueError(
                f"Expected settings out of {', '.join(self.accepted)} for GroupViT, but got {', '.join(refused)}. "
                "Leave them out."
            )
        threshold, edge = (settings.get(name) for name in self.accepted)
        if threshold is not None and not vocabulary.background:
            raise ValueError(
                f"Expected no background threshold without a background in the vocabulary, but got {threshold}. Leave "
                "it out, or give the vocabulary a background."
            )
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(
                f"Expected a background threshold between 0 and 1, but got {threshold}. Use 0.95, for example."
            )
        return threshold, SHORTEST_EDGE if edge is None else edge

    @torch.inference_mode()
    def _encode_names(self, tokenizer: Any) -> torch.Tensor:
        """(names, dim) unit text features of all class names."""
        prompts = [PROMPT_TEMPLATE.format(name) for entry in self.vocabulary.classes for name in entry.names]
        tokens = tokenizer(prompts, padding=True, return_tensors="pt")
        longest = self._model.config.text_config.max_position_embeddings
        lengths = tokens["attention_mask"].sum(1)
        if lengths.max() > longest:
            raise ValueError(
                f"Expected prompts of at most {longest} tokens, but {prompts[int(lengths.argmax())]!r} has "
                f"{int(lengths.max())}. Shorten the class's name."
            )
        inputs = {key: tokens[key].to(self._model.device) for key in ("input_ids", "attention_mask")}
        features: torch.Tensor = self._model.get_text_features(**inputs, return_dict=True).pooler_output
        return F.normalize(features.float(), dim=-1)

    def _encode_groups(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Groups of one image.

        Returns:
            Soft assignments (1, groups, height, width) of pixels to the last stage's groups, and unit features
            (1 + groups, dim), those of the whole image first.
        """
        vision = self._model.vision_model
        height, width = pixel_values.shape[-2:]
        # The whole model refuses images that are not of its training size; its embeddings do not.
        hidden_states = vision.embeddings(pixel_values, interpolate_pos_encoding=True)
        encoded = vision.encoder(hidden_states, output_attentions=True, return_dict=True)
        groups = vision.layernorm(encoded.last_hidden_state)
        features = self._model.visual_projection(torch.cat([groups.mean(1, keepdim=True), groups], dim=1)[0])
        assignment = functools.reduce(lambda before, after: after @ before, encoded.attentions)
        assignment = assignment.float().unflatten(-1, (height // self._patch_size, width // self._patch_size))
        assignment = F.interpolate(assignment, (height, width), mode="bilinear", align_corners=False)
        return assignment, F.normalize(features.float(), dim=-1)

    def _claim_pixels(
        self, groups: torch.Tensor, features: torch.Tensor, size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Class and probability of each pixel, (height, width), and the probability below which it is background."""
        similarity = self._model.logit_scale.float().exp().clamp(max=LARGEST_SCALE) * features @ self._text_features.T
        names_per_class = [len(entry.names) for entry in self.vocabulary.classes]
        of_classes = [of_names.amax(-1) for of_names in similarity.split(names_per_class, -1)]
        similarity = torch.stack(of_classes, -1)  # (1 + groups, names) -> (1 + groups, classes)
        likeliest = similarity[0].topk(min(CLASSES_PER_IMAGE, similarity.shape[1])).indices
        elsewhere = torch.ones_like(similarity[0], dtype=torch.bool).scatter(0, likeliest, False)
        among_likeliest = similarity[1:].masked_fill(elsewhere, -torch.inf).softmax(-1)
        best, classes = (among_likeliest * similarity[1:].softmax(-1)).max(-1)  # one class for each group
        group = F.interpolate(groups, size, mode="bilinear", align_corners=False)[0].argmax(0)
        return classes[group], best[group], min(self._threshold, float(best.max()))


def _load_complete(name: str | os.PathLike[str], dtype: str, device: torch.device) -> Any:
    number_format = choose_dtype(dtype, device)
    loaded: Any = GroupViTModel.from_pretrained(name, dtype=number_format, output_loading_info=True)
    model, report = loaded
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise ValueError(
            f"Expected a whole GroupViT, but {name} lacks {len(lacking)} weights, among them {lacking[0]}. Name "
            "another checkpoint."
        )
    return model.to(device).eval()


def _prepare_images(
    patch_size: int,
    shortest_edge: int,
    images: list[Image.Image],
    image_mean: Sequence[float],
    image_std: Sequence[float],
) -> dict[str, Any]:
    """`pixel_values`, a list of (3, height, width) of any sizes, and `original_sizes` (batch, 2)."""
    # Transformers' own processors resize differently with and without torchvision.
    pixel_values, sizes = [], []
    for image in images:
        colors = Image.fromarray(np.moveaxis(read_image(image), 0, -1).clip(0, 255).astype(np.uint8))
        size = _whole_patches((colors.width, colors.height), patch_size, shortest_edge)
        resized = np.asarray(colors.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
        normalized = (resized / 255 - np.asarray(image_mean, np.float32)) / np.asarray(image_std, np.float32)
        pixel_values.append(torch.from_numpy(np.moveaxis(normalized, -1, 0).copy()))
        sizes.append((colors.height, colors.width))
    return {"pixel_values": pixel_values, "original_sizes": torch.tensor(sizes)}


def _whole_patches(size: Size, patch_size: int, shortest_edge: int) -> Size:
    """Size that keeps the proportions up to whole patches."""
    factor = min(shortest_edge / min(size), LONGEST_EDGE / max(size))
    width, height = (max(1, round(length * factor / patch_size)) * patch_size for length in size)
    return width, height
