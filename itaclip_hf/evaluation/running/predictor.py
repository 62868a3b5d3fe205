"""What the runner evaluates: anything that turns images into label maps of a vocabulary's classes.

ITACLIP's own predictor stands here; other systems take part by the same four members, and what they need
inside (gradients, several passes, a second checkpoint) is their own business.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from PIL import Image

from ...loading import name_dtype
from ...methods import Settings, identify_method
from ...methods.settings import SIZE_NAMES
from ...modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from ...processing import ITACLIPImageProcessor, ITACLIPProcessor, Vocabulary
from ...text_cache import TextCache

__all__ = ["ITACLIPPredictor", "Prediction", "Predictor", "describe_backbone", "describe_itaclip", "hash_weights"]

CUSTOM_METHOD = "custom"  # a last block that no registered method has


class Prediction(NamedTuple):
    """Result for one image.

    Args:
        labels: (height, width) class ids at the image's own size, on any device.
        confidence: (height, width) highest scores in [0, 1], before thresholds, where the method has such.
    """

    labels: torch.Tensor
    confidence: torch.Tensor | None = None


@runtime_checkable
class Predictor(Protocol):
    """A method under evaluation."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Its classes; label maps hold their ids."""
        ...

    @property
    def prepare_images(self) -> Callable[[list[Image.Image]], Mapping[str, Any]]:
        """Makes of images what `predict` takes: tensors, lists, or mappings of them, with an entry for each image.

        It runs in worker processes, so it must pickle and must not hold the model. Moving tensors is up to `predict`.
        """
        ...

    def predict(self, prepared: Mapping[str, Any]) -> Sequence[Prediction]:
        """Label maps of a batch, in its order. An image's result must not depend on what else was predicted before."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that determines the result, as JSON values; what another description made is not resumed."""
        ...


class ITACLIPPredictor:
    """ITACLIP with one vocabulary, encoded once.

    Args:
        model: The model, on the device it shall run on; its baked vocabulary is replaced.
        processor: The processor that goes with it.
        vocabulary: The classes to tell apart.
        name: What reports call the model.
    """

    def __init__(
        self,
        model: ITACLIPForSemanticSegmentation,
        processor: ITACLIPProcessor,
        vocabulary: Vocabulary,
        name: str | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.name = name or model.config.name_or_path or type(model).__name__
        self.prepare_images = functools.partial(_prepare_images, processor.image_processor)
        self._model = model.eval()
        self._processor = processor
        self._weights_sha256 = hash_weights(model)
        model.set_vocabulary(processor, vocabulary, TextCache())

    @torch.inference_mode()
    def predict(self, prepared: Mapping[str, Any]) -> list[Prediction]:
        """Label and confidence maps of a batch."""
        # Pixels stay in float32 whatever the model's format: they guide the refinement, too.
        inputs = {key: value.to(self._model.device, non_blocking=True) for key, value in prepared.items()}
        outputs = self._model.predict_labels(self._processor, **inputs)
        return [Prediction(*maps) for maps in zip(*outputs, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Method, weights, configuration, processor settings, number format and device kind."""
        return describe_itaclip(self.name, self._weights_sha256, self._model, self._model.config, self._processor)


def describe_itaclip(
    name: str,
    weights_sha256: str,
    model: ITACLIPForSemanticSegmentation,
    config: ITACLIPConfig,
    processor: ITACLIPProcessor,
) -> dict[str, Any]:
    """Everything but the vocabulary that determines the results of a model.

    The configuration that is run may be another than the model's own, which says number format and device.
    """
    settings = Settings.of(config, processor)
    method = identify_method(settings)
    own = Settings().held_by("config")
    values = {name: value for name, value in config.to_diff_dict().items() if name not in own}
    # These say which words were baked in last, or where the model is from, and change no result.
    for derived in ("id2label", "label2id", "query_classes", "transformers_version", "_name_or_path"):
        values.pop(derived, None)
    return {
        "method": CUSTOM_METHOD if method is None else method.title,
        "model": name,
        "weights_sha256": weights_sha256,
        # Defaults too: one that changes with a release changes results.
        "config": values | settings.to_json("config"),
        "image_processor": _describe_image_processor(processor.image_processor, settings),
        **settings.to_json("processor"),
        "templates": len(processor.templates),
        "templates_sha256": hashlib.sha256("\n".join(processor.templates).encode()).hexdigest(),
        "dtype": name_dtype(model.dtype),
        "device": model.device.type,
    }


def describe_backbone(config: ITACLIPConfig) -> str:
    """Which vision tower it is, by its dimensions."""
    tower = config.vision_config
    return f"{tower.num_hidden_layers} blocks of width {tower.hidden_size}, patches of {tower.patch_size} pixels"


def hash_weights(model: torch.nn.Module, with_buffers: bool = False) -> str:
    """SHA-256 over names and values of all parameters (and saved buffers), whatever the file they came from."""
    digest = hashlib.sha256()
    tensors = model.state_dict() if with_buffers else dict(model.named_parameters())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode("utf-8"))
        # As bytes, since NumPy knows no bfloat16.
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _prepare_images(
    image_processor: ITACLIPImageProcessor, images: list[Image.Image], region_maps: Any = None
) -> dict[str, torch.Tensor]:
    return dict(image_processor(images, region_maps=region_maps, return_tensors="pt"))


def _describe_image_processor(image_processor: ITACLIPImageProcessor, settings: Settings) -> dict[str, Any]:
    held = {name: value for name, value in settings.to_json("image_processor").items() if name not in SIZE_NAMES}
    return {
        "size": dict(image_processor.size),
        "resample": int(image_processor.resample),
        **held,
        "image_mean": list(image_processor.image_mean),
        "image_std": list(image_processor.image_std),
    }
