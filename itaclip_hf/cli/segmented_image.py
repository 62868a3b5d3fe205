"""Segments one image and describes the result in numbers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from ..modeling import ITACLIPForSemanticSegmentation
    from ..processing import ITACLIPProcessor

__all__ = ["SegmentedImage", "segment_image"]


@dataclass(frozen=True)
class SegmentedImage:
    """An image and what was found in it.

    Attributes:
        image: The RGB image.
        labels: Label ids (height, width).
        confidence: Highest class score of each pixel, between 0 and 1, before thresholds, (height, width).
        names: Name of each label.
        has_background: Whether label 0 is the background.
    """

    image: Image.Image
    labels: np.ndarray
    confidence: np.ndarray
    names: tuple[str, ...]
    has_background: bool

    def describe_classes(self) -> list[dict[str, Any]]:
        """Id, name, share of the pixels and mean score of every class; the score of an absent class is `None`."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        sums = np.bincount(self.labels.ravel(), weights=self.confidence.ravel(), minlength=len(self.names))
        return [
            {
                "id": label,
                "name": name,
                "share": round(float(counts[label] / self.labels.size), 6),
                "mean_score": round(float(sums[label] / counts[label]), 6) if counts[label] else None,
            }
            for label, name in enumerate(self.names)
        ]

    def summarize(self, most: int = 4) -> str:
        """The largest classes and their shares in a line."""
        found = sorted(
            (entry for entry in self.describe_classes() if entry["share"]), key=lambda entry: -entry["share"]
        )
        shown = [f"{entry['name']} {entry['share']:.0%}" for entry in found[:most]]
        return ", ".join(shown) + (f" and {len(found) - most} more" if len(found) > most else "")


def segment_image(
    image: Image.Image, model: "ITACLIPForSemanticSegmentation", processor: "ITACLIPProcessor"
) -> SegmentedImage:
    """Segment an RGB image with the vocabulary that is baked into the model."""
    import torch

    inputs = processor(images=image, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        outputs = model.predict_labels(processor, **inputs)
    names = tuple(str(name) for _, name in sorted((model.config.id2label or {}).items()))
    labels, confidence = (maps[0].cpu().numpy() for maps in outputs)
    return SegmentedImage(image, labels, confidence, names, names[0] == "background")
