"""Transformers' task "image-segmentation" for our models: what it would drop is refused, and batches are of any sizes.

`auto_registration.py` puts the class in the task's place. Models of others get Transformers' own pipeline from it.
"""

import os
from typing import Any

import torch
from transformers import CLIPModel
from transformers.image_utils import load_image
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline

from ..auto_registration import TASK
from ..loading import check_weights
from ..modeling import ITACLIPForSemanticSegmentation
from ..modeling.data_contract import ITACLIPSemanticSegmenterOutput
from .zero_shot import SHARE, note_reduction, stack_images

__all__ = ["ITACLIPImageSegmentationPipeline"]

ARGUMENTS = ("subtask", "threshold", "mask_threshold", "overlap_mask_area_threshold", "timeout")
SUBTASKS = ("panoptic", "semantic")  # one class a pixel: the same masks for both
IDLE = {"mask_threshold": 0.5, "overlap_mask_area_threshold": 0.5}  # Transformers' defaults, for masks that overlap


class ITACLIPImageSegmentationPipeline(ImageSegmentationPipeline):
    """Segments images by the vocabulary that is baked into the model.

    Arguments of a call, which may also be given once: `threshold`, the lowest score of a class that is returned (by
    default all are, not those from 0.9 on as with Transformers' own models: with many words a softmax stays below);
    `subtask`, "panoptic" or "semantic", which give the same, each mask with its score; and `timeout`, seconds to wait
    for an address of an image.

    Args:
        model: The model; one of another class makes Transformers' own pipeline.
        *args: Arguments of every [`~transformers.ImageSegmentationPipeline`].
        **kwargs: The same, by name.

    Raises:
        TypeError: If there is no argument of a name, a threshold is no number, or the model is a stock CLIP; words are
            for the task "zero-shot-image-segmentation".
        ValueError: If a threshold is not between 0 and 1, an argument's value would be ignored, or weights are no
            trained ones.
    """

    def __new__(cls, model: Any, *args: Any, **kwargs: Any) -> Any:
        """A pipeline of this class for our models, of Transformers' for others."""
        if isinstance(model, ITACLIPForSemanticSegmentation):
            return super().__new__(cls)
        if isinstance(model, CLIPModel):  # Transformers would warn, and fail in the first call
            raise TypeError(
                "Expected a model with classes of its own for the task 'image-segmentation', but got a CLIP, which "
                f'has none. Take `pipeline("{TASK}", model=…)`, whose calls name `candidate_labels`.'
            )
        return ImageSegmentationPipeline(model, *args, **kwargs)

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        check_weights(model)
        super().__init__(model, *args, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> Any:
        unknown = [name for name in kwargs if name not in ARGUMENTS]
        if unknown:
            raise TypeError(
                f"Expected arguments out of {', '.join(ARGUMENTS)} for the task 'image-segmentation', which looks for "
                f"the model's own classes, but got {', '.join(unknown)}. Take `pipeline({TASK!r})`, whose calls name "
                "`candidate_labels`, method and settings."
            )
        given = {name: value for name, value in kwargs.items() if value is not None}
        if given.get("subtask", SUBTASKS[0]) not in SUBTASKS:
            raise ValueError(
                f"Expected `subtask` to be {' or '.join(SUBTASKS)}, as the model finds classes and tells no objects "
                f"of one class apart, but got {given['subtask']!r}. Leave it out."
            )
        for name, default in IDLE.items():
            if given.get(name, default) != default:
                raise ValueError(
                    f"Expected no `{name}`, as every pixel has one class, but got {given[name]!r}. Leave it out."
                )
        if "threshold" in given:
            SHARE.check("threshold", given["threshold"], "Pass such a number.")
        for_reading, for_results = ({name: given[name]} if name in given else {} for name in ("timeout", "threshold"))
        return for_reading, {}, for_results

    def __call__(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As [`~transformers.ImageSegmentationPipeline`]; no images give no results."""
        return [] if isinstance(inputs, list) and not inputs else super().__call__(inputs, *args, **kwargs)

    def preprocess(self, image: Any, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        """Prepare one image; a dictionary in a dictionary, which goes through Transformers' batching as it is."""
        if isinstance(image, str) and not os.path.isfile(image):  # an address, or the image itself as text
            image = load_image(image, timeout=timeout)
        prepared: Any = self.image_processor(images=image, return_tensors="pt")  # type: ignore[misc]
        note_reduction(self, prepared)
        return {"prepared": dict(prepared.to(self.dtype))}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {"logits": list(self.model(**stack_images(model_inputs["prepared"])).logits)}

    def postprocess(self, model_outputs: dict[str, Any], threshold: float = 0.0) -> list[dict[str, Any]]:  # type: ignore[override]
        """Masks with scores, of one image."""
        outputs = ITACLIPSemanticSegmenterOutput(logits=torch.stack(list(model_outputs["logits"])))
        outputs["target_size"] = None
        # Its default stands for no threshold there; that of a call is for here.
        return [found for found in super().postprocess(outputs) if found["score"] >= threshold]
