"""Variants of the method that are predicted side by side and share all that they have in common.

Three levels: variants with the same checkpoint, pixels, views and windows share one *pass* through all blocks but the
last; those with the same last block and view weights share *features*; those that differ in what is done to finished
label maps alone share *label maps*. Text embeddings are shared where the texts are the same. Nothing is approximated:
every variant gets the very tensors it would get by itself.
"""

import contextlib
import copy
import functools
import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ...loading import Loaded, load
from ...methods.settings import SETTING_NAMES, Settings, setting_fields
from ...modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from ...modeling.class_scores import BestClasses, Queries
from ...modeling.data_contract import ImageInputs, read_images, read_voting_regions
from ...modeling.windows import WindowedImage
from ...processing import ITACLIPImageProcessor, ITACLIPProcessor
from ...text_cache import TextCache
from ..running.predictor import Prediction, describe_itaclip, hash_weights
from .dense_variants import DenseVariant, encode_variants
from .variants import Variant

__all__ = ["VariantFamily", "Work", "naming_variant"]

_FEATURE_BYTES = 2**30  # features of one pass held at once; more variants than fit take another pass


class Work(NamedTuple):
    """What was computed, and what the variants one by one would have computed.

    Attributes:
        run: Number of "window views" through all blocks but the last, "last blocks" (of a window view), "label maps"
            (stitched, refined and scored) and "texts" (in all their prompts through the text tower or its cache).
        needed: The same without sharing.
    """

    run: Counter[str]
    needed: Counter[str]


@dataclass(frozen=True)
class _Member:
    """A variant with all that it needs to be computed."""

    position: int
    model: ITACLIPForSemanticSegmentation
    settings: Settings
    config: ITACLIPConfig
    processor: ITACLIPProcessor
    queries: Queries
    view_weights: tuple[float, ...] | None
    preparation: str
    pass_key: Hashable
    features_key: Hashable
    labels_key: Hashable


class VariantFamily:
    """Several variants behind the evaluation's protocol; see `PredictorFamily`.

    Args:
        variants: What to compute.
        dtype: Number format of the models.
        device: Where they run.

    Raises:
        ValueError: If a checkpoint lacks weights, or settings are out of their range.
        OSError: If a checkpoint cannot be loaded.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.work = Work(Counter(), Counter())
        self.vocabularies = tuple(variant.vocabulary for variant in variants)
        self.variants = tuple(variants)
        # Of those with the same weights the first is loaded: its settings fit the tower, or this is told.
        first = {variant.weights: variant for variant in reversed(variants)}
        self._loaded = {weights: _load(variant, dtype, device) for weights, variant in first.items()}
        self._weights_sha256 = {weights: hash_weights(each.model) for weights, each in self._loaded.items()}
        self._queries: dict[Hashable, Queries] = {}
        self._texts = _SharedTexts()
        self._members = tuple(self._make_member(*numbered) for numbered in enumerate(variants))
        self.work.run["texts"] = self._texts.num_encoded
        self.work.needed["texts"] = sum(len(_list_texts(variant)) for variant in variants)
        preparations = {member.preparation: member.processor.image_processor for member in self._members}
        self.prepare_images = functools.partial(_prepare_images, preparations)

    def describe_each(self) -> list[dict[str, Any]]:
        """The description that each variant's own evaluation would have."""
        return [
            describe_itaclip(
                variant.model, self._weights_sha256[variant.weights], member.model, member.config, member.processor
            )
            for variant, member in zip(self.variants, self._members, strict=True)
        ]

    def predict_each(
        self, prepared: Mapping[str, Any], wanted: Sequence[int]
    ) -> Iterator[tuple[int, Sequence[Prediction]]]:
        """Label maps of a batch for the wanted variants, pass by pass."""
        members = [self._members[position] for position in wanted]
        for of_pass in _group(members, "pass_key"):
            inputs = _move_inputs(prepared[of_pass[0].preparation], of_pass[0])
            images = read_images(inputs, of_pass[0].config)
            regions = read_voting_regions(inputs, [image.output_size for image in images])
            by_features = _group(of_pass, "features_key")
            at_once = _count_variants_at_once(images, of_pass[0])
            for start in range(0, len(by_features), at_once):
                yield from self._run_pass(images, regions, by_features[start : start + at_once])

    def _run_pass(
        self,
        images: Sequence[WindowedImage],
        regions: list[torch.Tensor] | None,
        by_features: Sequence[Sequence[_Member]],
    ) -> Iterator[tuple[int, list[Prediction]]]:
        """Encode once, then label the features of each variant; they are let go one after the other."""
        model = by_features[0][0].model
        variants = [DenseVariant(members[0].config, members[0].view_weights) for members in by_features]
        encoded = encode_variants(model, images, variants)
        self._count_views(images, by_features)
        for members in by_features:
            features = encoded.pop(0)
            for of_labels in _group(members, "labels_key"):
                with torch.inference_mode():
                    first = of_labels[0]
                    found = [model.label_dense(of_image, first.queries, first.config) for of_image in features]
                self.work.run["label maps"] += len(features)
                self.work.needed["label maps"] += len(features) * len(of_labels)
                for member in of_labels:
                    yield member.position, _finish(found, regions, member)

    def _count_views(self, images: Sequence[WindowedImage], by_features: Sequence[Sequence[_Member]]) -> None:
        views = sum(image.layout.num_windows * len(image.views) for image in images)
        last_blocks = {members[0].settings.read_by("last_block") for members in by_features}
        members = sum(map(len, by_features))
        self.work.run.update({"window views": views, "last blocks": views * len(last_blocks)})
        self.work.needed.update({"window views": views * members, "last blocks": views * members})

    def _make_member(self, position: int, variant: Variant) -> _Member:
        (model, processor), settings = self._loaded[variant.weights], variant.settings
        processor, config = copy.copy(processor), copy.deepcopy(model.config)
        with naming_variant(variant.title):
            settings.apply(config, processor)
        preparation = _describe_preparation(processor.image_processor)
        view_weights = _view_weights(processor.image_processor)
        words_key = (variant.weights, variant.vocabulary.fingerprint, *settings.read_by("texts"))
        if words_key not in self._queries:
            model.set_vocabulary(processor, variant.vocabulary, self._texts)
            query_classes = torch.tensor(model.config.query_classes)
            self._queries[words_key] = Queries.sort(
                model.query_embeddings.float(), query_classes, model.config.num_labels
            )
        pass_key = (variant.weights, preparation, settings.read_by("windows"), config.uses_regions)
        features_key = (pass_key, settings.read_by("last_block"), view_weights)
        return _Member(
            position=position,
            model=model,
            settings=settings,
            config=config,
            processor=processor,
            queries=self._queries[words_key],
            view_weights=view_weights,
            preparation=preparation,
            pass_key=pass_key,
            features_key=features_key,
            labels_key=(features_key, settings.read_by("maps"), words_key),
        )


