"""What finishes the soft maps of published systems: the dense CRF, PAMR in its place, or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ....methods import check_setting
from ....modeling.query_maps import compute_refinement_matrix
from .dense_crf import CRF_SETTINGS, has_dense_crf, refine_with_crf, shift_colors

__all__ = ["REFINEMENT_SETTINGS", "Refinement"]

REFINEMENT_SETTINGS = ("pamr_steps",)
"""What a system that has one accepts."""

PAMR_DILATIONS = (8, 16)


@dataclass(frozen=True)
class Refinement:
    """How maps are refined.

    Args:
        by_crf: Whether by the dense CRF, else by PAMR.
        steps: Of PAMR; none leaves the maps as they are.
    """

    by_crf: bool = False
    steps: int = 0

    @classmethod
    def choose(cls, settings: Mapping[str, Any], by_crf: bool) -> "Refinement":
        """PAMR if the settings name its steps, else what the system has by itself.

        Args:
            settings: By name; of these, `pamr_steps` counts.
            by_crf: Whether the system has the dense CRF by itself.

        Raises:
            TypeError: If the steps are no whole number.
            ValueError: If they are out of range, or the dense CRF is wanted and not installed.
        """
        steps = settings.get("pamr_steps")
        if steps is not None:
            return cls(steps=check_setting("pamr_steps", steps))
        if not by_crf:
            return cls()
        if not has_dense_crf():
            raise ValueError(
                "Expected pydensecrf2 for the dense CRF, but it is not installed. Run `pip install itaclip_hf[crf]`, "
                "or refine with PAMR: `pamr_steps` (`--pamr-steps`) 10, for example."
            )
        return cls(by_crf=True)

    def apply(self, maps: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Refine maps with the image as guide.

        Args:
            maps: (n, height, width) from 0 to 1. The CRF takes logarithms in their own number format.
            image: (height, width, 3) uint8, RGB.

        Returns:
            (n, height, width) float32.
        """
        if self.by_crf:
            refined = refine_with_crf(shift_colors(image.cpu().numpy()), maps.cpu().numpy())
            return torch.from_numpy(np.ascontiguousarray(refined)).to(maps.device)
        if not self.steps:
            return maps.float()
        guide = image.to(maps.device).permute(2, 0, 1).float() / 255
        matrix = compute_refinement_matrix(guide, PAMR_DILATIONS)
        return matrix.refine(maps.float().permute(1, 2, 0).contiguous(), self.steps).permute(2, 0, 1)

    def describe(self) -> Any:
        """What runs, as JSON values."""
        if self.by_crf:
            return {"dense_crf": CRF_SETTINGS}
        return {"pamr": {"steps": self.steps, "dilations": list(PAMR_DILATIONS)}} if self.steps else "none"
