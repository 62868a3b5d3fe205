"""Images at their own resolution, whatever their size: cut into tiles, each seen with what is around it.

A tile overlaps its neighbours by all that the model sees around a pixel, and begins where windows of the whole
image do: labels are those of the whole image in one piece, as far as numbers are rounded alike, and no seam shows.
Without windows a tile stands for the image, and seams may show.
"""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from ..modeling.query_maps import Tile, cut_tiles
from . import Track

if TYPE_CHECKING:
    from ..loading import Loaded
    from ..modeling import ITACLIPConfig

__all__ = ["choose_side", "segment_tiles"]

Read = Callable[[slice, slice], np.ndarray | None]

DEFAULT_TILE = 1024  # pixels; at a stride of 28, features of such a tile and its surroundings take 1.3 GB


def choose_side(config: "ITACLIPConfig") -> int:
    """A side for tiles, in pixels, where nobody asked for one; without windows the size that the tower is used to."""
    return DEFAULT_TILE if config.tile_step > 1 else cast(int, config.vision_config.image_size)


def segment_tiles(
    read: Read,
    size: tuple[int, int],
    loaded: "Loaded",
    side: int,
    track: Track,
) -> Iterator[tuple[tuple[slice, slice], np.ndarray, np.ndarray]]:
    """Segment an image tile by tile, with the vocabulary that is baked into the model.

    Args:
        read: Gives rows and columns of the image, (height, width, 3) uint8, or `None` where there is nothing to see.
        size: (height, width) of the image.
        loaded: The model and its processor; the size that this resizes to does not matter.
        side: Side of the tiles' cores, in pixels.
        track: Shows how far it is.

    Yields:
        Rows and columns of a core, and its label ids (int64) and scores (float32); nothing where there is nothing.
    """
    tiles = cut_tiles(size, side, loaded.model.config.tile_overlap, loaded.model.config.tile_step)
    dropped = _find_dropped_classes(read, tiles, loaded, track)
    finish = functools.partial(loaded.processor.image_processor.finish_tile, is_dropped=dropped)
    for tile in track(tiles, len(tiles), "Tiles"):
        pixels = read(*tile.reach)
        if pixels is not None:
            labels, scores = (tile.crop(part) for part in _predict(pixels, loaded, finish))
            yield tile.core, labels.cpu().numpy(), scores.cpu().numpy()


def _find_dropped_classes(read: Read, tiles: list[Tile], loaded: "Loaded", track: Track) -> torch.Tensor | None:
    """Which classes are too small in the whole image, if that matters; it costs a first look at all tiles."""
    image_processor = loaded.processor.image_processor
    if not image_processor.drops_small_classes:
        return None
    counts = torch.zeros(len(loaded.model.config.id2label), dtype=torch.int64)
    for tile in track(tiles, len(tiles), "Counting"):
        pixels = read(*tile.reach)
        if pixels is not None:
            labels, _ = _predict(pixels, loaded, lambda best: best.labels)
            counts += torch.bincount(tile.crop(labels).flatten(), minlength=len(counts)).cpu()
    return image_processor.find_dropped_classes(counts).to(loaded.model.device)


class _Finisher(NamedTuple):
    """Stands where `predict_labels` asks the processor to finish maps, as a tile alone does not tell small classes."""

    finish: Callable[[Any], torch.Tensor]

    def post_process_label_maps(self, found: list[Any], region_maps: None = None) -> list[torch.Tensor]:
        return [self.finish(best) for best in found]


def _predict(
    pixels: np.ndarray, loaded: "Loaded", finish: Callable[[Any], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Label ids and scores of a tile and its surroundings, (height, width) both."""
    model, processor = loaded
    inputs = processor(images=pixels, do_resize=False, input_data_format="channels_last", return_tensors="pt")
    with torch.inference_mode():
        outputs = model.predict_labels(_Finisher(finish), **inputs.to(model.device))
    return outputs.labels[0], outputs.confidence[0]
