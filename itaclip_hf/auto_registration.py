"""Makes Transformers' Auto classes and `pipeline("image-segmentation")` know this package's classes.

Registering needs the Auto classes and our own, and importing these takes seconds. So it waits until somebody imports
an Auto class: hooks on the import of Transformers' modules register ours right afterwards.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from wrapt import register_post_import_hook

__all__ = ["register_auto_classes"]

AUTO = "transformers.models.auto"
# What may take part in importing our classes. Of Transformers' models, that is CLIP and what the Auto classes need.
OWN_PARTS = ["modeling", "processing"]
MODELS = ["auto", "clip", "encoder_decoder"]


def register_auto_classes() -> None:
    """Register configuration, model and processors under the model type "itaclip", each with its Auto class.

    Those whose Auto class is imported already are registered at once.
    """
    _Registration(
        {
            f"{AUTO}.configuration_auto": _register_config,
            f"{AUTO}.modeling_auto": _register_model,
            f"{AUTO}.image_processing_auto": _register_image_processor,
            f"{AUTO}.processing_auto": _register_processor,
        }
    ).watch_imports(_list_foundations())


class _Registration:
    """What is still to be registered, and which imports it waits for.

    Transformers' modules import one another in circles, and our own are part of them. Hence nothing is registered
    while a module that ours need, or one of ours, is imported half-way; the next one that is finished looks again.

    Args:
        pending: What to do after the import of a module.
    """

    def __init__(self, pending: dict[str, Callable[[ModuleType], None]]) -> None:
        self._pending = pending
        self._watched: list[str] = []
        self._finished: set[str] = set()

    def watch_imports(self, others: list[str]) -> None:
        """Begin, with other modules that must not be half-way."""
        self._watched = [*others, *self._pending]
        for name in self._watched:
            register_post_import_hook(self._continue, name)

    def _continue(self, module: ModuleType) -> None:
        self._finished.add(module.__name__)
        if any(name in sys.modules and name not in self._finished for name in self._watched):
            return
        for name in [name for name in self._pending if name in self._finished]:
            # Taken out first: importing our classes comes back here.
            register = self._pending.pop(name, None)
            if register is not None:
                register(sys.modules[name])


def _list_foundations() -> list[str]:
    """Modules that our classes need, and our own, without importing any."""
    own = __name__.rpartition(".")[0]
    names = [name for part in OWN_PARTS for name in _list_modules(own, part)]
    for path in sorted(_find_folder("transformers").iterdir()):
        if path.suffix == ".py" and path.stem != "__init__":
            names.append(f"transformers.{path.stem}")
        elif path.is_dir() and path.name != "models":
            names += _list_modules("transformers", path.name)
    return names + [name for model in MODELS for name in _list_modules("transformers", f"models/{model}")]


def _list_modules(package: str, part: str) -> list[str]:
    folder = _find_folder(package)
    paths = [path.relative_to(folder).with_suffix("") for path in sorted((folder / part).rglob("*.py"))]
    return [".".join((package, *(path.parent if path.name == "__init__" else path).parts)) for path in paths]


def _find_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"Expected the package {package}, but it is missing. Install it: pip install {package}")
    return Path(spec.origin).parent


def _register_config(module: ModuleType) -> None:
    from .modeling import ITACLIPConfig

    module.AutoConfig.register(ITACLIPConfig.model_type, ITACLIPConfig, exist_ok=True)


def _register_model(module: ModuleType) -> None:
    from .modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation

    module.AutoModelForSemanticSegmentation.register(ITACLIPConfig, ITACLIPForSemanticSegmentation, exist_ok=True)


def _register_image_processor(module: ModuleType) -> None:
    from .modeling import ITACLIPConfig
    from .processing import ITACLIPImageProcessor

    classes = {"pil": ITACLIPImageProcessor, "torchvision": ITACLIPImageProcessor}
    module.AutoImageProcessor.register(ITACLIPConfig, image_processor_classes=classes, exist_ok=True)


def _register_processor(module: ModuleType) -> None:
    from .modeling import ITACLIPConfig
    from .processing import ITACLIPProcessor

    module.AutoProcessor.register(ITACLIPConfig, ITACLIPProcessor, exist_ok=True)
