"""The embedded checkpoint: a small CLIP for drawn pictures, shipped with the package; nothing is downloaded."""

from pathlib import Path

from .modeling import ITACLIPForSemanticSegmentation
from .processing import ITACLIPProcessor, Vocabulary
from .text_cache import bake_vocabulary

__all__ = ["DEMO_CHECKPOINT", "load_demo"]

DEMO_CHECKPOINT = Path(__file__).parent / "assets" / "demo_checkpoint"


def load_demo() -> tuple[ITACLIPForSemanticSegmentation, ITACLIPProcessor]:
    """Load the embedded checkpoint with its own vocabulary baked in.

    It knows drawn pictures of its 42 classes, not photographs; its model card says what it was trained on.

    Returns:
        The model, in float32 on the CPU, and its processor.

    Example:
    ```python
    >>> from itaclip_hf import load_demo

    >>> model, processor = load_demo()
    >>> model.config.id2label[0]
    'sky'

    ```
    """
    model = ITACLIPForSemanticSegmentation.from_pretrained(DEMO_CHECKPOINT, dtype="float32")
    processor = ITACLIPProcessor.from_pretrained(DEMO_CHECKPOINT)
    bake_vocabulary(model, processor, Vocabulary.from_json_file(DEMO_CHECKPOINT / "vocabulary.json"))
    return model.eval(), processor
