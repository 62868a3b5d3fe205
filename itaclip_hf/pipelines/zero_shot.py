"""The task "zero-shot-image-segmentation": images and words in, a mask and a score for each class found out.

It takes stock CLIP checkpoints as well as this package's folders. `auto_registration.py` enters it among Transformers'
tasks, which have none of the kind.
"""

import copy
import difflib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import pad
from transformers import Pipeline, pipeline as make_pipeline
from transformers.pipelines.pt_utils import KeyDataset

from ..auto_registration import DEFAULT_CHECKPOINT, TASK
from ..loading import check_folder, check_weights, collect_changes, load_processor, resolve_checkpoint
from ..methods import Settings
from ..methods.settings import SETTING_NAMES, ValueRange
from ..modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from ..processing import BACKGROUND_LABEL, ITACLIPImageProcessor, ITACLIPProcessor, Vocabulary
from ..processing.image_processing_itaclip import check_switch
from ..processing.pixels import describe_reduction
from ..processing.segmentation_maps import compute_segment_scores
from ..text_cache import TextCache

__all__ = [
    "SHARE",
    "CheckedModel",
    "ZeroShotImageSegmentationPipeline",
    "note_reduction",
    "pipeline",
    "stack_images",
]

logger = logging.getLogger(__name__)

KEPT_VOCABULARIES = 32
SHARE = ValueRange(float, 0, 1)
NO_CLASS = -1
SPATIAL = ("pixel_values", "region_maps", "original_region_maps")

Label = str | Sequence[str]


@dataclass(frozen=True)
class _Arguments:
    """Arguments beside images and settings; what is wrong whatever else is given is told here, words by their use."""

    candidate_labels: Sequence[Label] | Vocabulary | None = None
    background: Sequence[str] | None = None
    definitions: Any = None
    method: str | None = None
    preset: str | None = None
    threshold: float | None = None
    output: Literal["masks", "map"] = "masks"
    return_regions: bool = False
    runner_up: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None:
            SHARE.check("threshold", self.threshold, "Pass such a number.")
        check_switch("return_regions", self.return_regions)
        check_switch("runner_up", self.runner_up)
        if self.output not in ("masks", "map"):
            raise ValueError(f"Expected `output` to be 'masks' or 'map', but got {self.output!r}.")


ARGUMENTS = tuple(field.name for field in fields(_Arguments))


class _Plan(NamedTuple):
    """What the arguments of a call come to."""

    image_processor: ITACLIPImageProcessor  # prepares the images and finishes label maps
    config: ITACLIPConfig
    queries: dict[str, torch.Tensor]  # words as inputs of the model; none for the baked vocabulary
    labels: list[str]
    threshold: float
    unsure_class: int  # what pixels become whose best score is lower
    output: Literal["masks", "map"]
    return_regions: bool
    runner_up: bool


