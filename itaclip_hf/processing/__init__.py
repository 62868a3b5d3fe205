"""What stands before and after the model: vocabulary, prompts, image processing and label maps."""

from typing import TYPE_CHECKING

from ..lazy_names import load_lazily

if TYPE_CHECKING:
    from .augmentation import View, compute_views, stack_views
    from .image_processing_itaclip import ITACLIPImageProcessor, ITACLIPImageProcessorKwargs
    from .pixels import open_image, read_image, read_rgb_image
    from .processing_itaclip import ITACLIPProcessor
    from .segmentation_maps import assign_labels, close_label_map, drop_small_classes_, find_small_classes
    from .vocabulary import BACKGROUND_LABEL, IMAGENET_TEMPLATES, Vocabulary, VocabularyClass, load_auxiliary_texts

__all__ = [
    "BACKGROUND_LABEL",
    "IMAGENET_TEMPLATES",
    "ITACLIPImageProcessor",
    "ITACLIPImageProcessorKwargs",
    "ITACLIPProcessor",
    "View",
    "Vocabulary",
    "VocabularyClass",
    "assign_labels",
    "close_label_map",
    "compute_views",
    "drop_small_classes_",
    "find_small_classes",
    "load_auxiliary_texts",
    "open_image",
    "read_image",
    "read_rgb_image",
    "stack_views",
]

# Vocabularies and templates need neither torch nor Transformers.
__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "augmentation": ["View", "compute_views", "stack_views"],
        "image_processing_itaclip": ["ITACLIPImageProcessor", "ITACLIPImageProcessorKwargs"],
        "pixels": ["open_image", "read_image", "read_rgb_image"],
        "processing_itaclip": ["ITACLIPProcessor"],
        "segmentation_maps": ["assign_labels", "close_label_map", "drop_small_classes_", "find_small_classes"],
        "vocabulary": [
            "BACKGROUND_LABEL",
            "IMAGENET_TEMPLATES",
            "Vocabulary",
            "VocabularyClass",
            "load_auxiliary_texts",
        ],
    },
)
