"""CaR, "CLIP as RNN": one CLIP proposes a mask for each name, another judges the masks, until no name is dropped.

Sun et al., "CLIP as RNN: Segment Countless Visual Concepts without Training Endeavor" (CVPR 2024). The proposer makes
activation maps of all names that are left. Each mask is shown to the judge as a mark on the image, and names whose
mask does not look like them are dropped. Stages repeat until the number of names stays the same; the last stage's
masks, refined along the image, are the result. A class with synonyms is one text, its names joined by commas, as the
published lists have it; those of Pascal VOC and COCO-Object are used for the benchmarks' own words. The figures were
made with ViT-B/16 as proposer and ViT-L/14 as judge.
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
from .clip_images import CLIP_NORMALIZATION, Normalization, embed_images, make_pixel_values, shrink_image
from .refinement import REFINEMENT_SETTINGS, Refinement
from .system import System, encode_names, find_normalization, load_clip, prepare_arrays, stretch_map
from .tagclip import COCO_BACKGROUND_WORDS, find_published_words, list_map_texts
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
CONTEXT_STUFF = (
    "bedclothes", "ceiling", "cloth", "curtain", "door", "fence", "floor", "grass", "ground", "light", "mountain",
    "platform", "road", "rock", "sidewalk", "sky", "snow", "wall", "water", "window", "wood",
)  # fmt: skip
"""Labels of Pascal Context that the published program looks for by themselves; its other 38 are things."""

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
STUFF_RULES = CaRRules(0.25, 0.6, 0.4, ("blur", "gray"))


class Search(NamedTuple):
    """Classes that are looked for together.

    Attributes:
        classes: Their places in the vocabulary, increasing.
        background_words: What the proposer is asked beside them.
        rules: By which they are kept.
    """

    classes: list[int]
    background_words: list[str]
    rules: CaRRules


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
        used_masks: (rows, height, width), what counts if this stage is the last: its masks, or, where these are zero
            everywhere, those that counted before. Then there may be more rows than names.
        used_classes: (rows,) the classes that these masks were made for.
    """

    classes: torch.Tensor
    masks: torch.Tensor
    text_scores: torch.Tensor
    kept: torch.Tensor
    used_masks: torch.Tensor
    used_classes: torch.Tensor


