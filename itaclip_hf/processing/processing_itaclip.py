"""Words and images in, model inputs out: class names become prompts, token ids and the weights that mix them.

The embedding of a query is a weighted sum of text embeddings: its name, and the auxiliary texts of its class. This
processor writes down which texts there are and with which weights they are mixed; the model only encodes and sums.
"""

import itertools
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, cast, overload

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin
from transformers.utils.generic import PaddingStrategy, TensorType

from .image_processing_itaclip import (
    LIBRARY_KEYWORDS,
    ITACLIPImageProcessor,
    check_keywords,
    check_options,
    check_value,
    make_floats,
)
from .vocabulary import IMAGENET_TEMPLATES, Vocabulary, check_signs, straighten_text

__all__ = ["ITACLIPProcessor"]

TEXT_INPUT_NAMES = ["input_ids", "attention_mask", "text_weight", "query_classes"]
CLIP_CONTEXT_LENGTH = 77
# Tokenizers that were saved without a length report one beyond any use.
LARGEST_CONTEXT_LENGTH = 100_000
MOST_NAMES, MOST_LETTERS = 5, 40  # of each, in a message
OWN_OPTIONS = ("auxiliary_weight", "templates", *ITACLIPImageProcessor.valid_kwargs.__annotations__)
TOKENIZER_OPTIONS = (
    "add_prefix_space", "additional_special_tokens", "bos_token", "chat_template", "clean_up_tokenization_spaces",
    "cls_token", "eos_token", "errors", "extra_special_tokens", "from_slow", "legacy", "mask_token", "merges",
    "merges_file", "model_max_length", "pad_token", "padding_side", "sep_token", "split_special_tokens",
    "tokenizer_file", "tokenizer_type", "truncation_side", "unk_token", "vocab", "vocab_file",
)  # fmt: skip
CHOICES = {"padding": [each.value for each in PaddingStrategy], "return_tensors": [each.value for each in TensorType]}
FIXED_TEXT_OPTIONS = {"truncation": True, "add_special_tokens": True, "return_attention_mask": True}


class ITACLIPTextKwargs(TypedDict, total=False):
    """Options of a call that prompts are tokenized by; as Transformers' own of these names."""

    padding: bool | str | PaddingStrategy | None
    padding_side: str | None
    max_length: int | None
    pad_to_multiple_of: int | None
    return_tensors: str | TensorType | None
    truncation: bool | None
    add_special_tokens: bool | None
    return_attention_mask: bool | None


