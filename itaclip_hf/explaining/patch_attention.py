"""What one patch looks at: its row of the attention maps of all blocks, and of ITACLIP's rebuilt last block.

The window that has the patch nearest to its middle is encoded plainly, once. A map is read off by letting it weigh the
identity matrix in the place of values, so that every registered map can be shown. After Figure 3 of the paper.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from ..modeling import ITACLIPForSemanticSegmentation
from ..modeling.vision_itaclip import ITACLIPLastEncoderLayer
from ..modeling.windows import Box, WindowedImage

__all__ = ["PatchAttention", "attend_from"]


class PatchAttention(NamedTuple):
    """What one patch looks at, the mean over heads.

    Attributes:
        at: (x, y) of the pixel that was asked for.
        patch: (row, column) of its patch in the window.
        window: (top, left, bottom, right) of the window's patches, in pixels of the explained image.
        blocks: Name of each map: every block as CLIP has it, then the rebuilt last one.
        maps: (blocks, grid_h, grid_w) float32, the share of each patch.
        class_token: (blocks,) float32, the share of the class token; with it, a map sums to 1, the last one to the
            number of maps that are summed there.
    """

    at: tuple[int, int]
    patch: tuple[int, int]
    window: tuple[float, float, float, float]
    blocks: list[str]
    maps: torch.Tensor
    class_token: torch.Tensor

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        blocks = zip(self.blocks, self.class_token.tolist(), self.maps.tolist(), strict=True)
        return {
            "at": list(self.at),
            "patch": list(self.patch),
            "window": list(self.window),
            "blocks": [
                {
                    "name": name,
                    "class_token": round(share, 6),
                    "map": [[round(each, 6) for each in row] for row in rows],
                }
                for name, share, rows in blocks
            ],
        }


def attend_from(model: ITACLIPForSemanticSegmentation, image: WindowedImage, at: tuple[int, int]) -> PatchAttention:
    """Attention of the patch at a pixel.

    Args:
        model: The model.
        image: The image and where its windows lie.
        at: (x, y) of the pixel, in an image of the result's size.
    """
    height, width = image.output_size
    vision = model.vision_model
    scales = image.size[0] / height, image.size[1] / width
    place = (at[1] + 0.5) * scales[0], (at[0] + 0.5) * scales[1]
    box = min(image.layout.boxes(), key=lambda each: _measure_distance(each, place))
    grid = vision.compute_grid(*image.layout.size)
    side = cast(int, vision.embeddings.patch_size)
    starts = box[0].start, box[1].start
    row, column = (
        min(int((position - start) // side), count - 1)
        for position, start, count in zip(place, starts, grid, strict=True)
    )
    rows = _compute_rows(model, image.pixels[None, :, box[0], box[1]], 1 + row * grid[1] + column)
    ends = (start + count * side for start, count in zip(starts, grid, strict=True))
    window = tuple(round(edge / scale, 2) for edge, scale in zip((*starts, *ends), scales * 2, strict=True))
    names = [f"block {number}" for number in range(1, len(rows))]
    return PatchAttention(
        at, (row, column), window, [*names, f"block {len(names)}, rebuilt"], rows[:, 1:].unflatten(1, grid), rows[:, 0]
    )


def _measure_distance(box: Box, place: Sequence[float]) -> float:
    """Squared distance of a place from the middle of a window."""
    return sum(((part.start + part.stop) / 2 - position) ** 2 for part, position in zip(box, place, strict=True))


def _compute_rows(model: ITACLIPForSemanticSegmentation, window: torch.Tensor, token: int) -> torch.Tensor:
    """(blocks + 1, tokens) of one token's attention in a window (1, 3, height, width)."""
    vision, config = model.vision_model, model.config
    last_block = cast(ITACLIPLastEncoderLayer, vision.encoder.layers[-1])
    if config.answers_on_proxy_grid:
        raise ValueError(
            "Expected a method that attends to CLIP's own patches, but this one attends to its proxy's. Leave out the "
            "place, or explain another method."
        )
    proxied = model.encode_proxy(window, [config])
    encoded = vision.encode_blocks(window, [config], range(1, len(vision.encoder.layers)), proxied=proxied)
    last = last_block.self_attn.project(last_block.layer_norm1(encoded.hidden_states))
    batch, heads, tokens, _ = last.value.shape
    identity = torch.eye(tokens).to(last.value).expand(batch, heads, -1, -1)
    rows = [
        last_block.self_attn.attend(block.query[:, :, token : token + 1], block.key, identity)[0, 0]
        for block in (*encoded.projections.values(), last)
    ]
    rebuilt = vision.blend_maps(encoded, config)[0]
    if not config.last_class_token:
        rebuilt = nn.functional.pad(rebuilt, (1, 0, 1, 0))
    rows.append(rebuilt[:, token])
    return torch.stack([row.float().mean(0) for row in rows])  # each (heads, tokens)
