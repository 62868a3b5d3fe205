"""ITACLIP for Hugging Face: open-vocabulary semantic segmentation with CLIP weights and no training.

Importing the package makes Transformers' Auto classes and pipelines know it.
"""

from .auto_registration import register_auto_classes
from .demo import load_demo
from .hub_export import save_with_code
from .modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from .processing import ITACLIPImageProcessor, ITACLIPProcessor, Vocabulary

__all__ = [
    "ITACLIPConfig",
    "ITACLIPForSemanticSegmentation",
    "ITACLIPImageProcessor",
    "ITACLIPProcessor",
    "Vocabulary",
    "load_demo",
    "save_with_code",
]

__version__ = "0.1.0"

register_auto_classes()
