"""What published systems beside our model have in common: weights loaded once, then words, then images.

A system is a file of its own; what it needs (gradients, several passes, a second checkpoint) is its own business.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ....loading import load, name_dtype
from ....processing import BACKGROUND_LABEL, Vocabulary, VocabularyClass, read_rgb_image
from ....processing.image_processing_itaclip import PUBLISHED_MEAN, PUBLISHED_STD
from ....text_cache import TextCache
from ...data.benchmarks import get_benchmark
from ..predictor import Prediction, hash_weights
from .clip_images import CLIP_NORMALIZATION, Normalization

__all__ = ["System", "encode_names", "find_normalization", "load_clip", "prepare_arrays", "stretch_map"]

Self = TypeVar("Self", bound="System")


class System(ABC):
    """A published system as `Predictor`.

    It has no model and processor of the kind that settings are given to: classes in, images in, label maps and
    confidence out.

    Args:
        checkpoint: Folder or hub id, or "demo".
        vocabulary: The classes; or they follow with [`set_vocabulary`].
        benchmark: Name of the benchmark, where the published rules differ between benchmarks.
        settings: By name; those in `accepted` alone.
        dtype: Number format, as for `choose_dtype`.
        device: Where it shall run.

    Attributes:
        title: What reports and messages call it.
        accepted: Names of the settings that it has.
        model_type: Of the checkpoints that it is for, where they are not CLIP's.
        has_crf: Whether the dense CRF ends it, if settings do not say otherwise.
        takes_background_words: Whether it knows more of a background than the word.
        name: What reports call its checkpoint.

    Raises:
        TypeError: If a setting is of another type than expected.
        ValueError: If a checkpoint lacks weights, a setting does not apply, there is no such benchmark, or a package
            that it needs is not installed.
        OSError: If a checkpoint cannot be loaded.
    """

    title: ClassVar[str]
    accepted: ClassVar[tuple[str, ...]] = ()
    model_type: ClassVar[str | None] = None
    has_crf: ClassVar[bool] = False
    takes_background_words: ClassVar[bool] = True
    prepare_images: Callable[[list[Image.Image]], Mapping[str, Any]]
    _model: Any

    @torch.inference_mode(False)  # weights that were made in it cannot enter the graph of Grad-CAM
    @torch.no_grad()
    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        vocabulary: Vocabulary | None = None,
        benchmark: str | None = None,
        settings: Mapping[str, Any] | None = None,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        refused = [name for name in settings or {} if name not in self.accepted]
        if refused:
            raise ValueError(
                f"Expected settings out of {', '.join(self.accepted)} for {self.title}, but got {', '.join(refused)}. "
                "Leave them out."
            )
        if benchmark is not None:
            get_benchmark(benchmark)  # a name that there is not would change nothing in silence
        second = (settings or {}).get("second_checkpoint")
        if not isinstance(second, str | os.PathLike | None):
            raise TypeError(f"Expected `second_checkpoint` to be a folder, file or hub id, but got {second!r:.200}.")
        self.name, self._benchmark = os.fspath(checkpoint), benchmark
        self._vocabulary: Vocabulary | None = None
        self._load(dict(settings or {}), dtype, torch.device(device))
        # GroupViT's projections keep statistics in buffers.
        self._weights_sha256 = hash_weights(self._model, with_buffers=self.model_type is not None)
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> Vocabulary:
        """Its classes; texts about them are left out."""
        if self._vocabulary is None:
            raise AttributeError(
                f"Expected words for {self.title}, but it has none yet. Call `set_vocabulary(vocabulary)` first."
            )
        return self._vocabulary

    @torch.inference_mode(False)
    @torch.no_grad()
    def set_vocabulary(self: Self, vocabulary: Vocabulary) -> Self:
        """Give it the classes to tell apart, and encode them.

        Args:
            vocabulary: The classes; texts about them are not used.

        Returns:
            The system itself.

        Raises:
            TypeError: If it is no [`Vocabulary`].
            ValueError: If a setting does not go with these classes.
        """
        if not isinstance(vocabulary, Vocabulary):
            raise TypeError(
                f"Expected a Vocabulary, but got {type(vocabulary).__name__}. Make one of its words: "
                '`Vocabulary(["cat", ["dog", "puppy"]])`.'
            )
        background = vocabulary.background
        if background and not self.takes_background_words:
            background = (BACKGROUND_LABEL,)
        classes = [VocabularyClass(entry.names) for entry in vocabulary.classes]
        self._vocabulary = Vocabulary(classes, background, vocabulary.metadata)
        self._encode_vocabulary(self._vocabulary)
        return self

    @torch.inference_mode(False)  # which Grad-CAM has to leave
    @torch.no_grad()
    def predict(self, prepared: Mapping[str, Any]) -> list[Prediction]:
        """Label and confidence maps of a batch, of what `prepare_images` made; images do not touch each other.

        Raises:
            AttributeError: If it has no words yet.
        """
        vocabulary = self.vocabulary
        return [self._predict_one(vocabulary, *image) for image in self._part_batch(prepared)]

    def describe(self) -> dict[str, Any]:
        """Weights, words, rules, number format and device kind."""
        return {
            "method": self.title,
            "model": self.name,
            "weights_sha256": self._weights_sha256,
            "auxiliary_texts": "not used",
            **({} if self.takes_background_words else {"background_words": "not used"}),
            **self._describe(),
            "dtype": name_dtype(self._model.dtype),
            "device": self._model.device.type,
        }

    @abstractmethod
    def _load(self, settings: Mapping[str, Any], dtype: torch.dtype | str, device: torch.device) -> None:
        """Load `_model` and what else it needs, and set `prepare_images`."""

    @abstractmethod
    def _encode_vocabulary(self, vocabulary: Vocabulary) -> None:
        """Encode the words."""

    def _part_batch(self, prepared: Mapping[str, Any]) -> Iterable[tuple[Any, ...]]:
        """What `_predict_one` takes of each image: its entries in the lists of `prepare_images`, in their order."""
        return zip(*prepared.values(), strict=True)

    @abstractmethod
    def _predict_one(self, vocabulary: Vocabulary, *image: Any) -> Prediction:
        """Maps of one image."""

    @abstractmethod
    def _describe(self) -> dict[str, Any]:
        """What is its own in the description."""

    def _refuse_parts(self) -> NoReturn:
        raise AttributeError(
            f"Expected a method that is settings of our model for `model` and `processor`, but {self.title} is a "
            "system of its own. Use it as a whole: `set_vocabulary`, `prepare_images`, `predict`."
        )

    model = processor = property(_refuse_parts)

    def __iter__(self) -> NoReturn:
        """Refuse to be taken apart like what `load` returns."""
        try:
            self._refuse_parts()
        except AttributeError as error:
            raise TypeError(str(error)) from None


def load_clip(checkpoint: str | os.PathLike[str], dtype: torch.dtype | str, device: torch.device) -> tuple[Any, Any]:
    """A CLIP model whose vision tower tells its attention, without gradients of weights, and its processor."""
    model, processor = load(checkpoint, method="clip", dtype=dtype, device=device)
    model.requires_grad_(False).set_attn_implementation({"vision_config": "eager"})
    return model, processor


def find_normalization(processor: Any) -> Normalization:
    """What a checkpoint's own image processor normalises with; CLIP's to the last digit, which ours rounds."""
    image_processor = processor.image_processor
    own = list(image_processor.image_mean), list(image_processor.image_std)
    if own == (PUBLISHED_MEAN, PUBLISHED_STD):
        return CLIP_NORMALIZATION
    return Normalization(image_mean=own[0], image_std=own[1])


def encode_names(model: Any, processor: Any, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """(names, dim) unit vectors, each the mean over templates."""
    if not names:
        return torch.zeros(0, model.config.projection_dim, device=model.device)
    processor.templates = list(templates)
    inputs = processor(text=list(names)).to(model.device)
    return TextCache().encode_texts(model, inputs["input_ids"], inputs["attention_mask"])


def prepare_arrays(images: list[Image.Image]) -> dict[str, Any]:
    """`images`, a list of (height, width, 3) uint8 arrays of any sizes."""
    return {"images": [np.asarray(read_rgb_image(image)) for image in images]}


def stretch_map(values: torch.Tensor, size: tuple[int, ...], mode: str) -> torch.Tensor:
    """A map (height, width) at another size, as float32."""
    return F.interpolate(values[None, None].float(), size, mode=mode)[0, 0]
