"""GroupViT and CLIPSeg under the same protocol: adapters from their Transformers models to `Predictor`.

Images and a vocabulary come in, label maps with confidences go out. Neither method knows auxiliary texts or lists of
background words: class names are prompts ("a photo of a dog."), and the background, where the vocabulary has one, is
what no class claims. Sources: Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision" (CVPR 2022)
with its published evaluation; Lüddecke & Ecker, "Image Segmentation Using Text and Image Prompts" (CVPR 2022).

Both papers give every class one name. Here a class with synonyms counts as its best name: the largest similarity of
its names stands for the class before anything is normalised over classes. So thresholds keep their meaning, and
classes of one name are treated exactly as published.
"""

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPSegForImageSegmentation,
    GroupViTModel,
    GroupViTVisionConfig,
    PreTrainedConfig,
)

from ...dtypes import choose_dtype
from ...loading import resolve_checkpoint
from ...processing import BACKGROUND_LABEL, Vocabulary, VocabularyClass, read_image
from .predictor import Prediction, hash_weights

__all__ = [
    "FOREIGN_MODEL_TYPES",
    "FOREIGN_SETTINGS",
    "CLIPSegPredictor",
    "ForeignPredictor",
    "GroupViTPredictor",
    "choose_background_threshold",
    "load_foreign_predictor",
    "read_model_type",
]

FOREIGN_MODEL_TYPES = ("groupvit", "clipseg")

FOREIGN_SETTINGS = {"shortest_edge": "shortest_edge", "score_threshold": "background_threshold"}
"""Settings of ours that mean something to them, too, and what they are called here."""

PROMPT_TEMPLATE = "a photo of a {}."
"""GroupViT's evaluation segments with this prompt alone, and CLIPSeg's paper names it for tests."""

GROUPVIT_SHORTEST_EDGE, GROUPVIT_LONGEST_EDGE = 448, 2048
GROUPVIT_LARGEST_SCALE = 100.0
GROUPVIT_IMAGE_CLASSES = 5
GROUPVIT_BACKGROUND_THRESHOLDS = {"voc21": 0.95, "context60": 0.35, "coco_object": 0.95}
GROUPVIT_BACKGROUND_THRESHOLD = 0.95  # the published code's default, for anything but its three benchmarks
CLIPSEG_BACKGROUND_THRESHOLD = 0.3  # the paper's for binary masks on PhraseCut; it gives none for many classes at once
CLIPSEG_MAPS_PER_BATCH = 32

Size = tuple[int, int]
PrepareImages = Callable[[list[Image.Image]], Mapping[str, Any]]


class Claim(NamedTuple):
    """Which foreground class claims each pixel of an image, and how strongly.

    Attributes:
        classes: (height, width) index among the foreground classes.
        scores: (height, width) float32 in [0, 1].
        least: Score below which a pixel is background, where there is one.
    """

    classes: torch.Tensor
    scores: torch.Tensor
    least: float


