"""TagCLIP: first which classes an image shows, then where, for these alone.

Lin et al., "TagCLIP: A Local-to-Global Framework to Enhance Open-Vocabulary Multi-Label Classification of CLIP Without
Training" (AAAI 2024), with the maps of CLIP-ES that its segmentation figures were made with. The image goes through
the tower once, at its own size: patches that attend to themselves alone in the last block are scored, scores spread
along the attention of earlier blocks, and classes that look present are scored again on the crop around them. What
exceeds a threshold is a label. Grad-CAM of the labels, against the background words, makes the label map.

Block numbers, thresholds and prompts are those of the published program. It takes ViT-B/16; on other towers, blocks
are counted from the last one and patches and crops have the tower's own size.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ....processing import BACKGROUND_LABEL, IMAGENET_TEMPLATES, Vocabulary, read_rgb_image
from ...data.benchmarks import get_benchmark
from ..predictor import Prediction
from .activation_maps import (
    Tokens,
    add_background,
    compute_activation_maps,
    compute_affinity,
    embed_patches,
    mask_boxes,
    refine_maps,
    resize_maps,
    resize_to_patches,
    run_block,
    run_blocks,
)
from .clip_images import normalize_colors, shrink_image
from .refinement import REFINEMENT_SETTINGS, Refinement
from .system import System, encode_names, find_normalization, load_clip

__all__ = ["Rules", "TagCLIP", "TagCLIPWithCRF"]

TAG_TEMPLATES = (
    *IMAGENET_TEMPLATES,
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
MAP_TEMPLATES = ("a clean origami {}.",)
OFF_DIAGONAL, OUTSIDE_OF_CROP = -100.0, -1000.0  # added to attention logits
VOTE_SHARE = 1 / 3  # of all blocks: 4 of 12
ACTIVE_SHARE = 0.5  # of a class's range of scores: what its crop holds
EPSILON = 1e-7
CROPS_AT_ONCE = 16
LONGEST_SIDE = 1024  # the published figures are of smaller images; attention needs the fourth power of this
COCO_BACKGROUND_WORDS = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway",
    "railroad", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge",
)  # fmt: skip
VOCABULARIES = Path(__file__).parents[2] / "data" / "vocabularies"
WORDS = {
    "voc21": "tagclip_voc.json",
    "voc20": "tagclip_voc.json",
    "coco_object": "tagclip_coco_object.json",
    "coco_stuff": "tagclip_coco_stuff.json",
}
"""Published words of benchmarks: of each class the name that it is tagged by, and that by which it is segmented."""


@dataclass(frozen=True)
class Rules:
    """What the published program has otherwise for each benchmark.

    Args:
        spread_blocks: First and end, as in a slice, of the blocks along whose attention patch scores spread.
        map_blocks: The same for Grad-CAM maps.
        box_threshold: Share of a map's maximum, above which boxes are drawn around it.
        label_threshold: Share of the range of scores, above which a class is looked at again and is a label.
    """

    spread_blocks: tuple[int, int | None] = (-4, -1)
    map_blocks: tuple[int, int | None] = (-8, -1)
    box_threshold: float = 0.4
    label_threshold: float = 0.5


RULES = Rules()
"""Of Pascal VOC; for every vocabulary with a background."""

OBJECT_RULES = Rules(map_blocks=(-8, None), box_threshold=0.7)
"""Of COCO-Object."""

STUFF_RULES = Rules((0, -1), (-8, None), 0.7, 0.1)
"""Of COCO-Stuff; for every vocabulary without a background."""


class EncodedImage(NamedTuple):
    """What one pass leaves of an image.

    Attributes:
        tokens: What Grad-CAM starts from.
        features: (1 + patches, projection_dim), every token attending to itself alone in the last block.
        attention: (patches, patches) along which scores spread; 0 where few blocks agree.
    """

    tokens: Tokens
    features: torch.Tensor
    attention: torch.Tensor


class Crop(NamedTuple):
    """Where a class looks present.

    Attributes:
        class_id: Index of the class.
        rows: Of the patch grid.
        columns: Of the patch grid.
        mask: (rows, columns) bool, its patches in there.
    """

    class_id: int
    rows: slice
    columns: slice
    mask: torch.Tensor


def encode_image(model: Any, pixel_values: torch.Tensor, rules: Rules) -> EncodedImage:
    """Run the tower once: (1, 3, height, width) whole patches.

    Blocks vote on each pair of patches: a block is for it where its attention exceeds its own mean. The last block's
    attention is the ordinary one, whatever its output is made with.
    """
    vision = model.vision_model
    blocks = vision.encoder.layers
    spreading, mapping = (range(len(blocks))[slice(*chosen)] for chosen in (rules.spread_blocks, rules.map_blocks))
    height, width = (length // vision.config.patch_size for length in pixel_values.shape[-2:])
    count = height * width
    votes = torch.zeros(count, count, dtype=torch.int16, device=pixel_values.device)
    spread, mapped = (torch.zeros_like(votes, dtype=torch.float32) for _ in range(2))
    for index, (block_input, of_patches) in enumerate(run_blocks(vision, pixel_values)):
        last_input = block_input
        votes += of_patches > of_patches.mean()
        if index in spreading:
            spread += of_patches / len(spreading)
        if index in mapping:
            mapped += of_patches / len(mapping)
    to_itself = torch.full((count + 1, count + 1), OFF_DIAGONAL, dtype=last_input.dtype, device=last_input.device)
    output, _ = run_block(blocks[-1], last_input, to_itself.fill_diagonal_(0)[None, None])
    features = model.visual_projection(vision.post_layernorm(output))[0].float()
    voted = spread * (votes >= max(1, round(VOTE_SHARE * len(blocks))))
    return EncodedImage(Tokens(last_input[0], mapped, (height, width)), features, voted)


def score_texts(model: Any, features: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
    """Probabilities (n, texts) of unit text features (texts, dim) for features (n, dim)."""
    cosine = F.normalize(features.float(), dim=-1) @ text_features.T
    return (model.logit_scale.float().exp() * cosine).softmax(-1)


def spread_scores(scores: torch.Tensor, attention: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Spread scores (patches, texts) along attention (patches, patches), from within boxes.

    A text's boxes are where it is above its mean once it was spread; those whose score is the same everywhere have
    none, and become 0.
    """
    maps = _stretch(attention @ scores).T.unflatten(1, grid)
    boxes = mask_boxes(maps, maps.mean((1, 2)))
    return attention @ (scores * boxes.flatten(1).T)


