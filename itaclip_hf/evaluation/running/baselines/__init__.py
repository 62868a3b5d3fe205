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
from .groupvit import GroupViT

__all__ = ["BASELINES", "Baseline", "find_baseline"]


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


def find_baseline(checkpoint: str | os.PathLike[str]) -> type[Baseline] | None:
    """The system that a checkpoint is for; `None` if it is for none of these.

    Args:
        checkpoint: Folder or hub id, or "demo".

    Raises:
        OSError: If there is no such checkpoint.
    """
    config, _ = PreTrainedConfig.get_config_dict(resolve_checkpoint(checkpoint))
    return BASELINES.get(config.get("model_type", ""))
