"""Results as one COCO file: every connected region is an annotation, exact to the pixel.

A region without holes is a polygon, one with holes, which COCO's polygons do not know, a run-length encoding.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from ..files import write_text
from . import Finished
from .outlines import Part, find_parts, trace_rings

__all__ = ["write"]


def write(finished: Iterable[Finished], place: Path) -> None:
    """Write annotations of all images into one JSON file.

    Category ids are label ids, or one more where label 0 is no background, as they count from 1. The `score` of an
    annotation is the mean score of its class in the image.

    Args:
        finished: The results.
        place: The file.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[int, str] = {}
    for number, result in enumerate(finished, 1):
        height, width = result.size
        images.append({"id": number, "file_name": str(result.file), "height": height, "width": width})
        shift = 0 if result.has_background else 1
        categories |= {label + shift: name for label, name in result.classes.items()}
        for part in find_parts(result.read_labels(), result.has_background):
            described = _describe_part(part, (height, width))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": part.label + shift,
                    "iscrowd": 0,
                    "score": result.scores[part.label],
                    **described,
                }
            )
    content = {
        "info": {"description": "Made by itaclip_hf"},
        "images": images,
        "categories": [{"id": id, "name": name} for id, name in sorted(categories.items())],
        "annotations": annotations,
    }
    write_text(place, json.dumps(content, ensure_ascii=False))


def _describe_part(part: Part, size: tuple[int, int]) -> dict[str, Any]:
    rings = trace_rings(part)
    height, width = part.mask.shape
    segmentation: Any = [ring.ravel().tolist() for ring in rings]
    if len(rings) > 1:
        whole = np.zeros(size, dtype=np.uint8, order="F")  # COCO counts down the columns
        whole[part.top : part.top + height, part.left : part.left + width] = part.mask
        segmentation = run_lengths.encode(whole)
        segmentation["counts"] = segmentation["counts"].decode("ascii")
    return {
        "segmentation": segmentation,
        "area": int(part.mask.sum()),
        "bbox": [part.left, part.top, width, height],
    }
