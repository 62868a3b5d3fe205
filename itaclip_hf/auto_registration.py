"""Makes Transformers' Auto classes and `pipeline("image-segmentation")` know this package's classes."""

from transformers import AutoConfig, AutoModelForSemanticSegmentation, AutoProcessor

# From its own module: some versions replace the name at the top by a stand-in that asks for torchvision.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from .processing import ITACLIPImageProcessor, ITACLIPProcessor

__all__ = ["register_auto_classes"]


def register_auto_classes() -> None:
    """Register configuration, model and processors under the model type "itaclip"; doing so again changes nothing."""
    AutoConfig.register(ITACLIPConfig.model_type, ITACLIPConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(ITACLIPConfig, ITACLIPForSemanticSegmentation, exist_ok=True)
    AutoImageProcessor.register(
        ITACLIPConfig,
        image_processor_classes={"pil": ITACLIPImageProcessor, "torchvision": ITACLIPImageProcessor},
        exist_ok=True,
    )
    AutoProcessor.register(ITACLIPConfig, ITACLIPProcessor, exist_ok=True)
