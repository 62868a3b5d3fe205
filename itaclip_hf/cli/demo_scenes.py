"""`itaclip demo-scenes`: the embedded checkpoint on held-out scenes with exact truth, and on one photograph or image.

It works without any download, from a clone and from an installed package, and says what the checkpoint can do.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options.classes import ClassOptions
from .options.model import DEFAULT_MODEL, DEMO_MODEL, ModelOptions
from .options.processes import DeviceOption
from .options.settings import SettingOptions

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..loading import Loaded
    from .images import SegmentedImage

__all__ = ["demo_scenes"]

DEMO = ModelOptions(DEMO_MODEL)
PHOTO = "cat"
PHOTO_CLASSES, PHOTO_BACKGROUND = "cat", "wall, blanket, floor, chair"
ABOUT_DEMO_CHECKPOINT = """\
The embedded checkpoint is a stand-in: a CLIP of a few MB, trained for this project on drawings of {count} classes.
It shows every step of the method at work without a download. It does not understand photographs."""


def demo_scenes(
    image: Annotated[
        Path | None, typer.Option(help="An image of your own; by default a photograph that ships with the package.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help='Classes for the image: "cat; dog, puppy; sky"; by default those of the scenes.')
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures; those of an earlier demo are replaced.")] = Path(
        "itaclip_demo"
    ),
    device: DeviceOption = "auto",
    model: ModelOptions = DEMO,
    settings: SettingOptions = SettingOptions(),  # noqa: B008
) -> None:
    """Show the method at work: six drawn scenes with known truth, and one image.

    Prints mIoU against the truth and the classes found; writes a gallery (scene, truth, prediction, confidence).
    Windows are moved by 56 pixels (balanced) unless --preset or --method says otherwise.
    """
    from ..files import write_png
    from ..processing import Vocabulary
    from ..samples import SAMPLE_PHOTOS, load_demo_scene_labels
    from ..text_cache import TextCache
    from .images import read_image_file, segment_image

    words = ClassOptions(classes).read()
    names = load_demo_scene_labels()
    if settings.preset is None and settings.method is None:
        settings = replace(settings, preset="balanced")
    # Names alone: with synonyms the labels are the same, but the confidence is shared among them.
    loaded = model.load(settings, device, Vocabulary(names))
    if model.model == DEMO_MODEL:
        typer.echo(ABOUT_DEMO_CHECKPOINT.format(count=len(names)))
    if settings.method is not None:
        typer.echo(f"Method: {_describe_method(loaded)}")
    typer.echo("\nDrawn scenes, in a style that the embedded checkpoint never saw:")
    write_png(out / "scenes.png", _segment_scenes(loaded, names))

    if image is None and words is None and model.model != DEMO_MODEL:
        words = ClassOptions(PHOTO_CLASSES, PHOTO_BACKGROUND).read()
    if words is not None:
        loaded.model.set_vocabulary(loaded.processor, words, TextCache())
    path = image or SAMPLE_PHOTOS[PHOTO]
    result = segment_image(read_image_file(path), *loaded)
    typer.echo(f"\n{path.name}: {result.summarize()}")
    write_png(out / "image.png", result.draw())
    typer.echo(f"\nPictures: {out / 'scenes.png'} and {out / 'image.png'}")
    if model.model == DEMO_MODEL:
        _explain_photographs(path)


def _describe_method(loaded: "Loaded") -> str:
    from ..methods import Settings, identify_method

    used = Settings.of(*loaded)
    method = identify_method(used)
    return f"{method.title if method else 'custom'}, {used.describe_windows()}"


def _segment_scenes(loaded: "Loaded", names: Sequence[str]) -> "Image.Image":
    """Segment all scenes, print their scores and draw the gallery."""
    import numpy as np

    from ..drawing import draw_gallery
    from ..samples import count_demo_scenes, load_demo_scene
    from .images import segment_image

    confusion = np.zeros((len(names), len(names)), dtype=np.int64)
    rows, titles, start = [], [], time.perf_counter()
    for index in range(count_demo_scenes()):
        scene, truth = load_demo_scene(index)
        result = segment_image(scene, *loaded)
        scene_confusion = _count_confusion(truth, result.labels, len(names))
        confusion += scene_confusion
        titles.append(f"scene {index + 1}: mIoU {_mean_iou(scene_confusion):.1%}, found {result.summarize()}")
        typer.echo(f"  {titles[-1]}")
        rows.append(_draw_row(result, truth))
    seconds = time.perf_counter() - start
    typer.echo(
        f"  all {len(rows)} scenes: mIoU {_mean_iou(confusion):.1%}, "
        f"pixels right {np.trace(confusion) / confusion.sum():.1%}, {seconds / len(rows):.1f} s a scene"
    )
    return draw_gallery(rows, ("scene", "truth", "prediction", "confidence (dark 0, bright 1)"), titles)


def _count_confusion(truth: "np.ndarray", labels: "np.ndarray", count: int) -> "np.ndarray":
    """Pixels by true and predicted label, (labels, labels)."""
    import numpy as np

    return np.bincount(truth.ravel().astype(np.int64) * count + labels.ravel(), minlength=count**2).reshape(
        count, count
    )


def _mean_iou(confusion: "np.ndarray") -> float:
    """Intersection over union, mean over the labels that occur in truth or prediction."""
    from ..evaluation.metrics.confusion_matrix import compute_segmentation_scores

    return compute_segmentation_scores(confusion)["mean_iou"]


def _draw_row(result: "SegmentedImage", truth: "np.ndarray") -> list["Image.Image"]:
    from ..drawing import draw_confidence, draw_label_map, draw_named_regions, make_palette

    palette = make_palette(result.has_background)
    maps = [
        draw_named_regions(draw_label_map(labels, palette), labels, result.names) for labels in (truth, result.labels)
    ]
    return [result.image, *maps, draw_confidence(result.confidence)]


def _explain_photographs(path: Path) -> None:
    typer.echo(
        "\nOn photographs this checkpoint means nothing. Real CLIP weights do it (600 MB, downloaded once):\n"
        f"  itaclip segment {path} --model {DEFAULT_MODEL} "
        f'--classes "{PHOTO_CLASSES}" --background "{PHOTO_BACKGROUND}"'
    )
