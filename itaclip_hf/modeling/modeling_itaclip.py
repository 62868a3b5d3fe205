"""ITACLIP for semantic segmentation: CLIP plus window views, stitching, pixel refinement and class scores.

Images (with their views as data) and texts (as tokens with mixing weights) come in; log class scores at the images'
original sizes go out. Source: Aydın et al., "ITACLIP: Boosting Training-Free Semantic Segmentation with Image, Text,
and Architectural Enhancements" (CVPR Workshops 2025).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast

import torch
from torch import nn
from transformers import CLIPModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.utils.generic import ModelOutput, can_return_tuple

from .class_scores import Queries, compute_class_logits
from .configuration_itaclip import ITACLIPConfig
from .model_inputs import choose_output_sizes, choose_views, crop_images, expect_shape
from .pixel_refinement import compute_refinement_matrix, resize_guide
from .stitching import plan_stitching
from .vision_itaclip import ITACLIPVisionModel
from .window_views import View, WindowLayout, batch_windows, combine_views, make_views, plan_windows

__all__ = ["ITACLIPForSemanticSegmentation", "ITACLIPSemanticSegmenterOutput"]

PROMPTS_PER_BATCH = 256
MAP_ELEMENTS_PER_CHUNK = 2**23  # query maps held at once: 32 MiB of float32 (a few such buffers are alive together)
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

    def set_vocabulary(self, processor: Any, vocabulary: Any) -> None:
        """Bake a vocabulary: its query embeddings into a buffer, its labels into the configuration.

        From then on `forward` needs no texts, `pipeline("image-segmentation")` works, and `save_pretrained` keeps all.

        The embeddings are kept in the model's own number format. A file with a vocabulary in it is still one of CLIP,
        with one entry more (`query_embeddings`).

        Args:
            processor: The [`ITACLIPProcessor`] that goes with the model.
            vocabulary: The [`Vocabulary`] to bake; another one may take its place later.

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
        with torch.no_grad():
            query_embeddings = self.encode_queries(
                inputs["input_ids"], inputs["attention_mask"], inputs["text_weight"]
            )
        self._register_queries(query_embeddings.to(self.dtype))
        self.config.id2label = dict(enumerate(vocabulary.labels))
        self.config.label2id = {label: class_id for class_id, label in self.config.id2label.items()}
        self.config.query_classes = tuple(inputs["query_classes"].tolist())

    def encode_queries(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        text_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed texts and mix them into queries.

        Every prompt's embedding is normalised; a text is the normalised mean of its prompts; a query is a weighted sum
        of texts and is *not* renormalised.

        Args:
            input_ids: (texts, prompts, tokens) token ids of each text in each prompt template; (texts, tokens) for one
                prompt a text.
            attention_mask: Same shape, 1 for tokens and 0 for padding at the end.
            text_weight: (queries, texts) mixing matrix; one query for each text if left out.

        Returns:
            (queries, projection_dim) float32
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
            # Columns of padding alone, at the end, cost time and change nothing.
            length = 1 + int(attention_mask.any((0, 1)).nonzero().max())
            input_ids, attention_mask = input_ids[..., :length], attention_mask[..., :length].flatten(0, 1)
        if text_weight is not None:
            expect_shape("text_weight", text_weight, (len(text_weight), len(input_ids)))
        prompts = input_ids.flatten(0, 1).split(PROMPTS_PER_BATCH)
        masks = repeat(None) if attention_mask is None else attention_mask.split(PROMPTS_PER_BATCH)
        embeddings = [
            self.get_text_features(*batch, return_dict=True).pooler_output
            for batch in zip(prompts, masks, strict=False)
        ]
        unit_prompts = nn.functional.normalize(torch.cat(embeddings).float(), dim=-1)
        unit_texts = nn.functional.normalize(unit_prompts.unflatten(0, input_ids.shape[:2]).mean(1), dim=-1)
        if text_weight is None:
            return unit_texts
        with torch.autocast(unit_texts.device.type, enabled=False):
            return text_weight.to(unit_texts) @ unit_texts

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
        queries = self._choose_queries(input_ids, attention_mask, text_weight, query_embeddings, query_classes)
        queries = queries._replace(embeddings=queries.embeddings.to(pixel_values.device))
        images = crop_images(pixel_values, image_sizes, smallest=cast(int, self.config.vision_config.patch_size))
        views = choose_views(images, augmentation_color, augmentation_blur, augmentation_flip, augmentation_weight)
        output_sizes = choose_output_sizes(images, original_sizes)
        layouts = [plan_windows(_size(image), self.config.window_size, self.config.window_stride) for image in images]
        grids, hidden_states = self._encode_windows(images, layouts, views, output_hidden_states)
        results = [
            self._score_classes(*image, queries) for image in zip(images, layouts, grids, output_sizes, strict=True)
        ]
        logits = results if len(set(output_sizes)) > 1 else _stack(results)
        return ITACLIPSemanticSegmenterOutput(
            loss=None if labels is None else _compute_loss(logits, labels),
            logits=logits,
            hidden_states=hidden_states,
        )

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
        tokens = self.vision_model.post_layernorm(outputs.last_hidden_state[:, 1:])  # without the class token
        patches = self.visual_projection(tokens).float()
        grid = self.vision_model.compute_grid(*pixel_values.shape[-2:])
        return nn.functional.normalize(patches, dim=-1).unflatten(1, grid), outputs.hidden_states

    def _choose_queries(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        text_weight: torch.Tensor | None,
        query_embeddings: torch.Tensor | None,
        query_classes: torch.Tensor | None,
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
        return Queries.sort(query_embeddings.float(), query_classes, num_classes)

    def _encode_windows(
        self,
        images: list[torch.Tensor],
        layouts: list[WindowLayout],
        views: list[list[View]],
        output_hidden_states: bool | int | list[int] | None,
    ) -> tuple[list[torch.Tensor], tuple | None]:
        """Encode all views of all windows of all images in shared batches.

        Returns:
            Features of each image, (n_h * grid_h, n_w * grid_w, dim), window grids side by side; the hidden states.
        """
        features: list[list[torch.Tensor]] = [[] for _ in images]
        states: list[tuple[torch.Tensor | None, ...] | None] = []
        for batch in batch_windows(layouts, max(1, self.config.window_batch_size // len(views[0]))):
            parts = [
                make_views(torch.stack([images[index][:, rows, columns] for rows, columns in boxes]), views[index])
                for index, boxes in batch
            ]
            encoded, batch_states = self.encode_patches(torch.cat(parts).flatten(0, 1), output_hidden_states)
            encoded = encoded.unflatten(0, (-1, len(views[0]))).split([len(part) for part in parts])
            for (index, _), part in zip(batch, encoded, strict=True):
                features[index].append(combine_views(part, views[index]).to(images[index].device))
            states.append(batch_states)
        grids = [_lay_out(torch.cat(parts), layout) for parts, layout in zip(features, layouts, strict=True)]
        return grids, _merge_states(states)

    def _score_classes(
        self,
        image: torch.Tensor,
        layout: WindowLayout,
        grid: torch.Tensor,
        output_size: tuple[int, int],
        queries: Queries,
    ) -> torch.Tensor:
        """Stitch, refine and score one image, a chunk of queries at a time: (classes, H₀, W₀) float32."""
        with torch.autocast(image.device.type, enabled=False):  # sums over many windows and steps need float32
            maps = self._compute_query_maps(image, layout, grid, output_size, queries)
            return compute_class_logits(maps, queries, output_size)

    def _compute_query_maps(
        self,
        image: torch.Tensor,
        layout: WindowLayout,
        grid: torch.Tensor,
        output_size: tuple[int, int],
        queries: Queries,
    ) -> Iterator[torch.Tensor]:
        """Scaled cosines at the original size, (H₀, W₀, queries of the chunk) float32."""
        patch_grid = self.vision_model.compute_grid(*layout.size)
        stitcher = plan_stitching(layout, patch_grid, _size(image), output_size, image.device)
        if self.config.pamr_steps:
            guide = resize_guide(image.float(), output_size)
            refinement = compute_refinement_matrix(guide, self.config.pamr_dilations)
        chunk = max(1, MAP_ELEMENTS_PER_CHUNK // (output_size[0] * output_size[1]))
        for embeddings in queries.embeddings.split(chunk):
            maps = stitcher.stitch(grid @ embeddings.T)
            if self.config.pamr_steps:
                maps = refinement.refine(maps, self.config.pamr_steps)
            yield maps * self.config.similarity_scale


def _size(image: torch.Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


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
