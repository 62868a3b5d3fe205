"""ITACLIP for semantic segmentation: CLIP plus window views, stitching, pixel refinement and class scores.

Images (with their views as data) and texts (as tokens with mixing weights) come in; log class scores at the images'
original sizes go out. Source: Aydın et al., "ITACLIP: Boosting Training-Free Semantic Segmentation with Image, Text,
and Architectural Enhancements" (CVPR Workshops 2025).
"""

import operator
from collections.abc import Iterator, Sequence
from functools import reduce
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, CLIPModel, initialization as init
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
from transformers.utils.generic import can_return_tuple

from .class_scores import BestClasses, Queries, score_classes
from .configuration_itaclip import ITACLIPConfig
from .data_contract import (
    ImageInputs,
    ITACLIPLabelMapsOutput,
    ITACLIPRankedLabelMapsOutput,
    ITACLIPRegionLabelMapsOutput,
    ITACLIPSemanticSegmenterOutput,
    TextInputs,
    are_embeddings,
    check_classes,
    check_labels,
    check_tensors,
    compute_loss,
    expect_shape,
    fit_region_maps,
    group_prompts,
    merge_hidden_states,
    pack_inputs,
    read_images,
    read_prompts,
    read_voting_regions,
    stack_logits,
)
from .patch_similarity import check_proxy, encode_proxy
from .query_maps import QueryMaps
from .vision_itaclip import ITACLIPVisionModel, LastStates, ProxyFeatures
from .windows import (
    DenseFeatures,
    WindowBatch,
    WindowedImage,
    WindowFeatures,
    choose_tokens_per_batch,
    choose_views_per_batch,
    make_batches,
)

try:  # cards tell of methods and settings; code that was loaded from the Hub does without the package
    from itaclip_hf.model_card import push_model_card, write_model_card
except ImportError:
    push_model_card = write_model_card = None  # type: ignore[assignment]

