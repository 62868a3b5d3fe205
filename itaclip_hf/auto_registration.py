"""Makes Transformers' Auto classes and pipelines know this package's classes and its zero-shot task.

Transformers keeps its own models as names in tables, and imports the module `transformers.models.TYPE` when one is
asked for. Our names are entered there as soon as somebody imports the tables, and such a module is put in place: until
a checkpoint of ours is loaded, nothing of this package is imported, so that no fault in it can disturb other models.
"""

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

__all__ = ["DEFAULT_CHECKPOINT", "TASK", "register_auto_classes"]

PACKAGE = __name__.rpartition(".")[0]
MODEL_TYPE = "itaclip"
CONFIG, MODEL = "ITACLIPConfig", "ITACLIPForSemanticSegmentation"
IMAGE_PROCESSOR, PROCESSOR = "ITACLIPImageProcessor", "ITACLIPProcessor"
TASK, PIPELINE = "zero-shot-image-segmentation", "ZeroShotImageSegmentationPipeline"
SHARED_TASK, SHARED_PIPELINE = "image-segmentation", "ITACLIPImageSegmentationPipeline"
DEFAULT_CHECKPOINT = "openai/clip-vit-base-patch16"
# The tables and our entry in each, by the module of transformers.models.auto that holds them.
ENTRIES: dict[str, dict[str, Any]] = {
    "configuration_auto": {"CONFIG_MAPPING_NAMES": CONFIG},
    "modeling_auto": {"MODEL_MAPPING_NAMES": MODEL, "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES": MODEL},
    # One class for both: it needs no torchvision, and uses none where there is one.
    "image_processing_auto": {
        "IMAGE_PROCESSOR_MAPPING_NAMES": {"pil": IMAGE_PROCESSOR, "torchvision": IMAGE_PROCESSOR}
    },
    "processing_auto": {"PROCESSOR_MAPPING_NAMES": PROCESSOR},
}


def register_auto_classes() -> None:
    """Enter configuration, model and processors under the model type "itaclip", at once where the tables are there."""
    sys.modules.setdefault(f"transformers.models.{MODEL_TYPE}", _OwnClasses(f"transformers.models.{MODEL_TYPE}"))
    for name in ENTRIES:
        register_post_import_hook(_enter_names, f"transformers.models.auto.{name}")
    register_post_import_hook(_enter_task, "transformers.pipelines")


class _OwnClasses(ModuleType):
    """What Transformers takes for the module of our model type. It imports a class when that is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name not in (CONFIG, MODEL, IMAGE_PROCESSOR, PROCESSOR, PIPELINE):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        try:
            return getattr(import_module(PACKAGE), name)
        except Exception as error:  # of any kind: Transformers takes some for the lack of a class and looks elsewhere
            raise ImportError(
                f"Expected {PACKAGE} to load its {name}, but got {type(error).__name__}: {error}. Look at that error "
                f"above, and install versions that fit together: pip install --upgrade {PACKAGE}"
            ) from error


class _OwnTask(dict[str, Any]):
    """The registry's entry for our task. It imports pipeline and model when these are asked for."""

    def __missing__(self, key: str) -> Any:
        own: Any = sys.modules[f"transformers.models.{MODEL_TYPE}"]
        if key == "impl":
            return getattr(own, PIPELINE)
        if key == "pt":  # also for stock CLIP checkpoints
            return (import_module(getattr(own, PIPELINE).__module__).CheckedModel,)
        raise KeyError(key)


class _SharedTask(dict[str, Any]):
    """The registry's entry for Transformers' own task, with a pipeline that refuses what ours would not get."""

    def __missing__(self, key: str) -> Any:
        if key != "impl":
            raise KeyError(key)
        try:
            return getattr(import_module(f"{PACKAGE}.pipelines.image_segmentation"), SHARED_PIPELINE)
        except Exception:  # whatever is wrong with ours must not stop other models
            return self["stock_impl"]


def _enter_task(module: ModuleType) -> None:
    # `register_pipeline` wants the class itself, and marks it as code to be written into every folder that it saves.
    tasks = module.PIPELINE_REGISTRY.supported_tasks
    tasks[TASK] = _OwnTask(type="multimodal", default={"model": (DEFAULT_CHECKPOINT, "main")})
    shared = _SharedTask(tasks[SHARED_TASK])
    if "impl" in shared:  # it is ours already where the package is imported anew, as when a notebook reloads it
        shared["stock_impl"] = shared.pop("impl")
    tasks[SHARED_TASK] = shared


def _enter_names(module: ModuleType) -> None:
    for table, entry in ENTRIES[module.__name__.rpartition(".")[2]].items():
        mapping = getattr(module, table.removesuffix("_NAMES"), None)
        if not hasattr(module, table) or mapping is None:
            # An error would come up in whatever program imports Transformers.
            warnings.warn(
                f"Expected {table} in {module.__name__}, but this release of Transformers has none. The Auto "
                f"classes will not find {PACKAGE}: use its classes by name.",
                stacklevel=2,
            )
            continue
        getattr(module, table)[MODEL_TYPE] = entry
        # Mappings note the configurations' names when they are made, which may have been before ours was entered.
        getattr(mapping, "_reverse_config_mapping", {})[CONFIG] = MODEL_TYPE
