"""What stands before and after the model: vocabulary, prompts, image processing and label maps."""

from ..lazy_names import load_lazily

# Vocabularies and templates need neither torch nor Transformers.
__getattr__, __dir__, __all__ = load_lazily(__name__, __file__)
