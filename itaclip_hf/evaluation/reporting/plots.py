"""Pictures of a report: IoU of every class, what is taken for what, and the best, median and worst images.

Matplotlib is asked for when a picture is made, not before.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...drawing import draw_gallery, draw_label_map, draw_named_regions, make_palette
from ...files import write_atomically
from ..metrics.confusion_matrix import IGNORED, compute_segmentation_scores, divide_counts

__all__ = [
    "GalleryRow",
    "check_plotting",
    "choose_gallery_images",
    "plot_classes",
    "plot_confusion",
    "plot_differences",
    "plot_gallery",
]

_ROW_INCHES = 0.2


@dataclass(frozen=True)
class GalleryRow:
    """One image of the gallery.

    Args:
        caption: What stands beside it.
        image: The image.
        labels: (height, width) true class ids.
        prediction: (height, width) predicted class ids.
    """

    caption: str
    image: Image.Image
    labels: NDArray[np.integer[Any]]
    prediction: NDArray[np.integer[Any]]


def check_plotting() -> None:
    """Makes sure that pictures can be made.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Pictures of reports need matplotlib, which is not installed. Leave them out with `--no-plots`, or run "
            "`pip install 'itaclip_hf[evaluation]'`."
        ) from error


def choose_gallery_images(image_scores: NDArray[np.float64], per_group: int = 3) -> list[tuple[str, int]]:
    """Picks images for the gallery by their own mIoU.

    Args:
        image_scores: (N,) mIoU of every image, nan where nothing is scored.
        per_group: Number of best, median and worst images.

    Returns:
        (group, position) of each, every image once; fewer where there are not enough images.
    """
    ranked = [int(n) for n in np.argsort(-image_scores, kind="stable") if not np.isnan(image_scores[n])]
    middle = max((len(ranked) - per_group) // 2, 0)
    groups = {  # an image that is in several stays in the first of them
        "best": ranked[:per_group],
        "worst": ranked[::-1][:per_group],
        "median": ranked[middle : middle + per_group],
    }
    chosen: dict[int, str] = {}
    for group, positions in groups.items():
        for position in positions:
            chosen.setdefault(position, group)
    order = ("best", "median", "worst")
    return sorted(((group, n) for n, group in chosen.items()), key=lambda c: (order.index(c[0]), -image_scores[c[1]]))


def plot_classes(
    path: str | os.PathLike[str], class_names: Sequence[str], confusion: NDArray[np.int64], title: str
) -> None:
    """Bars of the IoU of every class that occurs, best first, with the mean as a line."""
    scores = compute_segmentation_scores(confusion)
    iou = scores["per_category_iou"]
    order = [int(n) for n in np.argsort(-iou, kind="stable") if not np.isnan(iou[n])]
    figure, axes = _make_figure(7.0, 1.2 + _ROW_INCHES * len(order))
    _lay_out_rows(axes, [class_names[n] for n in order], "IoU (%)")
    axes.barh(range(len(order)), 100 * iou[order], color="#4878a8")
    axes.axvline(100 * scores["mean_iou"], color="#c44e52", linewidth=1)
    axes.set_xlim(0, 100)
    axes.set_title(f"{title}\nmIoU {100 * scores['mean_iou']:.1f} % over {len(order)} classes", fontsize=9)
    _save(figure, path)


def plot_confusion(
    path: str | os.PathLike[str], class_names: Sequence[str], confusion: NDArray[np.int64], title: str
) -> None:
    """Share of each class's pixels that is taken for every class; rows without labelled pixels are empty."""
    occurring = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1) > 0).tolist()
    areas = confusion[occurring].sum(axis=1, keepdims=True)
    shares = divide_counts(confusion[np.ix_(occurring, occurring)], areas)
    names = [class_names[n] for n in occurring]
    side = 2.5 + _ROW_INCHES * len(occurring)
    figure, axes = _make_figure(side + 0.8, side)
    picture = axes.imshow(100 * shares, vmin=0, vmax=100, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("labelled")
    axes.set_title(f"{title}\nshare of the labelled pixels (%)", fontsize=9)
    figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.02)
    _save(figure, path)


def plot_differences(
    path: str | os.PathLike[str],
    names: Sequence[str],
    differences: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    published: Mapping[str, Sequence[float | None]],
    title: str,
) -> None:
    """Differences of rows to a reference row, in points of mIoU, with their intervals, and published ones beside them.

    `published` has, by source, the published difference of each row, None where there is none.
    """
    figure, axes = _make_figure(7.0, 1.4 + 2 * _ROW_INCHES * len(names))
    _lay_out_rows(axes, names, "difference (points of mIoU)")
    places = np.arange(len(names))
    lows, highs = np.array(intervals).T
    axes.hlines(places, lows, highs, color="#4878a8", linewidth=1.5)
    axes.plot(differences, places, "o", color="#4878a8", label="here")
    for (source, values), marker in zip(published.items(), itertools.cycle("Dsv^<>ph"), strict=False):
        there = [(value, place) for value, place in zip(values, places, strict=True) if value is not None]
        axes.plot(*zip(*there, strict=True), marker, color="#c44e52", mfc="none", label=f"paper, {source}")
    axes.axvline(0, color="grey", linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def plot_gallery(
    path: str | os.PathLike[str], class_names: Sequence[str], rows: Sequence[GalleryRow], has_background: bool = False
) -> None:
    """Image, truth and prediction side by side, with names in the regions; unscored pixels are white."""
    palette = make_palette(has_background)
    pictures = [
        (
            row.image.convert("RGB"),
            _draw_labels(row.labels, class_names, palette),
            _draw_labels(row.prediction, class_names, palette),
        )
        for row in rows
    ]
    page = draw_gallery(pictures, ("image", "truth", "prediction"), [row.caption for row in rows])
    with write_atomically(path) as file:
        page.save(file, format="PNG")


def _draw_labels(
    labels: NDArray[np.integer[Any]], class_names: Sequence[str], palette: Sequence[tuple[int, int, int]]
) -> Image.Image:
    is_ignored = labels == IGNORED
    shown = np.where(is_ignored, len(class_names), labels)  # one more label, without a name, for what is not scored
    painted = np.array(draw_label_map(shown, palette))
    painted[is_ignored] = 255
    return draw_named_regions(Image.fromarray(painted), shown, [*class_names, ""])


def _make_figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # no pyplot: it would pick a screen

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _lay_out_rows(axes: Any, names: Sequence[str], quantity: str) -> None:
    """A row for each name, the first at the top, with lines to read a quantity by."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(quantity)
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=110)
