"""FOUND: how much each pixel belongs to an object, whatever object, from a DINO vision transformer and one layer.

Siméoni et al., "Unsupervised Object Localization: Observing the Background to Discover Objects" (CVPR 2023). The layer
has 385 numbers, the file `data/weights/decoder_weights.pt` of the published code (Apache-2.0); they go with
`facebook/dino-vits8`. Positions are stretched as Transformers does, not as DINO's own code, which differs slightly.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ....loading import check_weights, telling_what_is_broken
from .clip_images import Normalization, make_pixel_values, shrink_image

__all__ = ["Found"]

BACKBONE = "facebook/dino-vits8"
HEAD_FILE = "decoder_weights.pt"
IMAGENET_NORMALIZATION = Normalization(image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD)
LONGEST_EDGE = 1024  # attention is of the fourth power of this; the benchmarks' images are smaller


class Found:
    """The published saliency.

    Args:
        place: The published file, or a folder that holds it beside a DINO checkpoint of one's own.
        device: Where it shall run.

    Raises:
        ValueError: If the file is another, or does not fit the checkpoint, or the checkpoint lacks weights.
        OSError: If there is no such file, or the checkpoint cannot be loaded.
    """

    def __init__(self, place: str | Path, device: torch.device | str = "cpu") -> None:
        folder = Path(place)
        file, self.backbone = (folder / HEAD_FILE, str(folder)) if folder.is_dir() else (folder, BACKBONE)
        self._head = _read_head(file).to(device)
        self.backbone_model = _load_backbone(self.backbone).to(device).eval()
        width = getattr(self.backbone_model.config, "hidden_size", None)
        if self._head.in_channels != width:
            raise ValueError(
                f"Expected a DINO vision transformer of width {self._head.in_channels} for {file}, but "
                f"{self.backbone} has {width}. Put the checkpoint that goes with the file into its folder."
            )
        # The keys of the last block; Transformers has called them by both names.
        projections = [
            module
            for name, module in self.backbone_model.named_modules()
            if name.rpartition(".")[2] in ("k_proj", "key")
        ]
        self._keys: list[torch.Tensor] = []
        projections[-1].register_forward_hook(lambda module, inputs, output: self._keys.append(output))

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """(height, width) from 0 to 1, at the size of the image, (height, width, 3) uint8, or shrunk with it."""
        patch_size = self.backbone_model.config.patch_size
        shrunk = shrink_image(image, LONGEST_EDGE)
        height, width = shrunk.shape[:2]
        pixel_values = make_pixel_values(self.backbone_model, [shrunk], IMAGENET_NORMALIZATION)
        pixel_values = F.pad(pixel_values, (0, -width % patch_size, 0, -height % patch_size))
        grid = [length // patch_size for length in pixel_values.shape[-2:]]
        self._keys.clear()  # of a pass that failed behind the hook
        self.backbone_model(pixel_values=pixel_values, interpolate_pos_encoding=True)
        keys = self._keys.pop()[:, 1:].transpose(1, 2).unflatten(2, grid)  # without the class token
        logits = self._head(keys)
        stretched = F.interpolate(logits, scale_factor=patch_size, mode="bilinear", align_corners=False)
        return stretched[0, 0, :height, :width].sigmoid()

    def state(self) -> nn.Module:
        """All weights, to be told apart by."""
        return nn.ModuleList([self.backbone_model, self._head])


def _load_backbone(place: str) -> Any:
    """The checkpoint's transformer without its pooler, which many have no weights for and nobody reads."""
    kind = "DINO vision transformer"
    with telling_what_is_broken(place, "model", kind):
        loaded: Any = AutoModel.from_pretrained(
            place, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
        model, report = loaded
        flaws = {
            what: [key for key in report[f"{what}_keys"] if "pooler." not in str(key)]  # a name, or one with shapes
            for what in ("missing", "mismatched")
        }
        model.pooler = None
        check_weights(model, place, **flaws, kind=kind)
    return model


def _read_head(file: Path) -> nn.Conv2d:
    if not file.is_file():
        raise FileNotFoundError(f"Expected FOUND's {HEAD_FILE}, but there is no {file}. Name it, or its folder.")
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)["decoder"]
        head = nn.Conv2d(weights["weight"].shape[1], 1, 1)
        head.load_state_dict(weights)
    except (
        LookupError, TypeError, ValueError, AttributeError, RuntimeError, pickle.UnpicklingError, EOFError
    ) as error:  # fmt: skip
        raise ValueError(
            f"Expected FOUND's {HEAD_FILE}, a layer of one output called 'decoder', but {file} is another file. Take "
            "it from data/weights of the published code."
        ) from error
    return head
