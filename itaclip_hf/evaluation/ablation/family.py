"""Variants of the method that are predicted side by side and share all that they have in common.

Three levels: variants with the same checkpoint, pixels, views and windows share one *pass* through all blocks but the
last; those with the same last block and view weights share *features*; those that differ in what is done to finished
label maps alone share *label maps*. Text embeddings are shared where the texts are the same. Nothing is approximated:
every variant gets the very tensors it would get by itself.
"""

import copy
import functools
import hashlib
import tempfile
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ...checkpoints import load_complete_model, resolve_checkpoint
from ...method_loading import set_processor_fields
from ...modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from ...modeling.class_scores import Queries
from ...modeling.modeling_itaclip import DenseVariant, ITACLIPLabelMapsOutput
from ...modeling.query_maps import DenseFeatures
from ...modeling.window_views import plan_windows
from ...processing import ITACLIPImageProcessor, ITACLIPProcessor, Vocabulary
from ...text_cache import bake_vocabulary, find_cache_folder
from ..running.predictor import Prediction, describe_itaclip, hash_weights
from .variants import Variant

__all__ = ["VariantFamily", "Work"]

_FEATURE_BYTES = 2**30  # features of one pass held at once; more variants than fit take another pass
# Fields of the image processor that change weights of views or label maps, not what is encoded.
_NOT_PREPARATION = ("photometric_weight", "score_threshold", "area_threshold", "closing")


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
    method: ITACLIPConfig
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
        self._variants = tuple(variants)
        self._models = {
            name: load_complete_model(name, dtype, torch.device(device))
            for name in dict.fromkeys(variant.model for variant in variants)
        }
        self._weights_sha256 = {name: hash_weights(model) for name, model in self._models.items()}
        self._processors = {name: ITACLIPProcessor.from_pretrained(resolve_checkpoint(name)) for name in self._models}
        self._queries: dict[Hashable, Queries] = {}
        with tempfile.TemporaryDirectory() as cache:  # for texts, where the user has turned off the usual one
            self._members = tuple(self._make_member(*numbered, cache) for numbered in enumerate(variants))
        self._count_texts()
        preparations = {member.preparation: member.processor.image_processor for member in self._members}
        self.prepare_images = functools.partial(_prepare_images, preparations)

    def describe_each(self) -> list[dict[str, Any]]:
        """The description that each variant's own evaluation would have."""
        return [
            describe_itaclip(
                variant.model, self._weights_sha256[variant.model], member.model, member.method, member.processor
            )
            for variant, member in zip(self._variants, self._members, strict=True)
        ]

    def predict_each(
        self, prepared: Mapping[str, Any], wanted: Sequence[int]
    ) -> Iterator[tuple[int, Sequence[Prediction]]]:
        """Label maps of a batch for the wanted variants, pass by pass."""
        members = [self._members[position] for position in wanted]
        for of_pass in _group(members, "pass_key"):
            inputs = prepared[of_pass[0].preparation]
            by_features = _group(of_pass, "features_key")
            at_once = self._count_variants_at_once(of_pass[0], inputs)
            for start in range(0, len(by_features), at_once):
                yield from self._run_pass(inputs, by_features[start : start + at_once])

    def _run_pass(
        self, inputs: Mapping[str, torch.Tensor], by_features: Sequence[Sequence[_Member]]
    ) -> Iterator[tuple[int, list[Prediction]]]:
        """Encode once, then label the features of each variant; they are let go one after the other."""
        encoded = self._encode(inputs, by_features)
        for members in by_features:
            features = [of_image.pop(0) for of_image in encoded]
            for of_labels in _group(members, "labels_key"):
                outputs = self._label(features, of_labels[0])
                self.work.run["label maps"] += len(features)
                self.work.needed["label maps"] += len(features) * len(of_labels)
                for member in of_labels:
                    maps = member.processor.image_processor.post_process_label_maps(outputs)
                    yield member.position, [Prediction(*pair) for pair in zip(maps, outputs.confidence, strict=True)]

    @torch.inference_mode()
    def _encode(
        self, inputs: Mapping[str, torch.Tensor], by_features: Sequence[Sequence[_Member]]
    ) -> list[list[DenseFeatures]]:
        first = by_features[0][0]
        model = first.model
        model.config.window_size, model.config.window_stride = first.method.window_size, first.method.window_stride
        # Pixels stay in float32 whatever the model's format: they guide the refinement, too.
        moved = {key: value.to(model.device, non_blocking=True) for key, value in inputs.items()}
        variants = [DenseVariant(members[0].method, members[0].view_weights) for members in by_features]
        encoded = model.encode_dense(**moved, variants=variants)
        self._count_views(encoded, by_features)
        return encoded

    @torch.inference_mode()
    def _label(self, features: Sequence[DenseFeatures], member: _Member) -> ITACLIPLabelMapsOutput:
        area_threshold = member.processor.image_processor.area_threshold
        results = [
            member.model.label_dense(of_image, member.queries, member.method, area_threshold) for of_image in features
        ]
        labels, confidence = zip(*results, strict=True)
        return ITACLIPLabelMapsOutput(labels=list(labels), confidence=list(confidence))

    def _count_views(
        self, encoded: Sequence[Sequence[DenseFeatures]], by_features: Sequence[Sequence[_Member]]
    ) -> None:
        layouts = [of_image[0].layout for of_image in encoded]
        windows = sum(len(layout.tops) * len(layout.lefts) for layout in layouts)
        views = windows * len(by_features[0][0].view_weights or (1,))
        last_blocks = {members[0].method.last_block() for members in by_features}
        members = sum(map(len, by_features))
        self.work.run.update({"window views": views, "last blocks": views * len(last_blocks)})
        self.work.needed.update({"window views": views * members, "last blocks": views * members})

    def _count_variants_at_once(self, member: _Member, inputs: Mapping[str, torch.Tensor]) -> int:
        """How many variants' features may be held at once."""
        method, tower = member.method, member.model.vision_model
        tokens = 0
        for size in inputs["image_sizes"].tolist():
            layout = plan_windows((size[0], size[1]), method.window_size, method.window_stride)
            grid = tower.compute_grid(*layout.size)
            tokens += len(layout.tops) * len(layout.lefts) * grid[0] * grid[1]
        return max(1, _FEATURE_BYTES // (4 * tokens * method.projection_dim))

    def _make_member(self, position: int, variant: Variant, cache: str) -> _Member:
        model = self._models[variant.model]
        processor = copy.copy(self._processors[variant.model])
        try:
            set_processor_fields(processor, variant.processor_fields)
            method = type(model.config).from_dict({**model.config.to_dict(), **variant.config_fields})
        except ValueError as error:
            raise ValueError(f"In {variant.title or 'a variant'}: {error}") from error
        image_processor = processor.image_processor
        preparation = _describe_preparation(image_processor)
        view_weights = _view_weights(image_processor)
        words_key = (variant.model, variant.vocabulary.fingerprint, processor.auxiliary_weight)
        if words_key not in self._queries:
            self._queries[words_key] = self._encode_vocabulary(variant, model, processor, cache)
        pass_key = (variant.model, preparation, method.window_size, method.window_stride)
        features_key = (pass_key, method.last_block(), view_weights)
        labels_key = (
            features_key, method.pamr_steps, method.pamr_dilations, method.similarity_scale,
            image_processor.area_threshold, *words_key,
        )  # fmt: skip
        return _Member(
            position=position,
            model=model,
            method=method,
            processor=processor,
            queries=self._queries[words_key],
            view_weights=view_weights,
            preparation=preparation,
            pass_key=pass_key,
            features_key=features_key,
            labels_key=labels_key,
        )

    def _encode_vocabulary(
        self, variant: Variant, model: ITACLIPForSemanticSegmentation, processor: ITACLIPProcessor, cache: str
    ) -> Queries:
        """The queries that a predictor of this variant alone would bake; texts that were encoded are only mixed."""
        bake_vocabulary(model, processor, variant.vocabulary, find_cache_folder() or cache)
        query_classes = torch.tensor(model.config.query_classes)
        return Queries.sort(model.query_embeddings.float(), query_classes, model.config.num_labels)

    def _count_texts(self) -> None:
        needed = [
            (variant.model, text)
            for variant in self._variants
            for text in _list_texts(
                variant.vocabulary, with_auxiliary=variant.processor_fields["auxiliary_weight"] > 0
            )
        ]
        self.work.run["texts"], self.work.needed["texts"] = len(set(needed)), len(needed)


def _group(members: Iterable[_Member], key: str) -> list[list[_Member]]:
    """Members with equal keys together, in the order of their first ones."""
    groups: dict[Hashable, list[_Member]] = {}
    for member in members:
        groups.setdefault(getattr(member, key), []).append(member)
    return list(groups.values())


def _list_texts(vocabulary: Vocabulary, with_auxiliary: bool) -> list[str]:
    auxiliary_texts = [text for entry in vocabulary.classes for text in entry.auxiliary_texts]
    return [*vocabulary.query_names, *(auxiliary_texts if with_auxiliary else ())]


def _prepare_images(
    preparations: Mapping[str, ITACLIPImageProcessor], images: list[Image.Image]
) -> dict[str, dict[str, torch.Tensor]]:
    """Images are decoded once and made ready for each kind of pass."""
    return {key: dict(image_processor(images, return_tensors="pt")) for key, image_processor in preparations.items()}


def _describe_preparation(image_processor: ITACLIPImageProcessor) -> str:
    """Everything about images before the model, but the weights of the views, as a key."""
    fields = {name: value for name, value in image_processor.to_dict().items() if name not in _NOT_PREPARATION}
    views = [replace(view, weight=1.0) for view in image_processor.choose_views()]
    content = repr((sorted(fields.items()), views))
    return hashlib.sha256(content.encode()).hexdigest()


def _view_weights(image_processor: ITACLIPImageProcessor) -> tuple[float, ...] | None:
    """Weights of the views as the image processor emits them, in float32; `None` for the plain image."""
    weights = [view.weight for view in image_processor.choose_views()]
    return tuple(np.array(weights, dtype=np.float32).tolist()) if weights else None
