"""The model: CLIP weights, ITACLIP's last block, windows, stitching, refinement and class scores."""

from .configuration_itaclip import ITACLIPConfig
from .modeling_itaclip import ITACLIPForSemanticSegmentation, ITACLIPSemanticSegmenterOutput

__all__ = ["ITACLIPConfig", "ITACLIPForSemanticSegmentation", "ITACLIPSemanticSegmenterOutput"]
