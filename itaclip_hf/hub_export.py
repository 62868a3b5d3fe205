"""Self-contained checkpoints: weights, processor and the code that runs them, for places where the package is missing.

The files of `modeling/` and `processing/` are copied flat into the folder by Transformers' own mechanism, which is why
those import only their siblings, torch, Transformers, NumPy and Pillow.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

from .model_card import write_model_card
from .modeling import ITACLIPConfig, ITACLIPForSemanticSegmentation
from .processing import ITACLIPImageProcessor, ITACLIPProcessor

__all__ = ["save_with_code"]

AUTO_CLASSES: dict[Any, str] = {
    ITACLIPConfig: "AutoConfig",
    ITACLIPForSemanticSegmentation: "AutoModelForSemanticSegmentation",
    ITACLIPImageProcessor: "AutoImageProcessor",
    ITACLIPProcessor: "AutoProcessor",
}


def save_with_code(
    folder: str | PathLike[str],
    model: ITACLIPForSemanticSegmentation,
    processor: ITACLIPProcessor,
    reports: Iterable[str | PathLike[str]] = (),
) -> None:
    """Save a model and its processor together with their code.

    The folder loads with `trust_remote_code=True` where this package is not installed, and as an ordinary folder where
    it is. Bake a vocabulary first if `pipeline("image-segmentation")` shall run it. Upload it with `hf upload`. Its
    model card says what it is; one that somebody has edited stays.

    Args:
        folder: Where to write; made if missing.
        model: The model.
        processor: Its processor.
        reports: Folders of `itaclip evaluate`, whose scores go into the card.

    Example:
    ```python
    >>> from itaclip_hf import load_demo, save_with_code

    >>> save_with_code("itaclip-with-code", *load_demo())

    ```
    """
    with _registered_for_auto_classes():
        try:
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            write_model_card(folder, model, processor, reports=reports, with_code=True)
        finally:  # Transformers notes where the code lies; a plain folder that is saved later has none
            for noted in (model.config, processor, processor.image_processor):
                vars(noted).pop("auto_map", None)


@contextmanager
def _registered_for_auto_classes() -> Iterator[None]:
    """Ordinary saving must go on writing plain folders, so the registration is taken back."""
    for cls, auto_class in AUTO_CLASSES.items():
        cls.register_for_auto_class(auto_class)
    try:
        yield
    finally:
        for cls in AUTO_CLASSES:
            cls._auto_class = None
