"""Copies of the trained weights: one in low precision computes gradients, an averaged one is shown and exported.

The trained weights stay in float32: steps late in a run are smaller than what bfloat16 can tell apart. A whole copy in
bfloat16 costs one pass over the weights a step and spares the casts around every single operation that autocast makes.
"""

import copy

import torch
from transformers import CLIPModel

__all__ = ["AveragedWeights", "LowPrecisionCopy"]


class LowPrecisionCopy:
    """Runs forward and backward in another precision than that of the trained weights.

    Args:
        model: The trained model.
        dtype: Precision of the copy; the trained one's own makes no copy at all.
    """

    def __init__(self, model: CLIPModel, dtype: torch.dtype):
        self.source = model
        self.model = model if dtype == model.dtype else copy.deepcopy(model).to(dtype)

    @torch.no_grad()
    def refresh(self) -> None:
        """Takes over the trained weights."""
        if self.model is not self.source:
            for own, trained in zip(self.model.parameters(), self.source.parameters(), strict=True):
                own.copy_(trained)

    def hand_back_gradients(self) -> None:
        """Moves the gradients to the trained weights."""
        if self.model is not self.source:
            for own, trained in zip(self.model.parameters(), self.source.parameters(), strict=True):
                trained.grad = None if own.grad is None else own.grad.to(trained.dtype)
                own.grad = None


class AveragedWeights:
    """Moving average of a model's weights over the last steps: calmer than the last one.

    The window grows with the run. One of fixed length lagged behind in a short run: while rates fall, weights of many
    steps ago are worse ones.

    Args:
        model: The trained model; the average starts from its weights.
        window: Length of the average, as a share of the steps so far.
    """

    def __init__(self, model: CLIPModel, window: float):
        self.window = window
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: CLIPModel, step: int) -> None:
        """Moves the average towards the weights after `step` steps."""
        averages, weights = list(self.model.parameters()), list(model.parameters())
        torch._foreach_lerp_(averages, weights, 1 / (1 + self.window * step))
