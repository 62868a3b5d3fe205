"""Other published systems under the same protocol: each is a `Predictor` in a file of its own, found here."""

import os

from transformers import PreTrainedConfig

from ....loading import resolve_checkpoint, telling_what_is_broken
from .car import CaR
from .clip_diy import ClipDIY
from .groupvit import GroupViT
from .system import System
from .tagclip import TagCLIP, TagCLIPWithCRF

__all__ = ["SYSTEMS", "System", "find_baseline"]

SYSTEMS: dict[str, type[System]] = {
    "groupvit": GroupViT,
    "car": CaR,
    "clip-diy": ClipDIY,
    "tagclip": TagCLIP,
    "tagclip-crf": TagCLIPWithCRF,
}
"""By name, as in `methods/published.yaml`: methods that are more than settings of our model."""


def find_baseline(checkpoint: str | os.PathLike[str], method: str | None = None) -> type[System] | None:
    """The system that is named, or else the one that a checkpoint is for; `None` if it is none of these.

    Args:
        checkpoint: Folder or hub id, or "demo".
        method: Name of a method.

    Raises:
        OSError: If there is no such checkpoint.

    Example:
    ```python
    >>> from itaclip_hf.evaluation import find_baseline

    >>> find_baseline("demo") is None
    True

    ```
    """
    if method in SYSTEMS:
        return SYSTEMS[method]
    with telling_what_is_broken(checkpoint, "configuration"):
        config, _ = PreTrainedConfig.get_config_dict(resolve_checkpoint(checkpoint))
    model_type = config.get("model_type", "")
    return next((system for system in SYSTEMS.values() if system.model_type == model_type), None)
