"""Transformers' task "image-segmentation" for our models: what it would drop is refused, and batches are of any sizes.

`auto_registration.py` puts the class in the task's place. Models of others get Transformers' own pipeline from it.
"""

from typing import Any

import torch
from transformers import CLIPModel
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline

from ..auto_registration import TASK
from ..loading import check_weights
from ..modeling import ITACLIPForSemanticSegmentation
from ..modeling.data_contract import ITACLIPSemanticSegmenterOutput
from .zero_shot import SHARE, stack_images

__all__ = ["ITACLIPImageSegmentationPipeline"]

SHARES = {"threshold", "mask_threshold", "overlap_mask_area_threshold"}
ARGUMENTS = ("subtask", "threshold", "mask_threshold", "overlap_mask_area_threshold", "timeout")


class ITACLIPImageSegmentationPipeline(ImageSegmentationPipeline):
    """Segments images by the vocabulary that is baked into the model.

    Args:
        model: The model; one of another class makes Transformers' own pipeline.
        *args: Arguments of every [`~transformers.ImageSegmentationPipeline`].
        **kwargs: The same, by name.

    Raises:
        TypeError: If there is no argument of a name, a threshold is no number, or the model is a stock CLIP; words are
            for the task "zero-shot-image-segmentation".
        ValueError: If a threshold is not between 0 and 1, or weights are no trained ones.
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
        for name in SHARES & kwargs.keys():
            if kwargs[name] is not None:
                SHARE.check(name, kwargs[name], "Pass such a number.")
        return super()._sanitize_parameters(**kwargs)

    def preprocess(self, image: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Prepare one image; a dictionary in a dictionary, which goes through Transformers' batching as it is."""
        prepared = dict(super().preprocess(image, **kwargs))
        del prepared["target_size"]  # the model gives every result its image's size
        return {"prepared": prepared}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {"logits": list(self.model(**stack_images(model_inputs["prepared"])).logits)}

    def postprocess(self, model_outputs: dict[str, Any], **kwargs: Any) -> list[dict[str, Any]]:  # type: ignore[override]
        """Masks with scores, of one image."""
        outputs = ITACLIPSemanticSegmenterOutput(logits=torch.stack(list(model_outputs["logits"])))
        outputs["target_size"] = None
        return super().postprocess(outputs, **kwargs)
