"""The model: CLIP weights, ITACLIP's last block, windows, stitching, refinement and class scores."""

from typing import TYPE_CHECKING

from ..lazy_names import load_lazily

if TYPE_CHECKING:
    from .attention_maps import register_attention_map
    from .configuration_itaclip import ITACLIPConfig
    from .data_contract import ITACLIPLabelMapsOutput, ITACLIPSemanticSegmenterOutput
    from .modeling_itaclip import ITACLIPForSemanticSegmentation

__all__ = [
    "ITACLIPConfig",
    "ITACLIPForSemanticSegmentation",
    "ITACLIPLabelMapsOutput",
    "ITACLIPSemanticSegmenterOutput",
    "register_attention_map",
]

# The configuration must be there without the model: Transformers asks for it while CLIP's modules are being imported.
__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "attention_maps": ["register_attention_map"],
        "configuration_itaclip": ["ITACLIPConfig"],
        "data_contract": ["ITACLIPLabelMapsOutput", "ITACLIPSemanticSegmenterOutput"],
        "modeling_itaclip": ["ITACLIPForSemanticSegmentation"],
    },
)