class ITACLIPProcessor(ProcessorMixin):
    """Prepares images and a vocabulary for `ITACLIPForSemanticSegmentation`, and turns its outputs into label maps.

    Args:
        image_processor: Prepares the images.
        tokenizer: CLIP's tokenizer.
        auxiliary_weight: Share α of a class's auxiliary texts in the embedding of each of its names, from 0 to 1.
            Several texts of a class share it evenly; a class without any is its names alone.
        templates: Prompts that every text is put into, each with `{}` for the text. Default: CLIP's 80 for ImageNet.

    Raises:
        ValueError: If `auxiliary_weight` is not between 0 and 1 or a template has not exactly one pair of braces.

    Example:
        ```python
        processor = ITACLIPProcessor.from_pretrained("openai/clip-vit-base-patch16")
        inputs = processor(
            images=image,
            text=["cat", ["dog", "puppy"]],
            auxiliary_text=["a small pet that purrs", "a loyal pet"],
            background=["sky", "wall"],
        )
        inputs["query_classes"].tolist()  # [0, 0, 1, 2, 2]
        ```
    """

    image_processor: ITACLIPImageProcessor

    # These are no keyword-only arguments because `from_pretrained` finds the fields by the positional ones.
    def __init__(
        self,
        image_processor: ITACLIPImageProcessor | None = None,
        tokenizer: Any = None,
        auxiliary_weight: float = 0.2,
        templates: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.auxiliary_weight = auxiliary_weight
        # The whole list, also if it is the default: a saved processor says what it did.
        self.templates = IMAGENET_TEMPLATES if templates is None else templates
        super().__init__(image_processor, tokenizer, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, _check_templates(value) if name == "templates" else check_value(name, value))

    @property
    def model_input_names(self) -> list[str]:
        """Keys that a call with images and texts returns."""
        return self.image_processor.model_input_names + TEXT_INPUT_NAMES

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], processor_dict: Any = None, **kwargs: Any
    ) -> list[Any]:
        if "_from_pipeline" not in kwargs:
            check_keywords(kwargs, (*OWN_OPTIONS, *TOKENIZER_OPTIONS))
        # A tokenizer would keep what it does not know and write it into its own file.
        image_kwargs, tokenizer_kwargs = (
            {key: value for key, value in kwargs.items() if key in known or key in LIBRARY_KEYWORDS or key[0] == "_"}
            for known in (ITACLIPImageProcessor.valid_kwargs.__annotations__, TOKENIZER_OPTIONS)
        )
        # The Auto class would find CLIP's own image processor in a stock CLIP folder.
        image_processor = ITACLIPImageProcessor.from_pretrained(pretrained_model_name_or_path, **image_kwargs)
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", pretrained_model_name_or_path, **tokenizer_kwargs)
        return [image_processor, tokenizer]

    def __call__(
        self,
        images: ImageInput | None = None,
        text: str | Sequence[str | Sequence[str]] | None = None,
        auxiliary_text: Mapping[str, Any] | Sequence[str | Sequence[str] | None] | None = None,
        background: Sequence[str] | None = None,
        vocabulary: Vocabulary | Mapping[str, Any] | None = None,
        region_maps: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare images, a vocabulary, or both.

        Args:
            images: One image or a list; see `ITACLIPImageProcessor`.
            text: The classes: each a name, or a list of its names, the label first.
            auxiliary_text: One entry per class, or a mapping from class names: a text, a list of texts, or `None`.
            background: Words that form class 0, "background"; the classes then follow as 1, 2, ...
            vocabulary: A `Vocabulary` (or its dictionary) instead of the three arguments before.
            region_maps: Regions of each image, of any segmenter; see `ITACLIPImageProcessor.preprocess`.
            **kwargs: Arguments of the tokenizer (`padding`, `max_length`, ...) and the image processor, for this call.
                `return_tensors` is "pt" unless given. Prompts are padded to the longest one, or to `max_length` with
                `padding="max_length"`, and cut to `max_length` (default: the tokenizer's, 77).

        Returns:
            For images `pixel_values`, `image_sizes`, `original_sizes` and, with image engineering, the
            `augmentation_*`; for their regions `region_maps` and `original_region_maps`. For texts, with T texts, P
            templates, L tokens and Q queries: `input_ids` and `attention_mask` (T, P, L), `text_weight` (Q, T),
            `query_classes` (Q,).

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If there is nothing to prepare, or something cannot be prepared.
        """
        self._check_options(kwargs)
        nested = {name: make_floats(value) if isinstance(value, Mapping) else value for name, value in kwargs.items()}
        merged = self._merge_kwargs(
            cast(Any, ProcessingKwargs), tokenizer_init_kwargs=self.tokenizer.init_kwargs, **make_floats(nested)
        )
        vocabulary = _choose_vocabulary(text, auxiliary_text, background, vocabulary)
        if images is None and vocabulary is None:
            raise ValueError("Expected `images`, `text` or `vocabulary`, but got none of them. Pass at least one.")
        if images is None and region_maps is not None:
            raise ValueError(
                "Expected `images` with `region_maps`, but got none. Pass both, or leave out the regions."
            )
        data: dict[str, Any] = {}
        if images is not None:
            # Arrays, until images and texts are together: one conversion for all.
            images_kwargs = {**merged["images_kwargs"], "region_maps": region_maps, "return_tensors": None}
            data.update(self.image_processor(images, **images_kwargs))
        if vocabulary is not None:
            data.update(self._encode_vocabulary(vocabulary, merged["text_kwargs"]))
        return_tensors = {**merged["images_kwargs"], **merged["text_kwargs"]}.get("return_tensors", "pt")
        return BatchFeature(data, tensor_type=return_tensors)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse what nobody would heed; options come flat, or in a dictionary for texts and one for images."""
        of_images = self.image_processor.valid_kwargs
        for name, value in options.items():
            if name in ("text_kwargs", "images_kwargs", "common_kwargs"):
                if not isinstance(value, Mapping):
                    raise TypeError(f"Expected `{name}` to be a dictionary, but got {type(value).__name__}. Use one.")
                self._check_options(value)
            else:
                check_options(
                    {name: value}, ITACLIPTextKwargs if name in ITACLIPTextKwargs.__annotations__ else of_images
                )
            if isinstance(value, str) and name in CHOICES and value not in CHOICES[name]:
                raise ValueError(f"Expected `{name}` out of {', '.join(CHOICES[name])}, but got {value!r}.")
            if value is not None and name in FIXED_TEXT_OPTIONS and value != FIXED_TEXT_OPTIONS[name]:
                raise ValueError(
                    f"Expected no `{name}={value!r}`, as the model needs it as it is, but got it. Leave it out."
                )

    def _encode_vocabulary(self, vocabulary: Vocabulary, text_kwargs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Token ids of all texts, names before auxiliary texts, and the weights that mix them into queries."""
        texts, owners, text_weight = self.mix_texts(vocabulary)
        texts = [straighten_text(text) for text in texts]
        prompts = [template.format(text) for text in texts for template in self.templates]
        tokens = self._tokenize(prompts, owners, text_kwargs)
        # Names come before auxiliary texts, so that a query and its name have one number.
        _check_names_differ(vocabulary, tokens["input_ids"].reshape(len(texts), -1), text_weight)
        shape = (len(texts), len(self.templates), -1)
        return {
            "input_ids": tokens["input_ids"].reshape(shape),
            "attention_mask": tokens["attention_mask"].reshape(shape),
            "text_weight": text_weight,
            "query_classes": np.array(vocabulary.query_classes, dtype=np.int64),
        }

    def mix_texts(self, vocabulary: Vocabulary) -> tuple[list[str], list[str], np.ndarray]:
        """Say how queries are made of texts.

        Args:
            vocabulary: The words.

        Returns:
            The texts to encode, names before auxiliary texts; the class or background word that each is for; the
            weights that mix them into queries, (queries, texts) float32.
        """
        share = self.auxiliary_weight
        # Without weight, auxiliary texts would be encoded in vain.
        auxiliary_texts = [entry.auxiliary_texts if share else () for entry in vocabulary.classes]
        names = vocabulary.query_names
        texts = [*names, *(text for texts in auxiliary_texts for text in texts)]
        text_weight = np.zeros((len(names), len(texts)), dtype=np.float32)
        np.fill_diagonal(text_weight, 1.0)
        owners = [*vocabulary.background, *(entry.label for entry in vocabulary.classes for _ in entry.names)]
        query, text = len(vocabulary.background), len(names)
        for entry, own_texts in zip(vocabulary.classes, auxiliary_texts, strict=True):
            queries, own = slice(query, query + len(entry.names)), slice(text, text + len(own_texts))
            owners += [entry.label] * len(own_texts)
            if own_texts:
                text_weight[queries] *= 1 - share  # the names' ones; nothing else stands there yet
                text_weight[queries, own] = share / len(own_texts)
            query, text = queries.stop, own.stop
        return texts, owners, text_weight

    def _tokenize(self, prompts: list[str], owners: list[str], text_kwargs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Tokenize to one length; what is too long loses the end of its text and keeps the end token."""
        if text_kwargs.get("padding_side") not in (None, "right"):
            raise ValueError(
                "Expected padding on the right, as CLIP's positions count from the left, but got "
                f"padding_side={text_kwargs['padding_side']!r}. Leave it out."
            )
        padding = text_kwargs.get("padding")
        max_length, multiple = text_kwargs.get("max_length"), text_kwargs.get("pad_to_multiple_of")
        max_length = self._context_length if max_length is None else max_length
        # The start and end token, and one of the text.
        if not isinstance(max_length, int) or not 3 <= max_length <= self._context_length:
            raise ValueError(
                f"Expected `max_length` from 3 to {self._context_length}, which the text tower has positions "
                f"for, but got {max_length}. Leave it out."
            )
        if multiple is not None and (multiple < 1 or max_length % multiple):
            raise ValueError(
                f"Expected `pad_to_multiple_of` to divide {max_length}, the longest prompt, but got {multiple}. Leave "
                "it out, or set `max_length`, too."
            )
        tokens = self.tokenizer(
            prompts,
            # The result is one tensor, so that there is no leaving out the padding.
            padding="longest" if padding in (None, False, "do_not_pad") else padding,
            truncation=True,
            max_length=max_length,
            return_attention_mask=True,
            return_tensors="np",
            padding_side="right",
            pad_to_multiple_of=multiple,
        )
        is_full = tokens["attention_mask"].sum(axis=1) == max_length
        self._warn_of_cut_prompts(prompts, owners, is_full, max_length)
        return {key: tokens[key].astype(np.int64) for key in ("input_ids", "attention_mask")}

    def _warn_of_cut_prompts(
        self, prompts: list[str], owners: list[str], is_full: np.ndarray, max_length: int
    ) -> None:
        """Warn once, with the names of the classes, if prompts that fill the whole length had been longer."""
        full = np.flatnonzero(is_full).tolist()
        if not full:
            return
        # Tokens do not say whether more would have come: only those that may have been cut are counted again.
        untruncated = self.tokenizer([prompts[index] for index in full], truncation=False, verbose=False)["input_ids"]
        is_cut = [len(ids) > max_length for ids in untruncated]
        cut_owners = dict.fromkeys(owners[index // len(self.templates)] for index in itertools.compress(full, is_cut))
        if cut_owners:
            warnings.warn(
                f"Expected prompts of at most {max_length} tokens, but those of {_enumerate_names(list(cut_owners))} "
                "are longer and were cut. Shorten the names or auxiliary texts.",
                stacklevel=5,
            )

    @property
    def _context_length(self) -> int:
        length = self.tokenizer.model_max_length
        return length if length <= LARGEST_CONTEXT_LENGTH else CLIP_CONTEXT_LENGTH

    @overload
    def post_process_semantic_segmentation(
        self, *args: Any, return_segmentation_scores: Literal[True], **kwargs: Any
    ) -> list[SemanticSegmentationPostProcessorOutput]: ...
    @overload
    def post_process_semantic_segmentation(
        self, *args: Any, return_regions: Literal[True], **kwargs: Any
    ) -> list[SemanticSegmentationPostProcessorOutput]: ...
    @overload
    def post_process_semantic_segmentation(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]: ...
    def post_process_semantic_segmentation(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Turn model outputs into label maps; see `ITACLIPImageProcessor.post_process_semantic_segmentation`."""
        return self.image_processor.post_process_semantic_segmentation(*args, **kwargs)

    def post_process_label_maps(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Finish label maps of best classes; see `ITACLIPImageProcessor.post_process_label_maps`."""
        return self.image_processor.post_process_label_maps(*args, **kwargs)


def _check_templates(templates: Sequence[str]) -> list[str]:
    # A set has no order, and a generator would be empty at its second use.
    if not isinstance(templates, list | tuple) or not all(isinstance(template, str) for template in templates):
        raise TypeError(f"Expected a list of templates, but got {templates!r:.200}. Make it a list of texts.")
    for template in templates:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise ValueError(
                f"Expected a template with one pair of braces for the text, but got {template!r}. "
                "Write it like 'a photo of a {}.'."
            )
        check_signs(template, "template")
    if not templates:
        raise ValueError("Expected at least one template, but got none. Use ['{}'] for the text as it is.")
    return list(templates)


def _choose_vocabulary(
    text: str | Sequence[str | Sequence[str]] | None,
    auxiliary_text: Mapping[str, Any] | Sequence[str | Sequence[str] | None] | None,
    background: Sequence[str] | None,
    vocabulary: Vocabulary | Mapping[str, Any] | None,
) -> Vocabulary | None:
    """The vocabulary that was given, or one made of the loose words, or none."""
    if vocabulary is not None:
        if not (text is None and auxiliary_text is None and background is None):
            raise ValueError(
                "Expected `vocabulary` alone, but got `text`, `auxiliary_text` or `background`, too. Pass either "
                "a vocabulary or its words."
            )
        if isinstance(vocabulary, Mapping):
            return Vocabulary.from_dict(vocabulary)
        # No `isinstance`: loaded from the Hub, this module has a `Vocabulary` of its own.
        if not hasattr(vocabulary, "query_classes"):
            raise TypeError(
                f"Expected `vocabulary` to be a Vocabulary, but got {type(vocabulary).__name__}. Pass names as `text`."
            )
        return vocabulary
    if text is None:
        if auxiliary_text is not None or background is not None:
            raise ValueError(
                "Expected `text` with `auxiliary_text` or `background`, but got none. Name the classes with `text`."
            )
        return None
    made = Vocabulary([text] if isinstance(text, str) else text, () if background is None else background)
    if auxiliary_text is None:
        return made
    return made.with_auxiliary_texts([auxiliary_text] if isinstance(auxiliary_text, str) else auxiliary_text)


def _check_names_differ(vocabulary: Vocabulary, tokens: np.ndarray, text_weight: np.ndarray) -> None:
    """Refuse names that are the same to the text encoder, as long ones may be after they were cut.

    A class's name may be a background word; one that no auxiliary text sets apart is warned about.
    """
    first_names: dict[tuple[bool, bytes], str] = {}
    in_vain = []
    for query, name in enumerate(vocabulary.query_names):
        is_background, key = query < len(vocabulary.background), tokens[query].tobytes()
        other = first_names.setdefault((is_background, key), name)
        if other is not name:
            raise ValueError(
                f"Expected names that differ in their tokens, but got {_enumerate_names([other, name])} with the same "
                "ones. Shorten or rename one of them."
            )
        if not is_background and (True, key) in first_names and text_weight[query, query] == 1:
            in_vain.append(name)
    if in_vain:
        warnings.warn(
            f"Expected classes other than the background, but got {_enumerate_names(in_vain)} in both without an "
            "auxiliary text, so that the background takes the pixels. Remove it there, or give the class a text.",
            stacklevel=4,
        )


def _enumerate_names(names: list[str]) -> str:
    """The first names, quoted, none longer than a line can bear."""
    shown = [name if len(name) <= MOST_LETTERS else f"{name[:MOST_LETTERS]}..." for name in names[:MOST_NAMES]]
    return ", ".join(map(repr, shown)) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
