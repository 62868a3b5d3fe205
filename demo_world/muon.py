"""Muon with all matrices of one shape in one batched product, in float32 or, where products are fast in it, bfloat16.

`torch.optim.Muon` orthogonalises one matrix at a time and always in bfloat16. The update is the same (Jordan et al.,
2024; scaled to AdamW's size as in Moonlight, Liu et al., 2025).
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Muon"]

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Momentum, orthogonalised by Newton-Schulz iterations, for two-dimensional parameters."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        steps: int = 5,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})
        self.dtype = dtype  # of the orthogonalisation; momentum stays in the precision of the parameters

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._step_same_shape(parameters, group)

    def _step_same_shape(self, parameters: list[Tensor], group: dict) -> None:
        updates = []
        for parameter in parameters:
            gradient, state = parameter.grad, self.state[parameter]
            assert gradient is not None
            momentum = state.setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(gradient, 1 - group["momentum"])
            updates.append(gradient.lerp(momentum, group["momentum"]))  # Nesterov's look ahead
        step_size = 0.2 * max(parameters[0].shape) ** 0.5 * group["lr"]
        orthogonal = _orthogonalize(torch.stack(updates).to(self.dtype), group["steps"]).to(parameters[0].dtype)
        for parameter, update in zip(parameters, orthogonal, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-step_size)


def _orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Moves all singular values near 1. (count, rows, columns)."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    update = matrices.mT if is_tall else matrices
    update = update / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(steps):
        gram = update @ update.mT
        update = first * update + (third * gram + fifth * gram @ gram) @ update
    return update.mT if is_tall else update
