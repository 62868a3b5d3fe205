"""What stands before and after the model: vocabulary, prompts, image processing and label maps.

Names are imported when first used, so that reading a vocabulary does not wait for torch and Transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augmentation import View, compute_views, stack_views
    from .image_processing_itaclip import ITACLIPImageProcessor, ITACLIPImageProcessorKwargs
    from .image_reading import read_image
    from .processing_itaclip import ITACLIPProcessor
    from .prompt_templates import IMAGENET_TEMPLATES
    from .segmentation_maps import apply_area_threshold_, assign_labels, close_label_map, find_small_classes
    from .vocabulary import BACKGROUND_LABEL, Vocabulary, VocabularyClass, load_auxiliary_texts

__all__ = [
    "BACKGROUND_LABEL",
    "IMAGENET_TEMPLATES",
    "ITACLIPImageProcessor",
    "ITACLIPImageProcessorKwargs",
    "ITACLIPProcessor",
    "View",
    "Vocabulary",
    "VocabularyClass",
    "apply_area_threshold_",
    "assign_labels",
    "close_label_map",
    "compute_views",
    "find_small_classes",
    "load_auxiliary_texts",
    "read_image",
    "stack_views",
]

_MODULES = {
    "BACKGROUND_LABEL": "vocabulary",
    "IMAGENET_TEMPLATES": "prompt_templates",
    "ITACLIPImageProcessor": "image_processing_itaclip",
    "ITACLIPImageProcessorKwargs": "image_processing_itaclip",
    "ITACLIPProcessor": "processing_itaclip",
    "View": "augmentation",
    "Vocabulary": "vocabulary",
    "VocabularyClass": "vocabulary",
    "apply_area_threshold_": "segmentation_maps",
    "assign_labels": "segmentation_maps",
    "close_label_map": "segmentation_maps",
    "compute_views": "augmentation",
    "find_small_classes": "segmentation_maps",
    "load_auxiliary_texts": "vocabulary",
    "read_image": "image_reading",
    "stack_views": "augmentation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
