"""What stands before and after the model: vocabulary, prompts, image processing and label maps."""

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
