"""CaR, "CLIP as RNN": one CLIP proposes a mask for each name, another judges the masks, until no name is dropped.

Sun et al., "CLIP as RNN: Segment Countless Visual Concepts without Training Endeavor" (CVPR 2024). The proposer makes
activation maps of all names that are left. Each mask is shown to the judge as a mark on the image, and names whose
mask does not look like them are dropped. Stages repeat until the number of names stays the same; the last stage's
masks, refined along the image, are the result. A class with synonyms is one text, its names joined by commas, as the
published lists have it; those of Pascal VOC are used for the benchmark's own words. The figures were made with
ViT-B/16 as proposer and ViT-L/14 as judge.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ....processing import Vocabulary
from ..predictor import Prediction, hash_weights
from .activation_maps import (
    add_background,
    compute_activation_maps,
    compute_affinity,
    encode_image,
    refine_maps,
    resize_maps,
    resize_to_patches,
)
from .clip_images import embed_images, make_pixel_values, shrink_image
from .refinement import REFINEMENT_SETTINGS, Refinement
from .system import System, encode_names, load_clip, prepare_arrays, stretch_map
from .tagclip import choose_words, list_map_texts
from .visual_prompts import blur_image, prompt_visually

__all__ = ["CaR", "CaRRules", "ProposerTexts", "Stage"]

CAM_TEMPLATE = "a clean origami {}."
JUDGE_TEMPLATES = (
    CAM_TEMPLATE,
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(
        f"{start} a {size} {{}}."
        for start in ("a photo of", "This is a photo of")
        for size in ("small", "medium", "large")
    ),
    *(f"There is a {size} {{}} in the scene." for size in ("small", "medium", "large")),
)
BACKGROUND_WORDS = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway",
    "railroad", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge",
)  # fmt: skip
EPSILON = 1e-15
AVERAGED_BLOCKS = 8  # the last ones of the proposer
LONGEST_SIDE = 1024  # affinity is quadratic in the number of patches; the benchmarks' images are smaller
IMAGES_PER_BATCH = 8  # that the judge sees at once


@dataclass(frozen=True)
class CaRRules:
    """Numbers that differ between benchmarks; the defaults are those of Pascal VOC.

    Args:
        confidence_threshold: Names whose mask scores no higher are dropped.
        mask_threshold: A pixel above it belongs to the mask that the judge is shown.
        box_threshold: Share of a map's maximum from which on a patch counts for the boxes.
        visual_prompts: How the mask is marked; see `visual_prompts`.
        background_exponent: Of what is left of 1 by all masks, which is the background's map.
    """

    confidence_threshold: float = 0.6
    mask_threshold: float = 0.4
    box_threshold: float = 0.4
    visual_prompts: tuple[str, ...] = ("blur", "circle")
    background_exponent: float = 1.0


RULES = {
    "voc21": CaRRules(),
    "coco_object": CaRRules(0.3, 0.5, 0.5, ("blur", "gray")),
    "context60": CaRRules(0.25, 0.6, 0.4, ("blur", "circle")),
}


class ProposerTexts(NamedTuple):
    """What the proposer is asked, as unit vectors.

    Attributes:
        bare: (classes, dim), names without a template, for the first stage.
        templated: (classes, dim), for the others.
        background: (words, dim)
    """

    bare: torch.Tensor
    templated: torch.Tensor
    background: torch.Tensor


class Stage(NamedTuple):
    """One recurrence.

    Attributes:
        classes: (names,) the classes that entered it, increasing.
        masks: (names, height, width) from 0 to 1.
        text_scores: (names, names) the judge's scores of each mask, in rows, for each name.
        kept: (kept,) positions in `classes` of those that are kept, increasing.
    """

    classes: torch.Tensor
    masks: torch.Tensor
    text_scores: torch.Tensor
    kept: torch.Tensor


class CaR(System):
    """CaR, on one CLIP checkpoint or two; see [`System`].

    Background words only draw activation off things: the published list for the published benchmarks, else the
    vocabulary's, without words that are names of its classes. A vocabulary without a background has no background
    map, and every pixel goes to one of the names that were kept. The confidence is the refined map of the pixel's
    class. Settings: the judge's checkpoint, as `second_checkpoint` (default: the proposer), and PAMR instead of the
    dense CRF, as steps of PAMR. Thresholds and marks are those of Pascal VOC but on the benchmarks that have others.
    """

    title = "CaR"
    accepted = ("second_checkpoint", *REFINEMENT_SETTINGS)
    has_crf = True

    def _load(self, settings: Mapping[str, Any], dtype: torch.dtype | str, device: torch.device) -> None:
        self._refinement, judge = Refinement.choose(settings, self.has_crf), settings.get("second_checkpoint")
        self.rules = RULES.get(self._benchmark or "", CaRRules())
        self.prepare_images = prepare_arrays
        self._judge_name = self.name if judge is None else os.fspath(judge)
        self._model, self._processor = load_clip(self.name, dtype, device)
        self._judge, self._judge_processor = self._model, self._processor
        if judge is not None:
            self._judge, self._judge_processor = load_clip(judge, dtype, device)
        self._judge_sha256 = hash_weights(self._judge)

    def _encode_vocabulary(self, vocabulary: Vocabulary) -> None:
        is_own = vocabulary.background and self._benchmark not in RULES
        classes = {name for entry in vocabulary.classes for name in entry.names}
        words = vocabulary.background if is_own else BACKGROUND_WORDS
        self._background_words = [word for word in words if word not in classes]
        published = choose_words(vocabulary, self._benchmark)
        self._texts_of_classes = [",".join(entry.names) for entry in vocabulary.classes]
        if published is not vocabulary:
            self._texts_of_classes, _ = list_map_texts(published)
        self._texts = ProposerTexts(
            self._ask_proposer(self._texts_of_classes, "{}"),
            self._ask_proposer(self._texts_of_classes, CAM_TEMPLATE),
            self._ask_proposer(self._background_words, CAM_TEMPLATE),
        )
        judged = [
            encode_names(self._judge, self._judge_processor, self._texts_of_classes, [template])
            for template in JUDGE_TEMPLATES
        ]
        self._judge_texts = torch.stack(judged)

    def _ask_proposer(self, names: Sequence[str], template: str) -> torch.Tensor:
        return encode_names(self._model, self._processor, names, [template])

    def _describe(self) -> dict[str, Any]:
        return {
            "judge": self._judge_name,
            "judge_weights_sha256": self._judge_sha256,
            "cam_template": CAM_TEMPLATE,
            "judge_templates": list(JUDGE_TEMPLATES),
            "class_texts": self._texts_of_classes,
            "background_words": self._background_words,
            **asdict(self.rules),
            "visual_prompts": list(self.rules.visual_prompts),
            "longest_side": LONGEST_SIDE,
            "refinement": self._refinement.describe(),
        }

    def _predict_one(self, vocabulary: Vocabulary, image: np.ndarray) -> Prediction:
        shrunk = shrink_image(image, LONGEST_SIDE)
        stages = recur(self._model, self._judge, shrunk, self._texts, self._judge_texts, self.rules)
        last = deque(stages, maxlen=1).pop()  # masks of the others are let go
        maps, ids = last.masks, last.classes
        if vocabulary.background:
            maps, ids = add_background(maps, self.rules.background_exponent), F.pad(ids + 1, (1, 0))
        best, position = self._refinement.apply(maps, torch.tensor(shrunk)).max(0)
        labels = ids.to(position.device)[position]
        if shrunk.shape != image.shape:
            labels = stretch_map(labels, image.shape[:2], "nearest-exact").long()
            best = stretch_map(best, image.shape[:2], "bilinear")
        return Prediction(labels, best.clamp(0, 1))


def recur(
    proposer: Any,
    judge: Any,
    image: np.ndarray,
    texts: ProposerTexts,
    judge_texts: torch.Tensor,
    rules: CaRRules,
) -> Iterator[Stage]:
    """The stages of one image, (height, width, 3) uint8, the last of which keeps all its names.

    The judge's texts are (templates, classes, dim) unit vectors.
    """
    vision = proposer.vision_model
    resized = resize_to_patches(image, vision.config.patch_size)
    depth = len(vision.encoder.layers)
    with torch.no_grad():
        pixel_values = make_pixel_values(proposer, [resized])
        tokens = encode_image(vision, pixel_values, range(max(0, depth - AVERAGED_BLOCKS), depth))
        affinity = compute_affinity(tokens.attention)
    classes, names, before, masks_before = torch.arange(judge_texts.shape[1]), texts.bare, 0, None
    while True:
        maps = propose_maps(proposer, tokens, names[classes], texts.background)
        maps = refine_maps(maps, affinity, rules.box_threshold)
        masks = resize_maps(maps, image.shape[:2], EPSILON)
        if masks_before is not None and not masks.any():
            masks = masks_before
        scores = judge_masks(judge, image, masks, judge_texts[:, classes], rules)
        kept = keep_names(scores.diagonal(), rules.confidence_threshold).cpu()
        yield Stage(classes, masks, scores, kept)
        if len(kept) == before:
            return
        classes, names, before, masks_before = classes[kept], texts.templated, len(kept), masks[kept]


def propose_maps(
    proposer: Any, tokens: Any, class_features: torch.Tensor, background_features: torch.Tensor
) -> torch.Tensor:
    """Activation maps (names, rows, columns) from 0 to 1.

    A map that the background words leave empty is made without them.
    """
    count, features = len(class_features), torch.cat([class_features, background_features])
    maps, _ = compute_activation_maps(proposer, tokens, features, count, EPSILON)
    is_empty = ~maps.flatten(1).any(1)
    if is_empty.any():
        alone, _ = compute_activation_maps(proposer, tokens, class_features, count, EPSILON)
        maps = torch.where(is_empty[:, None, None], alone, maps)
    return maps


@torch.no_grad()
def judge_masks(
    judge: Any, image: np.ndarray, masks: torch.Tensor, text_features: torch.Tensor, rules: CaRRules
) -> torch.Tensor:
    """How much the region of each mask, (names, height, width), looks like each name: (names, names), masks in rows.

    For each template, softmax over names of the scaled cosine; then the softmax of the sum over templates. As
    published, the judge's image tower is run without its last block. Texts are (templates, names, dim) unit vectors.
    """
    blurred = blur_image(image) if "blur" in rules.visual_prompts else None
    features = []
    for some in masks.split(IMAGES_PER_BATCH):
        marked = [mark_mask(image, mask, rules, blurred) for mask in some.cpu()]
        pixel_values = make_pixel_values(judge, _crop_for_judge(judge, marked))
        features.append(embed_images(judge, pixel_values, blocks_left_out=1))
    cosine = torch.cat(features) @ text_features.transpose(1, 2)  # (templates, masks, names)
    scores: torch.Tensor = (judge.logit_scale.float().exp() * cosine).softmax(-1).sum(0).softmax(-1)
    return scores


def mark_mask(image: np.ndarray, mask: torch.Tensor, rules: CaRRules, blurred: np.ndarray | None = None) -> np.ndarray:
    """The image as the judge is shown it, see `prompt_visually`; a mask as good as empty leaves it plain."""
    if mask.sum() <= 1:
        return image
    return prompt_visually(image, (mask > rules.mask_threshold).numpy(), rules.visual_prompts, blurred)


def keep_names(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Positions of scores (names,) above the threshold; of the best one if there are none."""
    (kept,) = torch.where(scores > threshold)
    return kept if len(kept) else scores.argmax()[None]


def _crop_for_judge(judge: Any, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The middle square of each image at the judge's size: shortest side resized bicubically, then cropped."""
    side: int = judge.vision_model.config.image_size
    cropped = []
    for image in images:
        height, width = image.shape[:2]
        # Cut off here and rounded below, as torchvision's Resize and CenterCrop do.
        size = [int(side * length / min(height, width)) for length in (width, height)]
        resized = Image.fromarray(image).resize((size[0], size[1]), Image.Resampling.BICUBIC)
        left, top = (round((length - side) / 2) for length in size)
        cropped.append(np.asarray(resized.crop((left, top, left + side, top + side))))
    return cropped
