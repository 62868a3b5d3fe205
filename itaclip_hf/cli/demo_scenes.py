"""`itaclip demo-scenes`: the embedded checkpoint on held-out scenes with exact truth; photographs with a real CLIP.

It works without any download, from a clone and from an installed package, and says what the checkpoint can do.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..auto_registration import DEFAULT_CHECKPOINT
from .options.classes import ClassOptions
from .options.model import DEMO_MODEL, ModelOptions
from .options.processes import DeviceOption
from .options.settings import SettingOptions
from .terminal import say

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..loading import Loaded
    from ..media.pictures import SegmentedImage
    from ..processing import Vocabulary

__all__ = ["demo_scenes"]

DEMO = ModelOptions(DEMO_MODEL)
ABOUT_DEMO_CHECKPOINT = """\
The embedded checkpoint is a stand-in: a CLIP of a few MB, trained for this project on drawings of {count} classes.
It shows every step of the method at work without a download. It does not understand photographs."""


def demo_scenes(
    image: Annotated[
        Path | None,
        typer.Option(help="An image of your own; by default photographs that ship with the package, for a real CLIP."),
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
    """Show the method at work: six drawn scenes with known truth, or photographs with a real CLIP.

    Prints mIoU against the truth and the classes found; writes a gallery (scene, truth, prediction, confidence).
    Windows are moved by 56 pixels, and classes of at most 1 % of the foreground are dropped, unless --preset or
    --method says otherwise. With --model, or where a real CLIP was downloaded before, photographs are segmented, too.
    """
    from ..files import is_own_png, refuse_others
    from ..samples import PHOTO_WORDS

    places = [out / f"{name}.png" for name in ("scenes", "image", *PHOTO_WORDS)]
    refuse_others(
        places, lambda path: is_own_png(path) and not (image and os.path.realpath(path) == os.path.realpath(image))
    )
    if classes is not None and image is None and model.model == DEMO_MODEL:
        raise ValueError("Expected --image with --classes, as the scenes have their own, but got none. Name an image.")
    chosen = settings if settings.preset or settings.method else replace(settings, preset="demo")
    if model.model == DEMO_MODEL:
        pictures = [_show_scenes(_load(model, chosen, device, _name_scene_classes()), out)]
        if image is not None:
            pictures.append(_show_photo(image, model, chosen, device, out, classes))
        elif (cached := _find_cached(DEFAULT_CHECKPOINT)) is not None:
            real = replace(model, model=str(cached))
            pictures += _show_photos(real, DEFAULT_CHECKPOINT, replace(chosen, preset="balanced"), device, out)
    elif image is not None:
        pictures = [_show_photo(image, model, chosen, device, out, classes)]
    else:
        pictures = _show_photos(model, model.model, chosen, device, out, classes)
    say(f"\nPictures: {', '.join(map(str, pictures))}")
    if model.model == DEMO_MODEL:
        say(
            "\nA photograph of your own, with real CLIP weights (600 MB, downloaded once):\n"
            f'  make demo IMAGE=photo.jpg MODEL={DEFAULT_CHECKPOINT} CLASSES="cat; sofa; wall"\n'
            f'  itaclip segment photo.jpg --model {DEFAULT_CHECKPOINT} --classes "cat" '
            '--background "sofa, wall, floor"'
        )


def _load(model: ModelOptions, settings: SettingOptions, device: str, words: "Vocabulary | None" = None) -> "Loaded":
    loaded = model.load(settings, device, words)
    if settings.method is not None:
        say(f"Method: {_describe_method(loaded)}")
    return loaded


def _name_scene_classes() -> "Vocabulary":
    """Names alone: with synonyms the labels are the same, but the confidence is shared among them."""
    from ..processing import Vocabulary
    from ..samples import load_demo_scene_labels

    return Vocabulary(load_demo_scene_labels())


def _find_cached(checkpoint: str) -> Path | None:
    """The folder of a hub checkpoint that is on this machine already, with its weights."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(checkpoint, local_files_only=True))
    except OSError:
        return None
    # A download that was stopped leaves a folder, too.
    has_weights = any((folder / name).exists() for name in ("model.safetensors", "pytorch_model.bin"))
    return folder if has_weights and (folder / "tokenizer_config.json").exists() else None