class ForeignPredictor(ABC):
    """What both baselines share: prompts, the background rule, and the description of a run.

    Args:
        model: The Transformers model, on the device it shall run on.
        tokenizer: Its tokenizer.
        vocabulary: The classes; of a list of background words it only matters that there is one.
        prepare_images: See `Predictor`.
        background_threshold: Pixels whose best class has a lower score become background, if the vocabulary has one.
        settings: What else determines the result, for the description.
        name: What reports call the model.

    Raises:
        ValueError: If the threshold is not between 0 and 1, or a class name is too long for a prompt.
    """

    method = ""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        vocabulary: Vocabulary,
        prepare_images: PrepareImages,
        background_threshold: float,
        settings: Mapping[str, Any],
        name: str | None,
    ) -> None:
        if not 0 <= background_threshold <= 1:
            raise ValueError(
                f"Expected `background_threshold` between 0 and 1, but got {background_threshold}. Use 0.95 for "
                "GroupViT or 0.3 for CLIPSeg, for example."
            )
        self.vocabulary = _keep_names(vocabulary)
        self.name = name or model.config.name_or_path or type(model).__name__
        self.prepare_images = prepare_images
        self._model = model.eval()
        self._background_threshold = background_threshold
        self._settings = dict(settings)
        self._names_per_class = [len(entry.names) for entry in vocabulary.classes]
        # GroupViT's projections keep statistics in buffers.
        self._weights_sha256 = hash_weights(model, with_buffers=True)
        self._text_features = self._encode_names(tokenizer)

    @torch.inference_mode()
    def predict(self, prepared: Mapping[str, Any]) -> list[Prediction]:
        """Label and confidence maps of a batch; the confidence is the best class's score, before the threshold."""
        sizes = [(height, width) for height, width in prepared["original_sizes"].tolist()]
        return [self._assign(claim) for claim in self._claim_pixels(prepared["pixel_values"], sizes)]

    def describe(self) -> dict[str, Any]:
        """Weights, configuration, prompts, rules and thresholds, number format and device kind."""
        config = self._model.config.to_diff_dict()
        for derived in ("transformers_version", "_name_or_path", "dtype"):
            config.pop(derived, None)
        return {
            "method": self.method,
            "model": self.name,
            "weights_sha256": self._weights_sha256,
            "config": config,
            "template": PROMPT_TEMPLATE,
            "synonyms": "best name",
            "auxiliary_texts": "not used",
            "background_words": "not used",
            "background_threshold": self._background_threshold if self.vocabulary.background else None,
            **self._settings,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "device": self._model.device.type,
        }

    @abstractmethod
    def _claim_pixels(self, pixel_values: torch.Tensor | list[torch.Tensor], sizes: list[Size]) -> list[Claim]:
        """Best class of every pixel at the original sizes."""

    def _assign(self, claim: Claim) -> Prediction:
        if not self.vocabulary.background:
            return Prediction(claim.classes, claim.scores)
        return Prediction((claim.classes + 1).masked_fill(claim.scores < claim.least, 0), claim.scores)

    def _best_names(self, values: torch.Tensor, dim: int) -> torch.Tensor:
        """The largest value among each class's names: the axis `dim` shrinks from names to classes."""
        return torch.stack([part.amax(dim) for part in values.split(self._names_per_class, dim)], dim)

    @torch.inference_mode()
    def _encode_names(self, tokenizer: Any) -> torch.Tensor:
        """(names, dim) projected text features of all class names, not normalised."""
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
        features: torch.Tensor = self._text_encoder.get_text_features(**inputs, return_dict=True).pooler_output
        return features

    @property
    def _text_encoder(self) -> Any:
        return self._model


