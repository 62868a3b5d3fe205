"""A training-free method on a checkpoint: model and processor with its settings, in one call."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from .checkpoints import load_complete_model, resolve_checkpoint
from .modeling import ITACLIPForSemanticSegmentation, get_method
from .modeling.methods import ITACLIP_CONFIG, ITACLIP_PROCESSOR
from .processing import ITACLIPImageProcessor, ITACLIPProcessor

__all__ = ["load_method", "set_processor_fields"]

CONFIG_NAMES = (*ITACLIP_CONFIG, "window_batch_size")


def load_method(
    name: str,
    checkpoint: str | os.PathLike[str] = "openai/clip-vit-base-patch16",
    benchmark: str | None = None,
    dtype: torch.dtype | str = "float32",
    device: torch.device | str = "cpu",
    **overrides: Any,
) -> tuple[ITACLIPForSemanticSegmentation, ITACLIPProcessor]:
    """Load CLIP weights with the settings of a method.

    Model and processor go together; saved to one folder, they are that method for `from_pretrained` and for
    `pipeline("image-segmentation")`. Bake a vocabulary with `model.set_vocabulary(processor, vocabulary)`.

    Args:
        name: "clip", "maskclip", "sclip", "clearclip", "naclip", "itaclip", or what `register_method` made known.
        checkpoint: Folder or hub id of a CLIP checkpoint, or "demo" for the embedded one.
        benchmark: A benchmark whose settings to take, such as "voc21"; the method's general ones if left out.
        dtype: Number format.
        device: Where it shall run.
        **overrides: Fields of the configuration (`pamr_steps`, …) and of the processor (`shortest_edge`,
            `score_threshold`, …) that win over the method's.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        ValueError: If there is no such method, benchmark or field, or the checkpoint lacks weights.
        OSError: If the checkpoint cannot be loaded.

    Example:
    ```python
    >>> from itaclip_hf import Vocabulary, load_method
    >>> from itaclip_hf.samples import load_demo_scene
    >>> from transformers import pipeline

    >>> model, processor = load_method("naclip", "demo")
    >>> model.set_vocabulary(processor, Vocabulary(["sky", "grass", "dog"]))
    >>> segment = pipeline("image-segmentation", model=model, image_processor=processor.image_processor)
    >>> sorted(result["label"] for result in segment(load_demo_scene(0)[0]))
    ['dog', 'grass', 'sky']

    ```
    """
    method = get_method(name)
    unknown = sorted(overrides.keys() - {*CONFIG_NAMES, *ITACLIP_PROCESSOR})
    if unknown:
        raise ValueError(
            f"Expected fields out of {', '.join((*CONFIG_NAMES, *ITACLIP_PROCESSOR))}, but got {', '.join(unknown)}."
        )
    chosen = {**method.config_fields(benchmark), **method.processor_fields(benchmark), **overrides}
    config_fields = {key: value for key, value in chosen.items() if key in CONFIG_NAMES}
    processor_fields = {key: value for key, value in chosen.items() if key in ITACLIP_PROCESSOR}
    model = load_complete_model(checkpoint, dtype, torch.device(device), **config_fields)
    processor = ITACLIPProcessor.from_pretrained(resolve_checkpoint(checkpoint))
    set_processor_fields(processor, processor_fields)
    return model, processor


def set_processor_fields(processor: ITACLIPProcessor, fields: Mapping[str, Any]) -> None:
    """Give a processor, and the image processor in it, fields by the names that methods use.

    Args:
        processor: The processor; its image processor is replaced by a new one.
        fields: As from `Method.processor_fields`: `auxiliary_weight`, `shortest_edge` in pixels, and fields of the
            image processor.

    Raises:
        ValueError: If a value is out of its range.
    """
    changes = dict(fields)
    if "auxiliary_weight" in changes:
        weight = changes.pop("auxiliary_weight")
        if not 0 <= weight <= 1:
            raise ValueError(f"Expected `auxiliary_weight` between 0 and 1, but got {weight}. Use 0.2, for example.")
        processor.auxiliary_weight = weight
    if "shortest_edge" in changes:
        # Only the longest edge of the old size goes on: a fixed height and width would beat the shortest edge.
        longest = {key: value for key, value in dict(processor.image_processor.size).items() if key == "longest_edge"}
        changes["size"] = {"shortest_edge": changes.pop("shortest_edge"), **longest}
    processor.image_processor = ITACLIPImageProcessor.from_dict({**processor.image_processor.to_dict(), **changes})
