"""What the page asks and is told: a request is a picture with words, an answer its maps and what is told of them."""

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..drawing import draw_confidence, draw_named_regions, draw_overlay, make_palette, to_indexed_image
from ..drawing.palette import find_color
from ..files import write_json, write_png
from ..loading import Loaded, collect_changes, name_dtype
from ..media.pictures import ClassTally
from ..methods import Settings
from ..pipelines import ZeroShotImageSegmentationPipeline
from ..processing import BACKGROUND_LABEL, Vocabulary, read_rgb_image

__all__ = ["FIRST_PRESET", "Answer", "Request", "Segmenter", "read_request"]

FIRST_PRESET = "live"
SHOWN_SIDE = 1000  # pixels


@dataclass(frozen=True)
class Request:
    """What is asked: an RGB image, words, and how to look for them."""

    image: Image.Image
    name: str  # of the image's file
    vocabulary: Vocabulary
    method: str | None  # `None`: the checkpoint's own
    preset: str


@dataclass(frozen=True)
class Answer:
    """What was found; all maps are (height, width)."""

    request: Request
    labels: np.ndarray  # ids
    confidence: np.ndarray  # the highest class score of each pixel, from 0 to 1
    runner_up: np.ndarray  # the best other class of each pixel, -1 for none
    runner_up_confidence: np.ndarray  # its score
    settings: dict[str, Any]  # what it was found with, as JSON values
    seconds: float  # how long that took

    @property
    def names(self) -> Sequence[str]:
        """Name of each label."""
        return self.request.vocabulary.labels

    @property
    def palette(self) -> Sequence[tuple[int, int, int]]:
        """Colour of each label, as `itaclip segment` has it."""
        return make_palette(self.names[0] == BACKGROUND_LABEL)

    @property
    def zoom(self) -> int:
        """Times that a small picture is drawn larger, a whole number, so that names have room."""
        return max(1, SHOWN_SIDE // max(self.labels.shape))

    def draw_overlay(self, opacity: float) -> Image.Image:
        """The picture with its classes laid over it and named, `zoom` times its size."""
        labels = self._enlarge(self.labels)
        overlay = draw_overlay(self._enlarge(np.asarray(self.request.image)), labels, self.palette, opacity)
        return draw_named_regions(overlay, labels, self.names)

    def draw_confidence(self) -> Image.Image:
        """The highest class score of each pixel, dark for 0, bright for 1, `zoom` times the picture's size."""
        return draw_confidence(self._enlarge(self.confidence))

    def describe_classes(self) -> list[dict[str, Any]]:
        """Id, name, share of the pixels and mean score of every class."""
        tally = ClassTally(self.names)
        tally.add(self.labels, self.confidence)
        return tally.describe()

    def tell_pixel(self, column: int, row: int) -> str:
        """A line of HTML about a pixel: class, score, runner-up."""
        label, runner_up = int(self.labels[row, column]), int(self.runner_up[row, column])
        score, runner_up_score = self.confidence[row, column], self.runner_up_confidence[row, column]
        own = self._show_name(label)
        place = f'<span class="faint">column {column}, row {row}</span>'
        if runner_up < 0:
            return f"{own} {score:.2f} {place}"
        other = f"{self._show_name(runner_up)} {runner_up_score:.2f}"
        if runner_up_score >= score:  # the finished map gave the pixel to another class than its best
            return f"{own} after smoothing; the highest score here has {other} {place}"
        return f'{own} {score:.2f} <span class="faint">then</span> {other} {place}'

    def tell_legend(self) -> str:
        """A table of HTML with colour, name, share and mean score of each class that was found, the largest first."""
        found = [entry for entry in self.describe_classes() if entry["share"]]
        rows = [
            f"<tr><td>{self._show_name(entry['id'])}</td><td>{entry['share']:.1%}</td>"
            f"<td>{entry['mean_score']:.2f}</td></tr>"
            for entry in sorted(found, key=lambda entry: -entry["share"])
        ]
        head = "<tr><th>class</th><th>share</th><th>mean score</th></tr>"
        return f'<table class="legend"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'

    def write(self, folder: Path) -> list[Path]:
        """Write label map and description as `itaclip segment` does, the latter with the words; returns both paths."""
        base = Path(self.request.name).stem or "image"
        labels, description = folder / f"{base}_labels.png", folder / f"{base}.json"
        write_png(labels, to_indexed_image(self.labels, self.palette))
        height, width = self.labels.shape
        content = {
            "image": self.request.name,
            "settings": self.settings,
            "seconds": self.seconds,
            "height": height,
            "width": width,
            "vocabulary": self.request.vocabulary.to_dict(),
            "classes": self.describe_classes(),
        }
        write_json(description, content)
        return [labels, description]

    def _enlarge(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.repeat(self.zoom, axis=0).repeat(self.zoom, axis=1)

    def _show_name(self, label: int) -> str:
        color = "rgb({}, {}, {})".format(*find_color(label, self.palette))
        return (
            f'<span class="swatch" style="background: {color}"></span>'
            f'<span class="name">{html.escape(self.names[label])}</span>'
        )


class Segmenter:
    """Answers requests, one at a time.

    Args:
        loaded: Model and processor.
        name: What the checkpoint is called.
    """

    def __init__(self, loaded: Loaded, name: str) -> None:
        self.name = name
        self._loaded = loaded
        self._pipeline = ZeroShotImageSegmentationPipeline(
            *loaded, device=loaded.model.device, output="map", runner_up=True
        )

    def answer(self, request: Request) -> Answer:
        """Segment.

        Raises:
            TypeError, ValueError: If the image or the words are not as expected.
        """
        start = time.perf_counter()
        chosen: dict[str, Any] = {"method": request.method, "preset": request.preset}
        found = self._pipeline(request.image, request.vocabulary, **chosen)
        changes = collect_changes(**chosen, config=self._loaded.model.config)
        settings = {
            "model": self.name,
            **chosen,
            **Settings.of(*self._loaded).replace(**changes).to_json(),
            "dtype": name_dtype(self._loaded.model.dtype),
            "vocabulary": request.vocabulary.fingerprint,
        }
        names = ("labels", "confidence", "runner_up", "runner_up_confidence")
        maps = {name: found[name].cpu().numpy() for name in names}
        # What is kept for each user: ids in four bytes, not eight.
        maps.update({name: maps[name].astype(np.int32) for name in ("labels", "runner_up")})
        return Answer(request, **maps, settings=settings, seconds=round(time.perf_counter() - start, 3))


def read_request(
    path: str | None, classes: str, background: str, definitions: str, method: str | None, preset: str
) -> Request:
    """Read what was chosen and typed.

    Raises:
        ValueError: If there is no picture, or words are not as expected.
        OSError: If the picture cannot be read.
    """
    if path is None:
        raise ValueError("Expected a picture, but got none. Choose a sample, or drop one of your own.")
    vocabulary = Vocabulary.from_text(classes, background, definitions)
    return Request(read_rgb_image(path), Path(path).name, vocabulary, method, preset)
