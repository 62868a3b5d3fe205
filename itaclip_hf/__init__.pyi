from . import evaluation as evaluation
from .explaining import explain as explain
from .hub_export import save_with_code as save_with_code
from .loading import load as load, load_demo as load_demo
from .method_loading import load_method as load_method
from .methods import Settings as Settings
from .model_card import make_model_card as make_model_card
from .modeling import ITACLIPConfig as ITACLIPConfig, ITACLIPForSemanticSegmentation as ITACLIPForSemanticSegmentation
from .pipelines import (
    ZeroShotImageSegmentationPipeline as ZeroShotImageSegmentationPipeline,
    pipeline as pipeline,
)
from .processing import (
    ITACLIPImageProcessor as ITACLIPImageProcessor,
    ITACLIPProcessor as ITACLIPProcessor,
    Vocabulary as Vocabulary,
)
from .version import __version__ as __version__
