"""Videos: every frame, or every so many, segmented by itself; out come a video of overlays and a label map a frame."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from PIL import Image

from . import Foreseen, Found, ImageFile, Plan, ResultFiles, Track
from .pictures import ClassTally, find_seen_size, segment_picture

if TYPE_CHECKING:
    from ..loading import Loaded

__all__ = ["Video", "open_input"]

CODEC = {"name": "libx264", "options": {"crf": "20", "preset": "medium"}}
TICK = Fraction(1, 90_000)  # of a second, as is usual in films: every frame rate fits


@dataclass(frozen=True)
class Video:
    """A video that can be read.

    Attributes:
        path: Where it is.
        count: How many frames it says it has, if it does.
    """

    path: Path
    count: int | None

    def foresee(self, loaded: "Loaded", plan: Plan) -> Foreseen:
        """At which size the model will see its frames; the first is decoded for it."""
        _, _, pixels = next(self._read(1))
        size = (pixels.shape[0], pixels.shape[1])
        return Foreseen(size, find_seen_size(size, loaded.processor, plan.tile))

    def segment(self, results: ResultFiles, loaded: "Loaded", plan: Plan, track: Track) -> Found:
        """Segment its frames and write label maps, and scores if wanted, as PNG by number, and overlays as MP4."""
        from ..drawing import make_palette, to_grey_image, to_indexed_image
        from ..files import write_png

        names = loaded.model.config.class_names
        palette, tally, done = make_palette(names[0] == "background"), ClassTally(names), 0
        for folder in (results.labels, results.confidence):
            _remove_frames(folder)
        total = None if self.count is None else -(-self.count // plan.every)
        with _write_video(results.overlay) as add_frame:
            for number, time, pixels in track(self._read(plan.every), total, f"Frames of {self.path.name}"):
                found = segment_picture(Image.fromarray(pixels), loaded, plan.tile, track)
                tally.add(found.labels, found.confidence)
                write_png(results.labels / f"{number:06}.png", to_indexed_image(found.labels, palette))
                if plan.confidence:
                    write_png(results.confidence / f"{number:06}.png", to_grey_image(found.confidence))
                # A legend would change, and with it the width, from frame to frame.
                add_frame(np.asarray(found.draw_overlay()), time)
                done += 1
        return Found(tally.describe(), {"frames": done})

    def _read(self, every: int) -> Iterator[tuple[int, Fraction, np.ndarray]]:
        """Number, time in seconds and pixels (height, width, 3), upright, of each frame that is wanted.

        Raises:
            ValueError: If there is none, or one is broken.
        """
        number = -1
        with _open(self.path) as source:
            try:
                for number, frame in enumerate(source.decode(video=0)):
                    if number % every == 0:
                        # PyAV and NumPy both count anticlockwise.
                        pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                        yield number, _find_time(frame, number), np.ascontiguousarray(pixels)
            except av.FFmpegError as error:
                raise ValueError(
                    f"Expected a video that is whole, but got after {number + 1} frames: {error}. Repair it."
                ) from error
        if number < 0:
            raise ValueError("Expected a video with frames, but it has none. Leave it out.")


def open_input(file: ImageFile, plan: Plan) -> Video:
    """Look at a video.

    Raises:
        ValueError: If it is none.
    """
    path = Path(file.path)
    with _open(path) as source:
        if not source.streams.video:
            raise ValueError("Expected a video, but it has no pictures. Leave it out.")
        stream = source.streams.video[0]
        seconds = None if source.duration is None else Fraction(source.duration, av.time_base)
        guessed = round(seconds * stream.average_rate) if seconds and stream.average_rate else None
        return Video(path, stream.frames or guessed)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        source = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"Expected a video, but got: {error}. Repair or replace it.") from error
    with source:
        yield source


def _find_time(frame: Any, number: int) -> Fraction:
    """Seconds from the start; of a frame that does not say, by its number, 25 a second."""
    return Fraction(number, 25) if frame.pts is None else frame.pts * frame.time_base


@contextmanager
def _write_video(path: Path) -> Iterator[Any]:
    """A function that adds pixels (height, width, 3) at a time in seconds; the file takes its place at the end."""
    from ..files import write_atomically

    with write_atomically(path) as file, av.open(file, "w", format="mp4") as target:
        stream = None

        def add(pixels: np.ndarray, time: Fraction) -> None:
            nonlocal stream
            # Colours are stored for squares of four pixels.
            pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:  # only now the size is known
                stream = target.add_stream(CODEC["name"], options=CODEC["options"])
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = TICK
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time / TICK), TICK
            target.mux(stream.encode(frame))

        yield add
        if stream is not None:
            target.mux(stream.encode())  # the frames that the encoder still has


def _remove_frames(folder: Path) -> None:
    """Frames of an earlier run would lie among the new ones."""
    from ..files import is_own_png

    for path in folder.glob("*.png"):
        if is_own_png(path):
            path.unlink()
