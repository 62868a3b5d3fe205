"""Loading by name, as commands and evaluations do: a folder, a hub id, or "demo" for the embedded checkpoint."""

import os
from typing import Any

import torch

from .demo import DEMO_CHECKPOINT
from .modeling import ITACLIPForSemanticSegmentation

__all__ = ["load_complete_model", "resolve_checkpoint"]


def resolve_checkpoint(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Where the checkpoint of that name is: the embedded one for "demo", else the name itself."""
    return DEMO_CHECKPOINT if name == "demo" else name


def load_complete_model(
    name: str | os.PathLike[str], dtype: torch.dtype | str, device: torch.device, **fields: Any
) -> ITACLIPForSemanticSegmentation:
    """Load a model in evaluation mode, and refuse a checkpoint that lacks weights.

    Transformers only warns of these, and commands keep its warnings off the terminal.

    Args:
        name: Folder, hub id, or "demo".
        dtype: Number format.
        device: Where it shall run.
        **fields: Fields of the configuration that are not the checkpoint's.

    Raises:
        ValueError: If weights are missing or of other shapes.
        OSError: If the checkpoint cannot be loaded.
    """
    loaded: Any = ITACLIPForSemanticSegmentation.from_pretrained(
        resolve_checkpoint(name), dtype=dtype, output_loading_info=True, **fields
    )
    model, report = loaded
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise ValueError(
            f"Expected a CLIP ViT checkpoint, but {name} lacks {len(lacking)} weights, among them {lacking[0]}. "
            "Name another checkpoint."
        )
    return model.to(device).eval()
