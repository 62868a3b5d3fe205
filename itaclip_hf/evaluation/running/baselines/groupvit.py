"""GroupViT with the rules of its published evaluation: pixels belong to groups, groups to classes.

Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision" (CVPR 2022). It knows neither auxiliary
texts nor lists of background words: class names are prompts, and the background, where the vocabulary has one, is what
no class claims. The paper gives every class one name. Here a class with synonyms counts as its best name: the largest
similarity of its names stands for it before anything is normalised over classes. So thresholds keep their meaning,
and classes of one name are treated exactly as published.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, GroupViTModel, PreTrainedConfig

from ....loading import choose_dtype, resolve_checkpoint, telling_what_is_broken
from ....methods import check_setting
from ....processing import Vocabulary, read_rgb_image
from ..predictor import Prediction
from .clip_images import normalize_colors
from .system import System

__all__ = ["GroupViT"]

Size = tuple[int, int]

PROMPT_TEMPLATE = "a photo of a {}."
SHORTEST_EDGE, LONGEST_EDGE = 448, 2048
LARGEST_SCALE = 100.0
CLASSES_PER_IMAGE = 5
BACKGROUND_THRESHOLDS = {"voc21": 0.95, "context60": 0.35, "coco_object": 0.95}
BACKGROUND_THRESHOLD = 0.95  # the published code's default, for anything but its three benchmarks


class GroupViT(System):
    """A GroupViT checkpoint; see [`System`].

    Each pixel belongs to the group with the largest soft assignment (of all stages multiplied, interpolated
    bilinearly); a group's class probability is the softmax over all classes times that over the five classes that are
    likeliest for the whole image; and a pixel is background if its best probability is below the threshold or, where
    no group reaches that, below the best group's. The confidence is the best class's score, before the threshold.
    Differently from there, both sides of the resized image are rounded to whole patches, so that nothing is cut off.
    Settings: another background threshold than the paper's, as `score_threshold`, and another image size, as
    `shortest_edge`.
    """

    title = "GroupViT"
    accepted = ("score_threshold", "shortest_edge")
    model_type = "groupvit"
    takes_background_words = False

    def _load(self, settings: Mapping[str, Any], dtype: torch.dtype | str, device: torch.device) -> None:
        self._asked_threshold, edge = (settings.get(name) for name in self.accepted)
        self._shortest_edge: int = SHORTEST_EDGE if edge is None else check_setting("shortest_edge", edge)
        if self._asked_threshold is not None and not 0 <= self._asked_threshold <= 1:
            raise ValueError(
                f"Expected a background threshold between 0 and 1, but got {self._asked_threshold}. Use 0.95, for "
                "example."
            )
        place = resolve_checkpoint(self.name)
        with telling_what_is_broken(self.name, "configuration", "GroupViT checkpoint"):
            found, _ = PreTrainedConfig.get_config_dict(place)
        if found.get("model_type") != self.model_type:
            raise ValueError(
                f"Expected a GroupViT checkpoint, but {self.name} is of the type {found.get('model_type')}. Name "
                "another, such as nvidia/groupvit-gcc-yfcc."
            )
        with telling_what_is_broken(self.name, "model", "GroupViT checkpoint"):
            self._model = _load_complete(self.name, dtype, device)
        with telling_what_is_broken(self.name, "processor", "GroupViT checkpoint"):
            self._tokenizer = AutoTokenizer.from_pretrained(self.name)
            image_processor = AutoImageProcessor.from_pretrained(self.name)
        self._patch_size: int = self._model.config.vision_config.patch_size
        self._pixels = {"image_mean": list(image_processor.image_mean), "image_std": list(image_processor.image_std)}
        self.prepare_images = functools.partial(_prepare_images, self._patch_size, self._shortest_edge, **self._pixels)

    def _encode_vocabulary(self, vocabulary: Vocabulary) -> None:
        threshold = self._asked_threshold
        if threshold is not None and not vocabulary.background:
            raise ValueError(
                f"Expected no background threshold without a background in the vocabulary, but got {threshold}. Leave "
                "it out, or give the vocabulary a background."
            )
        usual = BACKGROUND_THRESHOLDS.get(self._benchmark or "", BACKGROUND_THRESHOLD)
        self._threshold = usual if threshold is None else threshold
        self._text_features = self._encode_names(vocabulary)

    def _describe(self) -> dict[str, Any]:
        config = self._model.config.to_diff_dict()
        for derived in ("transformers_version", "_name_or_path", "dtype"):
            config.pop(derived, None)
        return {
            "config": config,
            "template": PROMPT_TEMPLATE,
            "synonyms": "best name",
            "background_threshold": self._threshold if self.vocabulary.background else None,
            "shortest_edge": self._shortest_edge,
            "longest_side": LONGEST_EDGE,
            "classes_per_image": CLASSES_PER_IMAGE,
            **self._pixels,
            "resample": int(Image.Resampling.BILINEAR),
        }

    def _predict_one(self, vocabulary: Vocabulary, pixels: torch.Tensor, size: Size) -> Prediction:
        groups, features = self._encode_groups(pixels[None].to(self._model.device, self._model.dtype))
        labels, scores, least = self._claim_pixels(groups, features, size)
        if vocabulary.background:
            labels = (labels + 1).masked_fill(scores < least, 0)
        return Prediction(labels, scores)

    def _encode_names(self, vocabulary: Vocabulary) -> torch.Tensor:
        """(names, dim) unit text features of all class names."""
        prompts = [PROMPT_TEMPLATE.format(name) for entry in vocabulary.classes for name in entry.names]
        tokens = self._tokenizer(prompts, padding=True, return_tensors="pt")
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
        self, groups: torch.Tensor, features: torch.Tensor, size: Size
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


def _load_complete(name: str, dtype: torch.dtype | str, device: torch.device) -> Any:
    number_format = choose_dtype(dtype, device)
    # Without the last one, other shapes are a RuntimeError of many lines.
    loaded: Any = GroupViTModel.from_pretrained(
        name, dtype=number_format, output_loading_info=True, ignore_mismatched_sizes=True
    )
    model, report = loaded
    lacking = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if lacking:
        raise ValueError(
            f"Expected a whole GroupViT, but {name} lacks {len(lacking)} weights, among them {min(lacking)}. Name "
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
    """Lists: `pixel_values` (3, height, width) of any sizes, and `original_sizes`, height before width."""
    # Transformers' own processors resize differently with and without torchvision.
    pixel_values, sizes = [], []
    for image in images:
        colors = read_rgb_image(image)
        size = _whole_patches(colors.size, patch_size, shortest_edge)
        resized = np.asarray(colors.resize(size, Image.Resampling.BILINEAR))
        # Contiguous, as kernels for other strides round differently.
        pixel_values.append(normalize_colors([resized], image_mean, image_std)[0].contiguous())
        sizes.append((colors.height, colors.width))
    return {"pixel_values": pixel_values, "original_sizes": sizes}


def _whole_patches(size: Size, patch_size: int, shortest_edge: int) -> Size:
    """Size that keeps the proportions up to whole patches."""
    factor = min(shortest_edge / min(size), LONGEST_EDGE / max(size))
    width, height = (max(1, round(length * factor / patch_size)) * patch_size for length in size)
    return width, height