@contextlib.contextmanager
def naming_variant(title: str) -> Iterator[None]:
    """Name the variant that an error is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"In {title}: {error}") from error


def _load(variant: Variant, dtype: torch.dtype, device: torch.device | str) -> Loaded:
    with naming_variant(variant.title):
        return load(
            variant.model, settings=variant.settings.to_json(), proxy=variant.proxy, dtype=dtype, device=device
        )


class _SharedTexts:
    """Texts that were embedded for one variant serve all others with the same, be they kept on disk or not."""

    def __init__(self) -> None:
        self.num_encoded = 0
        self._cache = TextCache()
        self._known: dict[Hashable, torch.Tensor] = {}

    def encode_texts(
        self, model: ITACLIPForSemanticSegmentation, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        # The family holds its models, so no two get the same id.
        key = (id(model), input_ids.cpu().numpy().tobytes())
        if key not in self._known:
            self._known[key] = self._cache.encode_texts(model, input_ids, attention_mask)
            self.num_encoded += len(input_ids)
        return self._known[key]


def _move_inputs(inputs: Mapping[str, torch.Tensor], member: _Member) -> ImageInputs:
    # Pixels stay in float32 whatever the model's format: they guide the refinement, too.
    moved = {key: value.to(member.model.device, non_blocking=True) for key, value in inputs.items()}
    return ImageInputs(**moved)


def _count_variants_at_once(images: Sequence[WindowedImage], member: _Member) -> int:
    """How many variants' features may be held at once."""
    tower = member.model.vision_model
    patches = sum(
        image.layout.num_windows * math.prod(tower.compute_grid(*image.layout.padded_size)) for image in images
    )
    return max(1, _FEATURE_BYTES // (4 * patches * member.config.projection_dim))


@torch.inference_mode()
def _finish(found: Sequence[BestClasses], regions: list[torch.Tensor] | None, member: _Member) -> list[Prediction]:
    """Final maps; who shares what was found has the same area threshold, so dropping again changes nothing."""
    maps = member.processor.image_processor.post_process_label_maps(found, region_maps=regions)
    return [Prediction(labels, of_image.confidence) for labels, of_image in zip(maps, found, strict=True)]


def _group(members: Iterable[_Member], key: str) -> list[list[_Member]]:
    """Members with equal keys together, in the order of their first ones."""
    groups: dict[Hashable, list[_Member]] = {}
    for member in members:
        groups.setdefault(getattr(member, key), []).append(member)
    return list(groups.values())


def _list_texts(variant: Variant) -> list[str]:
    vocabulary = variant.vocabulary
    auxiliary_texts = [text for entry in vocabulary.classes for text in entry.auxiliary_texts]
    return [*vocabulary.query_names, *(auxiliary_texts if variant.settings.auxiliary_weight else ())]


def _prepare_images(
    preparations: Mapping[str, ITACLIPImageProcessor], images: list[Image.Image], region_maps: Any = None
) -> dict[str, dict[str, torch.Tensor]]:
    """Images are decoded once and made ready for each kind of pass."""
    return {
        key: dict(image_processor(images, region_maps=region_maps, return_tensors="pt"))
        for key, image_processor in preparations.items()
    }


def _describe_preparation(image_processor: ITACLIPImageProcessor) -> str:
    """Everything about images before the model, but the weights of the views, as a key."""
    of_later_stages = {name for name in SETTING_NAMES if setting_fields()[name].metadata["stage"] != "image"}
    fields = {name: value for name, value in image_processor.to_dict().items() if name not in of_later_stages}
    views = [replace(view, weight=1.0) for view in image_processor.choose_views()]
    return hashlib.sha256(repr((sorted(fields.items()), views)).encode()).hexdigest()


def _view_weights(image_processor: ITACLIPImageProcessor) -> tuple[float, ...] | None:
    """Weights of the views as the image processor emits them, in float32; `None` for the plain image."""
    weights = [view.weight for view in image_processor.choose_views()]
    return tuple(np.array(weights, dtype=np.float32).tolist()) if weights else None
