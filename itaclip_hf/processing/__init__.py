"""What stands before and after the model: vocabulary, prompts, image processing and label maps."""

from typing import TYPE_CHECKING

from ..lazy_names import load_lazily

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

# Vocabularies and templates need neither torch nor Transformers.
__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "augmentation": ["View", "compute_views", "stack_views"],
        "image_processing_itaclip": ["ITACLIPImageProcessor", "ITACLIPImageProcessorKwargs"],
        "image_reading": ["read_image"],
        "processing_itaclip": ["ITACLIPProcessor"],
        "prompt_templates": ["IMAGENET_TEMPLATES"],
        "segmentation_maps": ["apply_area_threshold_", "assign_labels", "close_label_map", "find_small_classes"],
        "vocabulary": ["BACKGROUND_LABEL", "Vocabulary", "VocabularyClass", "load_auxiliary_texts"],
    },
)
