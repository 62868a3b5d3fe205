"""ITACLIP for Hugging Face: open-vocabulary semantic segmentation with CLIP weights and no training.

Importing the package makes Transformers' Auto classes and pipelines know it. What it offers (`__init__.pyi`) is loaded
when it is asked for, so that the import itself takes no time and no torch.
"""

from .auto_registration import register_auto_classes
from .lazy_names import load_lazily
from .version import __version__ as __version__

__getattr__, __dir__, __all__ = load_lazily(__name__, __file__)

register_auto_classes()
