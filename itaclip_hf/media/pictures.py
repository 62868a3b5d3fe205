"""Finds inputs, and segments those that are pictures (photographs, frames, whatever PIL reads): whole, or in tiles."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from . import ADDRESS_STARTS, KINDS, Foreseen, Found, ImageFile, Plan, ResultFiles, Track

if TYPE_CHECKING:
    from ..loading import Loaded
    from ..modeling import ITACLIPForSemanticSegmentation
    from ..processing import ITACLIPProcessor

__all__ = [
    "IMAGE_SUFFIXES",
    "ClassTally",
    "Picture",
    "SegmentedImage",
    "find_images",
    "find_seen_size",
    "open_input",
    "read_picture",
    "segment_image",
    "segment_picture",
    "summarize_classes",
]

IMAGE_SUFFIXES = KINDS["picture"].suffixes
GEOGRAPHIC_TAGS = frozenset({33550, 33922, 34264, 34735})  # scale, points, transformation, keys
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PIXELS_AT_ONCE = 2**22  # that are counted, in double precision
MOST_CLASSES = 4  # in a line
MANY_PICTURES = frozenset({".gif", ".tif", ".tiff", ".webp"})


class ClassTally:
    """Counts pixels and scores of every class, over any number of parts.

    Args:
        names: Name of each label.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.counts = np.zeros(len(names), dtype=np.int64)
        self.scores = np.zeros(len(names))

    def add(self, labels: np.ndarray, confidence: np.ndarray) -> None:
        """Take label ids and scores of the same pixels."""
        ids, scores = labels.ravel(), confidence.ravel()
        for start in range(0, len(ids), PIXELS_AT_ONCE):
            part = slice(start, start + PIXELS_AT_ONCE)
            self.counts += np.bincount(ids[part], minlength=len(self.names))
            self.scores += np.bincount(ids[part], weights=scores[part], minlength=len(self.names))

    def describe(self) -> list[dict[str, Any]]:
        """Id, name, share of the pixels and mean score of every class; the score of an absent class is `None`."""
        total = max(int(self.counts.sum()), 1)
        return [
            {
                "id": label,
                "name": name,
                "share": round(float(count / total), 6),
                "mean_score": round(float(score / count), 6) if count else None,
            }
            for label, (name, count, score) in enumerate(zip(self.names, self.counts, self.scores, strict=True))
        ]


def summarize_classes(classes: Sequence[dict[str, Any]]) -> str:
    """The largest classes and their shares in a line."""
    found = sorted((entry for entry in classes if entry["share"]), key=lambda entry: -entry["share"])
    shown = [f"{entry['name']} {entry['share']:.0%}" for entry in found[:MOST_CLASSES]]
    return ", ".join(shown) + (f" and {len(found) - MOST_CLASSES} more" if len(found) > MOST_CLASSES else "")


@dataclass(frozen=True)
class SegmentedImage:
    """An image and what was found in it.

    Attributes:
        image: The RGB image.
        labels: Label ids (height, width).
        confidence: Highest class score of each pixel, between 0 and 1, before thresholds, (height, width).
        names: Name of each label.
        regions: What each of its regions is, where there are any.
    """

    image: Image.Image
    labels: np.ndarray
    confidence: np.ndarray
    names: tuple[str, ...]
    regions: list[dict[str, Any]] | None = None

    @property
    def has_background(self) -> bool:
        """Whether label 0 is the background."""
        return self.names[0] == "background"

    def describe_classes(self) -> list[dict[str, Any]]:
        """See `ClassTally.describe`."""
        tally = ClassTally(self.names)
        tally.add(self.labels, self.confidence)
        return tally.describe()

    def summarize(self) -> str:
        """The largest classes and their shares in a line."""
        return summarize_classes(self.describe_classes())

    def draw(self) -> Image.Image:
        """The overlay, and a legend beside it."""
        from ..drawing import draw_with_legend, make_palette

        return draw_with_legend(self.draw_overlay(), self.labels, self.names, make_palette(self.has_background))

    def draw_overlay(self) -> Image.Image:
        """The image with its classes laid over it, and named."""
        from ..drawing import draw_named_regions, draw_overlay, make_palette

        overlay = draw_overlay(np.asarray(self.image), self.labels, make_palette(self.has_background))
        return draw_named_regions(overlay, self.labels, self.names)