def find_crops(scores: torch.Tensor, num_classes: int, grid: tuple[int, int], threshold: float) -> list[Crop]:
    """Classes that look present, in order, with the box around their patches.

    As published, boxes leave the last row and column of the grid out, and the first one that is empty then ends the
    search.

    Args:
        scores: (patches, texts), the classes before the background words.
        num_classes: How many of the texts are classes.
        grid: Rows and columns of patches.
        threshold: Share of the range of all scores.
    """
    least = scores.min() + threshold * (scores.max() - scores.min())
    masks = (_stretch(scores) > ACTIVE_SHARE).T.unflatten(1, grid)
    crops = []
    for class_id in torch.where(scores[:, :num_classes].amax(0) > least)[0].tolist():
        mask = masks[class_id]
        rows, columns = (_span(mask.any(axis), length) for axis, length in zip((1, 0), grid, strict=True))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            break
        crops.append(Crop(class_id, rows, columns, mask[rows, columns]))
    return crops


def cut_crops(
    pixel_values: torch.Tensor, crops: Sequence[Crop], patch_size: int, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of (1, 3, height, width) at the tower's own size, (crops, 3, side, side), and their masks.

    The masks are (crops, patches) bool; there must be a crop.
    """
    pixels, masks = [], []
    for crop in crops:
        rows, columns = (slice(part.start * patch_size, part.stop * patch_size) for part in (crop.rows, crop.columns))
        cut = pixel_values[:, :, rows, columns]
        pixels.append(F.interpolate(cut, (side, side), mode="bilinear", align_corners=False)[0])
        patches = side // patch_size
        masks.append(F.interpolate(crop.mask[None, None].float(), (patches, patches), mode="nearest").flatten() > 0)
    return torch.stack(pixels), torch.stack(masks)


def encode_crops(model: Any, pixel_values: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Class tokens (crops, projection_dim) that see no more than their masks, (crops, patches) bool, in all blocks."""
    hidden_states = embed_patches(model.vision_model, pixel_values)
    count, length = hidden_states.shape[:2]
    bias = torch.zeros(count, 1, length, length, dtype=hidden_states.dtype, device=hidden_states.device)
    bias[:, 0, 0, 1:].masked_fill_(~masks, OUTSIDE_OF_CROP)
    for block in model.vision_model.encoder.layers:
        hidden_states, _ = run_block(block, hidden_states, bias)
    features: torch.Tensor = model.visual_projection(model.vision_model.post_layernorm(hidden_states[:, 0]))
    return features.float()


def choose_labels(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Ids (labels,) of the classes whose score, of (classes,), exceeds that share of the range; the best if none."""
    least = scores.min() + threshold * (scores.max() - scores.min())
    labels = torch.where(scores > least)[0]
    return labels if len(labels) else scores.argmax()[None]


class TagCLIP(System):
    """TagCLIP with CLIP's weights; see [`System`].

    A class's label is what it is tagged by; its other names, where it has some, are what it is segmented by, all in
    one prompt. On Pascal VOC with the benchmark's own words these are the published ones instead.
    The confidence is the best map's value, or that of the background. Settings: steps of pixel refinement (PAMR),
    none by default.

    Raises:
        ValueError: Also if the vision tower has a single block.
    """

    title = "TagCLIP"
    accepted = REFINEMENT_SETTINGS

    def _load(self, settings: Mapping[str, Any], dtype: torch.dtype | str, device: torch.device) -> None:
        self._refinement = Refinement.choose(settings, self.has_crf)
        self._model, self._processor = load_clip(self.name, dtype, device)
        tower = self._model.config.vision_config
        if tower.num_hidden_layers < 2:
            raise ValueError(f"Expected a vision tower of two blocks or more, but {self.name} has one. Name another.")
        self._patch_size, self._side = cast(int, tower.patch_size), cast(int, tower.image_size)
        self._pixels = find_normalization(self._processor)
        self.prepare_images = functools.partial(_prepare_images, self._patch_size, **self._pixels)

    def _encode_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._words = choose_words(vocabulary, self._benchmark)
        self._rules = choose_rules(vocabulary, self._benchmark)
        self._tag_features = self._encode_texts(*list_tag_texts(self._words), TAG_TEMPLATES)
        self._map_features = self._encode_texts(*list_map_texts(self._words), MAP_TEMPLATES)

    def _encode_texts(self, names: list[str], background: list[str], templates: Sequence[str]) -> torch.Tensor:
        """(texts, projection_dim) unit features: classes, then background words."""
        # One after the other, as a class may be called like a background word.
        encoded = [encode_names(self._model, self._processor, words, templates) for words in (names, background)]
        return torch.cat(encoded)

    def _describe(self) -> dict[str, Any]:
        rules = asdict(self._rules)
        return {
            "method": TagCLIPWithCRF.title if self._refinement.by_crf else TagCLIP.title,
            "backbone": self._model.config.vision_config.to_diff_dict(),
            "tag_templates": len(TAG_TEMPLATES),
            "map_template": MAP_TEMPLATES[0],
            "words": "the vocabulary's" if self._words is self.vocabulary else self._words.to_dict(),
            "synonyms": "in maps, in one prompt",
            "rules": {name: list(value) if isinstance(value, tuple) else value for name, value in rules.items()},
            "refinement": self._refinement.describe(),
            "longest_side": LONGEST_SIDE,
            **self._pixels,
            "resample": int(Image.Resampling.BICUBIC),
        }

    def _predict_one(self, vocabulary: Vocabulary, pixels: torch.Tensor, image: torch.Tensor) -> Prediction:
        pixel_values = pixels[None].to(self._model.device)
        encoded = encode_image(self._model, pixel_values.to(self._model.dtype), self._rules)
        kept = choose_labels(self._tag(encoded, pixel_values), self._rules.label_threshold)
        maps, ids = self._locate(encoded.tokens, kept, image.shape[:2]), kept
        if vocabulary.background:
            maps, ids = add_background(maps), F.pad(kept + 1, (1, 0))
        confidence, places = self._refinement.apply(maps, image).max(0)
        return Prediction(ids[places], confidence)

    def _tag(self, encoded: EncodedImage, pixel_values: torch.Tensor) -> torch.Tensor:
        """Scores (classes,) of the whole image."""
        model, grid, num_classes = self._model, encoded.tokens.grid, len(self._words.classes)
        scores = score_texts(model, encoded.features[1:], self._tag_features)
        scores = spread_scores(scores, encoded.attention, grid)
        image_scores = scores[:, :num_classes].amax(0)
        crops = find_crops(scores, num_classes, grid, self._rules.label_threshold)
        for start in range(0, len(crops), CROPS_AT_ONCE):
            part = crops[start : start + CROPS_AT_ONCE]
            pixels, masks = cut_crops(pixel_values, part, self._patch_size, self._side)
            again = score_texts(model, encode_crops(model, pixels.to(model.dtype), masks), self._tag_features)
            for crop, probabilities in zip(part, again, strict=True):
                image_scores[crop.class_id] = (image_scores[crop.class_id] + probabilities[crop.class_id]) / 2
        return image_scores

    def _locate(self, tokens: Tokens, kept: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """Maps of the labels at the image's size, in half precision as published."""
        texts = torch.cat([self._map_features[kept], self._map_features[len(self._words.classes) :]])
        maps, _ = compute_activation_maps(self._model, tokens, texts, len(kept), EPSILON)
        maps = refine_maps(maps, compute_affinity(tokens.attention), self._rules.box_threshold)
        return resize_maps(maps, (size[0], size[1]), EPSILON).half()


class TagCLIPWithCRF(TagCLIP):
    """TagCLIP with the dense CRF at the end, as in its best published figures, or with PAMR in its place."""

    title = "TagCLIP + CRF"
    has_crf = True


def choose_rules(vocabulary: Vocabulary, benchmark: str | None) -> Rules:
    """The published rules of that benchmark, or of the one most like the vocabulary."""
    if not vocabulary.background:
        return STUFF_RULES
    return OBJECT_RULES if benchmark == "coco_object" else RULES


def choose_words(vocabulary: Vocabulary, benchmark: str | None) -> Vocabulary:
    """The published words in place of a benchmark's own, else the vocabulary itself."""
    return find_published_words(vocabulary, benchmark) or vocabulary


def find_published_words(vocabulary: Vocabulary, benchmark: str | None) -> Vocabulary | None:
    """The published words of a benchmark, if it has any and the vocabulary is its own."""
    if benchmark not in WORDS or not is_own_vocabulary(vocabulary, benchmark):
        return None
    published = Vocabulary.from_json_file(VOCABULARIES / WORDS[benchmark])
    background = COCO_BACKGROUND_WORDS if benchmark == "coco_object" else published.background
    return replace(published, background=background if vocabulary.background else ())


def is_own_vocabulary(vocabulary: Vocabulary, benchmark: str) -> bool:
    """Whether these are the words that the benchmark has by itself."""
    return vocabulary == get_benchmark(benchmark).vocabulary("none")


def list_tag_texts(words: Vocabulary) -> tuple[list[str], list[str]]:
    """What each class and each background word is tagged by."""
    return words.labels[1 if words.background else 0 :], list(words.background)


def list_map_texts(words: Vocabulary) -> tuple[list[str], list[str]]:
    """What each class and each background word is segmented by; without a background, that very word stands for it.

    As published it does so beside a class of that name, too.
    """
    names = [",".join(entry.names[1:] or entry.names) for entry in words.classes]
    return names, list(words.background) or [BACKGROUND_LABEL]


def _stretch(columns: torch.Tensor) -> torch.Tensor:
    """Each column of (patches, texts) to 0 ... 1; 0 where it is constant."""
    low, high = columns.amin(0), columns.amax(0)
    return ((columns - low) / (high - low)).where(high > low, 0.0)


def _span(is_active: torch.Tensor, length: int) -> slice:
    """From the first active place to the last one, the last place of all left out."""
    places = torch.where(is_active)[0]
    return slice(0, 0) if len(places) == 0 else slice(int(places[0]), min(int(places[-1]) + 1, length - 1))


def _prepare_images(
    patch_size: int, images: list[Image.Image], image_mean: Sequence[float], image_std: Sequence[float]
) -> dict[str, Any]:
    """Lists: `pixel_values` (3, height, width) of whole patches, and `images` (height, width, 3) uint8 as they are."""
    pixel_values, originals = [], []
    for image in images:
        colors = np.array(read_rgb_image(image))
        originals.append(torch.from_numpy(colors))
        resized = resize_to_patches(shrink_image(colors, LONGEST_SIDE), patch_size)
        # Contiguous, as kernels for other strides round differently.
        pixel_values.append(normalize_colors([resized], image_mean, image_std)[0].contiguous())
    return {"pixel_values": pixel_values, "images": originals}