class GroupViTPredictor(ForeignPredictor):
    """GroupViT: pixels belong to groups, groups to classes.

    As in the published evaluation, each pixel belongs to the group with the largest soft assignment (of all stages
    multiplied, interpolated bilinearly); a group's class probability is the softmax over all classes times that over
    the five classes that are likeliest for the whole image; and a pixel is background if its best probability is
    below the threshold or, where no group reaches that, below the best group's.
    Differently from there, both sides of the resized image are rounded to whole patches, so that nothing is cut off.

    Args:
        model: The model, on the device it shall run on.
        tokenizer: Its tokenizer.
        image_processor: Its image processor; only its mean and standard deviation matter.
        vocabulary: The classes.
        background_threshold: See `ForeignPredictor`; the paper's are 0.95 on VOC and COCO-Object, 0.35 on Context.
        shortest_edge: Image size in pixels.
        name: What reports call the model.
    """

    method = "GroupViT"
    _model: GroupViTModel

    def __init__(
        self,
        model: GroupViTModel,
        tokenizer: Any,
        image_processor: Any,
        vocabulary: Vocabulary,
        background_threshold: float = GROUPVIT_BACKGROUND_THRESHOLD,
        shortest_edge: int = GROUPVIT_SHORTEST_EDGE,
        name: str | None = None,
    ) -> None:
        vision_config = cast(GroupViTVisionConfig, model.config.vision_config)
        self._patch_size = cast(int, vision_config.patch_size)
        choose_size = functools.partial(_whole_patches, self._patch_size, shortest_edge, GROUPVIT_LONGEST_EDGE)
        settings = {
            "shortest_edge": shortest_edge,
            "longest_edge": GROUPVIT_LONGEST_EDGE,
            "classes_per_image": GROUPVIT_IMAGE_CLASSES,
            **_describe_pixels(image_processor),
        }
        prepare_images = _prepare_with(image_processor, choose_size)
        super().__init__(model, tokenizer, vocabulary, prepare_images, background_threshold, settings, name)

    def _claim_pixels(self, pixel_values: torch.Tensor | list[torch.Tensor], sizes: list[Size]) -> list[Claim]:
        claims: list[Claim | None] = [None] * len(sizes)
        for shape in dict.fromkeys(image.shape for image in pixel_values):
            indices = [index for index, image in enumerate(pixel_values) if image.shape == shape]
            batch = torch.stack([pixel_values[index] for index in indices]).to(self._model.device, self._model.dtype)
            for index, image_groups, image_features in zip(indices, *self._encode_groups(batch), strict=True):
                claims[index] = self._claim_image(image_groups, image_features, sizes[index])
        return cast(list[Claim], claims)

    def _encode_groups(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Groups of images of one size.

        Returns:
            Soft assignments (batch, groups, height, width) of pixels to the last stage's groups, and unit features
            (batch, 1 + groups, dim), those of the whole image first.
        """
        vision = self._model.vision_model
        height, width = pixel_values.shape[-2:]
        # The whole model refuses images that are not of its training size; its embeddings do not.
        hidden_states = vision.embeddings(pixel_values, interpolate_pos_encoding=True)
        encoded = vision.encoder(hidden_states, output_attentions=True, return_dict=True)
        groups = vision.layernorm(encoded.last_hidden_state)
        features = self._model.visual_projection(
            torch.cat([groups.mean(1, keepdim=True), groups], dim=1).flatten(0, 1)
        )
        features = F.normalize(features.float(), dim=-1).unflatten(0, (len(groups), -1))
        assignment = functools.reduce(lambda before, after: after @ before, encoded.attentions)
        grid = (height // self._patch_size, width // self._patch_size)
        assignment = assignment.float().unflatten(-1, grid)
        return F.interpolate(assignment, (height, width), mode="bilinear", align_corners=False), features

    def _claim_image(self, groups: torch.Tensor, features: torch.Tensor, size: Size) -> Claim:
        scale = self._model.logit_scale.float().exp().clamp(max=GROUPVIT_LARGEST_SCALE)
        similarity = scale * features @ F.normalize(self._text_features.float(), dim=-1).T
        similarity = self._best_names(similarity, dim=-1)  # (1 + groups, classes)
        likeliest = similarity[0].topk(min(GROUPVIT_IMAGE_CLASSES, similarity.shape[1])).indices
        elsewhere = torch.ones_like(similarity[0], dtype=torch.bool).scatter(0, likeliest, False)
        among_likeliest = similarity[1:].masked_fill(elsewhere, -torch.inf).softmax(-1)
        best, classes = (among_likeliest * similarity[1:].softmax(-1)).max(-1)  # one class for each group
        group = F.interpolate(groups[None], size, mode="bilinear", align_corners=False)[0].argmax(0)
        return Claim(classes[group], best[group], least=min(self._background_threshold, float(best.max())))


class CLIPSegPredictor(ForeignPredictor):
    """CLIPSeg: a binary mask for every prompt, side by side.

    A class's score is the sigmoid of its mask, a pixel gets the class with the highest score, and is background if
    that does not reach the threshold. The paper thresholds masks one by one and leaves the rest open; decided here:
    logits are interpolated bilinearly to the original size before the sigmoid, and the default threshold is the one
    of the paper's binary masks, 0.3. Images are squeezed to the square that the decoder needs.

    Args:
        model: The model, on the device it shall run on.
        tokenizer: Its tokenizer.
        image_processor: Its image processor: side of the square, mean and standard deviation.
        vocabulary: The classes.
        background_threshold: See `ForeignPredictor`.
        name: What reports call the model.
    """

    method = "CLIPSeg"
    _model: CLIPSegForImageSegmentation

    def __init__(
        self,
        model: CLIPSegForImageSegmentation,
        tokenizer: Any,
        image_processor: Any,
        vocabulary: Vocabulary,
        background_threshold: float = CLIPSEG_BACKGROUND_THRESHOLD,
        name: str | None = None,
    ) -> None:
        side = _read_square(image_processor)
        settings = {"image_size": side, **_describe_pixels(image_processor)}
        prepare_images = _prepare_with(image_processor, functools.partial(_square, side))
        super().__init__(model, tokenizer, vocabulary, prepare_images, background_threshold, settings, name)

    @property
    def _text_encoder(self) -> Any:
        return self._model.clip

    def _claim_pixels(self, pixel_values: torch.Tensor | list[torch.Tensor], sizes: list[Size]) -> list[Claim]:
        claims = []
        for image, size in zip(pixel_values, sizes, strict=True):
            pixels = image[None].to(self._model.device, self._model.dtype)
            encoded = self._model.clip.get_image_features(pixels, output_hidden_states=True, return_dict=True)
            activations = [encoded.hidden_states[layer + 1] for layer in self._model.extract_layers]
            claims.append(self._claim_image(activations, size))
        return claims

    def _claim_image(self, activations: list[torch.Tensor], size: Size) -> Claim:
        """Best class of each pixel; maps of all classes at the original size are never held at once."""
        masks = self._best_names(
            torch.cat([self._decode(activations, part) for part in self._prompt_batches()]), dim=0
        )
        best = torch.full(size, -torch.inf, device=masks.device)
        classes = torch.zeros(size, dtype=torch.long, device=masks.device)
        for class_id, mask in enumerate(masks):
            logits = F.interpolate(mask[None, None], size, mode="bilinear", align_corners=False)[0, 0]
            classes = classes.masked_fill(logits > best, class_id)
            best = torch.maximum(best, logits)
        return Claim(classes, best.sigmoid(), least=self._background_threshold)

    def _prompt_batches(self) -> Sequence[torch.Tensor]:
        return self._text_features.split(CLIPSEG_MAPS_PER_BATCH)

    def _decode(self, activations: list[torch.Tensor], prompts: torch.Tensor) -> torch.Tensor:
        """Activations of one image and (prompts, dim) features -> (prompts, side, side) float32 logits."""
        repeated = tuple(activation.expand(len(prompts), -1, -1) for activation in activations)
        logits: torch.Tensor = self._model.decoder(repeated, prompts, return_dict=True).logits
        return logits.float()


def read_model_type(name: str | os.PathLike[str]) -> str | None:
    """The model type in a checkpoint's configuration, `None` if it does not say.

    Args:
        name: Folder or hub id, or "demo".

    Raises:
        OSError: If there is no such checkpoint.
    """
    config, _ = PreTrainedConfig.get_config_dict(resolve_checkpoint(name))
    model_type: str | None = config.get("model_type")
    return model_type


def choose_background_threshold(model_type: str, benchmark: str | None = None) -> float:
    """The threshold of the method's paper for a benchmark, or its usual one for any other data."""
    if model_type == "clipseg":
        return CLIPSEG_BACKGROUND_THRESHOLD
    return GROUPVIT_BACKGROUND_THRESHOLDS.get(benchmark or "", GROUPVIT_BACKGROUND_THRESHOLD)


def load_foreign_predictor(
    name: str | os.PathLike[str],
    vocabulary: Vocabulary,
    benchmark: str | None = None,
    background_threshold: float | None = None,
    shortest_edge: int | None = None,
    dtype: str = "auto",
    device: torch.device | str = "cpu",
) -> ForeignPredictor:
    """Load a GroupViT or CLIPSeg checkpoint as a predictor.

    Args:
        name: Folder or hub id.
        vocabulary: The classes.
        benchmark: Name of the benchmark, for the paper's background threshold.
        background_threshold: Another one.
        shortest_edge: Image size in pixels, for GroupViT; default: 448.
        dtype: Number format, as for `load_model`.
        device: Where it shall run.

    Raises:
        ValueError: If the checkpoint is of neither model or lacks weights, or a setting does not apply.
        OSError: If the checkpoint cannot be loaded.
    """
    model_type = read_model_type(name)
    if model_type not in FOREIGN_MODEL_TYPES:
        raise ValueError(
            f"Expected a checkpoint of model type {' or '.join(FOREIGN_MODEL_TYPES)}, but {name} is of "
            f"{model_type!r}. "
            'Name one such as "nvidia/groupvit-gcc-yfcc" or "CIDAS/clipseg-rd64-refined".'
        )
    if background_threshold is not None and not vocabulary.background:
        raise ValueError(
            "Expected no background threshold without a background in the vocabulary, but got "
            f"{background_threshold}. Leave it out, or give the vocabulary a background."
        )
    if background_threshold is None:
        background_threshold = choose_background_threshold(model_type, benchmark)
    place = torch.device(device)
    number_format = choose_dtype(dtype, place)
    tokenizer = AutoTokenizer.from_pretrained(name)
    image_processor = AutoImageProcessor.from_pretrained(name)
    if model_type == "clipseg":
        if shortest_edge is not None:
            raise ValueError(
                f"Expected no `shortest_edge` for CLIPSeg, whose images are all of one size, but got {shortest_edge}. "
                "Leave it out."
            )
        model = _load_complete(CLIPSegForImageSegmentation, name, number_format, place)
        return CLIPSegPredictor(
            model, tokenizer, image_processor, vocabulary, background_threshold, name=os.fspath(name)
        )
    model = _load_complete(GroupViTModel, name, number_format, place)
    edge = GROUPVIT_SHORTEST_EDGE if shortest_edge is None else shortest_edge
    return GroupViTPredictor(
        model, tokenizer, image_processor, vocabulary, background_threshold, edge, name=os.fspath(name)
    )


def _load_complete(model_class: Any, name: str | os.PathLike[str], dtype: torch.dtype, device: torch.device) -> Any:
    model, report = model_class.from_pretrained(name, dtype=dtype, output_loading_info=True)
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise ValueError(
            f"Expected a whole {model_class.__name__}, but {name} lacks {len(lacking)} weights, among them "
            f"{lacking[0]}. Name another checkpoint."
        )
    return model.to(device).eval()


def _keep_names(vocabulary: Vocabulary) -> Vocabulary:
    """The vocabulary as it is used here: no auxiliary texts, and a background, if any, without words of its own."""
    classes = [VocabularyClass(entry.names) for entry in vocabulary.classes]
    return Vocabulary(classes, [BACKGROUND_LABEL] if vocabulary.background else [], vocabulary.metadata)


def _prepare_with(image_processor: Any, choose_size: Callable[[Size], Size]) -> PrepareImages:
    mean, std = (tuple(map(float, values)) for values in (image_processor.image_mean, image_processor.image_std))
    return functools.partial(_prepare_images, mean, std, choose_size)


def _prepare_images(
    mean: Sequence[float], std: Sequence[float], choose_size: Callable[[Size], Size], images: list[Image.Image]
) -> dict[str, Any]:
    """`pixel_values`, a list of (3, height, width) of any sizes, and `original_sizes` (batch, 2)."""
    # Transformers' own processors resize differently with and without torchvision.
    pixel_values, sizes = [], []
    for image in images:
        colors = Image.fromarray(np.moveaxis(read_image(image), 0, -1).clip(0, 255).astype(np.uint8))
        height, width = choose_size((colors.height, colors.width))
        resized = np.asarray(colors.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
        normalized = (resized / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
        pixel_values.append(torch.from_numpy(np.moveaxis(normalized, -1, 0).copy()))
        sizes.append((colors.height, colors.width))
    return {"pixel_values": pixel_values, "original_sizes": torch.tensor(sizes)}


def _whole_patches(patch_size: int, shortest_edge: int, longest_edge: int, size: Size) -> Size:
    """Size that keeps the proportions up to whole patches."""
    factor = min(shortest_edge / min(size), longest_edge / max(size))
    height, width = (max(1, round(length * factor / patch_size)) * patch_size for length in size)
    return height, width


def _square(side: int, size: Size) -> Size:
    return side, side


def _read_square(image_processor: Any) -> int:
    size = dict(image_processor.size)
    sides = {size[key] for key in ("height", "width", "shortest_edge") if size.get(key)}
    if len(sides) != 1:
        raise ValueError(f"Expected an image processor for squares, but its size is {size}. Set height = width.")
    return int(sides.pop())


def _describe_pixels(image_processor: Any) -> dict[str, Any]:
    return {
        "image_mean": list(image_processor.image_mean),
        "image_std": list(image_processor.image_std),
        "resample": int(Image.Resampling.BILINEAR),
    }