@dataclass(frozen=True)
class Picture:
    """A picture that was read, with its regions, where there are any."""

    image: Image.Image
    regions: np.ndarray | None = None

    def foresee(self, loaded: "Loaded", plan: Plan) -> Foreseen:
        """At which size the model will see it."""
        size = (self.image.height, self.image.width)
        return Foreseen(size, find_seen_size(size, loaded.processor, plan.tile))

    def segment(self, results: ResultFiles, loaded: "Loaded", plan: Plan, track: Track) -> Found:
        """Segment it and write label map, overlay and, if wanted, confidence."""
        from ..drawing import make_palette, to_grey_image, to_indexed_image
        from ..files import write_png

        if self.regions is None:
            found = segment_picture(self.image, loaded, plan.tile, track)
        else:
            found = segment_image(self.image, *loaded, self.regions)
        write_png(results.labels, to_indexed_image(found.labels, make_palette(found.has_background)))
        write_png(results.overlay, found.draw())
        if plan.confidence:
            write_png(results.confidence, to_grey_image(found.confidence))
        details = {} if found.regions is None else {"regions": found.regions}
        return Found(found.describe_classes(), details)


def find_images(inputs: Iterable[Path | str], out: Path, are_rasters: bool = False) -> list[ImageFile]:
    """List the images in the order given, each once; folders with all below them, sorted.

    Results of a folder's image lie in the same subfolder of the output folder. Images whose results would have one
    name are numbered: `cat`, `cat-2`, ... So are the frames of a GIF and the pages of a TIFF: `cat_0001`, ...

    Args:
        inputs: Files, folders and addresses on the web. Files that are not there and folders that cannot be looked
            into are listed, so that reading them says so.
        out: Output folder; what lies in it is no input.
        are_rasters: Whether all are to be read as rasters, not only those that say where on Earth they are.

    Raises:
        FileNotFoundError: If nothing that is named is there.
        ValueError: If there is no image, or an input is empty.
    """
    inputs = list(inputs)
    files: list[ImageFile] = []
    seen: set[str] = set()
    taken: set[str] = set()
    for path, name in _expand(inputs, Path(os.path.realpath(out))):
        # Unlike `Path.resolve`, `realpath` has nothing against links in a circle.
        place = path if isinstance(path, str) else os.path.realpath(path)
        if place not in seen:
            seen.add(place)
            kind = "raster" if are_rasters else _find_kind(path)
            files += _list_pictures(ImageFile(path, name, kind), taken)
    if not files:
        shown = ", ".join(str(path) for path in inputs)
        raise ValueError(
            f"Expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), but found none in {shown}. Name others."
        )
    if not any(isinstance(file.path, str) or os.path.lexists(file.path) for file in files):
        # Told before a model is loaded, or even fetched.
        raise FileNotFoundError(f"Expected images, but there is no {', no '.join(map(str, inputs))}. Check the paths.")
    return files


def open_input(file: ImageFile, plan: Plan) -> Picture:
    """Read a picture.

    Raises:
        OSError, ValueError: See `read_picture`; or if there are no regions of it where they are looked for.
    """
    image = read_picture(file.path, file.frame)
    if plan.regions is None:
        return Picture(image)
    from ..regions import open_regions

    return Picture(image, open_regions(plan.regions)(file.result_name, image))


def read_picture(path: Path | str, frame: int | None = None) -> Image.Image:
    """Read any image file upright as RGB.

    Args:
        path: Where it is; as text, an address.
        frame: Which of its pictures; `None` where there is one.

    Raises:
        OSError, ValueError: If it is no image, has many pictures, or its pixels are not as expected.
    """
    from ..processing.pixels import list_frames, open_image, read_rgb_image

    source: Any = path
    if isinstance(path, str):
        from .addresses import fetch

        source = fetch(path)
        if _is_raster(source):
            raise OSError("Expected a picture, but it is a map or no ordinary TIFF. Download it, and name the file.")
        source.seek(0)
    elif os.path.isdir(path):  # those that can be looked into never come here
        raise OSError("Expected a folder that may be looked into, but this one may not. Change its permissions.")
    if frame is None and (count := len(list_frames(source))) > 1:
        raise OSError(
            f"Expected one picture, but it has {count}. Save it with a name that ends in .gif or .tif, or each of "
            "them as a file."
        )
    return read_rgb_image(open_image(source, frame))


def find_seen_size(size: tuple[int, int], processor: "ITACLIPProcessor", tile: int | None) -> tuple[int, int]:
    """The (height, width) at which the model sees a picture of such a size; see `Plan`."""
    from transformers.image_utils import SizeDict

    from ..processing.pixels import compute_resized_size

    image_processor = processor.image_processor
    if tile is not None or not image_processor.do_resize:
        return size
    return compute_resized_size(*size, SizeDict(**dict(image_processor.size)))


