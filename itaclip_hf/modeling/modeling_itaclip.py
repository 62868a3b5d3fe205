"""ITACLIP for semantic segmentation: CLIP plus window views, stitching, pixel refinement and class scores.

Images (with their views as data) and texts (as tokens with mixing weights) come in; log class scores at the images'
original sizes go out. Source: Aydın et al., "ITACLIP: Boosting Training-Free Semantic Segmentation with Image, Text,
and Architectural Enhancements" (CVPR Workshops 2025).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from transformers import CLIPModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.utils.generic import ModelOutput, can_return_tuple

from .class_scores import Queries, compute_class_logits
from .configuration_itaclip import ITACLIPConfig
from .encoder_batches import choose_tokens_per_batch, choose_window_batch_size, group_prompts
from .label_maps import find_best_classes, find_small_classes, reassign_classes_
from .model_inputs import choose_output_sizes, choose_views, crop_images, expect_shape, split_inputs
from .query_maps import DenseFeatures, QueryMaps
from .vision_itaclip import EncodedBlocks, ITACLIPVisionModel
from .window_views import View, WindowLayout, batch_windows, combine_views, make_views, plan_windows

__all__ = [
    "DenseVariant",
    "ITACLIPForSemanticSegmentation",
    "ITACLIPLabelMapsOutput",
    "ITACLIPSemanticSegmenterOutput",
]

IGNORE_INDEX = 255


@dataclass
class ITACLIPSemanticSegmenterOutput(ModelOutput):
    """Output of [`ITACLIPForSemanticSegmentation`].

    Attributes:
        loss: Mean negative log class score over labelled pixels, returned when `labels` are given.
        logits: (batch, classes, H₀, W₀) float32, log class scores at the original size; a list of (classes, H₀, W₀)
            where the sizes of a batch differ.
        hidden_states: Before the first vision block and after each one, (window views, tokens, dim), images in order,
            windows row by row, then views; a list of such tensors, one per encoder batch, where window sizes differ.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | list[torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | tuple[list[torch.Tensor], ...] | None = None


class ITACLIPLabelMapsOutput(NamedTuple):
    """Output of [`~ITACLIPForSemanticSegmentation.predict_labels`], one entry for each image.

    Attributes:
        labels: (H₀, W₀) int64, the class with the highest score.
        confidence: (H₀, W₀) float32, that score, between 0 and 1.
    """

    labels: list[torch.Tensor]
    confidence: list[torch.Tensor]


class DenseVariant(NamedTuple):
    """One of several ways to end the encoding of the same windows.

    Attributes:
        method: Says what the last block does; only its fields about that block are read.
        view_weights: Weight of each view; those that come with the images if `None`.
    """

    method: ITACLIPConfig
    view_weights: tuple[float, ...] | None = None


class ITACLIPForSemanticSegmentation(CLIPModel):
    r"""Open-vocabulary semantic segmentation with CLIP weights and no training.

    Stock CLIP ViT checkpoints load as they are. The vocabulary comes with each call, as made by [`ITACLIPProcessor`],
    or is baked once by [`~ITACLIPForSemanticSegmentation.set_vocabulary`]. `get_text_features` is CLIP's;
    `get_image_features` goes through the rebuilt last block.

    Example:
    ```python
    >>> import torch
    >>> from PIL import Image
    >>> from itaclip_hf import load_demo

    >>> model, processor = load_demo()
    >>> image = Image.new("RGB", (448, 336))
    >>> inputs = processor(images=image, text=["sky", "grass", "dog"], return_tensors="pt")
    >>> with torch.inference_mode():
    ...     outputs = model(**inputs)
    >>> outputs.logits.shape
    torch.Size([1, 3, 336, 448])

    ```
    """

    config: ITACLIPConfig
    vision_model: ITACLIPVisionModel
    query_embeddings: torch.Tensor
    config_class = ITACLIPConfig
    main_input_name = "pixel_values"
    _no_split_modules = ["CLIPTextEmbeddings", "CLIPEncoderLayer", *ITACLIPVisionModel._no_split_modules]
    _keys_to_ignore_on_load_unexpected = [r".*position_ids"]  # saved by old versions of Transformers

    def __init__(self, config: ITACLIPConfig) -> None:
        super().__init__(config)
        self.vision_model = ITACLIPVisionModel._from_config(config.vision_config, method=config)
        self._register_queries(torch.zeros(len(config.query_classes), config.projection_dim))
        self.post_init()

    def _register_queries(self, query_embeddings: torch.Tensor) -> None:
        # An empty vocabulary stays out of the files, so that they are CLIP's own to the letter.
        self.register_buffer("query_embeddings", query_embeddings, persistent=len(query_embeddings) > 0)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # CLIPModel's constructor comes here before the buffer exists.
        if module is self and "query_embeddings" in self._buffers:
            init.zeros_(self.query_embeddings)

    def set_vocabulary(self, processor: Any, vocabulary: Any, text_cache: Any = None) -> None:
        """Bake a vocabulary: its query embeddings into a buffer, its labels into the configuration.

        From then on `forward` needs no texts, `pipeline("image-segmentation")` works, and `save_pretrained` keeps all.

        The embeddings are kept in the model's own number format. A file with a vocabulary in it is still one of CLIP,
        with one entry more (`query_embeddings`).

        Args:
            processor: The [`ITACLIPProcessor`] that goes with the model.
            vocabulary: The [`Vocabulary`] to bake; another one may take its place later.
            text_cache: A [`TextCache`] to read texts from that were embedded before; by default they are embedded.

        Raises:
            TypeError: If `vocabulary` is not a [`Vocabulary`].
        """
        # No `isinstance`: loaded from the Hub, the processor's code has a `Vocabulary` of its own.
        if not hasattr(vocabulary, "labels"):
            raise TypeError(
                f"Expected a Vocabulary, but got {type(vocabulary).__name__}. Make one with `Vocabulary.from_dict(…)` "
                'or `Vocabulary(["cat", ["dog", "puppy"]])`.'
            )
        device = torch.device("cpu") if self.device.type == "meta" else self.device  # meta: weights are offloaded
        inputs = processor(vocabulary=vocabulary, return_tensors="pt").to(device)
        texts = inputs["input_ids"], inputs["attention_mask"]
        with torch.no_grad():
            unit_texts = self.encode_texts(*texts) if text_cache is None else text_cache.encode_texts(self, *texts)
            query_embeddings = _mix_texts(inputs["text_weight"], unit_texts)
        self.set_queries(query_embeddings, inputs["query_classes"].tolist(), vocabulary.labels)

    def set_queries(self, query_embeddings: torch.Tensor, query_classes: Sequence[int], labels: Sequence[str]) -> None:
        """Bake query embeddings that are there already; [`set_vocabulary`] makes them from words.

        Args:
            query_embeddings: (queries, projection_dim) of [`encode_queries`].
            query_classes: Class of each query.
            labels: Name of each class.

        Raises:
            ValueError: If the three do not fit each other.
        """
        expect_shape("query_embeddings", query_embeddings, (len(query_classes), self.config.projection_dim))
        if not (len(query_classes) > 0 and min(query_classes) >= 0 and max(query_classes) < len(labels)):
            raise ValueError(
                f"Expected `query_classes` to hold ids of `labels` (0 to {len(labels) - 1}), but got "
                f"{sorted(set(query_classes))}. Name every class."
            )
        self._register_queries(query_embeddings.detach().to(self.dtype))
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {label: class_id for class_id, label in self.config.id2label.items()}
        self.config.query_classes = tuple(query_classes)

    def encode_queries(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        text_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed texts and mix them into queries: a weighted sum of texts, *not* renormalised.

        Args:
            input_ids: (texts, prompts, tokens) token ids of each text in each prompt template; (texts, tokens) for one
                prompt a text.
            attention_mask: Same shape, 1 for tokens and 0 for padding at the end.
            text_weight: (queries, texts) mixing matrix; one query for each text if left out.

        Returns:
            (queries, projection_dim) float32
        """
        unit_texts = self.encode_texts(input_ids, attention_mask)
        if text_weight is None:
            return unit_texts
        return _mix_texts(text_weight, unit_texts)

    def encode_texts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Embed texts: every prompt's embedding is normalised; a text is the normalised mean of its prompts.

        Equal prompts are encoded once, and prompts of similar length together, without the padding.

        Args:
            input_ids: (texts, prompts, tokens), or (texts, tokens) for one prompt a text.
            attention_mask: Same shape, 1 for tokens and 0 for padding at the end.

        Returns:
            (texts, projection_dim) float32, unit vectors.
        """
        if input_ids.ndim == 2:
            input_ids = input_ids[:, None]
            attention_mask = None if attention_mask is None else attention_mask[:, None]
        if input_ids.ndim != 3:
            raise ValueError(
                f"Expected `input_ids` of shape (texts, prompts, tokens) or (texts, tokens), but got "
                f"{tuple(input_ids.shape)}. Pass what the processor made."
            )
        if attention_mask is not None:
            expect_shape("attention_mask", attention_mask, tuple(input_ids.shape))
            attention_mask = attention_mask.flatten(0, 1)
        tokens_per_batch = choose_tokens_per_batch(self.config.text_config, self.dtype, self.device)
        groups, places = group_prompts(input_ids.flatten(0, 1), attention_mask, tokens_per_batch)
        embeddings = [self.get_text_features(group, return_dict=True).pooler_output for group in groups]
        unit_prompts = nn.functional.normalize(torch.cat(embeddings).float(), dim=-1)[places]
        return nn.functional.normalize(unit_prompts.unflatten(0, input_ids.shape[:2]).mean(1), dim=-1)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        image_sizes: torch.Tensor | None = None,
        original_sizes: torch.Tensor | None = None,
        augmentation_color: torch.Tensor | None = None,
        augmentation_blur: torch.Tensor | None = None,
        augmentation_flip: torch.Tensor | None = None,
        augmentation_weight: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        text_weight: torch.Tensor | None = None,
        query_embeddings: torch.Tensor | None = None,
        query_classes: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
    ) -> ITACLIPSemanticSegmenterOutput:
        r"""Segment a batch of images.

        Args:
            pixel_values: (batch, 3, height, width) CLIP-normalised images, padded right and below.
            image_sizes: (batch, 2) valid (height, width) of each image; all of it if left out.
            original_sizes: (batch, 2) (height, width) of each result; the image's size if left out.
            augmentation_color: (batch, views, 3, 3) colour matrix of each view, applied to normalised pixels.
            augmentation_blur: (batch, views, K) 1-D blur kernel of odd length, a unit impulse for none.
            augmentation_flip: (batch, views, 2) whether to flip vertically and horizontally.
            augmentation_weight: (batch, views) weights that sum to 1. Without the four: the plain view alone.
            input_ids: (texts, prompts, tokens) texts in their prompt templates; the baked vocabulary if left out.
            attention_mask: Same shape as `input_ids`.
            text_weight: (queries, texts) mixing matrix; one query for each text if left out.
            query_embeddings: (queries, dim) of [`~ITACLIPForSemanticSegmentation.encode_queries`], instead of texts.
            query_classes: (queries,) class of each query; one class for each query if left out.
            labels: (batch, H₀, W₀) class ids, 255 to ignore, for the loss; needs results of one size.
            output_hidden_states: Whether to return the states of the vision blocks; or the indices of those to return.
            output_attentions: There for compatibility: attention maps are never stored, so none is returned.
            return_dict (`bool`, *optional*): Whether to return an output object (default) or a plain tuple.

        Returns:
            [`ITACLIPSemanticSegmenterOutput`]: `logits` are log class scores at the original sizes.

        Raises:
            ValueError: If inputs do not fit each other, or neither texts nor a baked vocabulary are there.
        """
        self.config.validate_method()
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        queries = self._choose_queries(
            pixel_values.device, input_ids, attention_mask, text_weight, query_embeddings, query_classes
        )
        encoded, hidden_states = self._encode_images(
            [DenseVariant(self.config)],
            pixel_values,
            image_sizes,
            original_sizes,
            augmentation_color,
            augmentation_blur,
            augmentation_flip,
            augmentation_weight,
            output_hidden_states,
        )
        results = [self._score_classes(features, queries) for (features,) in encoded]
        logits = results if len({result.shape for result in results}) > 1 else _stack(results)
        return ITACLIPSemanticSegmenterOutput(
            loss=None if labels is None else _compute_loss(logits, labels),
            logits=logits,
            hidden_states=hidden_states,
        )

    @torch.no_grad()
    def predict_labels(self, *, area_threshold: float | None = None, **inputs: Any) -> ITACLIPLabelMapsOutput:
        """Find the best class of each pixel, for any number of classes and any size of image.

        The labels are those of `forward` and the processor's `post_process_semantic_segmentation`, but one score a
        pixel is held instead of one for each class, and large images go by tiles. Finish the maps with the processor's
        `post_process_label_maps`.

        Args:
            **inputs: Images, views and texts (or none of these, for the baked vocabulary), as for `forward`.
            area_threshold: Classes 1, 2, … that cover at most this share of the predicted foreground lose their pixels
                to the next best class. Pass the image processor's. It costs a second look at tiles with such pixels.

        Returns:
            [`ITACLIPLabelMapsOutput`]: `labels` and `confidence`, before score threshold and closing.

        Example:
        ```python
        >>> import torch
        >>> from PIL import Image
        >>> from itaclip_hf import load_demo

        >>> model, processor = load_demo()
        >>> inputs = processor(images=Image.new("RGB", (448, 336)), return_tensors="pt")
        >>> outputs = model.predict_labels(**inputs, area_threshold=processor.image_processor.area_threshold)
        >>> processor.post_process_label_maps(outputs)[0].shape
        torch.Size([336, 448])

        ```
        """
        self.config.validate_method()
        images, texts = split_inputs(inputs)
        queries = self._choose_queries(images["pixel_values"].device, **texts)
        results = [
            self.label_dense(features, queries, area_threshold=area_threshold)
            for (features,) in self.encode_dense(**images)
        ]
        labels, confidence = zip(*results, strict=True)
        return ITACLIPLabelMapsOutput(list(labels), list(confidence))

    def encode_dense(
        self, *, variants: Sequence[DenseVariant] | None = None, **images: Any
    ) -> list[list[DenseFeatures]]:
        """Encode images up to where queries come in, once for many uses.

        Variants of the last block and of the weights of views share everything before them: windows, views and all
        blocks but the last.

        Args:
            **images: Images and views, as for `forward`.
            variants: What differs between the results; the model's own configuration alone by default.

        Returns:
            For each image, the [`DenseFeatures`] of each variant; see [`label_dense`].
        """
        if variants is None:
            variants = [DenseVariant(self.config)]
        for variant in variants:
            variant.method.validate_method()
        return self._encode_images(variants, **images)[0]

    def label_dense(
        self,
        features: DenseFeatures,
        queries: Queries,
        method: ITACLIPConfig | None = None,
        area_threshold: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stitch, refine and score one encoded image, keeping the best class of each pixel alone.

        Args:
            features: Of [`encode_dense`].
            queries: What to compare with, of [`choose_queries`].
            method: Says how to refine and scale; the model's own configuration by default.
            area_threshold: As for [`predict_labels`].

        Returns:
            Class ids (H₀, W₀) int64 and their scores (H₀, W₀) float32.
        """
        with torch.autocast(features.image.device.type, enabled=False):  # sums of many terms need float32
            maps = QueryMaps(features, method or self.config)
            labels, confidence = find_best_classes(maps, queries)
            if area_threshold:
                dropped = find_small_classes(labels, queries.num_classes, area_threshold)
                reassign_classes_(labels, confidence, maps, queries, dropped)
            return labels, confidence

    def encode_patches(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | int | list[int] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        """Unit embedding of each patch of images of one size, without windows or views.

        Args:
            pixel_values: (batch, 3, height, width) CLIP-normalised.
            output_hidden_states: Whether to return the states of the vision blocks.

        Returns:
            (batch, grid_h, grid_w, projection_dim) float32, and the hidden states or `None`.
        """
        outputs = self.vision_model(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        grid = self.vision_model.compute_grid(*pixel_values.shape[-2:])
        return self._project_patches(outputs.last_hidden_state, grid), outputs.hidden_states

    def _project_patches(self, hidden_states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(batch, 1 + grid_h * grid_w, dim) -> (batch, grid_h, grid_w, projection_dim) float32, unit vectors."""
        tokens = self.vision_model.post_layernorm(hidden_states[:, 1:])  # without the class token
        return nn.functional.normalize(self.visual_projection(tokens).float(), dim=-1).unflatten(1, grid)

    def _choose_queries(
        self,
        device: torch.device,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        text_weight: torch.Tensor | None = None,
        query_embeddings: torch.Tensor | None = None,
        query_classes: torch.Tensor | None = None,
    ) -> Queries:
        num_classes = None
        if input_ids is not None:
            query_embeddings = self.encode_queries(input_ids, attention_mask, text_weight)
        elif query_embeddings is None:
            if len(self.query_embeddings) == 0:
                raise ValueError(
                    "Expected texts (`input_ids`, …), `query_embeddings` or a baked vocabulary, but got none of them. "
                    "Pass `text=[…]` to the processor, or call `model.set_vocabulary(processor, vocabulary)` once."
                )
            query_embeddings, num_classes = self.query_embeddings, self.config.num_labels
            query_classes = torch.tensor(self.config.query_classes)
        if query_classes is None:
            query_classes = torch.arange(len(query_embeddings))
        expect_shape("query_embeddings", query_embeddings, (max(len(query_embeddings), 1), self.config.projection_dim))
        expect_shape("query_classes", query_classes, (len(query_embeddings),))
        if query_classes.min() < 0:
            raise ValueError(
                f"Expected `query_classes` of at least 0, but got {int(query_classes.min())}. Count classes from 0."
            )
        return Queries.sort(query_embeddings.float().to(device), query_classes, num_classes)

    def _encode_images(
        self,
        variants: Sequence[DenseVariant],
        pixel_values: torch.Tensor,
        image_sizes: torch.Tensor | None = None,
        original_sizes: torch.Tensor | None = None,
        augmentation_color: torch.Tensor | None = None,
        augmentation_blur: torch.Tensor | None = None,
        augmentation_flip: torch.Tensor | None = None,
        augmentation_weight: torch.Tensor | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
    ) -> tuple[list[list[DenseFeatures]], tuple | None]:
        """Check and take apart the inputs, encode all windows, and lay their grids side by side."""
        images = crop_images(pixel_values, image_sizes, smallest=cast(int, self.config.vision_config.patch_size))
        views = choose_views(images, augmentation_color, augmentation_blur, augmentation_flip, augmentation_weight)
        output_sizes = choose_output_sizes(images, original_sizes)
        layouts = [plan_windows(_size(image), self.config.window_size, self.config.window_stride) for image in images]
        grids, hidden_states = self._encode_windows(images, layouts, views, variants, output_hidden_states)
        encoded = [
            [
                DenseFeatures(image, layout, grid, self.vision_model.compute_grid(*layout.size), output_size)
                for grid in variant_grids
            ]
            for image, layout, variant_grids, output_size in zip(images, layouts, grids, output_sizes, strict=True)
        ]
        return encoded, hidden_states

    def _encode_windows(
        self,
        images: list[torch.Tensor],
        layouts: list[WindowLayout],
        views: list[list[View]],
        variants: Sequence[DenseVariant],
        output_hidden_states: bool | int | list[int] | None,
    ) -> tuple[list[list[torch.Tensor]], tuple | None]:
        """Encode all views of all windows of all images in shared batches.

        Returns:
            Features of each image and variant, (n_h * grid_h, n_w * grid_w, dim), window grids side by side; the
            hidden states.
        """
        features: list[list[list[torch.Tensor]]] = [[[] for _ in variants] for _ in images]
        states: list[tuple[torch.Tensor | None, ...] | None] = []
        views_of = [[_weigh_views(image_views, variant) for variant in variants] for image_views in views]
        batch_size = self.config.window_batch_size or choose_window_batch_size(
            self.config.vision_config, layouts[0].size, self.dtype, self.device
        )
        for batch in batch_windows(layouts, max(1, batch_size // len(views[0]))):
            parts = [
                make_views(torch.stack([images[index][:, rows, columns] for rows, columns in boxes]), views[index])
                for index, boxes in batch
            ]
            encoded, batch_states = self._encode_variants(
                torch.cat(parts).flatten(0, 1), variants, output_hidden_states
            )
            states.append(batch_states)
            for number, patches in enumerate(encoded):
                of_image = patches.unflatten(0, (-1, len(views[0]))).split([len(part) for part in parts])
                for (index, _), part in zip(batch, of_image, strict=True):
                    combined = combine_views(part, views_of[index][number]).to(images[index].device)
                    features[index][number].append(combined)
        grids = [
            [_lay_out(torch.cat(parts), layout) for parts in of_variants]
            for of_variants, layout in zip(features, layouts, strict=True)
        ]
        return grids, _merge_states(states)

    def _encode_variants(
        self,
        pixel_values: torch.Tensor,
        variants: Sequence[DenseVariant],
        output_hidden_states: bool | int | list[int] | None,
    ) -> tuple[list[torch.Tensor], tuple[torch.Tensor | None, ...] | None]:
        """Unit patch embeddings under each variant; equal last blocks run once."""
        if all(variant.method is self.config for variant in variants):
            patches, states = self.encode_patches(pixel_values, output_hidden_states)
            return [patches] * len(variants), states
        layers = {layer for variant in variants for layer in variant.method.intermediate_layers}
        blocks = self.vision_model.encode_blocks(pixel_values, layers)
        done: dict[tuple[Any, ...], torch.Tensor] = {}
        return [self._finish_variant(blocks, variant.method, done) for variant in variants], None

    def _finish_variant(
        self, blocks: EncodedBlocks, method: ITACLIPConfig, done: dict[tuple[Any, ...], torch.Tensor]
    ) -> torch.Tensor:
        key = method.last_block()
        if key not in done:
            done[key] = self._project_patches(self.vision_model.run_last_block(blocks, method), blocks.grid)
        return done[key]

    def _score_classes(self, features: DenseFeatures, queries: Queries) -> torch.Tensor:
        """Stitch, refine and score one image, a tile and a chunk of queries at a time: (classes, H₀, W₀) float32."""
        with torch.autocast(features.image.device.type, enabled=False):  # sums of many terms need float32
            maps = QueryMaps(features, self.config)
            if len(maps.tiles) == 1:  # nothing to put together, and no copy
                return compute_class_logits(maps.compute(maps.tiles[0], queries.embeddings), queries, maps.size)
            logits = torch.empty(queries.num_classes, *maps.size, device=features.image.device)
            for tile in maps.tiles:
                rows, columns = tile.core
                tile_maps = maps.compute(tile, queries.embeddings)
                logits[:, rows, columns] = compute_class_logits(tile_maps, queries, tile.size)
            return logits


def _mix_texts(text_weight: torch.Tensor, unit_texts: torch.Tensor) -> torch.Tensor:
    """(queries, texts) @ (texts, dim), in float32."""
    expect_shape("text_weight", text_weight, (len(text_weight), len(unit_texts)))
    with torch.autocast(unit_texts.device.type, enabled=False):
        return text_weight.to(unit_texts) @ unit_texts


def _size(image: torch.Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _weigh_views(views: list[View], variant: DenseVariant) -> list[View]:
    if variant.view_weights is None:
        return views
    if len(variant.view_weights) != len(views):
        raise ValueError(
            f"Expected one of `view_weights` for each of {len(views)} views, but got {len(variant.view_weights)}."
        )
    return [view._replace(weight=weight) for view, weight in zip(views, variant.view_weights, strict=True)]


def _stack(results: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(results) if len(results) > 1 else results[0][None]  # a batch of one is not copied


def _lay_out(features: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
    """(n_h * n_w, grid_h, grid_w, dim) -> (n_h * grid_h, n_w * grid_w, dim)."""
    windows = features.unflatten(0, (len(layout.tops), len(layout.lefts)))
    return windows.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _merge_states(states: list[tuple[torch.Tensor | None, ...] | None]) -> tuple | None:
    """One entry for each layer, over all encoder batches; `None` where a layer was not asked for, or none was."""
    if len(states) == 1 or states[0] is None:
        return states[0]  # as they are, so that gradients can be asked of them
    return tuple(_merge_layer(list(layer)) for layer in zip(*filter(None, states), strict=True))


def _merge_layer(batches: list[torch.Tensor | None]) -> torch.Tensor | list[torch.Tensor] | None:
    kept = [batch for batch in batches if batch is not None]
    if not kept:
        return None
    return torch.cat(kept) if len({batch.shape[1] for batch in kept}) == 1 else kept


def _compute_loss(logits: torch.Tensor | list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    if not isinstance(logits, torch.Tensor):
        raise ValueError(
            "Expected results of one size for a loss, but got several. Pass images of one original size, or leave out "
            "`labels`."
        )
    expect_shape("labels", labels, (len(logits), *logits.shape[-2:]))
    labels = labels.long()
    largest = int(labels.masked_fill(labels == IGNORE_INDEX, 0).max())
    if largest >= logits.shape[1]:
        raise ValueError(
            f"Expected `labels` from 0 to {logits.shape[1] - 1}, or {IGNORE_INDEX} to ignore, but got {largest}. Name "
            "as many classes as there are labels."
        )
    return nn.functional.nll_loss(logits, labels, ignore_index=IGNORE_INDEX)


# Pipelines compare class names with this table, which `register` leaves alone, and log an error line otherwise. It
# stands here and not with the registration so that it also holds where this file is loaded from the Hub.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[ITACLIPConfig.model_type] = ITACLIPForSemanticSegmentation.__name__
