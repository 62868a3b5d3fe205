"""The model: CLIP weights, ITACLIP's last block, windows, stitching, refinement and class scores."""

from typing import TYPE_CHECKING

from ..lazy_names import load_lazily

if TYPE_CHECKING:
    from .attention_map_registry import register_attention_map
    from .configuration_itaclip import ITACLIPConfig
    from .modeling_itaclip import ITACLIPForSemanticSegmentation, ITACLIPSemanticSegmenterOutput

__all__ = [
    "ITACLIPConfig",
    "ITACLIPForSemanticSegmentation",
    "ITACLIPSemanticSegmenterOutput",
    "register_attention_map",
]

# The configuration must be there without the model: Transformers asks for it while CLIP's modules are being imported.
__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "attention_map_registry": ["register_attention_map"],
        "configuration_itaclip": ["ITACLIPConfig"],
        "modeling_itaclip": ["ITACLIPForSemanticSegmentation", "ITACLIPSemanticSegmenterOutput"],
    },
)