class ZeroShotImageSegmentationPipeline(Pipeline):
    """Segments images by words that are chosen with each call.

    Arguments of a call may also be given once, to `pipeline(…)`; those of the call win. Pictures are anything that
    [`ITACLIPImageProcessor`] reads, of any sizes, also within a batch. Text embeddings are kept between calls. A
    pipeline works for one thread at a time.

    Args:
        model: The model; `pipeline(…)` loads it from a CLIP checkpoint or a folder of this package.
        processor: The processor that goes with it, or where it lies; by default where the model was loaded from.
        **kwargs: Arguments of a call, and those of every [`~transformers.Pipeline`].

    Raises:
        TypeError: If the model is of another class, or there is no argument of a name.
        ValueError: If weights are missing or no trained ones, there is nowhere to load the processor from, or it does
            not fit the model.

    Example:
    ```python
    >>> import itaclip_hf
    >>> from itaclip_hf.samples import load_demo_scene

    >>> segmenter = itaclip_hf.pipeline(model="demo", preset="fast")
    >>> found = segmenter(load_demo_scene(0)[0], candidate_labels=["sky", "grass", ["dog", "puppy"]])
    >>> [segment["label"] for segment in found]
    ['grass', 'dog']

    ```
    """

    # Of a stock CLIP checkpoint, Transformers would load CLIP's own.
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    model: ITACLIPForSemanticSegmentation
    processor: ITACLIPProcessor

    def __init__(
        self,
        model: ITACLIPForSemanticSegmentation,
        processor: ITACLIPProcessor | str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> None:
        if not isinstance(model, ITACLIPForSemanticSegmentation):
            raise TypeError(
                f"Expected a CLIP ViT checkpoint for the task {TASK!r}, but got {type(model).__name__}. Name one such "
                f"as {DEFAULT_CHECKPOINT!r}, or pass an ITACLIPForSemanticSegmentation."
            )
        names = {*ARGUMENTS, *SETTING_NAMES}
        self._given = {name: kwargs.pop(name) for name in list(kwargs) if name in names}
        asked, settings = _read_arguments(self._given)
        collect_changes(asked.method, None, asked.preset, settings)  # a wrong one is told now, not with every call
        self._embedded: dict[Any, dict[str, torch.Tensor]] = {}
        check_weights(model, **vars(model).pop("flaws_of_weights", {}))
        if not isinstance(processor, ITACLIPProcessor):
            processor = _find_processor(model, processor, local_files_only)
        super().__init__(model, processor=processor, **kwargs)

    def __call__(  # type: ignore[override]
        self,
        images: Any,
        candidate_labels: Sequence[Label] | Vocabulary | None = None,
        region_maps: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Segment images.

        Args:
            images: One image (a path, a URL, a PIL image, an array), a list, a generator, or a data set, torch's of
                images or one of 🤗 Datasets with a column of images. The last two come back one by one.
            candidate_labels: The classes: each a name, or a list of its names, the label first; or a [`Vocabulary`].
                By default the vocabulary that is baked into the model.
            region_maps (*optional*): Regions of the image, or a list of those of each image of a list: ids (height,
                width), masks, or what Transformers' segmenters return; see [`ITACLIPImageProcessor`]. With
                `region_vote=True`, all pixels of a region become what most of them are.
            background (`Sequence[str]`, *optional*): Words that form the class "background", for what is none of the
                others.
            definitions (*optional*): Texts about the classes: one entry for each, or a mapping from their names.
            threshold (`float`, *optional*): Pixels whose best score is lower become background in the finished map;
                where there are no background words, they are in no mask, and -1 in a map.
            method (`str`, *optional*): "clip", "maskclip", "sclip", "clearclip", "naclip", "itaclip", or what
                `register_method` made known; by default what the checkpoint says.
            preset (`str`, *optional*): "paper", "balanced", "fast" or "live".
            output (`str`, *optional*): "masks" (default) or "map".
            return_regions (`bool`, *optional*): Whether to say which class each region is.
            runner_up (`bool`, *optional*): Whether a map also tells what is second at each pixel.
            batch_size (`int`, *optional*): Images that are worked on together.
            num_workers (`int`, *optional*): Processes that prepare images.
            **kwargs: Any of the [`Settings`], which win over method and preset.

        Returns:
            For each image a list with a dictionary for each class found, in label order: `label`, `score` (mean
            confidence of its pixels, between 0 and 1) and `mask` (PIL image of the image's size, 255 for the class).
            With `output="map"` a dictionary instead: `labels` (height, width) int64, `confidence` (height, width)
            float32, and `id2label`; with `runner_up=True` also `runner_up` (height, width) int64, the best class
            beside the one that the model gave the pixel, -1 where there is no other, and `runner_up_confidence`, its
            score. With `return_regions` it is always a dictionary, with the list as `masks`, and `regions` in it: for
            each region its `id`, `label` and `label_id` (of most of its pixels before the vote), `share` (of its
            pixels that have it) and `score` (their mean confidence).

        Raises:
            TypeError: If there is no argument of a name, or one has the wrong type.
            ValueError: If there are no words, or an argument's value is none of its.
        """
        if candidate_labels is not None:
            kwargs["candidate_labels"] = candidate_labels
        running = {name: kwargs.pop(name) for name in ("batch_size", "num_workers") if name in kwargs}
        plan = self._make_plan(*_read_arguments({**self._given, **kwargs}))
        # A tuple would be one input to Transformers.
        images = _find_images(list(images) if isinstance(images, tuple) else images)
        if region_maps is not None:
            images = _pair_with_regions(images, region_maps)
        elif plan.return_regions:
            raise ValueError("Expected `region_maps` with `return_regions`, but got none. Pass those of each image.")
        if isinstance(images, list) and not images:
            return []
        return super().__call__(images, plan=plan, **running)

    def _make_plan(self, asked: _Arguments, settings: dict[str, Any]) -> _Plan:
        if asked.runner_up and asked.output != "map":
            raise ValueError(
                f'Expected `runner_up` with `output="map"`, but got {asked.output!r}. Leave one of them out.'
            )
        if asked.return_regions and asked.runner_up:
            raise ValueError("Expected `return_regions` or `runner_up`, but got both. Make two calls.")
        vocabulary = _read_vocabulary(asked.candidate_labels, asked.background, asked.definitions)
        # Copies: another call, with other arguments, begins with the pipeline's own settings again.
        config, processor = copy.copy(self.model.config), copy.copy(self.processor)
        changes = collect_changes(asked.method, None, asked.preset, settings, config)
        changed = Settings.of(config, processor).replace(**changes)
        changed.apply(config, processor)
        if vocabulary is None:
            self._expect_baked_vocabulary()
            labels, queries = list(config.class_names), {}
        else:
            labels, queries = vocabulary.labels, self._embed(vocabulary, processor, changed.read_by("texts"))
        unsure_class = 0 if labels[0] == BACKGROUND_LABEL else NO_CLASS
        return _Plan(
            processor.image_processor,
            config,
            queries,
            labels,
            asked.threshold or 0.0,
            unsure_class,
            asked.output,
            asked.return_regions,
            asked.runner_up,
        )

    def _expect_baked_vocabulary(self) -> None:
        if len(self.model.query_embeddings) == 0:
            raise ValueError(
                "Expected `candidate_labels`, or a model with a baked vocabulary, but got neither. Name the classes: "
                '`candidate_labels=["cat", ["dog", "puppy"]]`.'
            )

    def _embed(
        self, vocabulary: Vocabulary, processor: ITACLIPProcessor, mixing: tuple[Any, ...]
    ) -> dict[str, torch.Tensor]:
        """The words as inputs of the model; encoded once for many calls."""
        key = (vocabulary, *mixing, *processor.templates)
        if key not in self._embedded:
            queries = self.model.encode_vocabulary(processor, vocabulary, TextCache())
            self._embedded[key] = dict(zip(("query_embeddings", "query_classes"), queries, strict=True))
            if len(self._embedded) > KEPT_VOCABULARIES:
                del self._embedded[next(iter(self._embedded))]  # the oldest
        return self._embedded[key]

    def _sanitize_parameters(self, plan: _Plan | None = None, **unknown: Any) -> tuple[dict, dict, dict]:
        _expect_settings(unknown)
        if plan is None:  # when the pipeline is made
            return {}, {}, {}
        return {"image_processor": plan.image_processor}, {"plan": plan}, {"plan": plan}

    def preprocess(self, input_: Any, image_processor: ITACLIPImageProcessor) -> dict[str, Any]:  # type: ignore[override]
        """Prepare one image; a dictionary in a dictionary, which goes through Transformers' batching as it is."""
        given = input_ if isinstance(input_, dict) else {"images": input_}
        prepared = dict(image_processor(**given, return_tensors="pt"))
        note_reduction(self, prepared)
        if len(prepared["pixel_values"]) != 1:
            raise ValueError(
                f"Expected one image in each place, but got {len(prepared['pixel_values'])} in one. Pass a flat list."
            )
        return {"prepared": prepared}

    def _forward(self, input_tensors: dict[str, Any], plan: _Plan) -> dict[str, Any]:  # type: ignore[override]
        inputs = stack_images(input_tensors["prepared"])
        with _configured(self.model, plan.config):
            predict: Any = self.model.predict_labels
            if plan.return_regions:
                predict = self.model.predict_regions
            elif plan.runner_up:
                predict = self.model.predict_ranked_labels
            # A dictionary, which Transformers takes apart by image.
            return predict(plan.image_processor, **inputs, **plan.queries)._asdict()

    def postprocess(self, model_outputs: dict[str, Any], plan: _Plan) -> Any:  # type: ignore[override]
        """Masks with scores, or the map, of one image."""
        maps = {name: of_images[0] for name, of_images in model_outputs.items()}
        labels, confidence = maps["labels"], maps["confidence"]
        labels = labels.masked_fill(confidence < plan.threshold, plan.unsure_class)
        regions = {}
        if plan.return_regions:
            found = maps["regions"]
            regions = {"regions": [{**region, "label": plan.labels[region["label_id"]]} for region in found]}
        if plan.output == "map":
            return {**maps, "labels": labels, "id2label": dict(enumerate(plan.labels)), **regions}
        masks = [
            {"label": plan.labels[index], "score": score, "mask": _draw_mask(labels == index)}
            for index, score in compute_segment_scores(labels, confidence).items()
        ]
        return {"masks": masks, **regions} if plan.return_regions else masks

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and processor; every folder of this package works for this task."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


@overload
def pipeline(
    task: Literal["zero-shot-image-segmentation"] = ..., model: Any = ..., **kwargs: Any
) -> ZeroShotImageSegmentationPipeline: ...
@overload
def pipeline(task: str, model: Any = ..., **kwargs: Any) -> Any: ...
def pipeline(task: str = TASK, model: Any = DEFAULT_CHECKPOINT, **kwargs: Any) -> Any:
    """Transformers' `pipeline`, which also knows the embedded checkpoint, "demo", and takes this package's task.

    Args:
        task: By default "zero-shot-image-segmentation".
        model: A CLIP checkpoint, a folder of this package, "demo", or a model.
        **kwargs: Arguments of `transformers.pipeline`, and of the task.

    Example:
    ```python
    >>> import itaclip_hf

    >>> itaclip_hf.pipeline(model="demo").task
    'zero-shot-image-segmentation'

    ```
    """
    if isinstance(model, str | os.PathLike):
        model = os.fspath(resolve_checkpoint(model))
        check_folder(model)
    return make_pipeline(task, model=model, **kwargs)  # type: ignore[call-overload]


def note_reduction(pipeline: Any, prepared: Mapping[str, Any]) -> None:
    """Say once in a pipeline's life that the model sees much less of an image than there is."""
    reduction = describe_reduction(*(tuple(prepared[name][0].tolist()) for name in ("original_sizes", "image_sizes")))
    if reduction and not vars(pipeline).get("is_reduction_noted"):
        pipeline.is_reduction_noted = True
        logger.warning(
            "An image %s To find small things, too, let it see more (docs/large_images.md), or use `itaclip segment "
            "--tile 1024`.",
            reduction,
        )


class CheckedModel(ITACLIPForSemanticSegmentation):
    """What Transformers loads models of this task by, which would only warn of missing weights."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """The model, with the names of the weights that were missing or of other shapes noted.

        They are refused when the pipeline is made: for an error in here Transformers would try another class.
        """
        loaded: Any = ITACLIPForSemanticSegmentation.from_pretrained(*arguments, **options, output_loading_info=True)
        model, report = loaded
        model.flaws_of_weights = {"missing": report["missing_keys"], "mismatched": report["mismatched_keys"]}
        return model


def _find_processor(
    model: ITACLIPForSemanticSegmentation, place: str | os.PathLike[str] | None, local_files_only: bool
) -> ITACLIPProcessor:
    revision = None
    if place is None:
        place, revision = model.name_or_path or "", getattr(model.config, "_commit_hash", None)
    if not os.fspath(place):
        raise ValueError(
            "Expected `processor` with a model that was not loaded from a checkpoint, but got none. Pass the "
            "ITACLIPProcessor that goes with it."
        )
    return load_processor(model, place, revision=revision or "main", local_files_only=local_files_only)


def _read_arguments(given: Mapping[str, Any]) -> tuple[_Arguments, dict[str, Any]]:
    """What a call, or the pipeline itself, was given: arguments, and settings by name."""
    settings = {name: value for name, value in given.items() if name not in ARGUMENTS}
    _expect_settings(settings)
    return _Arguments(**{name: value for name, value in given.items() if name in ARGUMENTS}), settings


def _expect_settings(given: Mapping[str, Any]) -> None:
    unknown = [name for name in given if name not in SETTING_NAMES]
    if unknown:
        known = (*ARGUMENTS, "batch_size", "num_workers", *SETTING_NAMES)
        for name in unknown:
            if similar := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
                raise TypeError(f"Expected the argument `{similar[0]}`, but got `{name}`. Correct the spelling.")
        raise TypeError(
            f"Expected arguments out of {', '.join(known)}, but got {', '.join(unknown)}. Leave out what is none of "
            "them; words are `candidate_labels`."
        )


def _read_vocabulary(
    candidate_labels: Sequence[Label] | Vocabulary | None, background: Sequence[str] | None, definitions: Any
) -> Vocabulary | None:
    is_whole = candidate_labels is None or isinstance(candidate_labels, Vocabulary)
    if is_whole and not (background is None and definitions is None):
        raise ValueError(
            "Expected `background` and `definitions` with a list of `candidate_labels`, but got "
            f"{type(candidate_labels).__name__}. Name the classes, or leave the two out."
        )
    if is_whole:
        return candidate_labels  # type: ignore[return-value]
    if isinstance(candidate_labels, str):
        raise TypeError(f"Expected `candidate_labels` as a list of names, but got {candidate_labels!r}. Make it one.")
    vocabulary = Vocabulary(candidate_labels, background or ())  # type: ignore[arg-type]
    return vocabulary if definitions is None else vocabulary.with_auxiliary_texts(definitions)


def _find_images(inputs: Any) -> Any:
    """What Transformers takes for many images; a data set of 🤗 Datasets is none to it."""
    if isinstance(inputs, Mapping) and "images" not in inputs:
        raise TypeError(
            f"Expected images, or a data set, but got {type(inputs).__name__} of {', '.join(map(str, inputs))}. Pass "
            "one of its entries."
        )
    features = getattr(inputs, "features", None)
    if not isinstance(features, Mapping):
        return inputs
    columns = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if "image" not in columns and len(columns) != 1:
        raise ValueError(
            f"Expected a data set with a column 'image', or with one column of images, but got {', '.join(features)}. "
            "Pass `transformers.pipelines.pt_utils.KeyDataset(dataset, name)`."
        )
    column = "image" if "image" in columns else columns[0]
    return KeyDataset(inputs, column) if hasattr(inputs, "__len__") else (row[column] for row in inputs)


def _pair_with_regions(images: Any, region_maps: Any) -> Any:
    """Each image with its regions, as the image processor takes them."""
    if not isinstance(images, list):
        if not isinstance(images, str | os.PathLike | Image.Image | np.ndarray | torch.Tensor):
            raise TypeError(
                f"Expected one image or a list with `region_maps`, but got {type(images).__name__}. Make it a list."
            )
        return {"images": images, "region_maps": region_maps}
    if not isinstance(region_maps, list | tuple) or len(region_maps) != len(images):
        found = len(region_maps) if isinstance(region_maps, list | tuple) else type(region_maps).__name__
        raise ValueError(
            f"Expected a list of the region maps of each image ({len(images)}), but got {found}. Pass one for each."
        )
    return [{"images": image, "region_maps": [own]} for image, own in zip(images, region_maps, strict=True)]


def stack_images(
    images: Mapping[str, torch.Tensor] | Sequence[Mapping[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """One batch of images of any sizes, each a batch of one; padded right and below, as the image processor does."""
    if isinstance(images, Mapping):  # where Transformers makes no batches, it passes what was prepared as it is
        return dict(images)
    batch = {}
    for name in images[0]:
        parts = [image[name] for image in images]
        if name in SPATIAL:
            height, width = (max(part.shape[axis] for part in parts) for axis in (-2, -1))
            parts = [pad(part, (0, width - part.shape[-1], 0, height - part.shape[-2])) for part in parts]
        batch[name] = torch.cat(parts)
    return batch


@contextmanager
def _configured(model: ITACLIPForSemanticSegmentation, config: ITACLIPConfig) -> Iterator[None]:
    """A model that runs with another configuration meanwhile."""
    own = model.config  # which the tower has, too
    model.config = model.vision_model.itaclip_config = config
    try:
        yield
    finally:
        model.config = model.vision_model.itaclip_config = own


def _draw_mask(is_inside: torch.Tensor) -> Image.Image:
    return Image.fromarray((is_inside.to(torch.uint8) * 255).cpu().numpy())
