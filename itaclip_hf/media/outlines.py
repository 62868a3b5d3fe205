"""Parts of a label map, for formats that want things one by one: connected regions, and their outlines.

Outlines run along the edges between pixels, corner by corner, so that they hold a part exactly.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped]
from scipy.spatial import KDTree  # type: ignore[import-untyped]

__all__ = ["Part", "find_parts", "join_rings", "trace_rings"]

STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # (x, y): right, down, left, up, each a right turn from the last


class Part(NamedTuple):
    """A connected region of one class.

    Attributes:
        label: Its label id.
        left: Column of its first pixel.
        top: Row of its first pixel.
        mask: Which pixels of its bounding box are its own, (height, width) bool.
    """

    label: int
    left: int
    top: int
    mask: np.ndarray


def find_parts(labels: np.ndarray, has_background: bool) -> Iterator[Part]:
    """Cut a label map into its connected regions, class by class; pixels that meet at a corner are not connected.

    Args:
        labels: Label ids (height, width).
        has_background: Whether label 0 is no class, and left out.
    """
    for label in np.unique(labels).tolist():
        if has_background and label == 0:
            continue
        numbered, _ = ndimage.label(labels == label)
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), 1):
            yield Part(label, columns.start, rows.start, numbered[rows, columns] == number)


def trace_rings(part: Part) -> list[np.ndarray]:
    """The outline of a part, then those of its holes: corners (n, 2) as (x, y) in pixels of the image.

    The part is on the right hand of whoever walks along, so holes run the other way round.
    """
    starts, directions = _list_edges(part.mask)
    width = part.mask.shape[1] + 1
    following = _follow_edges(starts, directions, width)
    rings, is_left = [], np.ones(len(starts), dtype=bool)
    for first in range(len(starts)):
        if not is_left[first]:
            continue
        ring, edge = [], first
        while is_left[edge]:
            is_left[edge] = False
            ring.append(edge)
            edge = following[edge]
        # A corner is where the direction changes; the edge that starts there has it.
        turns = directions[ring] != directions[np.roll(ring, 1)]
        places = starts[np.array(ring)[turns]]
        rings.append(np.stack([places % width + part.left, places // width + part.top], axis=1))
    return sorted(rings, key=lambda ring: ring.min(axis=0).tolist())  # nothing lies left of the outline


def join_rings(rings: list[np.ndarray]) -> np.ndarray:
    """One ring of an outline and its holes, with a cut there and back to each hole; filled even-odd it is the same.

    Args:
        rings: Of `trace_rings`.

    Returns:
        Corners (n, 2) as (x, y).
    """
    outline, *holes = rings
    if not holes:
        return outline
    _, places = KDTree(outline).query([hole[0] for hole in holes])
    joined = [outline[: places.min() + 1]]
    order = np.argsort(places, kind="stable")
    for index, following in zip(order, [*order[1:], None], strict=True):
        stop = len(outline) if following is None else places[following] + 1
        joined += [holes[index], holes[index][:1], outline[places[index] : stop]]
    return np.concatenate(joined)


def _list_edges(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges between a mask and what is around it: the corner that each starts from, and its direction."""
    padded, width = np.pad(mask, 1), mask.shape[1] + 1
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])  # above, right, ...
    starts, directions = [], []
    for direction, (neighbour, corner) in enumerate(zip(neighbours, (0, 1, width + 1, width), strict=True)):
        rows, columns = np.nonzero(mask & ~neighbour)
        starts.append(rows * width + columns + corner)
        directions.append(np.full(len(rows), direction))
    return np.concatenate(starts), np.concatenate(directions)


def _follow_edges(starts: np.ndarray, directions: np.ndarray, width: int) -> np.ndarray:
    """The edge after each; where two go on from a corner, the one to the right, which is the same pixel's."""
    keys = starts * 4 + directions
    order = np.argsort(keys)
    sorted_keys = keys[order]
    ends = starts + STEPS[directions] @ (1, width)
    following = np.full(len(starts), -1)
    for turn in (3, 0, 1):  # the last that is there stays
        wanted = ends * 4 + (directions + turn) % 4
        places = np.searchsorted(sorted_keys, wanted).clip(max=len(keys) - 1)
        found = order[places]
        following = np.where(keys[found] == wanted, found, following)
    return following