def _show_scenes(loaded: "Loaded", out: Path) -> Path:
    from ..files import write_png

    say(ABOUT_DEMO_CHECKPOINT.format(count=loaded.model.config.num_labels))
    say("\nDrawn scenes, in a style that the embedded checkpoint never saw:")
    write_png(out / "scenes.png", _segment_scenes(loaded))
    return out / "scenes.png"


def _show_photos(
    model: ModelOptions, title: str, settings: SettingOptions, device: str, out: Path, classes: str | None = None
) -> list[Path]:
    """The photographs that ship with the package, each with its own words unless classes are given."""
    from ..samples import PHOTO_WORDS, SAMPLE_PHOTOS

    loaded = _load(model, settings, device)
    pictures = []
    for name, (own, background) in PHOTO_WORDS.items():
        words = ClassOptions(classes) if classes else ClassOptions(own, background)
        pictures.append(_segment_photo(SAMPLE_PHOTOS[name], loaded, words, title, out / f"{name}.png"))
    return pictures


def _show_photo(
    image: Path, model: ModelOptions, settings: SettingOptions, device: str, out: Path, classes: str | None
) -> Path:
    return _segment_photo(image, _load(model, settings, device), ClassOptions(classes), model.model, out / "image.png")


def _segment_photo(image: Path, loaded: "Loaded", words: ClassOptions, title: str, target: Path) -> Path:
    from ..drawing import draw_gallery
    from ..files import write_png
    from ..media.pictures import read_picture, segment_image
    from ..text_cache import TextCache

    pixels = read_picture(image)
    loaded.model.set_vocabulary(loaded.processor, words.read() or _name_scene_classes(), TextCache())
    result = segment_image(pixels, *loaded)
    say(f"\n{image.name}, by {title}: {result.summarize()}")
    picture = result.draw()
    write_png(target, draw_gallery([[picture]], (), [f"{image.name}, segmented by {title}"], picture.width))
    return target


def _describe_method(loaded: "Loaded") -> str:
    from ..methods import Settings, identify_method

    used = Settings.of(*loaded)
    method = identify_method(used)
    return f"{method.title if method else 'custom'}, {used.describe_windows()}"


def _segment_scenes(loaded: "Loaded") -> "Image.Image":
    """Segment all scenes, print their scores and draw the gallery."""
    import numpy as np

    from ..drawing import draw_gallery
    from ..evaluation.metrics.confusion_matrix import decode_pair_counts, encode_pair_counts
    from ..media.pictures import segment_image
    from ..samples import count_demo_scenes, load_demo_scene

    num_labels = len(loaded.model.config.class_names)
    confusion = np.zeros((num_labels, num_labels), dtype=np.int64)
    rows, titles, start = [], [], time.perf_counter()
    for index in range(count_demo_scenes()):
        scene, truth = load_demo_scene(index)
        result = segment_image(scene, *loaded)
        pairs = encode_pair_counts(truth, result.labels, num_labels)
        scene_confusion = decode_pair_counts(*pairs, num_labels)
        confusion += scene_confusion
        titles.append(f"scene {index + 1}: {_format_scores(scene_confusion)}; found {result.summarize()}")
        say(f"  {titles[-1]}")
        rows.append(_draw_row(result, truth))
    seconds = time.perf_counter() - start
    say(
        f"  all {len(rows)} scenes: {_format_scores(confusion)}; "
        f"pixels right {np.trace(confusion) / confusion.sum():.1%}, {seconds / len(rows):.1f} s a scene"
    )
    return draw_gallery(rows, ("scene", "truth", "prediction", "confidence (dark 0, bright 1)"), titles)


def _format_scores(confusion: "np.ndarray") -> str:
    """MIoU over all labels that occur in truth or prediction, and over those of the truth alone.

    In the first, every sliver of a class that is not there counts as a zero.
    """
    import numpy as np

    from ..evaluation.metrics.confusion_matrix import compute_segmentation_scores

    scores = compute_segmentation_scores(confusion)
    of_truth = np.nanmean(scores["per_category_iou"][confusion.sum(axis=1) > 0])
    return f"mIoU {scores['mean_iou']:.1%} ({of_truth:.1%} over the classes that are there)"


def _draw_row(result: "SegmentedImage", truth: "np.ndarray") -> list["Image.Image"]:
    from ..drawing import draw_confidence, draw_label_map, draw_named_regions, make_palette

    palette = make_palette(result.has_background)
    maps = [
        draw_named_regions(draw_label_map(labels, palette), labels, result.names) for labels in (truth, result.labels)
    ]
    return [result.image, *maps, draw_confidence(result.confidence)]
