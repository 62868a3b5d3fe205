from .augmentation import View as View, compute_views as compute_views, stack_views as stack_views
from .image_processing_itaclip import (
    ITACLIPImageProcessor as ITACLIPImageProcessor,
    ITACLIPImageProcessorKwargs as ITACLIPImageProcessorKwargs,
)
from .pixels import open_image as open_image, read_image as read_image, read_rgb_image as read_rgb_image
from .processing_itaclip import ITACLIPProcessor as ITACLIPProcessor
from .segmentation_maps import (
    assign_labels as assign_labels,
    close_label_map as close_label_map,
    drop_small_classes_ as drop_small_classes_,
    find_small_classes as find_small_classes,
    make_region_map as make_region_map,
)
from .vocabulary import (
    BACKGROUND_LABEL as BACKGROUND_LABEL,
    IMAGENET_TEMPLATES as IMAGENET_TEMPLATES,
    Vocabulary as Vocabulary,
    VocabularyClass as VocabularyClass,
    load_auxiliary_texts as load_auxiliary_texts,
)