def segment_picture(image: Image.Image, loaded: "Loaded", tile: int | None, track: Track) -> SegmentedImage:
    """Segment an RGB image, whole or in tiles; see `Plan`."""
    if tile is None:
        return segment_image(image, *loaded)
    from .tiles import segment_tiles

    size = (image.height, image.width)
    pixels, labels, confidence = np.asarray(image), np.empty(size, dtype=np.uint16), np.empty(size, dtype=np.float32)
    for core, *found in segment_tiles(lambda *box: pixels[box], size, loaded, tile, track):
        labels[core], confidence[core] = found
    return SegmentedImage(image, labels, confidence, loaded.model.config.class_names)


def segment_image(
    image: Image.Image,
    model: "ITACLIPForSemanticSegmentation",
    processor: "ITACLIPProcessor",
    regions: np.ndarray | None = None,
) -> SegmentedImage:
    """Segment an RGB image, with its regions or without, with the vocabulary that is baked into the model."""
    import torch

    inputs = processor(images=image, region_maps=regions, return_tensors="pt").to(model.device)
    predict: Any = model.predict_labels if regions is None else model.predict_regions
    with torch.inference_mode():
        outputs = predict(processor, **inputs)
    labels, confidence = outputs.labels[0].cpu().numpy(), outputs.confidence[0].cpu().numpy()
    names, described = model.config.class_names, None
    if regions is not None:
        described = [
            {
                "id": region["id"],
                "label_id": region["label_id"],
                "name": names[region["label_id"]],
                "share": round(region["share"], 6),
                "mean_score": round(region["score"], 6),
            }
            for region in outputs.regions[0]
        ]
    return SegmentedImage(image, labels, confidence, names, described)


def _expand(inputs: Sequence[Path | str], out: Path) -> Iterator[tuple[Path | str, Path]]:
    """Paths and addresses of images, and the names that their results ask for."""
    for entry in inputs:
        if not str(entry):
            raise ValueError("Expected a path, but got an empty one. For the current folder, write a dot.")
        if str(entry).lower().startswith(ADDRESS_STARTS):
            from .addresses import name_address

            yield str(entry), Path(name_address(str(entry)))
            continue
        path = Path(entry)
        if not os.path.isdir(path):  # unlike `Path.is_dir`, it leaves it to reading to say what is wrong
            if path.stem in (".", ".."):  # results of that name would lie beside their folder
                raise ValueError(f"Expected an image with a name, but got {path}. Rename it.")
            yield path, Path(path.stem)
            continue
        for found in sorted(_search(path)):
            if out not in Path(os.path.realpath(found)).parents:
                yield found, Path(path.name) if found == path else found.relative_to(path).with_suffix("")


def _search(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is called like an image, and the folders that cannot be looked into."""
    closed: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        # In place: the walk goes on where this list says.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(root, name)
    yield from closed


def _find_kind(path: Path | str) -> str:
    if isinstance(path, str):
        return "picture"
    suffix = path.suffix.lower()
    # A TIFF may be either; only its content tells.
    if suffix in KINDS["raster"].suffixes and _is_raster(path):
        return "raster"
    return "video" if suffix in KINDS["video"].suffixes else "picture"


def _is_raster(source: Path | IO[bytes]) -> bool:
    """Whether a TIFF says where on Earth it is, or is too large or too strange for PIL."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=["TIFF"]) as image:
                return isinstance(image, TiffImageFile) and not GEOGRAPHIC_TAGS.isdisjoint(image.tag_v2)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True
    except UnidentifiedImageError:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
            file.seek(0)
            return file.read(4) in TIFF_STARTS
    except Exception:  # reading it says what is wrong
        return False


def _list_pictures(file: ImageFile, taken: set[str]) -> Iterator[ImageFile]:
    """The pictures in a file, with names that are not taken yet."""
    frames = [0]
    if file.kind == "picture" and isinstance(file.path, Path) and file.path.suffix.lower() in MANY_PICTURES:
        from ..processing.pixels import list_frames

        frames = list_frames(file.path)
    if len(frames) == 1:
        yield replace(file, result_name=_make_unique(file.result_name, taken))
        return
    digits = max(4, len(str(len(frames))))
    for number, frame in enumerate(frames, 1):
        name = file.result_name.with_name(f"{file.result_name.name}_{number:0{digits}}")
        yield replace(file, result_name=_make_unique(name, taken), frame=frame)


def _make_unique(name: Path, taken: set[str]) -> Path:
    """The name, numbered if need be; compared without case, as some file systems do."""
    unique, number = name, 1
    while str(unique).casefold() in taken:
        number += 1
        unique = name.with_name(f"{name.name}-{number}")
    taken.add(str(unique).casefold())
    return unique
