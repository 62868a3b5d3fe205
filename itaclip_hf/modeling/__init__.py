"""The model: CLIP weights, ITACLIP's last block, windows, stitching, refinement and class scores."""

from ..lazy_names import load_lazily

# The configuration must be there without the model: Transformers asks for it while CLIP's modules are being imported.
__getattr__, __dir__, __all__ = load_lazily(__name__, __file__)