__all__ = ["ITACLIPForSemanticSegmentation"]


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
        self.vision_model = ITACLIPVisionModel._from_config(config.vision_config, itaclip_config=config)
        self.proxy_model = (
            None if config.proxy_config is None else _prepare_proxy(AutoModel.from_config(config.proxy_config))
        )
        self._register_queries(torch.zeros(len(config.query_classes), config.projection_dim))
        self.post_init()

    def attach_proxy(self, proxy: str | PathLike[str] | nn.Module) -> None:
        """Give the model another backbone, whose patches the map "similarity" compares.

        It becomes a part of the model: `save_pretrained` writes its weights (under `proxy_model.`) and configuration
        (`proxy_config`) along.

        Args:
            proxy: Name on the Hub, folder or model: a ViT, DINOv2 (with registers or without), DINOv3 or RADIO.

        Raises:
            TypeError: If it is no backbone with square patches.
            ValueError: If the checkpoint lacks weights.

        Example:
        ```python
        >>> from transformers import ViTConfig, ViTModel
        >>> from itaclip_hf import load_demo

        >>> model, processor = load_demo()
        >>> model.attach_proxy(ViTModel(ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)))
        >>> model.config.proxy_config.model_type
        'vit'

        ```
        """
        backbone: Any = proxy
        if not isinstance(proxy, nn.Module):
            backbone, found = AutoModel.from_pretrained(proxy, output_loading_info=True)
            missing = sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))
            if missing:
                raise ValueError(
                    f"Expected all weights of the proxy, but {len(missing)} are missing, such as {missing[0]}. Name a "
                    "complete checkpoint of the backbone."
                )
        check_proxy(backbone)
        self.proxy_model = _prepare_proxy(backbone).to(self.device, self.dtype).eval()
        self.config.proxy_config = backbone.config

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
        query_embeddings, query_classes = self.encode_vocabulary(processor, vocabulary, text_cache)
        self.set_queries(query_embeddings, query_classes.tolist(), vocabulary.labels)

    @torch.no_grad()
    def encode_vocabulary(
        self, processor: Any, vocabulary: Any, text_cache: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed a vocabulary's words, for many calls with `query_embeddings` and `query_classes`.

        Args:
            processor: The [`ITACLIPProcessor`] that goes with the model.
            vocabulary: The [`Vocabulary`].
            text_cache: As for [`set_vocabulary`].

        Returns:
            Query embeddings (queries, projection_dim) float32, and the class of each query (queries,).
        """
        device = torch.device("cpu") if self.device.type == "meta" else self.device  # meta: weights are offloaded
        inputs = processor(vocabulary=vocabulary, return_tensors="pt").to(device)
        texts = inputs["input_ids"], inputs["attention_mask"]
        unit_texts = self.encode_texts(*texts) if text_cache is None else text_cache.encode_texts(self, *texts)
        return _mix_texts(inputs["text_weight"], unit_texts), inputs["query_classes"]

    def set_queries(self, query_embeddings: torch.Tensor, query_classes: Sequence[int], labels: Sequence[str]) -> None:
        """Bake query embeddings that are there already; [`set_vocabulary`] makes them from words.

        Args:
            query_embeddings: (queries, projection_dim) of [`encode_queries`].
            query_classes: Class of each query.
            labels: Name of each class.

        Raises:
            TypeError: If the embeddings are no tensor.
            ValueError: If the three do not fit each other, or an embedding is no mean of unit vectors.
        """
        check_tensors(TextInputs(query_embeddings=query_embeddings))
        if not are_embeddings(query_embeddings):
            raise ValueError(
                "Expected `query_embeddings` that are means of unit vectors, as `encode_queries` gives them, but got "
                "others. Embed the texts anew."
            )
        if len(set(labels)) < len(labels):
            raise ValueError(f"Expected `labels` that differ, but got {list(labels)!r:.200}. Rename or join classes.")
        expect_shape("query_embeddings", query_embeddings, (len(query_classes), self.config.projection_dim))
        if not (len(query_classes) > 0 and min(query_classes) >= 0 and max(query_classes) < len(labels)):
            raise ValueError(
                f"Expected `query_classes` to hold ids of `labels` (0 to {len(labels) - 1}), but got "
                f"{sorted(set(query_classes))}. Name every class."
            )
        self._register_queries(query_embeddings.detach().to(self.dtype))
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {label: class_id for class_id, label in self.config.id2label.items()}
        self.config.query_classes = tuple(map(int, query_classes))

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
        return unit_texts if text_weight is None else _mix_texts(text_weight, unit_texts)

    def encode_texts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Embed texts: every prompt's embedding is normalised; a text is the normalised mean of its prompts.

        Equal prompts are encoded once, and prompts of similar length together, without the padding.

        Args:
            input_ids: (texts, prompts, tokens), or (texts, tokens) for one prompt a text.
            attention_mask: Same shape, 1 for tokens and 0 for padding at the end.

        Returns:
            (texts, projection_dim) float32, unit vectors.
        """
        input_ids, attention_mask = read_prompts(input_ids, attention_mask, self.config.text_config)
        prompt_mask = None if attention_mask is None else attention_mask.flatten(0, 1)
        tokens_per_batch = choose_tokens_per_batch(self.config.text_config, self.dtype, self.device)
        groups, places = group_prompts(input_ids.flatten(0, 1), prompt_mask, tokens_per_batch)
        embeddings = [self.get_text_features(group, return_dict=True).pooler_output for group in groups]
        unit_prompts = nn.functional.normalize(torch.cat(embeddings).float(), dim=-1)[places]
        return nn.functional.normalize(unit_prompts.unflatten(0, input_ids.shape[:2]).mean(1), dim=-1)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: Any, is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """Save the model as Transformers does, and write a model card where there is none, or none but its own.

        Args:
            save_directory: The folder; made if missing.
            is_main_process: Whether this process shall write, where there are several.
            **kwargs: Those of [`~transformers.PreTrainedModel.save_pretrained`].
        """
        super().save_pretrained(save_directory, is_main_process, **kwargs)
        if is_main_process and write_model_card is not None:
            write_model_card(save_directory, self)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """Upload the model as Transformers does, to the main branch with a model card where there is none.

        Args:
            repo_id: Where to; made if missing.
            **kwargs: Those of [`~transformers.PreTrainedModel.push_to_hub`].
        """
        if push_model_card is not None and not (kwargs.get("create_pr") or kwargs.get("revision")):
            push_model_card(repo_id, self, kwargs.get("private"), kwargs.get("token"))  # else Transformers' empty one
        # By its class: type checkers read Transformers' wrapped function without `self`, so that `super()` fails them.
        return CLIPModel.push_to_hub(self, repo_id, **kwargs)

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
        region_maps: torch.Tensor | None = None,
        original_region_maps: torch.Tensor | None = None,
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
            region_maps: (batch, height, width) region of each pixel, 0 for none, for methods whose attention regions
                bound.
            original_region_maps: (batch, H₀, W₀) the same at original sizes, for [`predict_labels`]; not read here, as
                the vote of regions is the processor's.
            input_ids: (texts, prompts, tokens) texts in their prompt templates; the baked vocabulary if left out.
            attention_mask: Same shape as `input_ids`.
            text_weight: (queries, texts) mixing matrix; one query for each text if left out.
            query_embeddings: (queries, dim) of [`~ITACLIPForSemanticSegmentation.encode_queries`], instead of texts.
            query_classes: (queries,) class of each query; one class for each query if left out.
            labels: (batch, H₀, W₀) class ids for the loss, or the configuration's `semantic_loss_ignore_index`; needs
                results of one size.
            output_hidden_states: Whether to return the states of the vision blocks; or the indices of those to return.
            output_attentions: There for compatibility: attention maps are never stored, so none is returned.
            return_dict (`bool`, *optional*): Whether to return an output object (default) or a plain tuple.

        Returns:
            [`ITACLIPSemanticSegmenterOutput`]: `logits` are log class scores at the original sizes.

        Raises:
            ValueError: If inputs do not fit each other, or neither texts nor a baked vocabulary are there.
        """
        self.config.validate_settings()  # each was checked when it was set, but not what goes together
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        images = read_images(
            ImageInputs(
                pixel_values,
                image_sizes,
                original_sizes,
                augmentation_color,
                augmentation_blur,
                augmentation_flip,
                augmentation_weight,
                region_maps,
                original_region_maps,
            ),
            self.config,
        )
        texts = TextInputs(input_ids, attention_mask, text_weight, query_embeddings, query_classes)
        queries = self._choose_queries(texts, pixel_values.device)
        if labels is not None:
            labels = check_labels(labels, images, queries.num_classes, self.config.semantic_loss_ignore_index)
        encoded, hidden_states = self._encode_windows(images, output_hidden_states)
        with torch.autocast(pixel_values.device.type, enabled=False):  # sums of many terms need float32
            maps = [QueryMaps(features, self.config) for features in encoded]  # stitched and refined when asked for
            logits = stack_logits([score_classes(of_image, queries) for of_image in maps])
        return ITACLIPSemanticSegmenterOutput(
            loss=None if labels is None else compute_loss(logits, labels, self.config.semantic_loss_ignore_index),
            logits=logits,
            hidden_states=hidden_states,
        )

    @torch.no_grad()
    def predict_labels(self, processor: Any, /, **inputs: Any) -> ITACLIPLabelMapsOutput:
        """Final label maps, for any number of classes and any size of image.

        The maps are those of `forward` and the processor's `post_process_semantic_segmentation`, but one score a pixel
        is held instead of one for each class, and large images go by tiles. The processor's area threshold costs a
        second look at tiles with classes that it drops.

        Args:
            processor: The [`ITACLIPProcessor`] that made the inputs, or its image processor; it says how label
                maps are finished.
            **inputs: Images, views and texts (or none of these, for the baked vocabulary), as for `forward`.

        Returns:
            [`ITACLIPLabelMapsOutput`]: `labels` and `confidence`.

        Raises:
            TypeError: If there are no images, or an input is none of `forward`'s.

        Example:
        ```python
        >>> import torch
        >>> from PIL import Image
        >>> from itaclip_hf import load_demo

        >>> model, processor = load_demo()
        >>> inputs = processor(images=Image.new("RGB", (448, 336)), return_tensors="pt")
        >>> model.predict_labels(processor, **inputs).labels[0].shape
        torch.Size([336, 448])

        ```
        """
        found, region_maps = self._find_best_classes(inputs)
        return ITACLIPLabelMapsOutput(
            labels=processor.post_process_label_maps(found, region_maps=region_maps),
            confidence=[of_image.confidence for of_image in found],
        )

    @torch.no_grad()
    def predict_regions(self, processor: Any, /, **inputs: Any) -> ITACLIPRegionLabelMapsOutput:
        """Final label maps as of [`predict_labels`], and which class each region of the images is.

        Args:
            processor: As for [`predict_labels`].
            **inputs: As there, with the region maps that the processor made.

        Returns:
            [`ITACLIPRegionLabelMapsOutput`]: `labels`, `confidence` and `regions`.

        Raises:
            TypeError: As there.
            ValueError: If there are no region maps.
        """
        found, region_maps = self._find_best_classes(inputs)
        results = processor.post_process_label_maps(found, region_maps=region_maps, return_regions=True)
        return ITACLIPRegionLabelMapsOutput(
            labels=[result["segmentation"] for result in results],
            confidence=[of_image.confidence for of_image in found],
            regions=[result["regions"] for result in results],
        )

    @torch.no_grad()
    def predict_ranked_labels(self, processor: Any, /, **inputs: Any) -> ITACLIPRankedLabelMapsOutput:
        """Final label maps as of [`predict_labels`], and what comes second at each pixel, for a second look at maps.

        Args:
            processor: As for [`predict_labels`].
            **inputs: As there.

        Returns:
            [`ITACLIPRankedLabelMapsOutput`]: `labels`, `confidence`, `runner_up` and `runner_up_confidence`.

        Raises:
            TypeError: As there.
        """
        found, region_maps = self._find_best_classes(inputs)
        labels = processor.post_process_label_maps(found, region_maps=region_maps)
        others = [of_image.find_others(own) for of_image, own in zip(found, labels, strict=True)]
        return ITACLIPRankedLabelMapsOutput(
            labels, [of_image.confidence for of_image in found], *map(list, zip(*others, strict=True))
        )

    def _find_best_classes(self, inputs: dict[str, Any]) -> tuple[list[BestClasses], list[torch.Tensor] | None]:
        """The best class of each pixel of each image, and the regions that vote on them, where there are any."""
        self.config.validate_settings()
        packed, texts = pack_inputs(inputs)
        images = read_images(packed, self.config)
        queries = self._choose_queries(texts, packed.pixel_values.device)
        found = [self.label_dense(features, queries) for features in self._encode_windows(images)[0]]
        return found, read_voting_regions(packed, [image.output_size for image in images])

    def encode_dense(self, images: ImageInputs) -> list[DenseFeatures]:
        """Encode images up to where queries come in, once for many uses; see [`label_dense`]."""
        return self._encode_windows(read_images(images, self.config))[0]

    def label_dense(
        self, features: DenseFeatures, queries: Queries, config: ITACLIPConfig | None = None
    ) -> BestClasses:
        """Stitch, refine and score one encoded image, keeping the best class of each pixel alone.

        Args:
            features: Of [`encode_dense`].
            queries: What to compare with.
            config: Says how to refine and scale; the model's own configuration by default.

        Returns:
            Labels and scores; the processor's `post_process_label_maps` makes them final.
        """
        with torch.autocast(features.patches.device.type, enabled=False):  # sums of many terms need float32
            return BestClasses(QueryMaps(features, config or self.config), queries)

    def encode_patches(self, pixel_values: torch.Tensor, region_maps: torch.Tensor | None = None) -> torch.Tensor:
        """Unit embedding of each patch of images of one size, without windows or views.

        Args:
            pixel_values: (batch, 3, height, width) CLIP-normalised.
            region_maps: (batch, height, width) region of each pixel, 0 for none; some methods bound attention by it.
                At another size than the pixels, each of these gets the id at its centre.

        Returns:
            (batch, grid_h, grid_w, projection_dim) float32; the grid is the proxy's where patches are compared by it
            alone.
        """
        regions = None if region_maps is None else fit_region_maps(region_maps, pixel_values)
        proxied = self.encode_proxy(pixel_values, [self.config])
        outputs = self.vision_model(pixel_values, regions=regions, proxied=proxied, return_dict=True)
        return self.project_patches(outputs.last)

    def encode_proxy(self, pixel_values: torch.Tensor, configs: Sequence[ITACLIPConfig]) -> ProxyFeatures:
        """What the attached proxy makes of images of one size, as far as configurations ask for it."""
        if self.proxy_model is None:  # that one is missing is said where it is needed, by the last block
            return {}
        kinds = {config.proxy_features for config in configs if config.uses_proxy}
        return {kind: encode_proxy(self.proxy_model, pixel_values, kind) for kind in kinds}

    def encode_proxy_of_views(self, batch: WindowBatch, configs: Sequence[ITACLIPConfig]) -> ProxyFeatures:
        """`encode_proxy` of all views of windows: it sees the plain ones alone, and what it says is flipped."""
        proxied = self.encode_proxy(batch.windows, configs)
        return {kind: (batch.repeat_for_views(*found), found[1]) for kind, found in proxied.items()}

    def project_patches(self, last: LastStates) -> torch.Tensor:
        """Bring what the last block gives into the space of texts, without the class token, at unit length.

        Returns:
            (batch, grid_h, grid_w, projection_dim) float32.
        """
        normed = (
            weight * self.vision_model.post_layernorm(hidden_states[:, -last.num_patches :])
            for weight, hidden_states in last.branches
        )
        tokens = reduce(operator.add, normed)
        return nn.functional.normalize(self.visual_projection(tokens).float(), dim=-1).unflatten(1, last.grid)

    def batch_windows(self, images: Sequence[WindowedImage]) -> Iterator[WindowBatch]:
        """All views of all windows of all images, in batches that the device does well with."""
        windows = self.config.window_batch_size
        if windows is None:
            views = choose_views_per_batch(
                self.config.vision_config, images[0].layout.padded_size, self.dtype, self.device
            )
            windows = max(1, views // len(images[0].views))
        return make_batches(images, windows)

    def _encode_windows(
        self, images: Sequence[WindowedImage], output_hidden_states: bool | int | list[int] | None = None
    ) -> tuple[list[DenseFeatures], tuple | None]:
        """Encode all windows in all their views and sum the views; features of each image, and the hidden states."""
        gathered, states = WindowFeatures(images), []
        for batch in self.batch_windows(images):
            outputs = self.vision_model(
                batch.pixel_values,
                output_hidden_states=output_hidden_states,
                regions=batch.regions,
                proxied=self.encode_proxy_of_views(batch, [self.config]),
                return_dict=True,
            )
            gathered.add(batch, self.project_patches(outputs.last))
            states.append(outputs.hidden_states)
        return gathered.lay_out(), merge_hidden_states(states)

    def _choose_queries(self, texts: TextInputs, device: torch.device) -> Queries:
        """The queries of a call: texts, embeddings or the baked vocabulary, in this order."""
        embeddings, classes, num_classes = texts.query_embeddings, texts.query_classes, None
        if texts.input_ids is not None:
            embeddings = self.encode_queries(texts.input_ids, texts.attention_mask, texts.text_weight)
        elif embeddings is None:
            if len(self.query_embeddings) == 0:
                raise ValueError(
                    "Expected texts (`input_ids`, …), `query_embeddings` or a baked vocabulary, but got none of them. "
                    "Pass `text=[…]` to the processor, call `model.set_vocabulary(processor, vocabulary)` once, or "
                    'take `pipeline("zero-shot-image-segmentation")`.'
                )
            embeddings, num_classes = self.query_embeddings, self.config.num_labels
            classes = torch.tensor(self.config.query_classes)
        check_tensors(TextInputs(query_embeddings=embeddings))
        expect_shape("query_embeddings", embeddings, (*embeddings.shape[:1], self.config.projection_dim))
        if classes is None:
            classes = torch.arange(len(embeddings))
        check_classes(classes, len(embeddings))
        return Queries.sort(embeddings.float().to(device), classes, num_classes)


def _prepare_proxy(proxy: nn.Module) -> nn.Module:
    """Without its pooler, which nobody reads and checkpoints lack, and not to be trained."""
    if getattr(proxy, "pooler", None) is not None:
        setattr(proxy, "pooler", None)  # noqa: B010  # mypy knows modules of modules only
    return proxy.requires_grad_(False)


def _mix_texts(text_weight: torch.Tensor, unit_texts: torch.Tensor) -> torch.Tensor:
    """(queries, texts) @ (texts, dim), in float32."""
    check_tensors(TextInputs(text_weight=text_weight))
    expect_shape("text_weight", text_weight, (*text_weight.shape[:1], len(unit_texts)))
    with torch.autocast(unit_texts.device.type, enabled=False):
        return text_weight.to(unit_texts) @ unit_texts


# Pipelines compare class names with this table, which `register` leaves alone, and log an error line otherwise. It
# stands here and not with the registration so that it also holds where this file is loaded from the Hub.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[ITACLIPConfig.model_type] = ITACLIPForSemanticSegmentation.__name__
