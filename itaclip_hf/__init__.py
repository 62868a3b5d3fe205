"""ITACLIP for Hugging Face: open-vocabulary semantic segmentation with CLIP weights and no training.

Importing the package makes Transformers' Auto classes and pipelines know it. What it offers is loaded when it is asked
for, so that the import itself takes no time and no torch.
"""

from typing import TYPE_CHECKING

from .auto_registration import register_auto_classes
from .lazy_names import load_lazily
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .hub_export import save_with_code
    from .loading import load, load_demo, load_method
    from .methods import Settings
    from .modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
    from .processing import ITACLIPImageProcessor, ITACLIPProcessor, Vocabulary

__all__ = [
    "ITACLIPConfig",
    "ITACLIPForSemanticSegmentation",
    "ITACLIPImageProcessor",
    "ITACLIPProcessor",
    "Settings",
    "Vocabulary",
    "load",
    "load_demo",
    "load_method",
    "save_with_code",
]

__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "evaluation": [],
        "hub_export": ["save_with_code"],
        "loading": ["load", "load_demo", "load_method"],
        "methods": ["Settings"],
        "modeling": ["ITACLIPConfig", "ITACLIPForSemanticSegmentation"],
        "processing": ["ITACLIPImageProcessor", "ITACLIPProcessor", "Vocabulary"],
    },
)

register_auto_classes()
