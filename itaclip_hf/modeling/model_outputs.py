"""What the model gives back, and how results of several images and encoder batches are put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import nn
from transformers.utils.generic import ModelOutput

from .model_inputs import IGNORE_INDEX

__all__ = [
    "ITACLIPLabelMapsOutput",
    "ITACLIPSemanticSegmenterOutput",
    "compute_loss",
    "merge_hidden_states",
    "stack_logits",
]


@dataclass
class ITACLIPSemanticSegmenterOutput(ModelOutput):
    """Output of [`ITACLIPForSemanticSegmentation`].

    Attributes:
        loss: Mean negative log class score over labelled pixels, returned when `labels` are given.
        logits: (batch, classes, H₀, W₀) float32, log class scores at the original size; a list of (classes, H₀, W₀)
            where the sizes of a batch differ.
        hidden_states: Before the first vision block and after each one, (window views, tokens, dim), images in order,
            windows row by row, then views; a list of such tensors, one per encoder batch, where window sizes differ.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | list[torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | tuple[list[torch.Tensor], ...] | None = None


class ITACLIPLabelMapsOutput(NamedTuple):
    """Output of [`~ITACLIPForSemanticSegmentation.predict_labels`], one entry for each image.

    Attributes:
        labels: (H₀, W₀) int64, final class ids, after thresholds and closing.
        confidence: (H₀, W₀) float32, highest score of the classes that the area threshold leaves, between 0 and 1,
            before the score threshold and closing.
    """

    labels: list[torch.Tensor]
    confidence: list[torch.Tensor]


def stack_logits(logits: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    """One tensor where sizes are equal; a batch of one is not copied."""
    if len({of_image.shape for of_image in logits}) > 1:
        return logits
    return torch.stack(logits) if len(logits) > 1 else logits[0][None]


def compute_loss(logits: torch.Tensor | list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log score of the labels of [`check_labels`], which sees to it that the logits are one tensor."""
    return nn.functional.nll_loss(cast(torch.Tensor, logits), labels, ignore_index=IGNORE_INDEX)


def merge_hidden_states(batches: Sequence[tuple[torch.Tensor | None, ...] | None]) -> tuple | None:
    """One entry for each layer, over all encoder batches; `None` where a layer was not asked for, or none was."""
    if len(batches) == 1 or batches[0] is None:
        return batches[0]  # as they are, so that gradients can be asked of them
    return tuple(_merge_layer(layer) for layer in zip(*filter(None, batches), strict=True))


def _merge_layer(batches: Sequence[torch.Tensor | None]) -> torch.Tensor | list[torch.Tensor] | None:
    kept = [batch for batch in batches if batch is not None]
    if not kept:
        return None
    return torch.cat(kept) if len({batch.shape[1] for batch in kept}) == 1 else kept
