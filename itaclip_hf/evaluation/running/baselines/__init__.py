"""Other published systems under the same protocol: each is a `Predictor` in a file of its own, found here.

A predictor has a vocabulary and turns images into label maps with confidences; how (gradients, several passes, a
second checkpoint) is its own business.
"""

import os
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from transformers import PreTrainedConfig

from ....loading import resolve_checkpoint
from ....processing import Vocabulary
from ..predictor import Predictor
from .car import CaR
from .clip_diy import ClipDIY
from .groupvit import GroupViT
from .tagclip import TagCLIP, TagCLIPWithCRF

__all__ = ["BASELINES", "SYSTEMS", "Baseline", "find_baseline"]


class Baseline(Predictor, Protocol):
    """A predictor that loads itself, and says which settings are `accepted`; others are a `ValueError`."""

    accepted: tuple[str, ...]

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        vocabulary: Vocabulary,
        benchmark: str | None = None,
        settings: Mapping[str, Any] | None = None,
        dtype: str = "auto",
        device: torch.device | str = "cpu",
    ) -> None: ...


BASELINES: dict[str, type[Baseline]] = {"groupvit": GroupViT}
"""By the model type in a checkpoint's configuration."""

SYSTEMS: dict[str, type[Baseline]] = {
    "car": CaR,
    "clip-diy": ClipDIY,
    "tagclip": TagCLIP,
    "tagclip-crf": TagCLIPWithCRF,
}
"""By name: methods that run on CLIP checkpoints, but are more than settings of our model."""


def find_baseline(checkpoint: str | os.PathLike[str], method: str | None = None) -> type[Baseline] | None:
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
    config, _ = PreTrainedConfig.get_config_dict(resolve_checkpoint(checkpoint))
    return BASELINES.get(config.get("model_type", ""))