class CaR(System):
    """CaR, on one CLIP checkpoint or two; see [`System`].

    Background words only draw activation off things: the published list for the published benchmarks, else the
    vocabulary's, without words that are names of its classes. A vocabulary without a background has no background
    map, and every pixel goes to one of the names that were kept. Pascal Context is two searches: stuff, then things,
    which are written over it. The confidence is the refined map of the pixel's class. Settings: the judge's
    checkpoint, as `second_checkpoint` (default: the proposer), and PAMR instead of the dense CRF, as steps of PAMR.
    Thresholds and marks are those of Pascal VOC but on the benchmarks that have others.
    """

    title = "CaR"
    accepted = ("second_checkpoint", *REFINEMENT_SETTINGS)
    has_crf = True

    def _load(self, settings: Mapping[str, Any], dtype: torch.dtype | str, device: torch.device) -> None:
        self._refinement, judge = Refinement.choose(settings, self.has_crf), settings.get("second_checkpoint")
        self.prepare_images = prepare_arrays
        self._judge_name = self.name if judge is None else os.fspath(judge)
        self._model, self._processor = load_clip(self.name, dtype, device)
        self._pixels = find_normalization(self._processor)
        self._judge, self._judge_processor, self._judge_pixels = self._model, self._processor, self._pixels
        if judge is not None:
            self._judge, self._judge_processor = load_clip(judge, dtype, device)
            self._judge_pixels = find_normalization(self._judge_processor)
        self._judge_sha256 = hash_weights(self._judge)

    def _encode_vocabulary(self, vocabulary: Vocabulary) -> None:
        has_words = self._benchmark in ("voc21", "voc20", "coco_object")  # those that TagCLIP has, too
        published = find_published_words(vocabulary, self._benchmark) if has_words else None
        self._texts_of_classes = [",".join(entry.names) for entry in vocabulary.classes]
        if published is not None:
            self._texts_of_classes, _ = list_map_texts(published)
        self._searches = plan_searches(vocabulary, self._texts_of_classes, self._benchmark)
        self._texts = [self._encode_search(search) for search in self._searches]

    def _encode_search(self, search: Search) -> tuple[ProposerTexts, torch.Tensor]:
        """Texts for the proposer, and those for the judge, (templates, classes, dim)."""
        texts = [self._texts_of_classes[place] for place in search.classes]
        proposed = ProposerTexts(
            self._ask_proposer(texts, "{}"),
            self._ask_proposer(texts, CAM_TEMPLATE),
            self._ask_proposer(search.background_words, CAM_TEMPLATE),
        )
        judged = [encode_names(self._judge, self._judge_processor, texts, [template]) for template in JUDGE_TEMPLATES]
        return proposed, torch.stack(judged)

    def _ask_proposer(self, names: Sequence[str], template: str) -> torch.Tensor:
        return encode_names(self._model, self._processor, names, [template])

    def _describe(self) -> dict[str, Any]:
        *before, last = [self._describe_search(search) for search in self._searches]
        return {
            "judge": self._judge_name,
            "judge_weights_sha256": self._judge_sha256,
            "cam_template": CAM_TEMPLATE,
            "judge_templates": list(JUDGE_TEMPLATES),
            **last,
            "searched_before": before,
            "proposer_pixels": self._pixels,
            "judge_pixels": self._judge_pixels,
            "longest_side": LONGEST_SIDE,
            "refinement": self._refinement.describe(),
        }

    def _describe_search(self, search: Search) -> dict[str, Any]:
        return {
            "class_texts": [self._texts_of_classes[place] for place in search.classes],
            "background_words": search.background_words,
            **asdict(search.rules),
            "visual_prompts": list(search.rules.visual_prompts),
        }

    def _predict_one(self, vocabulary: Vocabulary, image: np.ndarray) -> Prediction:
        shrunk = shrink_image(image, LONGEST_SIDE)
        found = [
            self._search_image(shrunk, search, *texts, has_background=bool(vocabulary.background))
            for search, texts in zip(self._searches, self._texts, strict=True)
        ]
        labels, best = found[0]
        for more_labels, more_best in found[1:]:
            is_found = more_labels > 0
            labels, best = torch.where(is_found, more_labels, labels), torch.where(is_found, more_best, best)
        if shrunk.shape != image.shape:
            labels = stretch_map(labels, image.shape[:2], "nearest-exact").long()
            best = stretch_map(best, image.shape[:2], "bilinear")
        return Prediction(labels, best.clamp(0, 1))

    def _search_image(
        self, image: np.ndarray, search: Search, texts: ProposerTexts, judge_texts: torch.Tensor, has_background: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and confidence (height, width) of one search."""
        towers, normalizations = (self._model, self._judge), (self._pixels, self._judge_pixels)
        stages = recur(*towers, image, texts, judge_texts, search.rules, *normalizations)
        maps, classes = choose_maps(deque(stages, maxlen=1).pop(), has_background, search.rules)
        best, position = self._refinement.apply(maps, torch.tensor(image)).max(0)
        # Class -1 is the background, where there is one.
        ids = torch.tensor([*search.classes, -1])[classes] + has_background
        return ids.to(position.device)[position], best


def plan_searches(vocabulary: Vocabulary, texts: Sequence[str], benchmark: str | None) -> list[Search]:
    """What to look for, one search after the other; what a later one finds is written over the earlier ones'.

    Args:
        vocabulary: The classes.
        texts: What each class is asked for by.
        benchmark: Name of the benchmark.

    Returns:
        Two searches for Pascal Context with its background: stuff, which things are the background words of, and
        things. Else one.
    """
    rules, places = RULES.get(benchmark or "", CaRRules()), range(len(vocabulary.classes))
    stuff = [place for place in places if vocabulary.classes[place].label in CONTEXT_STUFF]
    things = [place for place in places if place not in stuff]
    if benchmark == "context60" and vocabulary.background and stuff and things:
        return [
            Search(stuff, [texts[place] for place in things], STUFF_RULES),
            # All of them as published, though "tree" and "building" are things, too.
            Search(things, list(COCO_BACKGROUND_WORDS), rules),
        ]
    is_own = vocabulary.background and benchmark not in RULES
    words = vocabulary.background if is_own else COCO_BACKGROUND_WORDS
    names = {name for entry in vocabulary.classes for name in entry.names}
    return [Search(list(places), [word for word in words if word not in names], rules)]


def choose_maps(last: Stage, has_background: bool, rules: CaRRules) -> tuple[torch.Tensor, torch.Tensor]:
    """What the last stage leaves, (rows, height, width), and the class of each row, -1 for the background.

    The masks of an earlier stage may count, which has masks of dropped names, too. As published, masks go to the
    names that are left in order, whomever they were made for, and those left over are background. Without a
    background, which the published program does not know, each name that is left has the mask that was made for it.
    """
    if not has_background:
        is_left = torch.isin(last.used_classes, last.classes)
        return last.used_masks[is_left.to(last.used_masks.device)], last.used_classes[is_left]
    left_over = len(last.used_masks) - len(last.classes)
    return add_background(last.used_masks, rules.background_exponent), F.pad(last.classes, (1, left_over), value=-1)


def recur(
    proposer: Any,
    judge: Any,
    image: np.ndarray,
    texts: ProposerTexts,
    judge_texts: torch.Tensor,
    rules: CaRRules,
    normalization: Normalization = CLIP_NORMALIZATION,
    judge_normalization: Normalization = CLIP_NORMALIZATION,
) -> Iterator[Stage]:
    """The stages of one image, (height, width, 3) uint8, the last of which keeps all its names.

    The judge's texts are (templates, classes, dim) unit vectors.
    """
    vision = proposer.vision_model
    resized = resize_to_patches(image, vision.config.patch_size)
    depth = len(vision.encoder.layers)
    with torch.no_grad():
        pixel_values = make_pixel_values(proposer, [resized], normalization)
        tokens = encode_image(vision, pixel_values, range(max(0, depth - AVERAGED_BLOCKS), depth), always_rounds=True)
        affinity = compute_affinity(tokens.attention)
    classes, names, before = torch.arange(judge_texts.shape[1]), texts.bare, 0
    used: tuple[torch.Tensor, torch.Tensor] | None = None
    while True:
        maps = propose_maps(proposer, tokens, names[classes], texts.background)
        maps = refine_maps(maps, affinity, rules.box_threshold)
        masks = resize_maps(maps, image.shape[:2], EPSILON)
        if used is None or masks.any():
            used = masks, classes
        scores = judge_masks(judge, image, masks, judge_texts[:, classes], rules, judge_normalization)
        kept = keep_names(scores.diagonal(), rules.confidence_threshold).cpu()
        yield Stage(classes, masks, scores, kept, *used)
        if len(kept) == before:
            return
        classes, names, before = classes[kept], texts.templated, len(kept)


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
    judge: Any,
    image: np.ndarray,
    masks: torch.Tensor,
    text_features: torch.Tensor,
    rules: CaRRules,
    normalization: Normalization = CLIP_NORMALIZATION,
) -> torch.Tensor:
    """How much the region of each mask, (names, height, width), looks like each name: (names, names), masks in rows.

    For each template, softmax over names of the scaled cosine; then the softmax of the sum over templates. As
    published, the judge's image tower is run without its last block. Texts are (templates, names, dim) unit vectors.
    """
    blurred = blur_image(image) if "blur" in rules.visual_prompts else None
    features = []
    for some in masks.split(IMAGES_PER_BATCH):
        marked = [mark_mask(image, mask, rules, blurred) for mask in some.cpu()]
        pixel_values = make_pixel_values(judge, _crop_for_judge(judge, marked), normalization)
        features.append(embed_images(judge, pixel_values, blocks_left_out=1, always_rounds=True))
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
