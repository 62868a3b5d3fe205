"""What one patch looks at: its row of the attention maps of all blocks, and of ITACLIP's rebuilt last block.

The window that has the patch nearest to its middle is encoded plainly, once. After Figure 3 of the paper.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch

from ..modeling import ITACLIPForSemanticSegmentation
from ..modeling.vision_itaclip import ITACLIPEncoderLayer
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
    grid = vision.compute_grid(*image.layout.padded_size)
    side = cast(int, vision.embeddings.patch_size)
    starts = tuple(edge.start - margin[0] for edge, margin in zip(box, image.layout.margins, strict=True))
    row, column = (
        min(int((position - start) // side), count - 1)
        for position, start, count in zip(place, starts, grid, strict=True)
    )
    rows = _attend(model, image.layout.cut(image.pixels, box)[None], (row, column))
    ends = (start + count * side for start, count in zip(starts, grid, strict=True))
    window = tuple(round(edge / scale, 2) for edge, scale in zip((*starts, *ends), scales * 2, strict=True))
    names = [f"block {number}" for number in range(1, len(rows))]
    names.append(f"block {len(names)}, rebuilt")
    maps, class_token = (torch.stack(part) for part in zip(*rows, strict=True))
    return PatchAttention(at, (row, column), cast(Any, window), names, maps, class_token)


def _measure_distance(box: Box, place: Sequence[float]) -> float:
    """Squared distance of a place from the middle of a window."""
    return sum(((part.start + part.stop) / 2 - position) ** 2 for part, position in zip(box, place, strict=True))


def _attend(
    model: ITACLIPForSemanticSegmentation, window: torch.Tensor, patch: tuple[int, int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What a patch of a window (1, 3, height, width) looks at in each block: patches (grid_h, grid_w), class token."""
    vision, config = model.vision_model, model.config
    blocks = cast(Sequence[ITACLIPEncoderLayer], vision.encoder.layers)
    encoded = vision.encode_blocks(window, [config], range(len(blocks)), None, model.encode_proxy(window, [config]))
    grid, found = encoded.grid, []
    for block, state in zip(blocks, encoded.states, strict=True):
        query, key, _ = block.self_attn.project(block.layer_norm1(cast(torch.Tensor, state)))
        # The class token comes before the patches.
        query = query[0, :, 1 + patch[0] * grid[1] + patch[1], None]
        row = (block.self_attn.scale * query @ key[0].mT).softmax(-1).float().mean((0, 1))
        found.append((row[1:].view(grid), row[0]))
    found.append(_attend_in_last(*vision.compute_last_map(encoded, config), patch, grid))
    return found


def _attend_in_last(
    attention: torch.Tensor, own_grid: tuple[int, int], patch: tuple[int, int], grid: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of the rebuilt block, (1, tokens, heads, tokens), maybe on another grid and without a class token."""
    cells = own_grid[0] * own_grid[1]
    skipped = attention.shape[1] - cells  # the class token, if there is one
    # Of the block's own grid, the cell at the middle of the patch.
    row, column = (
        (2 * place + 1) * own // (2 * count) for place, own, count in zip(patch, own_grid, grid, strict=True)
    )
    shares = attention[0, skipped + row * own_grid[1] + column].float().mean(0)
    maps = shares[skipped:].view(1, *own_grid)
    if own_grid != grid:
        # Means become sums again, so that the shares keep theirs.
        maps = torch.nn.functional.adaptive_avg_pool2d(maps, grid) * (cells / (grid[0] * grid[1]))
    return maps[0], shares[:skipped].sum()
