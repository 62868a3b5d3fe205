from .attention_maps import register_attention_map as register_attention_map
from .configuration_itaclip import ITACLIPConfig as ITACLIPConfig
from .data_contract import (
    ITACLIPLabelMapsOutput as ITACLIPLabelMapsOutput,
    ITACLIPRankedLabelMapsOutput as ITACLIPRankedLabelMapsOutput,
    ITACLIPRegionLabelMapsOutput as ITACLIPRegionLabelMapsOutput,
    ITACLIPSemanticSegmenterOutput as ITACLIPSemanticSegmenterOutput,
)
from .modeling_itaclip import ITACLIPForSemanticSegmentation as ITACLIPForSemanticSegmentation
